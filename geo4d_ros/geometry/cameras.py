"""Pinhole cameras in OpenCV optical frames; integer pixel centres, so a centred camera has cx = (w - 1) / 2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geo4d_ros.geometry.transforms import check_transform


def intrinsics(focal_px: float, width: int, height: int) -> np.ndarray:
    """K (3, 3) float64 of a centred camera with square pixels."""
    return np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1.0]])


def scale_intrinsics(K: np.ndarray, scale_x: float, scale_y: float) -> np.ndarray:
    """K after resizing the image by the factors; keeps integer pixel centres consistent."""
    out = K.copy()
    out[0, 0] *= scale_x
    out[1, 1] *= scale_y
    out[0, 2] = (K[0, 2] + 0.5) * scale_x - 0.5
    out[1, 2] = (K[1, 2] + 0.5) * scale_y - 0.5
    return out


def unproject(depth: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Pointmap (H, W, 3) float32 [m] in the camera's optical frame; invalid (0) depth gives the zero point."""
    height, width = depth.shape
    x = ((np.arange(width) - K[0, 2]) / K[0, 0]).astype(np.float32)
    y = ((np.arange(height) - K[1, 2]) / K[1, 1]).astype(np.float32)
    return np.stack([x[None, :] * depth, y[:, None] * depth, depth], axis=-1)


def project(points: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (..., 2) as (u, v) and depth (...) of points (..., 3) in the optical frame.

    Points at or behind the camera get depth <= 0 and meaningless pixels: check the depth.
    """
    z = points[..., 2]
    safe = np.where(np.abs(z) < 1e-9, 1e-9, z)
    u = K[0, 0] * points[..., 0] / safe + K[0, 2]
    v = K[1, 1] * points[..., 1] / safe + K[1, 2]
    return np.stack([u, v], axis=-1), z


@dataclass(frozen=True)
class Camera:
    """A posed pinhole camera: K (3, 3), T_base_camera (4, 4) optical frame in the robot base, size in px."""

    K: np.ndarray
    T_base_camera: np.ndarray
    width: int
    height: int

    def __post_init__(self) -> None:
        check_transform('T_base_camera', self.T_base_camera)


_UP = np.array([0, 0, 1.0])


def look_at(position: np.ndarray, target: np.ndarray, up: np.ndarray = _UP) -> np.ndarray:
    """T_base_camera of an optical frame at `position` whose z axis meets `target` with no roll."""
    z = (target - position) / np.linalg.norm(target - position)
    x = np.cross(z, up)
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    T[:3, 3] = position
    return T
