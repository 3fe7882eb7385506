"""Image messages, compressed or not, and camera_info, recorded or live; no ROS is needed."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from PIL import Image

from geo4d_ros.errors import DatasetError, require
from geo4d_ros.geometry import image_messages

_DEPTH_HEADER = '<iff'  # before the PNG in `compressedDepth`: a number nobody reads, and the quantisation A, B of 32FC1
_PIXELS = 4096 * 4096  # a small file may unfold to more than there is memory


def _decoded(data: Any) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(bytes(data)), formats=('JPEG', 'PNG')) as picture:
            require(picture.width * picture.height <= _PIXELS, f'a compressed picture is {picture.width}x'
                    f'{picture.height}, more than {_PIXELS} pixels', DatasetError)
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
    return image_messages.read_colour(message, DatasetError)


def read_depth(message: Any, unit_m: float | None = None) -> np.ndarray:
    """(H, W) float32 [m], 0 = invalid; `unit_m` replaces the millimetre of 16-bit encodings."""
    unit = unit_m or image_messages.COUNT_M
    if not is_compressed(message):
        return image_messages.read_depth(message, unit, DatasetError)
    kind, size, data = message.format[:5], struct.calcsize(_DEPTH_HEADER), bytes(message.data)
    require('compressedDepth' in message.format and kind in ('16UC1', '32FC1') and len(data) > size,
            f'compressed depth has format {message.format!r}, expected 16UC1 or 32FC1 compressedDepth png',
            DatasetError)
    counts = _decoded(data[size:])
    require(counts.ndim == 2, f'compressed depth has {counts.shape[-1]} channels, expected one', DatasetError)
    if kind == '16UC1':
        return image_messages.in_metres(counts, unit)
    _, a, b = struct.unpack(_DEPTH_HEADER, data[:size])  # counts = a / depth + b, 0 = invalid
    with np.errstate(divide='ignore', invalid='ignore'):
        return image_messages.in_metres(np.where(counts > 0, a / (counts - b), 0), 1.0)


def read_labels(message: Any) -> np.ndarray:
    """(H, W) uint8 classes of a mono8 image."""
    require(not is_compressed(message) and message.encoding in ('mono8', '8UC1'),
            'label images should be mono8', DatasetError)
    return np.ascontiguousarray(image_messages.pixel_rows(message, np.uint8, 1, DatasetError)[..., 0])


def read_intrinsics(message: Any) -> np.ndarray:
    """K (3, 3) of a CameraInfo of either ROS; DatasetError when the camera was never calibrated."""
    K = np.asarray(message.k if hasattr(message, 'k') else message.K, np.float64).reshape(3, 3)
    require(bool(np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0 and K[2, 2] == 1),
            f'camera_info has no usable K ({K.reshape(-1).tolist()}); calibrate the camera', DatasetError)
    return K


def distortion(message: Any) -> float:
    """Largest distortion coefficient of a CameraInfo."""
    return float(np.abs(np.asarray(message.d if hasattr(message, 'd') else message.D, np.float64)).max(initial=0.0))
