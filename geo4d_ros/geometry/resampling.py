"""Resizing RGB-D frames without mixing depths across edges."""

from __future__ import annotations

import numpy as np
from PIL import Image

from geo4d_ros.errors import require
from geo4d_ros.geometry.cameras import scale_intrinsics
from geo4d_ros.types import RgbdFrame


def nearest_indices(size_in: int, size_out: int) -> np.ndarray:
    """Source index of each output pixel centre, (size_out,) int64."""
    return np.minimum(((np.arange(size_out) + 0.5) * size_in / size_out).astype(np.int64), size_in - 1)


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Image (H, W, ...) at another size by the four nearest pixels, pixel centres aligned; same dtype, rounded."""
    rows, columns = (np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
                     for n, m in zip((height, width), image.shape[:2], strict=True))
    out = image.astype(np.float32)
    for axis, at in ((0, rows), (1, columns)):
        low = np.minimum(at.astype(np.int64), max(out.shape[axis] - 2, 0))
        share = (at - low).astype(np.float32).reshape(-1, *(1,) * (out.ndim - 1 - axis))
        high = np.minimum(low + 1, out.shape[axis] - 1)
        out = np.take(out, low, axis) * (1 - share) + np.take(out, high, axis) * share
    return out.round().astype(image.dtype) if np.issubdtype(image.dtype, np.integer) else out.astype(image.dtype)


def resize_colour(rgb: np.ndarray, height: int, width: int, resampling: str = 'area') -> np.ndarray:
    """rgb (H, W, 3) uint8 at another size, by area average or 'bilinear'."""
    if resampling == 'bilinear':
        return bilinear(rgb, height, width)
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BOX))


def resize_depth(depth: np.ndarray, height: int, width: int, resampling: str = 'area') -> np.ndarray:
    """depth (H, W) at another size: the nearest pixel, or 'bilinear', which mixes depths across edges."""
    if resampling == 'bilinear':
        return bilinear(depth, height, width)
    h, w = depth.shape
    return np.ascontiguousarray(depth[np.ix_(nearest_indices(h, height), nearest_indices(w, width))])


def resize_intrinsics(K: np.ndarray, scale_x: float, scale_y: float, half_pixel: bool = True) -> np.ndarray:
    """K (3, 3) of the resized image, for integer pixel centres, or simply multiplied."""
    return scale_intrinsics(K, scale_x, scale_y) if half_pixel else np.diag([scale_x, scale_y, 1.0]) @ K


def resize_frame(
    frame: RgbdFrame, height: int, width: int, resampling: str = 'area', half_pixel: bool = True
) -> RgbdFrame:
    """The frame at another size; by default colour by area average, depth by nearest pixel, K for integer centres."""
    require(height >= 2 and width >= 2, f'target size should be at least 2x2 but got {height}x{width}')
    h, w = frame.depth.shape
    if (h, w) == (height, width):
        return frame
    rgb = np.ascontiguousarray(resize_colour(frame.rgb, height, width, resampling))
    depth = resize_depth(frame.depth, height, width, resampling)
    K = resize_intrinsics(frame.K, width / w, height / h, half_pixel)
    return RgbdFrame(rgb, depth, K, frame.stamp, frame.frame_id)
