"""Fine alignment of two partial surfaces: bidirectional point-to-plane ICP with colour and normals as gates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from geo4d_ros.geometry.transforms import from_rotvec, invert, transform_points

COLOUR_SCALE_M = 0.05  # distance that counts as much as a full colour difference
_MIN_NORMAL_AGREEMENT = 0.7  # cosine
_MIN_FACING = 0.1  # cosine
_ALONG = 0.01  # weight of point-to-point beside point-to-plane: it makes colour edges count


@dataclass(frozen=True)
class Surface:
    """Surface of one view, its camera at 0: points (N, 3) [m], unit normals (N, 3), colours (N, 3) in 0..1.

    `inner` (N,) bool: not at the rim of what the camera saw. `probes` (M,) are the indices that look for a
    partner, `weights` (M,) theirs.
    """

    points: np.ndarray
    normals: np.ndarray
    colours: np.ndarray
    inner: np.ndarray
    probes: np.ndarray
    weights: np.ndarray

    @cached_property
    def tree(self) -> cKDTree:
        """Nearest neighbours over position and scaled colour."""
        return cKDTree(np.hstack([self.points, COLOUR_SCALE_M * self.colours]))


def _match(fixed: Surface, moving: Surface, T: np.ndarray, gate: float) -> tuple[np.ndarray, ...]:
    """Probes of `moving` brought into fixed's frame by T with their partner's point and normal, and weights."""
    points = transform_points(T, moving.points[moving.probes])
    normals = moving.normals[moving.probes] @ T[:3, :3].T
    # What faces away from the other camera has no partner there.
    facing = -(normals * points).sum(1) > _MIN_FACING * np.linalg.norm(points, axis=1)
    points, normals, chosen = points[facing], normals[facing], moving.probes[facing]
    features = np.hstack([points, COLOUR_SCALE_M * moving.colours[chosen]])
    distance, index = fixed.tree.query(features, distance_upper_bound=gate)
    found = np.isfinite(distance)
    index = index[found]
    agree = (normals[found] * fixed.normals[index]).sum(1)
    good = (agree > _MIN_NORMAL_AGREEMENT) & fixed.inner[index]
    weights = moving.weights[facing][found][good] * (1 - (distance[found][good] / gate) ** 2) ** 2
    return points[found][good], fixed.points[index[good]], fixed.normals[index[good]], weights


def _step(points: np.ndarray, targets: np.ndarray, normals: np.ndarray, weights: np.ndarray,
          along: float) -> np.ndarray:
    """Rotation vector and shift (6,) that bring points to targets: point-to-plane plus a share of point-to-point."""
    J = np.hstack([np.cross(points, normals), normals])
    residual = ((targets - points) * normals).sum(1)
    A = J.T @ (weights[:, None] * J)
    b = J.T @ (weights * residual)
    for axis in np.eye(3):
        Jp = np.hstack([np.cross(points, axis), np.broadcast_to(axis, points.shape)])
        A += along * Jp.T @ (weights[:, None] * Jp)
        b += along * Jp.T @ (weights * ((targets - points) @ axis))
    return np.linalg.solve(A + 1e-9 * np.trace(A) * np.eye(6), b)


def refine(reference: Surface, second: Surface, T_ref_second: np.ndarray,
           gates: tuple[float, ...], along: float = _ALONG) -> np.ndarray:
    """T_ref_second (4, 4) after ICP from a guess; each gate [m] is one iteration, Tukey's weights inside it."""
    T = T_ref_second.copy()
    for gate in gates:
        p, q, n, w = _match(reference, second, T, gate)
        q2, p2, n2, w2 = _match(second, reference, invert(T), gate)
        R, t = T[:3, :3], T[:3, 3]
        # The second set is matched in the second frame: bring it over, the normals of `second` serve.
        points = np.concatenate([p, p2 @ R.T + t])
        targets = np.concatenate([q, q2 @ R.T + t])
        normals = np.concatenate([n, n2 @ R.T])
        weights = np.concatenate([w, w2])
        if len(points) < 12:
            return T
        step = _step(points, targets, normals, weights, along)
        T = from_rotvec(step[:3], step[3:]) @ T
    return T
