"""Sequences a tracker is measured on: the simulated expert seen by held-out cameras, clean or damaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from geo4d_ros.data.episodes import Episode, decode_depth, list_episodes, open_or_warn
from geo4d_ros.errors import DatasetError, require
from geo4d_ros.evaluation.simulated_truth import Recording, TruthClip, clip_of
from geo4d_ros.geometry.transforms import from_rotvec, invert, transform_points
from geo4d_ros.tracking.clip import Chunk, Masks
from geo4d_ros.tracking.segmentation.masks import MaskSource
from geo4d_ros.types import Video4D

STRIDE, FRAMES = 2, 10  # 4 Hz episodes -> 2 Hz, 10 predicted frames
NOISE_SCALES_PX = (6.0, 1.2)  # of a 128 px wide image
NOISE_MEMORY = 0.7


@dataclass(frozen=True)
class Damage:
    """depth: relative error (0.02 = 2 %); mask: 1 = edge blur of 0.7 px and 15 % noise, as a generator's edges."""

    depth: float = 0.0
    mask: float = 0.0


def record_sequences(directory: Path, seed_start: int, seeds: int, tasks: tuple[str, ...], size: tuple[int, int],
                     jobs: int) -> None:
    """Record the expert's episodes with two held-out cameras into `directory`; those there already are kept."""
    from geo4d_ros.data import collect

    recording = collect.Recording(str(directory), cameras=2, split='held-out', height=size[0], width=size[1])
    directory.mkdir(parents=True, exist_ok=True)
    for _ in collect.collect(recording, collect.interleave(tasks, seed_start, seeds), jobs):
        pass


def load_sequences(directory: Path, per_episode: int, seed: int = 0) -> Iterator[TruthClip]:
    """`per_episode` clips of every episode, their starts spread over all phases of the task."""
    found = False
    for path in list_episodes(directory):
        episode = open_or_warn(path)
        if episode is None:
            continue
        found = True
        yield from _clips(episode, per_episode, np.random.default_rng([seed, episode.seed]))
    require(found, f'{directory} has no readable episode', DatasetError)


def _clips(episode: Episode, count: int, rng: np.random.Generator) -> Iterator[TruthClip]:
    from geo4d_ros.robots.inverse_kinematics import shared_kinematics

    recording = Recording(
        episode.read('rgb')[:2], decode_depth(episode.read('depth')[:2]), episode.read('labels')[:2],
        episode.read('K')[:2], episode.read('T_base_camera')[:2], episode.read('T_base_gripper'),
        episode.read('opening'), shared_kinematics(episode.robot).arm_points(episode.read('joints')),
        np.rint(episode.read('times') * 1e9).astype(np.int64))
    latest = max(1, len(recording) - STRIDE * FRAMES)
    edges = np.linspace(0, latest, count + 1).astype(int)
    for low, high in pairwise(edges):
        start = int(rng.integers(low, max(low + 1, high)))
        clip = clip_of(recording.window(start, FRAMES, STRIDE), episode.task, episode.seed)
        yield replace(clip, video=replace(clip.video, gripper_mask=None))


