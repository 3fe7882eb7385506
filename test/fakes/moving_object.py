"""A made-up clip without any simulator: one camera, a red plate that a white gripper carries over a striped wall."""

from __future__ import annotations

import numpy as np

from geo4d_ros.evaluation.metrics.regions import episode_colours
from geo4d_ros.evaluation.simulated_truth import Recording, TruthClip, clip_of
from geo4d_ros.geometry.cameras import intrinsics

HEIGHT, WIDTH, FOCAL, NEAR, FAR = 48, 64, 60.0, 0.6, 1.2
STEP = 2  # px a frame to the right


def moving_object(frames: int = 10) -> TruthClip:
    """`frames` + 1 moments; hand above object, both shift by STEP px, which is STEP / FOCAL * NEAR metres."""
    K = intrinsics(FOCAL, WIDTH, HEIGHT)[None]
    n = frames + 1
    rgb = np.full((1, n, HEIGHT, WIDTH, 3), 70, np.uint8)
    rgb[..., ::6, :, 1] = 110
    rgb[..., :, ::9, 2] = 130
    depth = np.full((1, n, HEIGHT, WIDTH), FAR, np.float32)
    labels = np.zeros((1, n, HEIGHT, WIDTH), np.uint8)
    T = np.tile(np.eye(4), (n, 1, 1))
    T[:, :3, 3] = [0.0, 0.0, NEAR]
    T[:, 0, 3] += STEP / FOCAL * NEAR * np.arange(n)
    for t in range(n):
        columns = slice(12 + STEP * t, 24 + STEP * t)
        for rows, colour, label in ((slice(12, 22), (230, 230, 230), 2), (slice(22, 34), (200, 40, 30), 5)):
            rgb[:, t, rows, columns] = colour
            depth[:, t, rows, columns] = NEAR
            labels[:, t, rows, columns] = label
        rgb[:, t, 14:20, columns.start + 4:columns.start + 6] = 160
    stamps = np.arange(n, dtype=np.int64) * 500_000_000
    recording = Recording(rgb, depth, labels, K, np.eye(4)[None], T, np.full(n, 0.04), np.zeros((n, 7, 3)), stamps,
                          T.copy())
    return clip_of(recording, 'apple', 1, colours=episode_colours(rgb, labels))
