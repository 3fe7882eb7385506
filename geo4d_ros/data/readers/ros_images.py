"""Pixels of recorded image messages, read by the names of their fields, so that no ROS is needed.

The encoding decides the unit (REP-118): 16UC1 is millimetres, 32FC1 metres.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from geo4d_ros.errors import DatasetError, require

# Channels in memory order, and which of them are red, green, blue.
_COLOUR = {'rgb8': (3, (0, 1, 2)), 'bgr8': (3, (2, 1, 0)), 'rgba8': (4, (0, 1, 2)), 'bgra8': (4, (2, 1, 0)),
           'mono8': (1, (0, 0, 0)), '8UC1': (1, (0, 0, 0))}
_DEPTH = {'16UC1': ('u2', 0.001), 'mono16': ('u2', 0.001), '32FC1': ('f4', 1.0)}
_COMPRESSED_DEPTH_HEADER = 12  # bytes before the PNG in `compressedDepth`


def _rows(message: Any, kind: str, channels: int) -> np.ndarray:
    dtype = np.dtype(kind).newbyteorder('>' if message.is_bigendian else '<')
    row = message.width * channels * dtype.itemsize
    size = message.height * message.step
    require(message.height > 0 and message.width > 0 and message.step >= row and len(message.data) >= size,
            f'an image of {message.width}x{message.height} {message.encoding} carries {len(message.data)} bytes with '
            f'step {message.step}', DatasetError)
    data = np.asarray(message.data, np.uint8)[:size].reshape(message.height, message.step)[:, :row]
    return np.ascontiguousarray(data).view(dtype).reshape(message.height, message.width, channels)


def _decoded(data: Any) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(bytes(data))) as picture:
            return np.asarray(picture if picture.mode.startswith(('I', 'F')) else picture.convert('RGB'))
    except (OSError, ValueError, SyntaxError) as error:
        raise DatasetError(f'a compressed picture cannot be decoded ({error})') from error


def is_compressed(message: Any) -> bool:
    """Whether it is a sensor_msgs/CompressedImage."""
    return hasattr(message, 'format')


def read_colour(message: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an Image or CompressedImage."""
    if is_compressed(message):
        picture = _decoded(message.data)
        require(picture.ndim == 3, f'compressed colour has format {message.format!r}, expected 8-bit colour',
                DatasetError)
        return picture
    require(message.encoding in _COLOUR, f'a colour image has encoding {message.encoding!r}, expected one of '
            f'{", ".join(_COLOUR)}', DatasetError)
    channels, order = _COLOUR[message.encoding]
    return np.ascontiguousarray(_rows(message, 'u1', channels)[..., order])


def read_depth(message: Any, unit_m: float | None = None) -> np.ndarray:
    """(H, W) float32 [m], 0 = invalid; `unit_m` replaces the millimetre of 16-bit encodings."""
    if is_compressed(message):
        require('compressedDepth' in message.format and message.format.startswith('16UC1'),
                f'compressed depth has format {message.format!r}, expected 16UC1 compressedDepth png', DatasetError)
        counts, scale, integer = _decoded(message.data[_COMPRESSED_DEPTH_HEADER:]), 0.001, True
    else:
        require(message.encoding in _DEPTH, f'a depth image has encoding {message.encoding!r}, expected one of '
                f'{", ".join(_DEPTH)}', DatasetError)
        kind, scale = _DEPTH[message.encoding]
        counts, integer = _rows(message, kind, 1)[..., 0], kind == 'u2'
    depth = counts.astype(np.float32) * np.float32(unit_m if unit_m and integer else scale)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def read_labels(message: Any) -> np.ndarray:
    """(H, W) uint8 classes of a mono8 image."""
    require(not is_compressed(message) and message.encoding in ('mono8', '8UC1'),
            'label images should be mono8', DatasetError)
    return np.ascontiguousarray(_rows(message, 'u1', 1)[..., 0])


def read_intrinsics(message: Any) -> np.ndarray:
    """K (3, 3) of a CameraInfo of either ROS; DatasetError when the camera was never calibrated."""
    K = np.asarray(message.k if hasattr(message, 'k') else message.K, np.float64).reshape(3, 3)
    require(bool(np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0 and K[2, 2] == 1),
            f'camera_info has no usable K ({K.reshape(-1).tolist()}); calibrate the camera', DatasetError)
    return K


def distortion(message: Any) -> float:
    """Largest distortion coefficient of a CameraInfo."""
    return float(np.abs(np.asarray(message.d if hasattr(message, 'd') else message.D, np.float64)).max(initial=0.0))
