"""Holes in a view's depth, filled with what another view sees there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geo4d_ros.geometry.cameras import project, unproject
from geo4d_ros.geometry.transforms import transform_points
from geo4d_ros.types import RgbdFrame

TOLERANCE = 0.03  # of the depth: so much nearer or farther than all around it a filling may be


def fill_holes(view: RgbdFrame, other: RgbdFrame, T_view_other: np.ndarray) -> tuple[RgbdFrame, int]:
    """The view with depth where it had none and `other`, placed by T_view_other (4, 4), sees a surface; the count.

    The nearest point counts at each pixel, and only one whose depth lies within what is measured around the hole: the
    other view may see, past its edge, what this one cannot. Measured depth is never changed.
    """
    from scipy import ndimage

    height, width = view.depth.shape
    points = unproject(other.depth, other.K)[other.depth > 0].astype(np.float64)
    pixels, depth = project(transform_points(T_view_other, points), view.K)
    front = depth > 1e-3
    u, v = np.rint(pixels[front]).astype(np.int64).T
    inside = np.flatnonzero((u >= 0) & (u < width) & (v >= 0) & (v < height))
    order = inside[np.argsort(-depth[front][inside])]  # the nearest is written last
    seen = np.full((height, width), np.inf, np.float32)
    seen[v[order], u[order]] = depth[front][order]

    valid = view.depth > 0
    hole, count = ndimage.label(~valid)
    rim = np.where(valid, ndimage.maximum_filter(hole, 3), 0)  # pixels beside a hole, by its number
    numbers = np.arange(1, count + 1)
    near = np.append(np.inf, ndimage.minimum(view.depth, rim, numbers))[hole]
    far = np.append(0.0, ndimage.maximum(view.depth, rim, numbers))[hole]
    fill = ~valid & (seen >= near * (1 - TOLERANCE)) & (seen <= far * (1 + TOLERANCE))
    return replace(view, depth=np.where(fill, seen, view.depth).astype(np.float32)), int(fill.sum())
