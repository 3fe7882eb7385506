"""How long a run may train: wall time, or processor time where the machine's other load should not decide.

A budget is over, too, once the user has asked to stop (ctrl-C): the run saves what it has and ends.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from geo4d_ros.errors import ConfigurationError, require

CLOCKS: dict[str, Callable[[], float]] = {'wall': time.monotonic, 'processor': time.process_time}


_asked: list[threading.Event] = []  # of the run that listens to ctrl-C, if one does


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Within it the first ctrl-C ends every budget, so that the run saves; a second one ends the program at once.

    Gives the event that tells whether it was asked for.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    _asked.append(asked)
    try:
        yield asked
    finally:
        _asked.remove(asked)
        signal.signal(signal.SIGINT, before)


def ignore_interrupt(_: int) -> None:
    """Initializer of a process that prepares data: ctrl-C reaches it too, and it has to last until the run has ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def require_steps(steps: int) -> None:
    """ConfigurationError after no step at all: such weights are not trained and are not saved."""
    require(steps >= 1, 'no step was trained, so nothing is saved; start again, or give more --minutes',
            ConfigurationError)


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
        """Whether the time is up, or the user has asked to stop."""
        return self.interrupted or (self.seconds is not None and self.spent_s >= self.seconds)

    @property
    def interrupted(self) -> bool:
        """Whether the user has asked to stop."""
        return any(asked.is_set() for asked in _asked)

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {'spent_s': self.spent_s}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue where the checkpoint stopped."""
        self.spent_s = float(state['spent_s'])
