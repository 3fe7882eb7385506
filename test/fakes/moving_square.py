"""A made-up recording without any simulator: a near square (the gripper) moves over a wall of constant depth."""

from __future__ import annotations

import numpy as np

from geo4d_ros.evaluation.simulated_truth import Recording
from geo4d_ros.geometry.cameras import intrinsics, look_at

HEIGHT, WIDTH = 24, 32


def moving_square(frames: int = 4, step: int = 3) -> Recording:
    """`frames` + 1 moments of two cameras; the square moves right by `step` px a frame."""
    K = np.tile(intrinsics(34.0, WIDTH, HEIGHT), (2, 1, 1))
    cameras = np.stack([look_at(np.array([0.9, y, 0.6]), np.array([0.4, 0, 0.1])) for y in (0.1, -0.3)])
    rgb = np.full((2, frames + 1, HEIGHT, WIDTH, 3), 90, np.uint8)
    depth = np.full((2, frames + 1, HEIGHT, WIDTH), 1.0, np.float32)
    labels = np.zeros((2, frames + 1, HEIGHT, WIDTH), np.uint8)
    T_base_gripper = np.tile(np.diag([1.0, -1, -1, 1]), (frames + 1, 1, 1))
    for t in range(frames + 1):
        columns = slice(4 + step * t, 10 + step * t)
        rgb[:, t, 8:14, columns] = 220
        depth[:, t, 8:14, columns] = 0.7
        labels[:, t, 8:14, columns] = 2
        T_base_gripper[t, 0, 3] = 0.4 + 0.02 * t
    stamps = np.arange(frames + 1, dtype=np.int64) * 500_000_000
    return Recording(rgb, depth, labels, K, cameras, T_base_gripper, np.full(frames + 1, 0.08),
                     np.zeros((frames + 1, 7, 3)), stamps)
