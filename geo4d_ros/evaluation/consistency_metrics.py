"""Do the two predicted views show one world: Chamfer distance and the gripper mask carried between views."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_closing
from scipy.spatial import cKDTree

from geo4d_ros.errors import require
from geo4d_ros.geometry.cameras import project
from geo4d_ros.geometry.transforms import invert, transform_points


def chamfer_cm(points_a: np.ndarray, points_b: np.ndarray, limit: int = 2000) -> float:
    """Symmetric Chamfer distance [cm] of two (N, 3) clouds [m]: mean of both mean nearest distances.

    Both are thinned evenly to `limit` points. NaN if one is empty. Two views see different surfaces, so
    the truth's own value is not zero: read it beside that of the truth.
    """
    if len(points_a) == 0 or len(points_b) == 0:
        return float('nan')
    a, b = _thin(points_a, limit), _thin(points_b, limit)
    a_to_b = cKDTree(b).query(a)[0].mean()
    b_to_a = cKDTree(a).query(b)[0].mean()
    return float(100 * (a_to_b + b_to_a) / 2)


def _thin(points: np.ndarray, limit: int) -> np.ndarray:
    index = np.linspace(0, len(points) - 1, min(limit, len(points))).astype(np.int64)
    return points[index].astype(np.float64)


def carry_mask(mask: np.ndarray, points: np.ndarray, K_other: np.ndarray, T_ref_other: np.ndarray,
               shape: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) of the reference view, lifted with its pointmap [m] and drawn in the other view.

    Returns `shape` bool. Points are (H, W, 3) in the reference frame; T_ref_other (4, 4) and K_other are the
    other camera's true calibration. Single-pixel gaps between the drawn points are closed.
    """
    pixels, depth = project(transform_points(invert(T_ref_other), points[mask].astype(np.float64)), K_other)
    u, v = np.rint(pixels[depth > 1e-3]).astype(np.int64).T
    inside = (u >= 0) & (u < shape[1]) & (v >= 0) & (v < shape[0])
    drawn = np.zeros(shape, bool)
    drawn[v[inside], u[inside]] = True
    padded = np.pad(drawn, 2)
    return binary_closing(padded, np.ones((3, 3), bool))[2:-2, 2:-2]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool masks; NaN when both are empty (nothing to compare)."""
    require(a.shape == b.shape, f'masks should have one shape but got {a.shape}, {b.shape}')
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else float('nan')


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of the two masks' bounding boxes (pixels, inclusive); 0 if one is empty, NaN if both are."""
    if not a.any() and not b.any():
        return float('nan')
    if not a.any() or not b.any():
        return 0.0
    boxes = [(*np.argwhere(m).min(0), *(np.argwhere(m).max(0) + 1)) for m in (a, b)]
    (t0, l0, b0, r0), (t1, l1, b1, r1) = boxes
    overlap = max(0, min(b0, b1) - max(t0, t1)) * max(0, min(r0, r1) - max(l0, l1))
    return float(overlap / ((b0 - t0) * (r0 - l0) + (b1 - t1) * (r1 - l1) - overlap))
