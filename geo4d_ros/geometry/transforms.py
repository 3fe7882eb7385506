"""Rigid transforms as (..., 4, 4) float64 matrices; `T_a_b` is the pose of b in a."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from geo4d_ros.errors import require


def check_transform(name: str, T: np.ndarray, tolerance: float = 1e-4) -> None:
    """Raise unless T is a finite (4, 4) rigid transform with a proper rotation."""
    require(isinstance(T, np.ndarray) and T.shape == (4, 4),
            f'{name} should be a (4, 4) array but got {getattr(T, "shape", type(T).__name__)}')
    require(bool(np.isfinite(T).all()), f'{name} has NaN or infinite entries')
    R = T[:3, :3]
    rigid = (np.abs(R @ R.T - np.eye(3)).max() < tolerance and np.linalg.det(R) > 0
             and np.abs(T[3] - [0, 0, 0, 1]).max() < tolerance)
    require(bool(rigid), f'{name} is not a rigid transform (rotation not orthonormal or bad last row)')


def make_transform(R: np.ndarray | None = None, t: np.ndarray | None = None) -> np.ndarray:
    """(4, 4) transform from a (3, 3) rotation and a (3,) translation; both default to none."""
    T = np.eye(4)
    if R is not None:
        T[:3, :3] = R
    if t is not None:
        T[:3, 3] = t
    return T


def invert(T: np.ndarray) -> np.ndarray:
    """Inverse of (..., 4, 4) rigid transforms."""
    R_t = np.swapaxes(T[..., :3, :3], -1, -2)
    out = np.zeros_like(T)
    out[..., :3, :3] = R_t
    out[..., :3, 3] = -np.einsum('...ij,...j->...i', R_t, T[..., :3, 3])
    out[..., 3, 3] = 1
    return out


def transform_points(T_a_b: np.ndarray, points_b: np.ndarray) -> np.ndarray:
    """Points (..., 3) given in b, expressed in a, in the points' dtype; T_a_b is (4, 4)."""
    T = T_a_b.astype(points_b.dtype, copy=False)
    return points_b @ T[:3, :3].T + T[:3, 3]


def rotvec(T: np.ndarray) -> np.ndarray:
    """Rotation vector (..., 3) [rad] of (..., 4, 4) transforms."""
    R = T[..., :3, :3].reshape(-1, 3, 3)
    return Rotation.from_matrix(R).as_rotvec().reshape(*T.shape[:-2], 3)


def from_rotvec(r: np.ndarray, t: np.ndarray | None = None) -> np.ndarray:
    """(4, 4) transform from a rotation vector [rad] and an optional translation [m]."""
    return make_transform(Rotation.from_rotvec(r).as_matrix(), t)


def rotation_angle(T_a: np.ndarray, T_b: np.ndarray) -> np.ndarray:
    """Angle [rad] between the rotations of two (..., 4, 4) stacks."""
    return np.linalg.norm(rotvec(invert(T_a) @ T_b), axis=-1)


def translation_distance(T_a: np.ndarray, T_b: np.ndarray) -> np.ndarray:
    """Distance [m] between the origins of two (..., 4, 4) stacks."""
    return np.linalg.norm(T_a[..., :3, 3] - T_b[..., :3, 3], axis=-1)


def interpolate(T_a: np.ndarray, T_b: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Poses (len(s), 4, 4) at fractions s in [0, 1]: straight line and constant-rate rotation."""
    s = np.asarray(s, dtype=np.float64)
    out = np.tile(np.eye(4), (len(s), 1, 1))
    slerp = Slerp([0, 1], Rotation.from_matrix(np.stack([T_a[:3, :3], T_b[:3, :3]])))
    out[:, :3, :3] = slerp(s).as_matrix()
    out[:, :3, 3] = T_a[:3, 3] + s[:, None] * (T_b[:3, 3] - T_a[:3, 3])
    return out


def pose_to_quaternion(T: np.ndarray) -> np.ndarray:
    """Quaternion (4,) x, y, z, w of a (4, 4) transform (the ROS order)."""
    return Rotation.from_matrix(T[:3, :3]).as_quat()


def from_quaternion(xyzw: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(4, 4) transform from an x, y, z, w quaternion and a translation [m]."""
    return make_transform(Rotation.from_quat(xyzw).as_matrix(), t)


def fit_rigid(points_a: np.ndarray, points_b: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """T_a_b minimising the weighted squared distance of matched (N, 3) points (Kabsch, Umeyama 1991)."""
    require(points_a.shape == points_b.shape and len(points_a) >= 3,
            f'a rigid fit needs two equal (N>=3, 3) arrays but got {points_a.shape} and {points_b.shape}')
    w = np.ones(len(points_a)) if weights is None else weights
    w = w / w.sum()
    mean_a, mean_b = w @ points_a, w @ points_b
    H = (points_b - mean_b).T @ (w[:, None] * (points_a - mean_a))
    U, _, Vt = np.linalg.svd(H)
    d = np.sign(np.linalg.det(Vt.T @ U.T))
    R = Vt.T @ np.diag([1, 1, d]) @ U.T
    return make_transform(R, mean_a - R @ mean_b)