def correlated_noise(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Unit-variance noise (V, T, H, W): patches of 6 and 1.2 px at 128 px width, correlated 0.7 in time."""
    noise = np.zeros(shape, np.float32)
    for view in range(shape[0]):
        for t in range(shape[1]):
            fresh = np.zeros(shape[2:])
            for scale, weight in zip(NOISE_SCALES_PX, (0.89, 0.45), strict=True):
                field = gaussian_filter(rng.standard_normal(shape[2:]), scale * shape[3] / 128)
                fresh += weight * field / field.std()
            noise[view, t] = fresh if t == 0 else (NOISE_MEMORY * noise[view, t - 1]
                                                   + np.sqrt(1 - NOISE_MEMORY**2) * fresh)
    return noise


def damage_video(video: Video4D, damage: Damage, rng: np.random.Generator) -> Video4D:
    """Predicted frames with correlated depth error and, with `mask`, blurred edges; frame 0 is the observation."""
    rgb, points = video.rgb.copy(), video.points.copy()
    # E|n| of a unit normal is 0.8: scaled so that the mean relative error is `depth`.
    factor = 1 + damage.depth / 0.8 * correlated_noise(rng, video.rgb.shape[:4])
    for view in range(video.views):
        origin = video.T_ref_view[view, :3, 3].astype(np.float32)
        for t in range(1, video.frames):
            rays = points[view, t] - origin
            scale = factor[view, t][..., None]
            points[view, t] = origin + rays * scale
            if damage.mask:
                sigma = 0.7 * min(damage.mask, 2) * video.rgb.shape[3] / 128
                rgb[view, t] = np.clip(gaussian_filter(rgb[view, t].astype(np.float32), (sigma, sigma, 0))
                                       + rng.normal(0, 4 * damage.mask, rgb[view, t].shape), 0, 255).astype(np.uint8)
    return replace(video, rgb=rgb, points=points)


class DegradedMasks:
    """A mask source whose predicted frames are disturbed by blobs of noise: a worse segmenter."""

    def __init__(self, source: MaskSource, strength: float, seed: int) -> None:
        self._source, self._strength, self._seed = source, strength, seed

    def __call__(self, chunk: Chunk, T_ref_gripper: np.ndarray, opening: float) -> Masks:
        """The source's masks plus `strength` x 0.15 of correlated noise; beyond 1 also whole blobs."""
        masks = self._source(chunk, T_ref_gripper, opening)
        rng = np.random.default_rng(self._seed)

        def disturb(p: np.ndarray | None) -> np.ndarray | None:
            if p is None:
                return None
            out = p.copy()
            for view in range(p.shape[0]):
                for t in range(1, p.shape[1]):
                    noise = gaussian_filter(rng.standard_normal(p.shape[2:]), 1.2 * p.shape[3] / 128)
                    edge = gaussian_filter(p[view, t], 0.7)
                    out[view, t] = np.clip(edge + 0.15 * self._strength * noise / noise.std(), 0, 1)
            return out.astype(np.float32)

        return Masks(disturb(masks.gripper), masks.source, disturb(masks.fingers), masks.occluder,
                     masks.fixture, self._disturbed_landmarks(masks.landmarks, rng))

    def _disturbed_landmarks(self, maps: np.ndarray | None, rng: np.random.Generator) -> np.ndarray | None:
        """As the masks: blurred, and noise of `strength` x 0.15 of what each cell holds."""
        if maps is None:
            return None
        out = maps.copy()
        for index in np.ndindex(maps.shape[0], maps.shape[1], maps.shape[2]):
            if index[1] == 0:
                continue
            # Two image pixels per cell: the masks' scales halved.
            noise = gaussian_filter(rng.standard_normal(maps.shape[3:]), 0.6 * maps.shape[4] / 64)
            blurred = gaussian_filter(maps[index], 0.35)
            noisy = np.maximum(blurred * (1 + 0.15 * self._strength * noise / noise.std()), 0)
            out[index] = noisy * min(maps[index].sum() / max(noisy.sum(), 1e-9), 1.0)
        return out.astype(np.float32)


def shift_second_view(video: Video4D, rng: np.random.Generator, angle_rad: float, distance_m: float) -> Video4D:
    """The video as a wrong calibration of the second view would give it: its camera and all its points moved."""
    axis, direction = rng.standard_normal((2, 3))
    T = video.T_ref_view.copy()
    turn = from_rotvec(axis / np.linalg.norm(axis) * angle_rad, direction / np.linalg.norm(direction) * distance_m)
    T[1] = T[1] @ turn
    points = video.points.copy()
    points[1] = transform_points(T[1] @ invert(video.T_ref_view[1]), points[1])
    return replace(video, points=points, T_ref_view=T)
