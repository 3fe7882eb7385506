"""The authors' released episodes: `episode_*/processed/` with npz files, 10 Hz, bimanual, 16 cameras.

observations.npz: scene_k (T, 480, 640, 3) uint8, scene_k_depth (T, 480, 640) mm, scene_k_label ids;
intrinsics.npz: scene_k (3, 3); extrinsics.npz: scene_k (T, 4, 4), camera to world.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geo4d_ros.errors import DatasetError, require
from geo4d_ros.geometry.transforms import invert

STRIDE = 5  # 10 Hz -> 2 Hz
TRAINING_CAMERAS = tuple(f'scene_{k}' for k in range(1, 13))
GRIPPER_IDS = (29, 30, 31, 33, 34, 35)
MAX_DEPTH_M = 2.0
ARMS = re.compile(r'robot__actual__poses__(left|right)::\w+__xyz')
FRAME_RATE = 2.0  # Hz, after the stride
FILTER_FRAMES, MIN_SPEED = 5, 0.02  # frames, m/s
_FILES = ('observations', 'intrinsics', 'extrinsics')


def list_released_episodes(directory: Path) -> list[Path]:
    """Episode directories anywhere below `directory`, sorted; of replay buffers `<buffer>.zarr/<episode number>`."""
    from geo4d_ros.data.readers.released_buffer import list_buffer_episodes

    paths = sorted(p.parent.parent for p in directory.glob('**/processed/observations.npz'))
    paths += list_buffer_episodes(directory)
    require(
        bool(paths), f'{directory} holds no episode_*/processed/observations.npz and no replay buffer *.zarr',
        DatasetError,
    )
    return paths


def released_split(paths: list[Path], split: str, share: float = 0.1, seed: int = 42) -> list[Path]:
    """The 'train' or the 'validation' episodes of a list, drawn as the release draws them (one alone trains)."""
    require(split in ('train', 'validation'), f'split should be train or validation but got {split!r}', DatasetError)
    count = min(max(1, round(len(paths) * share)), len(paths) - 1)
    chosen = set(np.random.default_rng(seed).choice(len(paths), count, replace=False).tolist()) if count > 0 else set()
    return [p for i, p in enumerate(paths) if (i in chosen) == (split == 'validation')]


def is_static(arms: list[np.ndarray]) -> bool:
    """Whether no arm moves: mean speed over the first FILTER_FRAMES of positions (T, 3) [m] at 2 Hz below MIN_SPEED.

    The release draws another window then. Without robot data nothing is known, and nothing filtered.
    """
    heads = [arm[:FILTER_FRAMES] for arm in arms]
    speeds = [np.linalg.norm(np.diff(head, axis=0), axis=1).mean() * FRAME_RATE for head in heads if len(head) > 1]
    return bool(speeds) and max(speeds) <= MIN_SPEED


@dataclass(frozen=True)
class ReleasedEpisode:
    """One episode; images are read camera by camera."""

    path: Path
    cameras: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> ReleasedEpisode:
        """Check the files and find the training cameras that have colour, depth and calibration."""
        names = [set(_open(path, file).files) for file in _FILES]
        common = [c for c in TRAINING_CAMERAS if {c, f'{c}_depth'} <= names[0] and c in names[1] and c in names[2]]
        require(
            len(common) >= 2, f'{path} has {len(common)} complete training cameras, expected at least 2', DatasetError
        )
        return cls(path, tuple(common))

    def window(self, rng: np.random.Generator, views: int, frames: int) -> dict[str, np.ndarray] | None:
        """A random window of the layout of `EpisodeWindows`, without robot state (zeros, identity); None if static.

        Windows never run past the end, as in the release. Depth is metres, beyond 2 m invalid.
        """
        cameras = [self.cameras[i] for i in rng.choice(len(self.cameras), views, replace=False)]
        observations = _open(self.path, 'observations')
        intrinsics, extrinsics = _open(self.path, 'intrinsics'), _open(self.path, 'extrinsics')
        length = len(_read(extrinsics, self.path, cameras[0]))
        span = STRIDE * frames + 1
        require(length >= span, f'{self.path} has {length} frames, expected at least {span}', DatasetError)
        pick = int(rng.integers(length - span + 1)) + STRIDE * np.arange(frames + 1)
        if is_static([_read(observations, self.path, a)[pick] for a in observations.files if ARMS.fullmatch(a)]):
            return None
        labels = [
            _read(observations, self.path, f'{c}_label')[pick] if f'{c}_label' in observations.files else None
            for c in cameras
        ]
        return released_window(
            [_read(observations, self.path, c)[pick] for c in cameras],
            [_read(observations, self.path, f'{c}_depth')[pick] for c in cameras],
            labels,
            [_read(intrinsics, self.path, c) for c in cameras],
            [_read(extrinsics, self.path, c)[pick[0]] for c in cameras],
        )


def released_window(
    rgb: list[np.ndarray],
    depth_mm: list[np.ndarray],
    labels: list[np.ndarray | None],
    K: list[np.ndarray],
    T_world_camera: list[np.ndarray],
) -> dict[str, np.ndarray]:
    """The layout of `EpisodeWindows`, without robot state (zeros, identity), of one list entry per view.

    rgb (T+1, H, W, 3), depth in millimetres (T+1, H, W), label ids; K (3, 3), T (4, 4) at the first frame.
    """
    depth = np.stack(depth_mm) * np.float32(1e-3)
    gripper = np.zeros(depth.shape, bool)
    for i, ids in enumerate(labels):
        if ids is not None:
            gripper[i] = np.isin(ids, GRIPPER_IDS)
    poses = np.stack(T_world_camera).astype(np.float64)
    count = depth.shape[1]
    return {
        'rgb': np.stack(rgb),
        'depth': np.where((depth > 0) & (depth <= MAX_DEPTH_M), depth, 0).astype(np.float32),
        'gripper': gripper,
        'K': np.stack(K).astype(np.float64),
        'T_ref_view': invert(poses[0]) @ poses,
        'T_ref_gripper': np.tile(np.eye(4), (count, 1, 1)),
        'opening': np.zeros(count),
        'expected': np.ones(count, bool),
    }


def _open(path: Path, file: str) -> np.lib.npyio.NpzFile:
    target = path / 'processed' / f'{file}.npz'
    try:
        return np.load(target, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetError(f'{target} cannot be read ({re.sub(chr(10), " ", str(error))[:120]})') from error


def _read(archive: np.lib.npyio.NpzFile, path: Path, name: str) -> np.ndarray:
    try:
        return archive[name]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DatasetError(f'{path}: {name} is damaged or missing ({error})') from error
