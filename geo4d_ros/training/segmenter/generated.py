"""Frames painted by a generator along the true path of the gripper, so that the true labels hold for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from geo4d_ros.data.episodes import DEPTH_UNIT_M, Episode, list_episodes, open_or_warn
from geo4d_ros.data.windows import HORIZON, STRIDE, Window, cut_window
from geo4d_ros.errors import CheckpointError, DatasetError, require
from geo4d_ros.geometry.transforms import invert, transform_points
from geo4d_ros.robots.gripper import gripper_of
from geo4d_ros.robots.inverse_kinematics import shared_kinematics
from geo4d_ros.tracking.segmentation.landmarks import project_landmarks
from geo4d_ros.training.segmenter.train import Samples, known_labels
from geo4d_ros.types import Observation, RgbdFrame, Video4D

FRAMES_KEPT = 6  # of the 10 of a prediction


def generated_samples(directory: Path, generator: Any, predictions: int, seed: int = 0) -> Samples:
    """One prediction each for `predictions` episodes spread over a folder, two cameras, some frames of each.

    What a generator predicts differs from what happened, so that no label fits its frames. Painted along the true
    path (the state stream replaced by the truth) the gripper is where the labels have it, with the generator's
    own blur and ghosts. Raises DatasetError without episodes, CheckpointError for a generator without a state stream.
    """
    rng = np.random.default_rng(seed)
    paths = list_episodes(directory)
    require(len(paths) > 0, f'{directory} has no readable episode; collect some: geo4d collect', DatasetError)
    rgb, depth, labels, landmarks, clip = [], [], [], [], []
    gripper = gripper_of()
    for i in np.linspace(0, len(paths) - 1, predictions).astype(int):
        episode = open_or_warn(paths[i])
        if episode is None:
            continue
        window = _window(episode, rng)
        video = paint_along(generator, window)
        steps = np.sort(rng.choice(np.arange(1, HORIZON + 1), FRAMES_KEPT, replace=False))
        for view in range(video.views):
            z = np.stack([video.depth(view, int(t)) for t in steps])
            rgb.append(video.rgb[view, steps])
            depth.append(np.rint(np.clip(z, 0, 6.5) / DEPTH_UNIT_M).astype(np.uint16))
            labels.append(known_labels(window['labels'][view, steps]))
            landmarks.append(project_landmarks(
                gripper, invert(window['T_ref_view'][view]) @ window['T_ref_gripper'][steps],
                window['opening'][steps], window['K'][view]))
            clip.append(np.full(len(steps), len(clip)))
    return Samples(*(np.concatenate(part) for part in (rgb, depth, labels, landmarks, clip)))


def joined(a: Samples, b: Samples) -> Samples:
    """Both sets; clips stay apart."""
    return Samples(np.concatenate([a.rgb, b.rgb]), np.concatenate([a.depth, b.depth]),
                   np.concatenate([a.labels, b.labels]),
                   np.concatenate([a.landmarks, b.landmarks]), np.concatenate([a.clip, b.clip + a.clip.max() + 1]))


def _window(episode: Episode, rng: np.random.Generator) -> Window:
    arrays = episode.load()
    views = tuple(rng.choice(episode.cameras, min(2, episode.cameras), replace=False).tolist())
    start = int(rng.integers(max(1, episode.frames - STRIDE * HORIZON // 2)))
    return {**cut_window(arrays, start, views, np.arange(1, HORIZON + 1)), 'robot': episode.robot}


def paint_along(generator: Any, window: Window) -> Video4D:
    """The video that a two-view generator paints when its path is the true one of a `windows.cut_window`."""
    network = getattr(generator, 'network', None)
    require(hasattr(network, 'state_head'), f'{getattr(generator, "name", "the generator")} has no state stream to '
            'put the true path in; pass --generator none', CheckpointError)
    T = window['T_ref_gripper']
    kept, network.state_head = network.state_head, _given_path(invert(T[0]) @ T[1:], window['opening'][1:])
    frames = tuple(RgbdFrame(rgb[0], depth[0], K)
                   for rgb, depth, K in zip(window['rgb'], window['depth'], window['K'], strict=True))
    try:
        arm = transform_points(invert(window['T_base_ref']),
                               shared_kinematics(window.get('robot')).arm_points(window['joints'][0]))
        return generator.predict(Observation(frames, T[0], float(window['opening'][0]), arm_points=arm))
    finally:
        network.state_head = kept


def _given_path(poses: np.ndarray, openings: np.ndarray) -> Any:
    """A state head that knows: poses (T, 4, 4) in the first gripper frame, openings (T,) [m]."""
    import torch

    class GivenPath(torch.nn.Module):
        def forward(self, scene: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
            like = scene.features
            return [(torch.as_tensor(poses, dtype=like.dtype, device=like.device)[None],
                     torch.as_tensor(openings, dtype=like.dtype, device=like.device)[None])]

    return GivenPath()
