"""Recording of expert demonstrations: one seed becomes one episode; many seeds run in parallel processes."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from geo4d_ros.data.episodes import (
    RATE_HZ,
    READABLE_VERSIONS,
    VERSION,
    encode_depth,
    episode_name,
    open_or_warn,
    stored_version,
    write_episode,
)
from geo4d_ros.errors import ConfigurationError, DatasetError, SimulationError, require
from geo4d_ros.robots.registry import DEFAULT, load_robot
from geo4d_ros.workers.pool import run_jobs, set_worker_environment

log = logging.getLogger(__name__)

MAX_SECONDS = 40.0  # simulated time after which a demonstration counts as failed
REST_SECONDS = 0.75  # recorded after the task is done, so that its end is seen at rest
TOUCHED_M = 0.03  # an object of another task that moved farther has been touched

ASTRAY_START_NOISE = 0.12  # start joints of perturbed episodes [rad]: the loop also looks from off the path


@dataclass(frozen=True)
class Recording:
    """What to record, the same for every seed.

    `perturb` is the share of episodes in which something goes wrong up to three times and the expert recovers;
    `noise` a model of simulation.noise; `split` the camera region; failed demonstrations are dropped
    unless `keep_failures`. `scenes` is one of `simulation.tasks.arrangement.SCENES`: with other tasks' things on
    the table, or nothing to do. With `observations` a run gives no episode but so many two-view pictures of random
    moments (data/observations.py). `robot` is a name or a YAML file of
    `robots.registry`.
    """

    directory: str
    cameras: int = 3
    split: str = 'train'
    height: int = 96
    width: int = 128
    perturb: float = 0.0
    noise: str = 'none'
    keep_failures: bool = False
    scenes: str = 'single'
    observations: int = 0
    robot: str = DEFAULT

    def __post_init__(self) -> None:
        from geo4d_ros.simulation.cameras import SPLITS
        from geo4d_ros.simulation.noise import NOISE_MODELS
        from geo4d_ros.simulation.tasks.arrangement import SCENES

        load_robot(self.robot)
        require(self.scenes in SCENES, f'scenes should be one of {SCENES} but got {self.scenes!r}')
        require(self.observations >= 0, f'observations should not be negative but got {self.observations}')
        require(not self.observations or self.robot == DEFAULT,
                f'observations are of the robot {DEFAULT} only, since their files name none; collect episodes instead')
        require(self.cameras >= 1, f'cameras should be at least 1 but got {self.cameras}')
        require(self.split in SPLITS, f'split should be one of {SPLITS} but got {self.split!r}')
        require(self.noise in NOISE_MODELS, f'noise should be one of {NOISE_MODELS} but got {self.noise!r}')
        require(0 <= self.perturb <= 1, f'perturb should be in [0, 1] but got {self.perturb}')
        require(16 <= self.height <= 2048 and 16 <= self.width <= 2048,
                f'image size should be 16..2048 px but got {self.height}x{self.width}')


@dataclass(frozen=True)
class Outcome:
    """What became of one seed: result 'kept', 'existing' or 'failed'; message says why it failed."""

    task: str
    seed: int
    result: str
    frames: int = 0  # RGB-D frames rendered, all cameras
    seconds: float = 0.0
    message: str = ''


def record(recording: Recording, task: str, seed: int) -> Outcome:
    """Run the expert on one seed and write its episode; the same arguments give the same episode.

    Runs in a worker: imports the simulator only here. Raises DatasetError when the disk refuses.
    """
    set_worker_environment()
    from geo4d_ros.data.observations import record_observations
    from geo4d_ros.simulation.rollout import random_perturbations, rollout
    from geo4d_ros.simulation.tasks.arrangement import instruction_of

    started = time.perf_counter()
    if recording.observations:
        made = record_observations(recording, task, seed)
        return Outcome(task, seed, 'kept' if made else 'failed', 2 * recording.observations * bool(made),
                       time.perf_counter() - started, '' if made else 'no scene, or the expert failed')
    path = Path(recording.directory) / episode_name(task, seed)
    if path.exists() and existing(recording, path, task, seed, whole=True):
        return Outcome(task, seed, 'existing')
    rng = np.random.default_rng([seed, sum(task.encode()), 0x6D34])  # apart from the draws of the scene itself
    perturb: list[Any] = []
    if rng.uniform() < recording.perturb and recording.scenes != 'idle':
        perturb = random_perturbations(rng, task, int(rng.integers(1, 4)))
    try:
        with _Recorder(recording, task, seed, rng, bool(perturb)) as recorder:
            result = rollout(recorder.cell, MAX_SECONDS, perturb, recorder.observe, 1 / RATE_HZ, REST_SECONDS)
    except SimulationError as error:
        return Outcome(task, seed, 'failed', 0, time.perf_counter() - started, str(error))
    frames = recorder.frames * recording.cameras
    success, failure = _verdict(recorder.cell, result)
    if not (success or recording.keep_failures):
        return Outcome(task, seed, 'failed', frames, time.perf_counter() - started, failure)
    arrangement = recorder.cell.arrangement
    attributes = {'task': task, 'seed': seed, 'success': success, 'perturbed': bool(perturb),
                  'split': recording.split, 'noise': recording.noise, 'scenes': recording.scenes,
                  'segments': result.segments, 'disturbances': result.disturbances,
                  'instruction': instruction_of(task, recording.split, rng),
                  'target': arrangement.target, 'others': [*arrangement.others, *arrangement.bystanders],
                  'joint_names': list(recorder.cell.robot.joints), 'robot': recording.robot}
    write_episode(path.parent, recorder.arrays(), attributes)
    return Outcome(task, seed, 'kept', frames, time.perf_counter() - started)


def existing(recording: Recording, path: Path, task: str, seed: int, whole: bool) -> bool:
    """Whether the episode at `path` is the wanted one and readable; `whole`: every chunk of it, checksums and all.

    A damaged one is not (a warning says so, and it is recorded again). One that was recorded otherwise is a
    DatasetError: counted as done it would mix data, of held-out cameras among them, and it is not ours to replace.
    """
    version = stored_version(path)
    require(version in (None, *READABLE_VERSIONS), f'{path} has schema version {version}, this program writes '
            f'{VERSION}; choose another --out', DatasetError)
    episode = open_or_warn(path)
    if episode is None:
        return False
    has, shape = episode.attributes, episode.group['rgb'].shape
    pairs = {'task': (has['task'], task), 'seed': (has['seed'], seed),
             'noise': (has.get('noise', 'none'), recording.noise),
             'split': (has.get('split', 'train'), recording.split),
             'scenes': (has.get('scenes', recording.scenes), recording.scenes),
             'robot': (has.get('robot', DEFAULT), recording.robot),
             'cameras': (episode.cameras, recording.cameras), 'height': (shape[2], recording.height),
             'width': (shape[3], recording.width)}
    for name, (found, wanted) in pairs.items():
        require(found == wanted, f'{path} was recorded with {name} {found}, not {wanted}; choose another --out, or '
                'remove the folder', DatasetError)
    require(has['success'] or recording.keep_failures or has.get('target') == 'absent',
            f'{path} is a failed demonstration; add --keep-failures, choose another --out, or remove it', DatasetError)
    if whole:
        try:
            episode.load()
        except DatasetError as error:
            log.warning('recorded again: %s', error)
            return False
    return True


@contextmanager
def sole_writer(directory: Path, recording: Recording, jobs: Sequence[tuple[str, int]]) -> Iterator[None]:
    """The folder for one collector alone, cleared of what a killed one left, its episodes those of this recording.

    Raises ConfigurationError while another one writes there, DatasetError for an episode recorded otherwise.
    """
    check_writable(directory)
    with open(directory / '.lock', 'a') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(f'another collector writes into {directory}; wait for it, or choose another '
                                     '--out') from None
        for left in directory.glob('.*.zarr.*'):
            shutil.rmtree(left, ignore_errors=True)
        for task, seed in jobs:
            path = directory / episode_name(task, seed)
            if path.exists():
                existing(recording, path, task, seed, whole=False)
        yield


def _verdict(cell: Any, result: Any) -> tuple[bool, str]:
    """Whether a demonstration shows what was asked for and nothing else, and why not."""
    astray = [name for name, moved in cell.moved_objects().items() if name != cell.task and moved > TOUCHED_M]
    if astray:
        return False, f'moved the object of {", ".join(astray)}'
    if cell.arrangement.target == 'absent':
        return result.failure == 'not at goal', 'the expert did not rest'
    return result.success, result.failure or 'failed'


class _Recorder:
    """Films a cell while the expert moves it; frames are kept in memory until the episode is judged."""

    def __init__(self, recording: Recording, task: str, seed: int, rng: np.random.Generator, astray: bool) -> None:
        from geo4d_ros.simulation.cameras import sample_cameras
        from geo4d_ros.simulation.cell import START_NOISE, make_cell
        from geo4d_ros.simulation.rendering import RgbdRenderer
        from geo4d_ros.simulation.tasks.arrangement import draw_arrangement

        self.recording, self._rng = recording, rng
        arrangement = draw_arrangement(recording.scenes, task, seed)
        self.cell = make_cell(task, seed, ASTRAY_START_NOISE if astray else START_NOISE, arrangement,
                              load_robot(recording.robot))
        self.cameras = sample_cameras(rng, recording.cameras, recording.split, recording.width, recording.height)
        self._images: list[tuple[np.ndarray, ...]] = []
        self._states: list[tuple[Any, ...]] = []
        self._renderer = RgbdRenderer(self.cell.model, recording.height, recording.width)

    def __enter__(self) -> _Recorder:
        return self

    def __exit__(self, *exc: object) -> None:
        self._renderer.close()

    @property
    def frames(self) -> int:
        """Moments recorded so far."""
        return len(self._states)

    def observe(self, cell: Any) -> None:
        """Record the present moment."""
        from geo4d_ros.simulation.noise import add_depth_noise

        views = self._renderer.render_many(cell.data, self.cameras, labels=True)
        rgb, depth, labels = (np.stack(images) for images in zip(*views, strict=True))
        noisy = [add_depth_noise(self.recording.noise, d, camera.K, self._rng)
                 for d, camera in zip(depth, self.cameras, strict=True)]
        self._images.append((rgb, encode_depth(np.stack(noisy)), labels))
        self._states.append((cell.T_base_gripper, cell.joint_positions, cell.opening,
                             cell.opening_command, cell.object_pose(), cell.time))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of `training.episodes.SCHEMA`."""
        images = (np.stack(clip, axis=1) for clip in zip(*self._images, strict=True))
        names = ('T_base_gripper', 'joints', 'opening', 'opening_command', 'object_pose', 'times')
        states = (np.array(column, np.float64) for column in zip(*self._states, strict=True))
        return {
            **dict(zip(('rgb', 'depth', 'labels'), images, strict=True)),
            **dict(zip(names, states, strict=True)),
            'K': np.stack([camera.K for camera in self.cameras]),
            'T_base_camera': np.stack([camera.T_base_camera for camera in self.cameras]),
        }


