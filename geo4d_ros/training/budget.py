"""How long a run may train: wall time, or processor time where the machine's other load should not decide."""

from __future__ import annotations

import time
from collections.abc import Callable

from geo4d_ros.errors import ConfigurationError, require

CLOCKS: dict[str, Callable[[], float]] = {'wall': time.monotonic, 'processor': time.process_time}


class Budget:
    """Training time used so far, carried over a resume; minutes None is no limit.

    clock: 'wall', waiting for data included; 'processor': all threads of this process, so that waiting, other
    programs and the processes that prepare data count nothing (on the CPU only: a GPU's work is not in it).
    """

    def __init__(self, minutes: float | None, clock: str = 'wall') -> None:
        require(clock in CLOCKS, f'clock should be one of {", ".join(CLOCKS)} but got {clock!r}', ConfigurationError)
        self.seconds = None if minutes is None else 60.0 * minutes
        self.spent_s = 0.0
        self._now = CLOCKS[clock]
        self._started = 0.0

    def start(self) -> None:
        """Before a step: what happened since the last `stop` (saving, pictures) does not count."""
        self._started = self._now()

    def stop(self) -> None:
        """After a step."""
        self.spent_s += self._now() - self._started

    @property
    def fraction(self) -> float:
        """Share of the budget that is used, 0 without a limit."""
        return 0.0 if self.seconds is None else min(1.0, self.spent_s / max(self.seconds, 1e-9))

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self.seconds is not None and self.spent_s >= self.seconds

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {'spent_s': self.spent_s}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue where the checkpoint stopped."""
        self.spent_s = float(state['spent_s'])
