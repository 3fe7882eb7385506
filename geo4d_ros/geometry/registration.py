"""Brings a second RGB-D view into the frame of the first from the two images alone: no camera pose comes in.

Each view is laid on its dominant plane (the table), which leaves yaw and a shift; those are searched over all
their values by Fourier correlation of coloured bird's-eye maps, then polished on a finer map, then all six
degrees of freedom are refined by ICP. The verdict counts how the views agree when projected into each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geo4d_ros.errors import RegistrationError, require
from geo4d_ros.geometry import bird_view as bev
from geo4d_ros.geometry.alignment import Surface, refine
from geo4d_ros.geometry.cameras import project, unproject
from geo4d_ros.geometry.pointmaps import dominant_plane, erode, pointmap_normals
from geo4d_ros.geometry.resampling import resize_frame
from geo4d_ros.geometry.transforms import check_transform, invert, transform_points
from geo4d_ros.types import RgbdFrame

WORKING_HEIGHT = 96  # larger images are reduced to about this before anything else
MAX_DEPTH_M = 2.5  # what is farther is too coarse to help
MIN_INLIERS = 0.88  # right poses of simulated pairs reach 0.95, of different scenes at most 0.83
CLEAR_INLIERS = 0.93  # at or above it no other candidate is tried
_RAISED_M = 0.012
_RAISED_PROBES, _FLAT_PROBES, _FLAT_WEIGHT = 900, 400, 0.3
_GATES_M = (0.03, 0.025, 0.02, 0.02, 0.015, 0.015, 0.012, 0.01, 0.01, 0.01, 0.01)
_CANDIDATES = 4
_MIN_COMMON = 60  # pixels off the plane that both views have to share


@dataclass(frozen=True)
class Registration:
    """T_ref_second (4, 4): the second view's optical frame in the reference's.

    inlier_fraction in [0, 1]: of the pixels off the plane that each view should see of the other, how many lie
    where it sees a surface (the rest contradict its free space); rms_m: depth difference of those that agree.
    """

    T_ref_second: np.ndarray
    rms_m: float
    inlier_fraction: float


@dataclass(frozen=True)
class _View:
    """A prepared frame: its surface for ICP, its map from above, pixels' heights over the plane."""

    frame: RgbdFrame
    surface: Surface
    map: bev.BirdView
    heights: np.ndarray


def register_views(reference: RgbdFrame, second: RgbdFrame, guess: np.ndarray | None = None) -> Registration:
    """The pose of the second view in the reference view's optical frame, from two RGB-D images of one moment.

    Needs a table or floor in both views and things on it that both see. With `guess`, T_ref_second (4, 4) within
    about 3 cm and 3 deg, only the refinement runs. Raises RegistrationError when no plane is found, when the
    views do not fit together, or when two different poses fit them about as well.
    """
    a, b = _prepare(reference), _prepare(second)
    if guess is not None:
        check_transform('guess', guess)
        return _checked(_refined(a, b, guess))
    tried: list[Registration] = []
    for candidate in bev.search(a.map, b.map, _CANDIDATES):
        pose = bev.polish(a.map, b.map, candidate).lift(a.map, b.map)
        tried.append(_refined(a, b, pose))
        if tried[-1].inlier_fraction >= CLEAR_INLIERS:
            break
    return _checked(max(tried, key=lambda r: r.inlier_fraction))


def _prepare(frame: RgbdFrame) -> _View:
    height, width = frame.depth.shape
    if height > 1.5 * WORKING_HEIGHT:
        frame = resize_frame(frame, WORKING_HEIGHT, round(width * WORKING_HEIGHT / height))
    depth = np.where(frame.depth <= MAX_DEPTH_M, frame.depth, 0)
    pointmap = unproject(depth, frame.K).astype(np.float64)
    normals = pointmap_normals(pointmap)
    smooth = np.abs(normals).sum(-1) > 0
    plane = dominant_plane(pointmap[smooth], normals[smooth])
    colours = frame.rgb / 255.0
    valid = depth > 0
    heights = np.where(valid, plane.heights(pointmap), 0)
    raised = heights[smooth] > _RAISED_M
    probes = [_spread(np.flatnonzero(raised), _RAISED_PROBES), _spread(np.flatnonzero(~raised), _FLAT_PROBES)]
    weights = np.concatenate([np.ones(len(probes[0])), np.full(len(probes[1]), _FLAT_WEIGHT)])
    surface = Surface(pointmap[smooth], normals[smooth], colours[smooth], erode(smooth)[smooth],
                      np.concatenate(probes), weights)
    return _View(frame, surface, bev.bird_view(pointmap[valid], colours[valid], plane), heights)


def _spread(indices: np.ndarray, count: int) -> np.ndarray:
    """About `count` of the indices, evenly."""
    return indices[np.linspace(0, len(indices) - 1, min(count, len(indices))).astype(int)]


def _refined(a: _View, b: _View, T: np.ndarray) -> Registration:
    T = refine(a.surface, b.surface, T, _GATES_M)
    verdicts = [_agreement(a, b, T), _agreement(b, a, invert(T))]
    good, bad = sum(v[0] for v in verdicts), sum(v[1] for v in verdicts)
    if good + bad < _MIN_COMMON:
        return Registration(T, float('inf'), 0.0)
    return Registration(T, float(np.sqrt(sum(v[2] for v in verdicts) / max(good, 1))), good / (good + bad))


def _agreement(fixed: _View, moving: _View, T: np.ndarray) -> tuple[int, int, float]:
    """Pixels of `moving` that lie on fixed's surface, that float in its free space, and squared differences."""
    points = transform_points(T, moving.surface.points)
    pixels, z = project(points, fixed.frame.K)
    height, width = fixed.frame.depth.shape
    u, v = np.rint(pixels[:, 0]), np.rint(pixels[:, 1])
    inside = (z > 0.05) & (u >= 1) & (u < width - 1) & (v >= 1) & (v < height - 1)
    u, v, z = u[inside].astype(int), v[inside].astype(int), z[inside]
    # The neighbour that agrees best: a pixel at an edge may belong to either side.
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    seen = np.stack([fixed.frame.depth[v + i, u + j] for i, j in steps])
    heights = np.stack([fixed.heights[v + i, u + j] for i, j in steps])
    difference = np.where(seen > 0, z - seen, np.inf)
    best = np.abs(difference).argmin(0)
    column = np.arange(len(z))
    difference, known = difference[best, column], (seen > 0).all(0)
    plane_height = np.abs(heights[best, column])
    own_height = np.abs(_own_heights(moving)[inside])
    informative = known & ((plane_height > 2 * _RAISED_M) | (own_height > 2 * _RAISED_M))
    tolerance = 0.01 + 0.01 * z
    agrees = informative & (np.abs(difference) < tolerance)
    floats = informative & (difference < -tolerance)
    return int(agrees.sum()), int(floats.sum()), float((difference[agrees] ** 2).sum())


def _own_heights(view: _View) -> np.ndarray:
    """Heights over the plane of the surface's points (N,) [m]."""
    return transform_points(view.map.T_plane_camera, view.surface.points)[:, 2]


def _checked(result: Registration) -> Registration:
    require(result.inlier_fraction >= MIN_INLIERS,
            f'the two views do not fit together: {result.inlier_fraction:.0%} of what they share agrees, '
            f'{MIN_INLIERS:.0%} is needed; let both cameras see the same table and things', RegistrationError)
    return result
