"""FoundationPose in a process of its own: pre-flight checks, deadlines, and faults that stay in that process."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geo4d_ros.errors import BackendUnavailableError, ConfigurationError, require
from geo4d_ros.robots.gripper import GripperModel, check_extent
from geo4d_ros.tracking.backends import foundationpose_worker as wire
from geo4d_ros.tracking.backends.external import PoseBackendFault
from geo4d_ros.types import RgbdFrame

WEIGHT_FILES = tuple(f'weights/{run}/{name}' for run in ('2023-10-28-18-33-37', '2024-01-11-20-02-45')
                     for name in ('config.yml', 'model_best.pth'))


@dataclass(frozen=True)
class FoundationPoseOptions:
    """root: the user's checkout of NVlabs/FoundationPose; python: the interpreter of its environment.

    deadline_s: per frame; start_s: for imports and warm-up; iterations of refinement per frame (the demo uses 2;
    2 Hz videos move far, so more); register_iterations for recovery.
    """

    root: str
    python: str = 'python3'
    deadline_s: float = 2.0
    start_s: float = 180.0
    iterations: int = 5
    register_iterations: int = 5

    @classmethod
    def parse(cls, options: Mapping[str, str | float]) -> FoundationPoseOptions:
        """From parameters. Raises ConfigurationError on unknown or missing ones."""
        known = set(cls.__dataclass_fields__)
        unknown = sorted(set(options) - known)
        require(not unknown, f'unknown foundationpose option {unknown[:1]}; known: {sorted(known)}', ConfigurationError)
        require(bool(options.get('root')), 'foundationpose needs its option root: the path of your checkout of '
                'NVlabs/FoundationPose', ConfigurationError)
        return cls(**options)  # type: ignore[arg-type]  # which is which is above


def preflight(options: FoundationPoseOptions, gripper: GripperModel) -> None:
    """Raise BackendUnavailableError, naming the first thing that is missing and its cure; touches no GPU."""
    root = Path(options.root)

    def need(condition: bool, message: str) -> None:
        require(condition, f'foundationpose cannot run: {message}', BackendUnavailableError)

    need(root.is_dir(), f'{root} does not exist; clone NVlabs/FoundationPose there and set root')
    need((root / 'estimater.py').is_file(), f'{root} has no estimater.py; set root to the top of its source tree')
    for name in WEIGHT_FILES:
        need((root / name).is_file(), f'{root / name} is missing; download the weights as its README says')
    check_extent(gripper.name, np.concatenate(gripper.vertices))


class FoundationPoseClient:
    """A `PoseBackend` that talks to the worker; the process starts on the first use and after a fault."""

    def __init__(self, options: FoundationPoseOptions, gripper: GripperModel) -> None:
        preflight(options, gripper)
        self._options, self._gripper = options, gripper
        self._process: subprocess.Popen | None = None
        self._folder = tempfile.TemporaryDirectory(prefix='geo4d-foundationpose-')
        self._opening: float | None = None

    def begin(self, opening: float) -> None:
        """Be ready for a chunk whose gripper starts at an opening [m]: FoundationPose sees it as one rigid body."""
        stale = self._opening is None or abs(opening - self._opening) > 0.01
        if self._process is not None and (stale or self._process.poll() is not None):
            self.stop()
        if self._process is None:
            self._start(opening)

    def start(self, view: int, T_view_gripper: np.ndarray, frame: RgbdFrame, mask: np.ndarray) -> None:
        """Seed a view's pose (4, 4) from kinematics; the image is not needed."""
        self._ask({'op': 'start', 'object': view}, {'T': T_view_gripper}, self._options.deadline_s)

    def step(self, view: int, rgb: np.ndarray, depth: np.ndarray, K: np.ndarray) -> np.ndarray:
        """T_view_gripper (4, 4) of the next frame. Raises PoseBackendFault on a fault or a missed deadline."""
        fields: dict[str, str | int] = {'op': 'step', 'object': view, 'iterations': self._options.iterations}
        return self._ask(fields, {'rgb': rgb, 'depth': depth, 'K': K}, self._options.deadline_s)['T']

    def register(self, view: int, rgb: np.ndarray, depth: np.ndarray, mask: np.ndarray, K: np.ndarray) -> np.ndarray:
        """T_view_gripper (4, 4) found anew inside mask (H, W) bool. Raises PoseBackendFault."""
        fields: dict[str, str | int] = {'op': 'register', 'object': view,
                                        'iterations': self._options.register_iterations}
        return self._ask(fields, {'rgb': rgb, 'depth': depth, 'mask': mask, 'K': K}, self._options.start_s)['T']

    def close(self) -> None:
        """End the worker and remove its folder."""
        self.stop()
        self._folder.cleanup()

    def stop(self) -> None:
        """End the worker; it starts again when needed."""
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):  # the worker may have gone already
                stream.close()
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self, opening: float) -> None:
        log = open(Path(self._folder.name) / 'worker.log', 'wb')  # noqa: SIM115 - the child owns it
        try:
            # Only the message pipes are shared; -u and no user site keep the child's streams and imports its own.
            self._process = subprocess.Popen([self._options.python, '-u', wire.__file__], stdin=subprocess.PIPE,
                                             stdout=subprocess.PIPE, stderr=log, close_fds=True)
        except OSError as error:
            raise BackendUnavailableError(
                f'foundationpose cannot run: interpreter {self._options.python!r} does not start ({error}); '
                'set python to the one of its environment') from error
        finally:
            log.close()
        os.set_blocking(self._process.stdout.fileno(), False)
        vertices, faces, _ = self._gripper.posed(opening)
        fields = {'op': 'hello', 'root': str(Path(self._options.root).resolve()), 'debug_dir': self._folder.name}
        try:
            self._ask(fields, {'vertices': vertices, 'faces': faces}, self._options.start_s)
        except PoseBackendFault as error:
            raise BackendUnavailableError(f'foundationpose cannot run: {error}') from error
        self._opening = opening

    def _ask(self, fields: Mapping[str, str | int], arrays: dict[str, np.ndarray],
             deadline_s: float) -> dict[str, np.ndarray]:
        process = self._process
        if process is None:
            raise PoseBackendFault('the FoundationPose worker is not running')
        until = time.monotonic() + deadline_s
        try:
            wire.write_message(process.stdin, fields, arrays)
            size = wire.parse_size(self._read(12, until))
            answer, out = wire.parse_body(self._read(size, until))
        except TimeoutError as error:
            self.stop_now()
            raise PoseBackendFault(
                f'FoundationPose missed its deadline of {deadline_s:g} s in {fields["op"]!r}') from error
        except (OSError, EOFError, ValueError) as error:
            tail = self._log_tail()
            self.stop_now()
            raise PoseBackendFault(f'the FoundationPose worker died in {fields["op"]!r}: {tail or error}') from error
        if 'error' in answer:
            if answer.get('kind') == 'unavailable':
                self.stop_now()
                raise BackendUnavailableError(f'foundationpose cannot run: {answer["error"]}')
            raise PoseBackendFault(f'FoundationPose failed in {fields["op"]!r}: {answer["error"]}')
        return out

    def stop_now(self) -> None:
        """Kill a worker that hangs or has died."""
        if self._process is not None:
            self._process.kill()
            self.stop()

    def _read(self, size: int, until: float) -> bytes:
        stream, data = self._process.stdout, b''
        while len(data) < size:
            left = until - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                raise TimeoutError
            part = os.read(stream.fileno(), min(size - len(data), 1 << 20))
            if not part:
                raise EOFError('end of stream')
            data += part
        return data

    def _log_tail(self) -> str:
        try:
            lines = (Path(self._folder.name) / 'worker.log').read_text(errors='replace').strip().splitlines()
        except OSError:
            return ''
        return lines[-1][:200] if lines else ''
