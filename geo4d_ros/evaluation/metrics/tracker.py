"""Pose errors of tracks: ADD, ADD-S, their area under the curve, failures, and how honest the confidence is."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from geo4d_ros.errors import require
from geo4d_ros.geometry.transforms import rotation_angle, transform_points, translation_distance

FAILURE_M, FAILURE_RAD = 0.03, np.radians(15)
AUC_LIMIT_M = 0.10


def add_distance(T: np.ndarray, T_true: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Mean distance (n,) [m] of model points (k, 3) between pose stacks (n, 4, 4) (Hinterstoisser 2012)."""
    return np.array([np.linalg.norm(transform_points(a, points) - transform_points(b, points), axis=1).mean()
                     for a, b in zip(T, T_true, strict=True)])


def adds_distance(T: np.ndarray, T_true: np.ndarray, points: np.ndarray) -> np.ndarray:
    """As `add_distance`, each true point to the nearest tracked one: blind to symmetry (Xiang 2018)."""
    return np.array([cKDTree(transform_points(a, points)).query(transform_points(b, points))[0].mean()
                     for a, b in zip(T, T_true, strict=True)])


def auc(distances: np.ndarray, limit: float = AUC_LIMIT_M) -> float:
    """Area [0, 100] under the accuracy-threshold curve up to `limit` [m], exact for the empirical distribution."""
    require(len(distances) > 0, 'no distances to integrate')
    return float(100 * np.clip(1 - np.asarray(distances) / limit, 0, 1).mean())


def failed(T: np.ndarray, T_true: np.ndarray) -> np.ndarray:
    """Whether poses (n, 4, 4) are off by more than 3 cm or 15 deg, (n,) bool."""
    return (translation_distance(T, T_true) > FAILURE_M) | (rotation_angle(T, T_true) > FAILURE_RAD)


def auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """Chance that a positive scores above a negative, ties count half; None when one kind is missing."""
    from scipy.stats import rankdata

    positive = np.asarray(positive, bool)
    n, m = int(positive.sum()), int((~positive).sum())
    if n == 0 or m == 0:
        return None
    ranks = rankdata(score)
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))
