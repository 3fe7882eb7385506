"""What the gripper holds, as a box: read off the points of frame 0 around the closed fingers."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from geo4d_ros.motion.collision import HeldBox

_SLAB = 0.015  # m: what is between the fingers is looked for so far around the tool centre point
_LINK = 0.012  # m: points no farther from one that belongs to the object belong to it too
_FARTHEST = 0.3  # m from the tool centre point: nothing that a small gripper carries is larger
_FEWEST = 20  # points; fewer are noise
_TRIMMED = 1.0  # percent of the points left out at either end of each axis: flying pixels


def held_box(points: np.ndarray, opening: float) -> HeldBox | None:
    """A box around the object between the fingers, from points (N, 3) [m] in the tool frame, the robot's left out.

    The tool frame has the fingers' way along y and the approach along z. opening [m]: measured; the object is as
    wide there. Points that hang together with those between the fingers, ring by ring, are the object's; what it
    stands on hangs together with it too, so this is for an object that is lifted. None: nothing is seen there.
    """
    points = points[np.isfinite(points).all(axis=1)]
    points = points[np.linalg.norm(points, axis=1) < _FARTHEST]
    between = (np.abs(points[:, 1]) <= opening / 2 + 0.005) & (np.abs(points[:, 2]) <= _SLAB) \
        & (np.abs(points[:, 0]) <= _SLAB)
    if between.sum() < _FEWEST:
        return None
    own = points[_connected(points, between)]
    low, high = np.percentile(own, [_TRIMMED, 100 - _TRIMMED], axis=0)
    low[1], high[1] = min(low[1], -opening / 2), max(high[1], opening / 2)
    centre, size = (low + high) / 2, np.maximum(high - low, 0.002)
    return HeldBox(*(tuple(float(v) for v in values) for values in (centre, size)))  # type: ignore[arg-type]


def _connected(points: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Which of the points (N, 3) are joined to the seeds (N,) by steps of at most _LINK."""
    tree, own, edge = cKDTree(points), seeds.copy(), np.flatnonzero(seeds)
    while len(edge):
        near = np.unique(np.concatenate([np.asarray(ids, int) for ids in tree.query_ball_point(points[edge], _LINK)]))
        edge = near[~own[near]]
        own[edge] = True
    return own
