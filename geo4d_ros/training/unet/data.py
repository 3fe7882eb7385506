"""Training windows by index: the same index gives the same window, so that a run can be resumed exactly."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from geo4d_ros.data.episodes import SCHEMA, Episode
from geo4d_ros.data.readers.released_buffer import BufferEpisode
from geo4d_ros.data.readers.released_episodes import ReleasedEpisode, list_released_episodes, released_split
from geo4d_ros.data.windows import HORIZON, cut_window, undisturbed
from geo4d_ros.errors import DatasetError, require
from geo4d_ros.generation.unet.conventions import CONVENTIONS, Convention
from geo4d_ros.geometry.resampling import nearest_indices, resize_colour, resize_depth, resize_intrinsics
from geo4d_ros.training.budget import ignore_interrupt

log = logging.getLogger(__name__)

_ATTEMPTS = 20
_CLIPS = ('rgb', 'depth', 'labels')


def list_data(directory: Path, data_format: str, split: str = 'train') -> list[Path]:
    """Sorted episodes of a directory; DatasetError when there is none.

    split: the released data's 'train' (nine in ten) or 'validation' episodes, or 'all'; episodes of this package
    are split by directory.
    """
    if data_format == 'released':
        paths = list_released_episodes(directory)
        return paths if split == 'all' else released_split(paths, split)
    from geo4d_ros.data.episodes import list_episodes

    paths = list_episodes(directory)
    require(bool(paths), f'{directory} holds no episode; run `geo4d collect`', DatasetError)
    return paths


class EpisodeWindows(Dataset):
    """Window i of a fixed list of episodes: random episode, views and start, all drawn from (seed, i).

    Items are dicts of tensors: rgb (V, T+1, H, W, 3) uint8, depth (V, T+1, H, W) float32 [m],
    gripper (V, T+1, H, W) bool, K (V, 3, 3), T_ref_view (V, 4, 4), T_ref_gripper (T+1, 4, 4),
    opening (T+1), expected (T+1) bool, index. `needs`: arrays of the episode schema beyond depth and cameras
    without which an episode is left out; without them masks and states are zero.
    """

    def __init__(
        self,
        episodes: list[Path],
        data_format: str,
        views: int,
        frames: int,
        size: tuple[int, int],
        seed: int,
        convention: str = 'corrected',
        needs: Sequence[str] = (),
    ) -> None:
        require(1 <= frames <= HORIZON, f'frames should be in 1..{HORIZON} but got {frames}', DatasetError)
        self.episodes, self.data_format, self.views = episodes, data_format, views
        self.frames, self.size, self.seed, self.needs = frames, size, seed, tuple(needs)
        self.convention = CONVENTIONS[convention]

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Window `index`; a damaged episode is named and another drawn, deterministically."""
        problem = ''
        for attempt in range(_ATTEMPTS):
            rng = np.random.default_rng([self.seed, index, attempt])
            path = self.episodes[int(rng.integers(len(self.episodes)))]
            try:
                window = self._cut(path, rng)
            except DatasetError as error:
                log.warning('skipped: %s', error)
                problem = str(error)
                continue
            if window is None:
                continue
            return {**window, 'index': torch.tensor(index)}
        raise DatasetError(f'{_ATTEMPTS} windows in a row cannot be used or show no motion, last {path}'
                           + (f': {problem}' if problem else ''))

    def _cut(self, path: Path, rng: np.random.Generator) -> dict[str, torch.Tensor] | None:
        if self.data_format == 'released':
            kind = BufferEpisode if path.parent.suffix == '.zarr' else ReleasedEpisode
            window = kind.open(path).window(rng, self.views, self.frames)
            if window is None:
                return None
        else:
            window = self._cut_zarr(Episode.open(path), rng)
        window = _resized(window, *self.size, self.convention)
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in window.items()}

    def _cut_zarr(self, episode: Episode, rng: np.random.Generator) -> dict[str, np.ndarray]:
        require(
            episode.cameras >= self.views,
            f'{episode.path} has {episode.cameras} cameras, expected at least {self.views}',
            DatasetError,
        )
        cameras = rng.choice(episode.cameras, self.views, replace=False)
        episode.need(('depth', 'K', 'T_base_camera', *self.needs), 'this training')
        arrays: dict[str, np.ndarray] = {}
        for name in set(SCHEMA) - set(episode.missing):
            dims = SCHEMA[name][1]
            if dims[:2] == ('C', 'N'):
                arrays[name] = np.stack([episode.read(name, int(c)) for c in cameras])
            else:
                value = episode.read(name)
                arrays[name] = value[cameras] if dims[0] == 'C' else value
        start = int(rng.integers(len(arrays['times'])))
        steps = np.arange(1, self.frames + 1)
        window = cut_window(arrays, start, tuple(range(self.views)), steps)
        pushes = episode.attributes.get('disturbances', [])
        keep = slice(self.frames + 1)
        # An own recording may lack labels and robot state: as in the authors' episodes, zeros and identity stand in;
        # `needs` keeps models away that would learn them.
        labels = window.get('labels', np.zeros(window['depth'].shape, np.uint8))
        return {
            'rgb': window['rgb'],
            'depth': window['depth'],
            'gripper': np.isin(labels, (2, 3, 4)),
            'K': window['K'],
            'T_ref_view': window['T_ref_view'],
            'T_ref_gripper': window.get('T_ref_gripper', np.tile(np.eye(4), (HORIZON + 1, 1, 1)))[keep],
            'opening': window.get('opening', np.zeros(HORIZON + 1))[keep],
            'expected': undisturbed(arrays['times'], start, pushes)[keep],
        }


def _resized(window: dict[str, np.ndarray], height: int, width: int, how: Convention) -> dict[str, np.ndarray]:
    """The window's images at another size, as the pipeline resizes its observation; as they are when the size fits."""
    h, w = window['depth'].shape[2:]
    if (h, w) == (height, width):
        return window
    size = (height, width)
    rows, columns = nearest_indices(h, height)[:, None], nearest_indices(w, width)
    return {
        **window,
        'rgb': _each(window['rgb'], lambda image: resize_colour(image, *size, how.resampling)),
        'depth': _each(window['depth'], lambda image: resize_depth(image, *size, how.resampling)),
        'gripper': window['gripper'][:, :, rows, columns],
        'K': np.stack([resize_intrinsics(K, width / w, height / h, how.half_pixel_intrinsics) for K in window['K']]),
    }


def _each(images: np.ndarray, resize: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`resize` of every image of (V, T, H, W, ...)."""
    return np.stack([np.stack([resize(image) for image in view]) for view in images])


def batches(
    dataset: EpisodeWindows, first: int, batch: int, stride: int, offset: int, workers: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches from micro-step `first` on: micro-step m of process `offset` takes
    indices m * stride + offset * batch + (0 .. batch - 1), with stride = batch * processes."""

    def indices() -> Iterator[list[int]]:
        m = first
        while True:
            base = m * stride + offset * batch
            yield list(range(base, base + batch))
            m += 1

    return iter(DataLoader(dataset, batch_sampler=_Endless(indices), num_workers=workers,
                           worker_init_fn=ignore_interrupt))


class _Endless:
    """A batch sampler around a generator function."""

    def __init__(self, generate) -> None:
        self.generate = generate

    def __iter__(self) -> Iterator[list[int]]:
        return self.generate()
