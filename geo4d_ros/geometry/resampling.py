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


def resize_frame(frame: RgbdFrame, height: int, width: int) -> RgbdFrame:
    """The frame at another size: colour by area average, depth by nearest pixel, K scaled."""
    require(height >= 2 and width >= 2, f'target size should be at least 2x2 but got {height}x{width}')
    h, w = frame.depth.shape
    if (h, w) == (height, width):
        return frame
    rgb = np.asarray(Image.fromarray(frame.rgb).resize((width, height), Image.Resampling.BOX))
    depth = frame.depth[np.ix_(nearest_indices(h, height), nearest_indices(w, width))]
    K = scale_intrinsics(frame.K, width / w, height / h)
    return RgbdFrame(np.ascontiguousarray(rgb), np.ascontiguousarray(depth), K, frame.stamp, frame.frame_id)
