"""What the fits on observations share: settings from a YAML mapping, and a summary beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from geo4d_ros.errors import ConfigurationError, require

Settings = TypeVar('Settings')


def read_settings(values: Mapping[str, Any], kind: type[Settings]) -> tuple[Settings, Path]:
    """The settings of dataclass `kind` and the output folder, which is made.

    Raises ConfigurationError for a key that is neither a setting nor `model`, `output` or `held_out`.
    """
    keys = set(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    unknown = set(values) - keys - {'model', 'output', 'held_out'}
    require(not unknown, f'unknown training keys {sorted(unknown)}; available: {sorted(keys)}', ConfigurationError)
    output = Path(values['output'])
    output.mkdir(parents=True, exist_ok=True)
    return kind(**{k: v for k, v in values.items() if k in keys}), output


def write_summary(output: Path, config: Any, **figures: dict[str, float]) -> None:
    """summary.json: the settings, and what was measured on held-out observations."""
    (output / 'summary.json').write_text(json.dumps({'config': asdict(config), **figures}, indent=1) + '\n')
