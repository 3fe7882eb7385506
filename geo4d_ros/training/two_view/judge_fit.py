"""Fits the judge beside a two-view network: features of training views, and of objects before and after the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from geo4d_ros.data.episodes import Episode, decode_depth, list_episodes, open_or_warn
from geo4d_ros.errors import DatasetError, require
from geo4d_ros.generation.two_view.judge import SceneJudge, object_feature
from geo4d_ros.generation.two_view.network import TwoViewNetwork
from geo4d_ros.generation.two_view.predictor import observation_tensors
from geo4d_ros.geometry.transforms import invert, transform_points
from geo4d_ros.robots.inverse_kinematics import shared_kinematics
from geo4d_ros.types import Observation, RgbdFrame

OBJECT = 5
MOVED_M = 0.01
OPEN_M = 0.07


def fit_judge(network: TwoViewNetwork, directory: Path, frames: int = 3, limit: int | None = None) -> SceneJudge:
    """From `frames` moments before the object is first moved, after it is let go of, and twice as many at any time, of
    every episode (two cameras): familiar is the arm wherever training shows it.

    Raises DatasetError when there are too few episodes to fit anything.
    """
    from tqdm import tqdm

    views, episodes, objects, done = [], [], [], []
    rng = np.random.default_rng(0)
    for number, path in enumerate(tqdm(list_episodes(directory, limit), unit='episode')):
        episode = open_or_warn(path)
        if episode is None or episode.cameras < 2 or not episode.attributes['success']:
            continue
        for index, finished in moments(episode, frames, rng):
            features, mask = encoded(network, episode, index, rng)
            views.append(features.mean(axis=(2, 3)))
            episodes.append(number)
            middle = object_feature(features, mask)
            if middle is not None and finished is not None:
                objects.append(middle)
                done.append(finished)
    require(len(objects) >= 40 and 10 <= sum(done) <= len(done) - 10,
            f'{directory} gives {len(objects)} views of objects, {sum(done)} of them done; collect more episodes',
            DatasetError)
    return SceneJudge.fit(np.stack(views), np.array(episodes), np.stack(objects), np.array(done))


def moments(episode: Episode, frames: int, rng: np.random.Generator) -> list[tuple[int, bool | None]]:
    """Frame indices: before the object is first moved (False), at rest at its end, let go (True), anywhere (None)."""
    position, opening = episode.read('object_pose')[:, :3, 3], episode.read('opening')
    target = episode.attributes.get('target', 'present')
    away, left = (np.linalg.norm(position - position[i], axis=1) > MOVED_M for i in (0, -1))
    before = np.flatnonzero(np.cumsum(away) == 0) if target == 'present' else np.zeros(0, int)
    after = np.flatnonzero((np.cumsum(left[::-1])[::-1] == 0) & (opening > OPEN_M))
    after = after if target != 'absent' else np.zeros(0, int)
    chosen: list[tuple[int, bool | None]] = []
    for part, finished, count in ((before, False, frames), (after, True, frames),
                                  (np.arange(episode.frames), None, 2 * frames)):
        if len(part):
            chosen += [(int(i), finished) for i in rng.choice(part, min(count, len(part)), replace=False)]
    return chosen


def encoded(network: TwoViewNetwork, episode: Episode, index: int, rng: np.random.Generator
            ) -> tuple[np.ndarray, np.ndarray]:
    """Features (2, C, h, w) and true object mask (2, H, W) of a moment, from two cameras drawn by rng."""
    cameras = rng.choice(episode.cameras, 2, replace=False)
    T_base_camera = episode.read('T_base_camera')[cameras]
    T_ref_base = invert(T_base_camera[0])
    K = episode.read('K')
    frames = [RgbdFrame(episode.read('rgb', int(c))[index], decode_depth(episode.read('depth', int(c))[index]), K[c])
              for c in cameras]
    arm = shared_kinematics(episode.robot).arm_points(episode.read('joints')[index:index + 1])[0]
    observation = Observation(tuple(frames), T_ref_base @ episode.read('T_base_gripper')[index],
                              float(episode.read('opening')[index]), arm_points=transform_points(T_ref_base, arm))
    batch = observation_tensors(frames, T_ref_base @ T_base_camera, np.ones(2, bool), observation)
    with torch.inference_mode():
        scene = network.encode(batch['rgb0'], batch['points'], batch['valid'], batch['T_g0_view'], batch['opening0'],
                               batch['seen'])
    mask = np.stack([episode.read('labels', int(c))[index] == OBJECT for c in cameras])
    return scene.features[0].numpy(), mask
