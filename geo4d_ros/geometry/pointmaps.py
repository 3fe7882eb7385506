"""Surfaces in depth images: normals of a pointmap, and the plane that dominates a view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geo4d_ros.errors import RegistrationError, require

_CANDIDATES = 150
_MAX_STEP = 0.05  # a neighbour farther in depth than this share of the depth belongs to another surface


def pointmap_normals(points: np.ndarray) -> np.ndarray:
    """Unit normals (H, W, 3) of a pointmap (H, W, 3) [m], towards the camera; zero where not to be had.

    Central differences over the 4 neighbours; zero at invalid (z = 0) points, at depth steps and at the border.
    """
    z = points[..., 2]
    dx, dy = np.zeros_like(points), np.zeros_like(points)
    dx[:, 1:-1] = points[:, 2:] - points[:, :-2]
    dy[1:-1] = points[2:] - points[:-2]
    good = np.zeros(z.shape, bool)
    good[1:-1, 1:-1] = True
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        neighbour = np.roll(z, step, axis)
        good &= (neighbour > 0) & (np.abs(neighbour - z) < _MAX_STEP * z)
    normals = np.cross(dy, dx)
    length = np.linalg.norm(normals, axis=-1)
    good &= (z > 0) & (length > 0)
    normals = np.where(good[..., None], normals / np.maximum(length, 1e-12)[..., None], 0)
    return normals * np.where((normals * points).sum(-1, keepdims=True) > 0, -1, 1).astype(normals.dtype)


def erode(mask: np.ndarray) -> np.ndarray:
    """The mask (H, W) without the pixels that have a neighbour (of 8) outside it."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] & padded[1:-1] & padded[2:]
    return rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]


@dataclass(frozen=True)
class Plane:
    """Points with normal . p + offset = 0; the unit normal (3,) looks towards the camera, so offset > 0 [m]."""

    normal: np.ndarray
    offset: float
    inlier_fraction: float

    def heights(self, points: np.ndarray) -> np.ndarray:
        """Signed distance (...) [m] of points (..., 3), positive on the camera's side."""
        return points @ self.normal.astype(points.dtype) + np.asarray(self.offset, points.dtype)


def dominant_plane(points: np.ndarray, normals: np.ndarray, tolerance: float = 0.012) -> Plane:
    """The plane that most of the points (N, 3) with unit normals (N, 3) lie on, refined by least squares.

    Candidates are the tangent planes of evenly spread points: no random numbers, same input same plane.
    Raises RegistrationError when fewer than 15 % of the points agree on one.
    """
    require(len(points) >= 100, f'a plane needs at least 100 points but got {len(points)}', RegistrationError)
    probe = slice(None, None, max(1, len(points) // 1500))
    seeds = np.linspace(0, len(points) - 1, _CANDIDATES).astype(int)
    offsets = -(normals[seeds] * points[seeds]).sum(1)
    distance = np.abs(points[probe] @ normals[seeds].T + offsets)
    aligned = normals[probe] @ normals[seeds].T > 0.9
    best = int(((distance < 2 * tolerance) & aligned).sum(0).argmax())
    normal, offset = normals[seeds[best]].astype(np.float64), float(offsets[best])
    for scale in (2.0, 1.0, 1.0):
        inliers = np.abs(points @ normal + offset) < scale * tolerance
        require(inliers.mean() > 0.15, f'only {inliers.mean():.0%} of the view lies on one plane; '
                'registration needs a table or floor that fills 15 %', RegistrationError)
        centre = points[inliers].mean(0, dtype=np.float64)
        spread = points[inliers] - centre
        normal = np.linalg.eigh(spread.T @ spread)[1][:, 0]
        normal = normal if normal @ centre < 0 else -normal
        offset = -float(normal @ centre)
    return Plane(normal, offset, float(inliers.mean()))
