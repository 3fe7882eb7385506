"""Worker processes that end when the process that started them does, however that ended."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """Initializer of a pool's workers: without it they outlive a parent that a signal ended, waiting for jobs."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), name='parent watch', daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)  # in the middle of a job: whoever would take its result is gone
