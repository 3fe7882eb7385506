"""SciPy fails beside a torch that another thread has imported half."""

from __future__ import annotations

import importlib
from contextlib import suppress


def wait_for_torch() -> None:
    """Import torch, or wait until the thread that does has it whole; nothing where torch is not installed."""
    with suppress(ImportError):
        importlib.import_module('torch')
