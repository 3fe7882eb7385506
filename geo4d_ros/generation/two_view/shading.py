"""Colours of the robot's surface: a smooth function of the normal per group of links, fitted to frame 0."""

from __future__ import annotations

import numpy as np

RIDGE = 2.0
LEAST_PIXELS = 8


def features(normals: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(..., 11): second-order harmonics of the normal (..., 3) in the base frame and its angle to the eye.

    directions (..., 3): from the camera to the point, any length, in the base frame.
    """
    towards = -(normals * directions).sum(-1, keepdims=True) / np.linalg.norm(directions, axis=-1, keepdims=True)
    x, y, z = normals[..., :1], normals[..., 1:2], normals[..., 2:]
    return np.concatenate([np.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1,
                           towards, towards**2], -1)


def fit(values: np.ndarray, colours: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Coefficients (count, 11, 3) by ridge regression; values (N, 11), colours (N, 3) 0..255, groups (N,).

    A group that frame 0 hardly shows takes those of all; without any robot pixel it is a mid grey.
    """
    out = np.zeros((count, values.shape[-1], 3))
    out[:, 0] = 150.0
    ridge = np.diag([1e-3, *[RIDGE] * (values.shape[-1] - 1)])
    for group in range(count):
        use = groups == group
        use = use if use.sum() >= LEAST_PIXELS else np.ones_like(use)
        if use.sum() >= LEAST_PIXELS:
            A = values[use]
            out[group] = np.linalg.solve(A.T @ A + ridge, A.T @ colours[use])
    return out
