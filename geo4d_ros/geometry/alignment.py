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
_ALONG = 0.01  # weight of point-to-point beside point-to-plane
_MIN_MATCHES = 12


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


def _surface_equations(points: np.ndarray, targets: np.ndarray, normals: np.ndarray,
                       weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations of the motion that brings points to targets: point-to-plane, a little point-to-point."""
    J = np.hstack([np.cross(points, normals), normals])
    A = J.T @ (weights[:, None] * J)
    b = J.T @ (weights * ((targets - points) * normals).sum(1))
    for axis in np.eye(3):
        J = np.hstack([np.cross(points, axis), np.broadcast_to(axis, points.shape)])
        A += _ALONG * J.T @ (weights[:, None] * J)
        b += _ALONG * J.T @ (weights * ((targets - points) @ axis))
    return A, b


def refine(reference: Surface, second: Surface, T_ref_second: np.ndarray, gates: tuple[float, ...]) -> np.ndarray:
    """T_ref_second (4, 4) after ICP from a guess; each gate [m] is one iteration, Tukey's weights inside it."""
    T = T_ref_second.copy()
    for gate in gates:
        p, q, n, w = _match(reference, second, T, gate)
        # The reference's probes are matched in the second frame, then brought back with their partners' normals.
        q2, p2, n2, w2 = _match(second, reference, invert(T), gate)
        q2, p2, n2 = transform_points(T, q2), transform_points(T, p2), n2 @ T[:3, :3].T
        if len(p) + len(p2) < _MIN_MATCHES:
            return T
        A, b = _surface_equations(np.concatenate([p, p2]), np.concatenate([q, q2]), np.concatenate([n, n2]),
                                  np.concatenate([w, w2]))
        step = np.linalg.solve(A + 1e-9 * np.trace(A) * np.eye(6), b)
        T = from_rotvec(step[:3], step[3:]) @ T
    return T
