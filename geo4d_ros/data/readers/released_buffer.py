"""The authors' episodes after their own conversion: a zarr replay buffer, all episodes one after the other, at 2 Hz.

Arrays `obs.scene_k` (N, 256, 320, 3) uint8, `obs.scene_k_depth` mm, `obs.scene_k_label`, `scene_k.intr`
(N, 3, 3), `scene_k.extr` (N, 4, 4) camera to world, below `data` or at the root; `meta/episode_ends`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from geo4d_ros.data.readers.released_episodes import ARMS, TRAINING_CAMERAS, is_static, released_window
from geo4d_ros.errors import DatasetError, require


def list_buffer_episodes(directory: Path) -> list[Path]:
    """`<buffer>.zarr/<number>` of every episode of every buffer at or below `directory`; not directories on disk."""
    own = [directory] if directory.suffix == '.zarr' else []
    buffers = [p for p in [*own, *sorted(directory.glob('**/*.zarr'))] if (p / 'meta').is_dir()]
    return [buffer / str(i) for buffer in buffers for i in range(len(_ends(_open(buffer), buffer)))]


@dataclass(frozen=True)
class BufferEpisode:
    """Frames first..last-1 of a replay buffer."""

    path: Path
    arrays: zarr.Group
    cameras: tuple[str, ...]
    first: int
    last: int

    @classmethod
    def open(cls, path: Path) -> BufferEpisode:
        """Find the episode and the training cameras that have colour, depth and calibration."""
        root = _open(path.parent)
        ends = _ends(root, path.parent)
        number = int(path.name)
        require(number < len(ends), f'{path.parent} has {len(ends)} episodes, no number {number}', DatasetError)
        arrays = root.get('data', root)
        needed = ('obs.{}', 'obs.{}_depth', '{}.intr', '{}.extr')
        cameras = tuple(c for c in TRAINING_CAMERAS if all(name.format(c) in arrays for name in needed))
        require(
            len(cameras) >= 2,
            f'{path.parent} has {len(cameras)} complete training cameras, expected at least 2',
            DatasetError,
        )
        return cls(path, arrays, cameras, int(ends[number - 1]) if number else 0, int(ends[number]))

    def window(self, rng: np.random.Generator, views: int, frames: int) -> dict[str, np.ndarray] | None:
        """A random window of the layout of `EpisodeWindows`; never past the episode's end; None if nothing moves."""
        cameras = [self.cameras[i] for i in rng.choice(len(self.cameras), views, replace=False)]
        length = self.last - self.first
        require(length > frames, f'{self.path} has {length} frames, expected at least {frames + 1}', DatasetError)
        start = self.first + int(rng.integers(length - frames))
        pick = slice(start, start + frames + 1)
        if is_static([self._read(name, pick) for name in self.arrays.array_keys()
                      if ARMS.fullmatch(name.removeprefix('obs.'))]):
            return None
        labels = [self._read(f'obs.{c}_label', pick) if f'obs.{c}_label' in self.arrays else None for c in cameras]
        return released_window(
            [self._read(f'obs.{c}', pick) for c in cameras],
            [self._read(f'obs.{c}_depth', pick) for c in cameras],
            labels,
            [self._read(f'{c}.intr', slice(start, start + 1))[0] for c in cameras],
            [self._read(f'{c}.extr', slice(start, start + 1))[0] for c in cameras],
        )

    def _read(self, name: str, pick: slice) -> np.ndarray:
        try:
            return np.asarray(self.arrays[name][pick])
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise DatasetError(f'{self.path}: {name} is damaged ({error})') from error


def _open(buffer: Path) -> zarr.Group:
    try:
        return zarr.open_group(store=buffer, mode='r')
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f'{buffer} is not a readable zarr group ({error})') from error


def _ends(root: zarr.Group, buffer: Path) -> np.ndarray:
    """Frame after the last of every episode."""
    require('meta/episode_ends' in root, f'{buffer} has no meta/episode_ends: not a replay buffer', DatasetError)
    ends = np.asarray(root['meta/episode_ends'][:])
    rising = ends.ndim == 1 and len(ends) > 0 and bool((np.diff(ends, prepend=0) > 0).all())
    require(rising, f'{buffer}: meta/episode_ends should rise but is {ends[:5]}', DatasetError)
    return ends
