"""What a directory of episodes holds and what is wrong with it, before a training finds out the hard way."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from geo4d_ros.data.episodes import RATE_HZ, Episode, decode_depth, list_episodes
from geo4d_ros.data.trainings import trainable
from geo4d_ros.errors import DatasetError
from geo4d_ros.geometry.agreement import MIN_AGREEMENT, view_agreement
from geo4d_ros.geometry.cameras import project
from geo4d_ros.geometry.transforms import invert, transform_points
from geo4d_ros.types import RgbdFrame

MIN_VALID_DEPTH = 0.3  # of a picture's pixels; below, a camera looks past its range or its depth is broken
MAX_GRIPPER_OFF = 0.05  # of the picture's width: tool centre point against the nearest pixel labelled gripper
MAX_FROZEN = 0.3  # share of pictures equal to the one before: a stuck camera, not a resting scene
MAX_SKEW_MS = 50.0
_GRIPPER_LABELS = (2, 3, 4)


@dataclass(frozen=True)
class EpisodeCheck:
    """Figures of one episode; None where it lacks what they need. Shares are in [0, 1]."""

    path: Path
    task: str
    seed: int
    split: str
    frames: int
    cameras: int
    size: tuple[int, int]
    missing: tuple[str, ...]
    median_step_s: float
    largest_step_s: float
    largest_skew_ms: float
    valid_depth: tuple[float, ...]  # per camera
    frozen: tuple[float, ...]  # per camera
    view_agreement: float | None  # the least over the cameras beside the first
    gripper_off: float | None  # median over cameras and moments, as a share of the width
    sha256: str  # of the first camera's pictures

    def problems(self) -> list[str]:
        """What looks wrong, one line each."""
        found = []
        if self.largest_step_s > 1.5 / RATE_HZ:
            found.append(f'a gap of {self.largest_step_s:.2f} s between moments')
        if self.largest_skew_ms > MAX_SKEW_MS:
            found.append(f'cameras are {self.largest_skew_ms:.0f} ms apart')
        for camera, share in enumerate(self.valid_depth):
            if share < MIN_VALID_DEPTH:
                found.append(f'camera {camera + 1} has depth at only {share:.0%} of its pixels')
        for camera, share in enumerate(self.frozen):
            if share > MAX_FROZEN:
                found.append(f'camera {camera + 1} repeats its picture in {share:.0%} of the moments')
        if self.view_agreement is not None and self.view_agreement < MIN_AGREEMENT:
            found.append(f'two cameras see only {self.view_agreement:.0%} of the surfaces in one place: '
                         'check their calibration')
        if self.gripper_off is not None and self.gripper_off > MAX_GRIPPER_OFF:
            found.append(f'the gripper is {self.gripper_off:.0%} of the width off its labels: check calibration')
        return found


@dataclass(frozen=True)
class DataReport:
    """All episodes, the unreadable ones, equal pictures, and what is in the other data set too."""

    episodes: list[EpisodeCheck]
    damaged: list[str] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    leaks: list[tuple[str, str, str]] = field(default_factory=list)  # ours, theirs, why

    @property
    def missing(self) -> tuple[str, ...]:
        """Arrays that any episode lacks."""
        return tuple(sorted({name for e in self.episodes for name in e.missing}))

    @property
    def trainable(self) -> dict[str, tuple[str, ...]]:
        """What can be trained on all of it -> what is lacking for that."""
        return trainable(self.missing, min((e.cameras for e in self.episodes), default=0))

    def problems(self) -> list[str]:
        """Everything that looks wrong, one line each, the worst first."""
        return [*(f'damaged: {text}' for text in self.damaged),
                *(f'leak: {ours} and {theirs}: {why}' for ours, theirs, why in self.leaks),
                *(f'duplicate: {a} and {b} show the same pictures' for a, b in self.duplicates),
                *self._mixed(),
                *(f'{e.path.name}: {text}' for e in self.episodes for text in e.problems())]

    def _mixed(self) -> list[str]:
        sizes = Counter(e.size for e in self.episodes)
        return [] if len(sizes) < 2 else [f'pictures of {len(sizes)} sizes: '
                                          + ', '.join(f'{h}x{w} ({n})' for (h, w), n in sizes.items())]


def check_directory(directory: Path, against: Path | None = None,
                    progress: Callable[[list[Path]], Iterable[Path]] = iter) -> DataReport:
    """Check every episode of `directory`, and that none of them is in `against` (the validation or test data) too.

    DatasetError when a directory is missing or empty; damaged episodes are part of the report.
    """
    episodes, damaged = _checked(directory, progress)
    duplicates, first = [], {}
    for episode in episodes:
        if episode.sha256 in first:
            duplicates.append((first[episode.sha256].path.name, episode.path.name))
        first.setdefault(episode.sha256, episode)
    leaks = _leaks(episodes, _checked(against, progress)[0]) if against is not None else []
    return DataReport(episodes, damaged, duplicates, leaks)


def _checked(directory: Path, progress: Callable[[list[Path]], Iterable[Path]]) -> tuple[list[EpisodeCheck], list[str]]:
    paths = list_episodes(directory)
    if not paths:
        raise DatasetError(f'{directory} holds no episode; run `geo4d collect` or `geo4d import`')
    episodes, damaged = [], []
    for path in progress(paths):
        try:
            episodes.append(check_episode(Episode.open(path)))
        except DatasetError as error:
            damaged.append(str(error))
    return episodes, damaged


def _leaks(ours: list[EpisodeCheck], theirs: list[EpisodeCheck]) -> list[tuple[str, str, str]]:
    """The same scene (task and seed, of the simulator) or the same pictures in both."""
    leaks = []
    by_seed = {(e.task, e.seed): e for e in theirs}
    by_pictures = {e.sha256: e for e in theirs}
    for episode in ours:
        same = by_pictures.get(episode.sha256)
        if same is not None:
            leaks.append((episode.path.name, same.path.name, 'the same pictures'))
        elif (episode.task, episode.seed) in by_seed:
            leaks.append((episode.path.name, by_seed[episode.task, episode.seed].path.name, 'the same task and seed'))
    return leaks


def check_episode(episode: Episode) -> EpisodeCheck:
    """The figures of one episode; DatasetError when it is damaged."""
    arrays = episode.load()
    rgb, times = arrays['rgb'], arrays['times']
    steps = np.diff(times) if len(times) > 1 else np.array([1 / RATE_HZ])
    frozen = tuple(float((clip[1:] == clip[:-1]).all(axis=(1, 2, 3)).mean()) if len(clip) > 1 else 0.0 for clip in rgb)
    valid = tuple(float((clip > 0).mean()) for clip in arrays['depth']) if 'depth' in arrays else ()
    return EpisodeCheck(
        episode.path, episode.task, episode.seed, str(episode.attributes.get('split', 'train')), episode.frames,
        episode.cameras, rgb.shape[2:4], episode.missing, float(np.median(steps)), float(steps.max()),
        float(episode.attributes.get('largest_skew_ms', 0.0)), valid, frozen, _agreement(arrays), _gripper_off(arrays),
        hashlib.sha256(np.ascontiguousarray(rgb[0])).hexdigest())


def _agreement(arrays: dict[str, np.ndarray]) -> float | None:
    """The least `view_agreement` of the first moment's views with the first camera."""
    if not {'depth', 'K', 'T_base_camera'} <= set(arrays) or len(arrays['rgb']) < 2:
        return None
    views = [RgbdFrame(arrays['rgb'][c, 0], decode_depth(arrays['depth'][c, 0]), arrays['K'][c])
             for c in range(len(arrays['rgb']))]
    T_ref_base = invert(arrays['T_base_camera'][0])
    shares = [view_agreement(views[0], view, T_ref_base @ T)
              for view, T in zip(views[1:], arrays['T_base_camera'][1:], strict=True)]
    known = [share for share in shares if share is not None]
    return min(known) if known else None


def _gripper_off(arrays: dict[str, np.ndarray]) -> float | None:
    """How far the projected tool centre point lies from the nearest gripper pixel, over the width; median."""
    if not {'labels', 'K', 'T_base_camera', 'T_base_gripper'} <= set(arrays):
        return None
    off = []
    for c, T_base_camera in enumerate(arrays['T_base_camera']):
        points = transform_points(invert(T_base_camera), arrays['T_base_gripper'][:, :3, 3])
        pixels, depth = project(points, arrays['K'][c])
        height, width = arrays['labels'].shape[2:]
        for t, (u, v) in enumerate(pixels):
            rows, columns = np.nonzero(np.isin(arrays['labels'][c, t], _GRIPPER_LABELS))
            if depth[t] > 0 and 0 <= u < width and 0 <= v < height and len(rows):
                off.append(float(np.hypot(columns - u, rows - v).min()) / width)
    return float(np.median(off)) if off else None
