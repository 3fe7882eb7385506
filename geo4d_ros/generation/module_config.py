"""What a network module is made of: its constructor's keyword arguments, as config.json and YAML files have them."""

from __future__ import annotations

from collections.abc import Sequence

ConfigValue = bool | int | float | str | Sequence[bool | int | float | str] | None
ModuleConfig = dict[str, ConfigValue]
