"""Undistorted images of a camera with lens distortion, from its coefficients in the order of OpenCV and ROS."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# Distortion models of sensor_msgs/CameraInfo that are understood, and the numbers of coefficients they may have.
DISTORTION_MODELS = {'plumb_bob': (4, 5), 'rational_polynomial': (8,)}


def distort(x: np.ndarray, y: np.ndarray, coefficients: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Where the lens puts a ray (x, y, 1): the Brown-Conrady model k1 k2 p1 p2 [k3 [k4 k5 k6]]."""
    k1, k2, p1, p2, k3, k4, k5, k6 = (*coefficients, *[0.0] * (8 - len(coefficients)))
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    return (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y)


@lru_cache(maxsize=8)
def _source_pixels(K: tuple[float, ...], size: tuple[int, int], coefficients: tuple[float, ...],
                   ) -> tuple[np.ndarray, np.ndarray]:
    """Column and row (H, W) in the distorted image of every pixel of the undistorted one with the same K."""
    height, width = size
    fx, skew, cx, _, fy, cy = K[:6]
    v, u = np.mgrid[:height, :width].astype(np.float64)
    y = (v - cy) / fy
    x = (u - cx - skew * y) / fx
    x, y = distort(x, y, coefficients)
    return (fx * x + skew * y + cx).astype(np.float32), (fy * y + cy).astype(np.float32)


def rectify(rgb: np.ndarray, depth: np.ndarray, K: np.ndarray, coefficients: tuple[float, ...],
            ) -> tuple[np.ndarray, np.ndarray]:
    """rgb (H, W, 3) uint8 and aligned depth (H, W) float32 [m] as a camera with the same K sees them without a lens.

    Colour is interpolated, depth taken from the nearest pixel (a mean of two surfaces lies on none); what the
    distorted image does not show is black with depth 0.
    """
    u, v = _source_pixels(tuple(K.reshape(-1).tolist()), rgb.shape[:2], coefficients)
    height, width = depth.shape
    inside = (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
    u, v = np.where(inside, u, 0), np.where(inside, v, 0)
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    right, below = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    a, b = (u - left)[..., None], (v - top)[..., None]
    colour = (rgb[top, left] * (1 - a) + rgb[top, right] * a) * (1 - b) + (rgb[below, left] * (1 - a)
                                                                          + rgb[below, right] * a) * b
    nearest = depth[np.rint(v).astype(int), np.rint(u).astype(int)]
    return (np.where(inside[..., None], np.rint(colour), 0).astype(np.uint8),
            np.where(inside, nearest, np.float32(0)))
