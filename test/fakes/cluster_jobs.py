"""Jobs for the tests of Ray's workers: importable there, since Ray hands functions over by their name."""

import os
import signal
import threading
from pathlib import Path

from geo4d_ros.data.collect import Outcome, Recording, record
from geo4d_ros.errors import DatasetError


def record_and_be_killed(recording: Recording, task: str, seed: int, killed: str) -> Outcome:
    """Record; the first worker that comes here is killed a second later, in the middle of an episode."""
    try:
        Path(killed).touch(exist_ok=False)
    except FileExistsError:
        pass
    else:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return record(recording, task, seed)


def killed_always(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def refused(number: int) -> int:
    raise DatasetError(f'job {number} is not wanted')


def place(number: int) -> tuple[int, str]:
    return number, os.getcwd()
