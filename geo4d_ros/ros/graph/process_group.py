"""The processes of one graph: started with one environment, watched, and ended without leaving any behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from geo4d_ros.errors import Geo4dError

END_SECONDS = 5.0  # from SIGINT to SIGKILL; a node that stops an arm may need most of it


def end_on_signals() -> None:
    """Let SIGINT and SIGTERM both raise KeyboardInterrupt here, so that `with ProcessGroup` cleans up.

    A shell starts background jobs with SIGINT ignored, hence the explicit handler for it too.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


class ProcessDied(Geo4dError):
    """A process of the group ended although nobody asked it to."""


ParameterValue = bool | int | float | str | Sequence[str] | Sequence[float]  # as a node declares it


class ProcessGroup:
    """Named processes that share an environment; their output goes to `<log_directory>/<name>.log`.

    Each runs in a session of its own: Ctrl-C reaches the caller only, whose `close` (or `with`) ends them all.
    """

    def __init__(self, environment: dict[str, str], log_directory: Path) -> None:
        self.environment, self.log_directory = {**os.environ, **environment}, log_directory
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        log_directory.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a process; its arguments follow this Python, e.g. ('-m', 'geo4d_ros.nodes.simulated_cell')."""
        with open(self.log_directory / f'{name}.log', 'ab') as log:
            process = subprocess.Popen([sys.executable, *command], env=self.environment, stdout=log,
                                       stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
        self.processes[name] = process
        return process

    def start_node(self, name: str, parameters: Mapping[str, ParameterValue] | None = None,
                   remappings: dict[str, str] | None = None, command: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start a node of this package (or `command`) with parameters and remappings."""
        arguments = ['--ros-args']
        for key, value in (parameters or {}).items():
            arguments += ['-p', f'{key}:={ros_text(value)}']
        for old, new in (remappings or {}).items():
            arguments += ['-r', f'{old}:={new}']
        return self.start(name, [*(command or ('-m', f'geo4d_ros.nodes.{name}')), *arguments])

    @property
    def pids(self) -> dict[str, int]:
        """Process id of every process that lives."""
        return {name: p.pid for name, p in self.processes.items() if p.poll() is None}

    def check(self) -> None:
        """Raise ProcessDied for the first process that ended, with the last line it wrote."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise ProcessDied(f'{name} ended with code {process.returncode}: {self.last_line(name)}')

    def last_line(self, name: str) -> str:
        """The last line a process wrote."""
        lines = (self.log_directory / f'{name}.log').read_text(errors='replace').strip().splitlines()
        return lines[-1] if lines else '(no output)'

    def kill(self, name: str) -> None:
        """End a process at once (SIGKILL) and forget it."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self, name: str, number: int = signal.SIGINT) -> int:
        """Ask one process to end; its exit code (-9 when it had to be killed after 5 s)."""
        process = self.processes.pop(name)
        return _end([process], number)[0]

    def close(self, number: int = signal.SIGINT) -> dict[str, int]:
        """Ask all to end, in the reverse order of their start; exit code per name. Safe to call twice."""
        names, processes = list(self.processes), list(self.processes.values())
        self.processes = {}
        return dict(zip(names, _end(processes, number), strict=True))


def _end(processes: list[subprocess.Popen[bytes]], number: int) -> list[int]:
    for process in reversed(processes):
        if process.poll() is None:
            process.send_signal(number)
    deadline = time.monotonic() + END_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return [process.returncode for process in processes]


def ros_text(value: Any) -> str:
    """A parameter value as `--ros-args -p` reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return '[' + ', '.join(map(ros_text, value)) + ']'
    return repr(value) if isinstance(value, float) else str(value)
