"""Training windows drawn from episodes: two cameras, the observation and frames of the next 5 s."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np

from geo4d_ros.data.episodes import SCHEMA, Episode, decode_depth, list_episodes, open_or_warn
from geo4d_ros.errors import DatasetError, require
from geo4d_ros.geometry.transforms import invert

log = logging.getLogger(__name__)

HORIZON = 10  # predicted frames
FRESH_S = 2.0  # how long after a start or a disturbance a frame counts as fresh [s]
STRIDE = 2  # episode frames per predicted frame: 4 Hz -> 2 Hz


class Window(TypedDict, total=False):
    """V views of F + 1 moments, index 0 the observation; what an own recording lacks is left out.

    The robot's and the object's arrays always have all HORIZON + 1 moments. The keys from `expected` on are those
    that `WindowSampler` adds, None each where unknown.
    """

    rgb: np.ndarray  # (V, 1+F, H, W, 3) uint8
    depth: np.ndarray  # (V, 1+F, H, W) float32 m, 0 = invalid
    labels: np.ndarray  # (V, 1+F, H, W) uint8
    K: np.ndarray  # (V, 3, 3)
    T_ref_view: np.ndarray  # (V, 4, 4)
    T_base_ref: np.ndarray  # (4, 4)
    T_ref_gripper: np.ndarray  # (11, 4, 4)
    T_ref_object: np.ndarray  # (11, 4, 4)
    opening: np.ndarray  # (11,) m
    opening_command: np.ndarray  # (11,) m
    joints: np.ndarray  # (11, J) rad
    steps: np.ndarray  # (F,) int64, the future moments whose images are there
    start: int  # the episode's frame at index 0
    expected: np.ndarray  # (11,) bool, see `undisturbed`
    task: str
    seed: int
    instruction: str | None
    robot: str | None
    target: str


def cut_window(
    arrays: dict[str, np.ndarray], start: int, views: tuple[int, ...], steps: np.ndarray
) -> Window:
    """One window of a loaded episode; frames past the end repeat the last one.

    `views` are camera indices, the first is the reference; `steps` (F,) int are the future frames
    in 1..10 whose images are wanted.
    """
    last = len(arrays['times']) - 1
    every = np.minimum(start + STRIDE * np.arange(HORIZON + 1), last)
    images = every[np.concatenate([[0], steps])]
    pick = np.ix_(views, images)
    window: Window = {'rgb': arrays['rgb'][pick], 'steps': np.asarray(steps, np.int64), 'start': start}
    if 'depth' in arrays:
        window['depth'] = decode_depth(arrays['depth'][pick])
    if 'labels' in arrays:
        window['labels'] = arrays['labels'][pick]
    if 'K' in arrays:
        window['K'] = arrays['K'][list(views)]
    robot: tuple[Literal['joints', 'opening', 'opening_command'], ...] = ('joints', 'opening', 'opening_command')
    for name in robot:
        if name in arrays:
            window[name] = arrays[name][every]
    if 'T_base_camera' in arrays:
        T_base_view = arrays['T_base_camera'][list(views)]
        T_ref_base = invert(T_base_view[0])
        window['T_ref_view'], window['T_base_ref'] = T_ref_base @ T_base_view, T_base_view[0]
        if 'T_base_gripper' in arrays:
            window['T_ref_gripper'] = T_ref_base @ arrays['T_base_gripper'][every]
        if 'object_pose' in arrays:
            window['T_ref_object'] = T_ref_base @ arrays['object_pose'][every]
    return window


def undisturbed(times: np.ndarray, start: int, disturbances: Sequence[Sequence[float]]) -> np.ndarray:
    """(11,) bool: frames that an expert left alone would show, up to the first disturbance that ends after `start`.

    times (N,) [s]; disturbances: (start, end) [s]. What an outside push does cannot be foreseen, so
    frames after it are no target for a predictor.
    """
    frames = times[np.minimum(start + STRIDE * np.arange(HORIZON + 1), len(times) - 1)]
    first = min((begin for begin, end in disturbances if end > times[start]), default=np.inf)
    return frames <= first + 1e-6


class WindowSampler:
    """Endless random windows from a directory that may still grow.
    Those of `cut_window` plus what is known of the episode.

    Each episode read gives `windows_per_episode` windows, mixed through a shuffle buffer. With
    `future_frames` = K only K random future frames are cut, else all 10.
    Damaged episodes are named once and never used. With `shard` = (i, n) only every n-th episode
    starting at i is used, for several reading processes. `fresh_share` of the windows start within
    FRESH_S of the episode's start or of the end of a disturbance, the others anywhere. Episodes that lack
    one of `needs` are named and left out; those whose names are in `exclude` are never read.
    """

    def __init__(
        self,
        directory: Path | str,
        rng: np.random.Generator,
        future_frames: int | None = None,
        windows_per_episode: int = 6,
        buffer: int = 96,
        views: int = 2,
        shard: tuple[int, int] = (0, 1),
        rescan_s: float = 30.0,
        fresh_share: float = 0.0,
        needs: Sequence[str] = tuple(SCHEMA),
        exclude: Collection[str] = (),
    ) -> None:
        """Raise DatasetError when there is no episode to read yet."""
        require(future_frames is None or 1 <= future_frames <= HORIZON,
                f'future_frames should be in 1..{HORIZON} but got {future_frames}', DatasetError)
        self.directory = Path(directory)
        self._rng = rng
        self._future_frames = future_frames
        self._windows_per_episode = windows_per_episode
        self._buffer_size = buffer
        self._views = views
        self._shard = shard
        self._rescan_s = rescan_s
        self._fresh_share = fresh_share
        self._needs = needs
        self._exclude = frozenset(exclude)
        self._last_problem = ''
        self._bad: set[Path] = set()
        self._paths: list[Path] = []
        self._scanned = -np.inf
        self._rescan()

    def __len__(self) -> int:
        """Episodes known at the last scan."""
        return len(self._paths)

    def __iter__(self) -> Iterator[Window]:
        buffer: list[Window] = []
        while True:
            while len(buffer) < self._buffer_size:
                buffer.extend(self._read_windows())
            index = int(self._rng.integers(len(buffer)))
            buffer[index], buffer[-1] = buffer[-1], buffer[index]
            yield buffer.pop()

    def _rescan(self) -> None:
        if time.monotonic() - self._scanned < self._rescan_s:
            return
        index, count = self._shard
        kept = [p for p in list_episodes(self.directory) if p.name not in self._exclude]
        self._paths = [p for p in kept[index::count] if p not in self._bad]
        self._scanned = time.monotonic()
        self._require_episodes()

    def _require_episodes(self) -> None:
        require(bool(self._paths), f'{self.directory} holds no usable episode; '
                f'{self._last_problem or "run `geo4d collect` or `geo4d import`"}', DatasetError)

    def _read_windows(self) -> list[Window]:
        self._rescan()
        path = self._paths[int(self._rng.integers(len(self._paths)))]
        episode = open_or_warn(path)
        try:
            if episode is None or episode.cameras < self._views:
                raise DatasetError(f'{path}: fewer than {self._views} cameras or damaged')
            episode.need(self._needs, 'this training')
            arrays = episode.load()
        except DatasetError as error:
            log.warning('skipped: %s', error)
            self._last_problem = str(error)
            self._bad.add(path)
            self._paths.remove(path)
            self._require_episodes()
            return []
        return [self._draw(episode, arrays) for _ in range(self._windows_per_episode)]

    def _draw(self, episode: Episode, arrays: dict[str, np.ndarray]) -> Window:
        count = self._future_frames or HORIZON
        steps = np.sort(self._rng.choice(np.arange(1, HORIZON + 1), count, replace=False))
        views = tuple(self._rng.choice(len(arrays['K']), self._views, replace=False).tolist())
        disturbances = episode.attributes.get('disturbances', [])
        start = self._draw_start(arrays['times'], disturbances)
        window = cut_window(arrays, start, views, steps)
        expected = undisturbed(arrays['times'], start, disturbances)
        return {**window, 'expected': expected, 'task': episode.task, 'seed': episode.seed,
                'instruction': episode.instruction, 'robot': episode.robot,
                'target': episode.attributes.get('target', 'present')}

    def _draw_start(self, times: np.ndarray, disturbances: Sequence[Sequence[float]]) -> int:
        """Any frame, with a share of fresh ones: soon after the start or a disturbance the path is hardest to tell."""
        since = times - np.max([np.where(times >= begin, begin, -np.inf)
                                for begin in [times[0], *(end for _, end in disturbances)]], axis=0)
        fresh = np.flatnonzero(since <= FRESH_S)
        frames = fresh if self._rng.random() < self._fresh_share else np.arange(len(times))
        return int(self._rng.choice(frames))
