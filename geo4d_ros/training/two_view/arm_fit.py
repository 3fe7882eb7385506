"""Fits the arm head to the joint angles of the recorded episodes alone: no images, half a minute of one core."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from tqdm import tqdm

from geo4d_ros.data.episodes import list_episodes, open_or_warn
from geo4d_ros.data.windows import HORIZON, STRIDE
from geo4d_ros.errors import DatasetError, require
from geo4d_ros.generation.two_view.arm import ArmHead
from geo4d_ros.geometry.transforms import invert
from geo4d_ros.robots.inverse_kinematics import shared_kinematics
from geo4d_ros.training.budget import CLOCKS

EVERY = 4  # episode frames between two observations
BATCH, LR = 256, 2e-3


def pairs(data: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Per episode: joints now (P, J, 3), gripper poses later (P, 4, 4), joints later (P, J, 3), in the gripper's
    frame now [m]; later is up to the predicted horizon.
    """
    for path in list_episodes(data):
        episode = open_or_warn(path)
        if episode is None:
            continue
        arm, T = shared_kinematics(episode.robot).arm_points(episode.read('joints')), episode.read('T_base_gripper')
        now = np.arange(0, len(T), EVERY)
        later = np.minimum(now[:, None] + STRIDE * np.arange(1, HORIZON + 1, 3), len(T) - 1)
        first = np.repeat(now, later.shape[1])
        T_g0_base = invert(T[first])
        in_g0 = lambda p, T=T_g0_base: p @ np.swapaxes(T[:, :3, :3], 1, 2) + T[:, None, :3, 3]  # noqa: E731
        yield in_g0(arm[first]), T_g0_base @ T[later.ravel()], in_g0(arm[later.ravel()])


def one_cycle(done: float) -> float:
    """Share of the highest learning rate when that share of the training is over: up for 30 %, then down to nothing."""
    if done < 0.3:
        return 0.04 + 0.48 * (1 - math.cos(math.pi * done / 0.3))
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - 0.3) / 0.7)))


def fit_arm_head(head: ArmHead, data: str, steps: int, seed: int = 0, seconds: float = math.inf,
                 clock: str = 'wall') -> float:
    """Train `head` in place for `steps` >= 1, or `seconds` of `budget.CLOCKS[clock]` where that is less; returns the
    mean error of the last step's joints [m].

    The learning rate follows whichever comes first. Raises DatasetError without episodes.
    """
    found = list(pairs(data))
    require(bool(found), f'{data} has no readable episode; collect some: geo4d collect', DatasetError)
    joints0, poses, joints = (torch.from_numpy(np.concatenate(part)).float() for part in zip(*found, strict=True))
    optimizer = torch.optim.AdamW(head.parameters(), LR)
    generator = torch.Generator().manual_seed(seed)
    started = CLOCKS[clock]()
    for step in tqdm(range(steps), desc='fitting the arm head'):
        done = max(step / steps, (CLOCKS[clock]() - started) / seconds)
        if done >= 1 and step:
            break
        optimizer.param_groups[0]['lr'] = LR * one_cycle(done)
        rows = torch.randint(len(joints), (BATCH,), generator=generator)
        squared = (head(poses[rows, None], joints0[rows])[:, 0] - joints[rows]).square().sum(-1)
        optimizer.zero_grad()
        (squared + 0.01**2).sqrt().mean().backward()
        optimizer.step()
    return float(squared.detach().sqrt().mean())
