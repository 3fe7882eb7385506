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
_FILES = ('observations', 'intrinsics', 'extrinsics')


def list_released_episodes(directory: Path) -> list[Path]:
    """Episode directories anywhere below `directory`, sorted."""
    paths = sorted(p.parent.parent for p in directory.glob('**/processed/observations.npz'))
    require(bool(paths), f'{directory} holds no episode_*/processed/observations.npz', DatasetError)
    return paths


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

    def window(self, rng: np.random.Generator, views: int, frames: int) -> dict[str, np.ndarray]:
        """A random window of the layout of `EpisodeWindows`, without robot state (zeros, identity).

        Windows never run past the end, as in the release. Depth is metres, beyond 2 m invalid.
        """
        cameras = [self.cameras[i] for i in rng.choice(len(self.cameras), views, replace=False)]
        observations = _open(self.path, 'observations')
        intrinsics, extrinsics = _open(self.path, 'intrinsics'), _open(self.path, 'extrinsics')
        length = len(_read(extrinsics, self.path, cameras[0]))
        span = STRIDE * frames + 1
        require(length >= span, f'{self.path} has {length} frames, expected at least {span}', DatasetError)
        pick = int(rng.integers(length - span + 1)) + STRIDE * np.arange(frames + 1)
        depth = np.stack([_read(observations, self.path, f'{c}_depth')[pick] for c in cameras]) * np.float32(1e-3)
        T_world_camera = np.stack([_read(extrinsics, self.path, c)[pick[0]] for c in cameras]).astype(np.float64)
        gripper = np.zeros(depth.shape, bool)
        for i, camera in enumerate(cameras):
            if f'{camera}_label' in observations.files:
                gripper[i] = np.isin(_read(observations, self.path, f'{camera}_label')[pick], GRIPPER_IDS)
        return {
            'rgb': np.stack([_read(observations, self.path, c)[pick] for c in cameras]),
            'depth': np.where((depth > 0) & (depth <= MAX_DEPTH_M), depth, 0).astype(np.float32),
            'gripper': gripper,
            'K': np.stack([_read(intrinsics, self.path, c) for c in cameras]).astype(np.float64),
            'T_ref_view': invert(T_world_camera[0]) @ T_world_camera,
            'T_ref_gripper': np.tile(np.eye(4), (frames + 1, 1, 1)),
            'opening': np.zeros(frames + 1),
            'expected': np.ones(frames + 1, bool),
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
