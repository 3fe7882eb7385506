"""Geometry of predicted frames: relative depth error, inlier share and 3D error of pointmaps."""

from __future__ import annotations

import numpy as np

from geo4d_ros.errors import require

MOVED_POINT_M = 0.015
MOVED_COLOUR = 20


def moved_mask(rgb: np.ndarray, points: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Pixels of a true clip that differ from its frame 0, (T+1, H, W) bool; frame 0 is all False.

    rgb (T+1, H, W, 3) uint8; points (T+1, H, W, 3) [m]; valid (T+1, H, W). A pixel moved when its
    point went more than `MOVED_POINT_M`, its validity changed, or a channel changed by more than
    `MOVED_COLOUR`.
    """
    both = valid & valid[:1]
    moved = both & (np.linalg.norm(points - points[:1], axis=-1) > MOVED_POINT_M)
    moved |= valid != valid[:1]
    return moved | (np.abs(rgb.astype(np.int16) - rgb[:1].astype(np.int16)).max(axis=-1) > MOVED_COLOUR)


def abs_rel(predicted: np.ndarray, true: np.ndarray, mask: np.ndarray) -> float:
    """Mean |d - d*| / d* over `mask`, d* > 0 [m]; NaN if nothing is in the mask (Eigen et al. 2014)."""
    d, d_true = _masked(predicted, true, mask)
    return float((np.abs(d - d_true) / d_true).mean()) if d.size else float('nan')


def delta1(predicted: np.ndarray, true: np.ndarray, mask: np.ndarray) -> float:
    """Share of `mask` with max(d/d*, d*/d) < 1.25; depth <= 0 counts as wrong."""
    d, d_true = _masked(predicted, true, mask)
    if not d.size:
        return float('nan')
    ratio = np.maximum(d / d_true, d_true / np.maximum(d, 1e-9))
    return float((ratio < 1.25).mean())


def _masked(predicted: np.ndarray, true: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    require(predicted.shape == true.shape == mask.shape,
            f'depths and mask should have one shape but got {predicted.shape}, {true.shape}, {mask.shape}')
    mask = mask & (true > 0)
    return predicted[mask].astype(np.float64), true[mask].astype(np.float64)


def error_3d_cm(predicted: np.ndarray, true: np.ndarray, mask: np.ndarray) -> float:
    """Mean distance [cm] of (..., 3) points [m] over `mask` (...) bool; NaN if that is empty."""
    require(predicted.shape == true.shape and mask.shape == true.shape[:-1],
            f'points and mask do not match: {predicted.shape}, {true.shape}, {mask.shape}')
    distance = np.linalg.norm(predicted[mask].astype(np.float64) - true[mask], axis=-1)
    return float(100 * distance.mean()) if distance.size else float('nan')
