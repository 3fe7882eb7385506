"""How long each stage of a request took."""

from __future__ import annotations

import time


class Stopwatch:
    """Names and lengths of the stages of one request."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """The time since the last lap belongs to `stage`."""
        now = time.perf_counter()
        self._laps[stage], self._last = now - self._last, now

    def milliseconds(self) -> dict[str, float]:
        """Stage -> [ms]."""
        return {stage: round(seconds * 1e3, 1) for stage, seconds in self._laps.items()}
