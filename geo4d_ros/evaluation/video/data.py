"""Where the clips of a video evaluation come from: scenes simulated on the spot, or recorded episodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from geo4d_ros.data.episodes import MAX_DEPTH_M, Episode, decode_depth
from geo4d_ros.errors import DatasetError, require
from geo4d_ros.evaluation.metrics.regions import episode_colours
from geo4d_ros.evaluation.simulated_truth import Recording, TruthClip, clip_of

SPLITS = ('held-out-cameras', 'held-out-scenes', 'train')
FIRST_SEED = {'held-out-cameras': 500_000, 'held-out-scenes': 500_000, 'train': 0}
CAMERA_SPLIT = {'held-out-cameras': 'held-out', 'held-out-scenes': 'train', 'train': 'train'}
EPISODE_SECONDS = 40.0


@dataclass(frozen=True)
class ClipSource:
    """One episode to evaluate on: a recorded one (`path`) or a scene (`task`, `seed`) to simulate."""

    task: str
    seed: int
    path: str | None = None


def window_starts(moments: int, frames: int, windows: int) -> list[int]:
    """Evenly spread first moments of `windows` clips; the last ones may run past the end by half a clip."""
    last = max(0, moments - 1 - frames // 2)
    return sorted({round(s) for s in np.linspace(0, last, windows)})


def clips_of(source: ClipSource, split: str, windows: int, frames: int, dt: float,
             size: tuple[int, int]) -> list[TruthClip]:
    """The clips of one episode: `frames` + 1 moments, `dt` [s] apart, two views of `size` (height, width).

    A simulated scene that the expert does not finish raises SimulationError; a damaged or too differently sized
    episode DatasetError.
    """
    if source.path is not None:
        recording, stride = _recorded(Path(source.path), dt, size)
    else:
        recording, stride = simulate(source.task, source.seed, CAMERA_SPLIT[split], dt, size), 1
    starts = window_starts(-(-len(recording) // stride), frames, windows)
    colours = episode_colours(recording.rgb, recording.labels)
    return [clip_of(recording.window(s * stride, frames, stride), source.task, source.seed, colours=colours)
            for s in starts]


def simulate(task: str, seed: int, cameras: str, dt: float, size: tuple[int, int]) -> Recording:
    """The expert's whole demonstration of a scene, filmed by the seed's two cameras every `dt` [s]."""
    from geo4d_ros.evaluation.closed_loop.cell_rig import CellRig, episode_cameras
    from geo4d_ros.simulation.cell import Cell
    from geo4d_ros.simulation.rollout import rollout

    cell = Cell(task, seed)
    views = episode_cameras(seed, cameras, size)
    snapshots: list = []
    with CellRig(cell.model, views, model_size=size) as rig:
        rollout(cell, EPISODE_SECONDS, observe=lambda now: snapshots.append(rig.snapshot(now)), observe_period=dt)
        recording = rig.recording_of(snapshots, dt)
    # As in recorded episodes: no sensor of this class measures the far floor, and nothing is judged there.
    return replace(recording, depth=np.where(recording.depth <= MAX_DEPTH_M, recording.depth, np.float32(0)))


def _recorded(path: Path, dt: float, size: tuple[int, int]) -> tuple[Recording, int]:
    """The first two cameras of an episode, and how many of its moments make one step of `dt`."""
    from geo4d_ros.robots.inverse_kinematics import shared_kinematics

    episode = Episode.open(path)
    require(episode.cameras >= 2, f'{path} has one camera; video evaluation needs two', DatasetError)
    rate = float(episode.attributes['rate_hz'])
    stride = round(dt * rate)
    require(stride >= 1 and abs(stride / rate - dt) < 1e-6, f'{path} is sampled at {rate} Hz, not every {dt} s',
            DatasetError)
    data = {name: episode.read(name)[:2] for name in ('rgb', 'depth', 'labels', 'K', 'T_base_camera')}
    found = data['rgb'].shape[2:4]
    require(found == size, f'{path} has images of {found[0]}x{found[1]}, the model {size[0]}x{size[1]}', DatasetError)
    stamps = np.round(episode.read('times') * 1e9).astype(np.int64)
    recording = Recording(data['rgb'], decode_depth(data['depth']), data['labels'], data['K'], data['T_base_camera'],
                          episode.read('T_base_gripper'), episode.read('opening'),
                          shared_kinematics(episode.robot).arm_points(episode.read('joints')), stamps,
                          episode.read('object_pose'))
    return recording, stride


def sources_of(directory: Path | None, tasks: list[str], split: str, episodes: int,
               seed_start: int | None) -> list[ClipSource]:
    """`episodes` sources per task, from recorded episodes where a directory is given, else scenes to simulate."""
    if directory is None:
        first = FIRST_SEED[split] if seed_start is None else seed_start
        return [ClipSource(task, first + i) for i in range(episodes) for task in tasks]
    from geo4d_ros.data.episodes import iter_episodes

    chosen: dict[str, list[ClipSource]] = {task: [] for task in tasks}
    for episode in iter_episodes(directory):
        if episode.task in chosen and len(chosen[episode.task]) < episodes and not episode.attributes['perturbed']:
            chosen[episode.task].append(ClipSource(episode.task, episode.seed, str(episode.path)))
    found = [source for sources in chosen.values() for source in sources]
    require(bool(found), f'{directory} has no undisturbed episodes of {", ".join(tasks)}', DatasetError)
    return found
