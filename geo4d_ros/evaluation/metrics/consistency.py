"""Do the two predicted views show one world: Chamfer distance and the gripper mask carried between views."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_closing, binary_dilation
from scipy.spatial import cKDTree

from geo4d_ros.errors import require
from geo4d_ros.geometry.cameras import project
from geo4d_ros.geometry.transforms import invert, transform_points

HIDDEN_BY_M = 0.02  # a point this far behind the other view's surface is hidden there


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


def covisible_iou(masks: np.ndarray, points: np.ndarray, valid: np.ndarray, K: np.ndarray,
                  T_ref_view: np.ndarray) -> float:
    """IoU of the gripper's masks over what both views can see; NaN when there is nothing of it in either.

    `carry_mask` counts as disagreement whatever only one camera can see: with cameras 60 degrees apart the truth
    itself reaches about a third. Here each view's gripper pixels that are inside the other image and not hidden by
    that view's own points (`HIDDEN_BY_M`) are looked up in the other mask, to one pixel; the two shares found are
    precision P and recall R, and the IoU is P R / (P + R - P R). masks (2, H, W), points (2, H, W, 3) [m] in the
    reference frame, valid (2, H, W), K (2, 3, 3), T_ref_view (2, 4, 4) the true calibration.
    """
    shares = []
    for v in (0, 1):
        o = 1 - v
        found = _found_in(points[v][masks[v] & valid[v]], masks[o], points[o], valid[o], K[o], T_ref_view[o])
        if len(found):
            shares.append(float(found.mean()))
    if not shares or min(shares) == 0:
        return 0.0 if shares else float('nan')
    precision, recall = shares[0], shares[-1]
    return precision * recall / (precision + recall - precision * recall)


def _found_in(points: np.ndarray, mask: np.ndarray, other: np.ndarray, other_valid: np.ndarray, K: np.ndarray,
              T_ref_other: np.ndarray) -> np.ndarray:
    """For each of the points (N, 3) that the other view can see: whether it or a pixel beside it is in the mask."""
    T_other_ref = invert(T_ref_other)
    surface = np.where(other_valid, transform_points(T_other_ref, other.astype(np.float64))[..., 2], np.inf)
    pixels, depth = project(transform_points(T_other_ref, points.astype(np.float64)), K)
    ahead = depth > 1e-3
    (u, v), depth = np.rint(pixels[ahead]).astype(np.int64).T, depth[ahead]
    rows, columns = mask.shape
    inside = (u >= 0) & (u < columns) & (v >= 0) & (v < rows)
    u, v, depth = u[inside], v[inside], depth[inside]
    return binary_dilation(mask, np.ones((3, 3)))[v, u][depth <= surface[v, u] + HIDDEN_BY_M]