def check_writable(directory: Path) -> None:
    """Create the directory and try it; ConfigurationError when it cannot be written."""
    probe = directory / f'.probe.{os.getpid()}'
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.write_text('')
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(f'cannot write {directory}: {error.strerror}; choose a writable --out') from error


def interleave(tasks: Sequence[str], seed_start: int, demos: int) -> list[tuple[str, int]]:
    """Task and seed of every wanted demonstration, tasks taking turns so that early data has all of them."""
    return [(task, seed) for seed in range(seed_start, seed_start + demos) for task in tasks]


def collect(recording: Recording, jobs: Sequence[tuple[str, int]], processes: int,
            ray: str | None = None) -> Iterator[Outcome]:
    """Record all jobs, in `processes` worker processes or on the Ray cluster `ray`, whose machines share
    `recording.directory`; outcomes come as they finish. An episode is written whole or not at all, so that a worker
    that dies leaves nothing half done."""
    yield from run_jobs(record, [(recording, *job) for job in jobs], processes, ray)


class CollectionSummary(TypedDict):
    """The JSON of `geo4d collect`; tasks: name -> how many were kept, existing and failed."""

    tasks: dict[str, dict[str, int]]
    rgbd_frames: int
    rgbd_frames_per_s: float  # of wall time
    failures: list[Outcome]
    wall_s: float


def summarise(outcomes: Sequence[Outcome], wall_s: float) -> CollectionSummary:
    """Counts per task, failure reasons, and RGB-D frames rendered per second of wall time."""
    frames = sum(o.frames for o in outcomes)
    tasks: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        counts = tasks.setdefault(outcome.task, {'kept': 0, 'existing': 0, 'failed': 0})
        counts[outcome.result] += 1
    failures = [o for o in outcomes if o.result == 'failed']
    return {'tasks': tasks, 'rgbd_frames': frames, 'rgbd_frames_per_s': frames / max(wall_s, 1e-9),
            'failures': failures, 'wall_s': wall_s}


__all__ = ['Outcome', 'Recording', 'check_writable', 'collect', 'interleave', 'record', 'sole_writer', 'summarise']
