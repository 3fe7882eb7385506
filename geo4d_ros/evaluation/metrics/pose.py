"""Gripper errors per horizon step: centroid of the predicted gripper pixels, and the read-out pose."""

from __future__ import annotations

import numpy as np

from geo4d_ros.errors import require
from geo4d_ros.geometry.transforms import rotation_angle, translation_distance

MIN_GRIPPER_PIXELS = 8


def centroid_error_cm(mask: np.ndarray, points: np.ndarray, true_mask: np.ndarray,
                      true_points: np.ndarray) -> np.ndarray:
    """Distance [cm] of the median gripper points per frame, (T,) float64.

    Masks (T, H, W) bool, points (T, H, W, 3) [m] in one frame. NaN where truth shows fewer than
    `MIN_GRIPPER_PIXELS`; infinite where truth shows the gripper and the prediction does not.
    """
    require(mask.shape == true_mask.shape and points.shape == true_points.shape,
            f'masks and points differ: {mask.shape}, {true_mask.shape}, {points.shape}, {true_points.shape}')
    errors = np.full(len(mask), np.nan)
    for t, (m, p, m_true, p_true) in enumerate(zip(mask, points, true_mask, true_points, strict=True)):
        if m_true.sum() < MIN_GRIPPER_PIXELS:
            continue
        errors[t] = np.inf
        if m.sum() >= MIN_GRIPPER_PIXELS:
            errors[t] = 100 * np.linalg.norm(np.median(p[m], axis=0) - np.median(p_true[m_true], axis=0))
    return errors


def pose_errors(T_ref_gripper: np.ndarray, T_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position [cm] and rotation [deg] errors (T,) of (T, 4, 4) poses."""
    rotation = np.degrees(rotation_angle(T_ref_gripper, T_true))
    return 100 * translation_distance(T_ref_gripper, T_true), rotation


def path_distance(points: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Distance (N,) [m] of (N, 3) points to the polyline `path` (M >= 1, 3): error of place, not timing."""
    require(len(path) >= 1, 'a path needs at least one point')
    if len(path) == 1:
        return np.linalg.norm(points - path[0], axis=1)
    start, step = path[:-1], np.diff(path, axis=0)
    length2 = np.maximum((step**2).sum(1), 1e-18)
    s = np.clip(((points[:, None] - start) * step).sum(-1) / length2, 0, 1)
    return np.linalg.norm(points[:, None] - (start + s[..., None] * step), axis=-1).min(axis=1)
