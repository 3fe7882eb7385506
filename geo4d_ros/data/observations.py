"""Single two-view observations of expert runs, with what happened all along: a run costs seconds, a picture little.

Far cheaper than whole episodes for whatever learns from one look and needs the future only as numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from geo4d_ros.data.collect import ASTRAY_START_NOISE, MAX_SECONDS, REST_SECONDS, Recording
from geo4d_ros.data.episodes import RATE_HZ, decode_depth, encode_depth
from geo4d_ros.errors import DatasetError, SimulationError, require
from geo4d_ros.workers.pool import set_worker_environment

SUFFIX = '.observations.safetensors'
_UNMOVED_SHARE = 0.35  # at most so many pictures show a moment long before or after the object moves


def record_observations(recording: Recording, task: str, seed: int) -> Path | None:
    """Run the expert on one seed, then photograph `recording.observations` random moments, each by two new cameras.

    The file holds, for N pictures of S recorded moments (RATE_HZ a second): rgb (N, 2, H, W, 3) u8, depth
    (N, 2, H, W) as episodes encode it, labels (N, 2, H, W) u8, K (N, 2, 3, 3), T_base_view (N, 2, 4, 4), index (N,)
    the moment of each; T_base_gripper, object_pose (S, 4, 4), joints (S, 7) [rad], opening (S,) [m], times (S,) [s],
    disturbances (D, 2) [s]; of one number each: task, among the sorted names, held_out, whether the cameras are of
    the held-out region. Lengths in metres. An existing file is kept; one made otherwise is a DatasetError. Returns None
    where the seed gives no scene or the expert fails.
    """
    set_worker_environment()
    from geo4d_ros.simulation.cell import START_NOISE, Cell
    from geo4d_ros.simulation.rollout import random_perturbations, rollout
    from geo4d_ros.simulation.tasks import TASKS
    from geo4d_ros.simulation.tasks.arrangement import draw_arrangement

    path = Path(recording.directory) / f'{task}-{seed:06d}{SUFFIX}'
    if path.is_file():
        _check_same(path, recording)
        return path
    rng = np.random.default_rng([seed, sum(task.encode()), 0x0B5])
    perturb: list[Any] = []
    arrangement = draw_arrangement(recording.scenes, task, seed)
    if rng.uniform() < recording.perturb and arrangement.target == 'present':
        perturb = random_perturbations(rng, task, int(rng.integers(1, 4)))
    states: list[tuple[Any, ...]] = []
    try:
        cell = Cell(task, seed, ASTRAY_START_NOISE if perturb else START_NOISE, arrangement)
        observe = lambda c: states.append((c.save_state(), c.T_base_gripper, c.object_pose(),  # noqa: E731
                                           c.joint_positions, c.opening, c.time))
        result = rollout(cell, MAX_SECONDS, perturb, observe, 1 / RATE_HZ, REST_SECONDS)
        if arrangement.target == 'present' and not result.success:
            return None
    except SimulationError:
        return None
    names = ('T_base_gripper', 'object_pose', 'joints', 'opening', 'times')
    arrays = {n: np.array([s[i + 1] for s in states], np.float64) for i, n in enumerate(names)}
    arrays['index'] = _moments(arrays['object_pose'][:, :3, 3], recording.observations, rng)
    arrays |= _photographs(cell, recording, [states[i][0] for i in arrays['index']], rng)
    arrays['disturbances'] = np.array(result.disturbances, np.float64).reshape(-1, 2)
    arrays['task'] = np.array([sorted(TASKS).index(task)])
    arrays['held_out'] = np.array([recording.split == 'held-out'])
    partial = path.with_suffix('.partial')
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, partial)
    partial.replace(path)
    return path


def _check_same(path: Path, recording: Recording) -> None:
    found = load_checked(path)
    shape = (recording.observations, 2, recording.height, recording.width, 3)
    same = found['rgb'].shape == shape and bool(found['held_out'][0]) == (recording.split == 'held-out')
    require(same, f'{path} was made with other pictures, sizes or cameras; choose another --out, or remove it',
            DatasetError)


def load_checked(path: Path) -> dict[str, np.ndarray]:
    """The arrays of one file; DatasetError when it is damaged."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise DatasetError(f'{path} is damaged ({error}); remove it and collect again') from error


def _moments(position: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices (count,) of moments to photograph, mostly such that the object (S, 3) moves within a window's 5 s."""
    horizon = round(5 * RATE_HZ)
    ahead = np.minimum(np.arange(len(position))[:, None] + np.arange(0, horizon + 1, 4), len(position) - 1)
    moves = np.linalg.norm(position[ahead] - position[:, None], axis=-1).max(1) > 0.01
    lively, quiet = np.flatnonzero(moves), np.flatnonzero(~moves)
    still = count if not len(lively) else min(int((rng.random(count) < _UNMOVED_SHARE).sum()), len(quiet))
    chosen = [rng.choice(part, n, replace=n > len(part)) for part, n in ((quiet, still), (lively, count - still)) if n]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _photographs(cell: Any, recording: Recording, states: Sequence[Any], rng: np.random.Generator,
                 ) -> dict[str, np.ndarray]:
    from geo4d_ros.simulation.cameras import sample_cameras
    from geo4d_ros.simulation.noise import add_depth_noise
    from geo4d_ros.simulation.rendering import RgbdRenderer

    pictures: dict[str, list[Any]] = {k: [] for k in ('rgb', 'depth', 'labels', 'K', 'T_base_view')}
    with RgbdRenderer(cell.model, recording.height, recording.width) as renderer:
        for state in states:
            cell.restore_state(state)
            cameras = sample_cameras(rng, 2, recording.split, recording.width, recording.height)
            rgb, depth, labels = (np.stack(part) for part in zip(
                *renderer.render_many(cell.data, cameras, labels=True), strict=True))
            noisy = [add_depth_noise(recording.noise, d, c.K, rng) for d, c in zip(depth, cameras, strict=True)]
            row = (rgb, encode_depth(np.stack(noisy)), labels, np.stack([c.K for c in cameras]),
                   np.stack([c.T_base_camera for c in cameras]))
            for store, value in zip(pictures.values(), row, strict=True):
                store.append(value)
    return {k: np.stack(v) for k, v in pictures.items()}


def read_observations(directory: Path | str) -> Iterator[dict[str, np.ndarray]]:
    """Files of a directory as `record_observations` writes them, depth decoded to float32 [m], 0 = invalid."""
    paths = sorted(Path(directory).glob('*' + SUFFIX))
    require(bool(paths), f'{directory} holds no observations; make some: geo4d collect --observations 8', DatasetError)
    for path in paths:
        arrays = load_checked(path)
        yield arrays | {'depth': decode_depth(arrays['depth'])}


__all__ = ['SUFFIX', 'read_observations', 'record_observations']
