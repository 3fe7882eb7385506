"""Do two RGB-D views see the same surfaces when placed by their claimed relative pose?"""

from __future__ import annotations

import numpy as np

from geo4d_ros.geometry.cameras import project, unproject
from geo4d_ros.geometry.resampling import nearest_indices
from geo4d_ros.geometry.transforms import transform_points
from geo4d_ros.types import RgbdFrame

MIN_AGREEMENT = 0.6  # share of the surfaces that two calibrated cameras see in one place; swapped ones fall below
_ROWS, _COLUMNS = 60, 80  # of the grid of points that are compared


def view_agreement(reference: RgbdFrame, second: RgbdFrame, T_ref_second: np.ndarray,
                   tolerance: float = 0.03) -> float | None:
    """Share of the second view's surfaces that the reference sees where they should be.

    Points of the second view, placed by T_ref_second (4, 4), are compared with the reference's depth at the pixel
    they fall on. Agreeing within `tolerance` (a fraction of the depth) counts for, lying in front of what the
    reference sees (in space it sees through) against; what lies behind may be hidden and does not count.
    Between 0 and 1; None when fewer than 50 points can be compared.
    """
    rows, columns = (nearest_indices(size, n) for size, n in zip(second.depth.shape, (_ROWS, _COLUMNS), strict=True))
    grid = np.ix_(rows, columns)
    points = unproject(second.depth, second.K)[grid][second.depth[grid] > 0].astype(np.float64)
    pixels, depth = project(transform_points(T_ref_second, points), reference.K)
    u, v = np.rint(pixels[depth > 0]).astype(np.int64).T
    depth = depth[depth > 0]
    height, width = reference.depth.shape
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    seen = reference.depth[v[inside], u[inside]].astype(np.float64)
    ratio = depth[inside][seen > 0] / seen[seen > 0]
    agreeing = np.count_nonzero(np.abs(ratio - 1) <= tolerance)
    in_the_way = np.count_nonzero(ratio < 1 - tolerance)
    compared = agreeing + in_the_way
    return agreeing / compared if compared >= 50 else None
