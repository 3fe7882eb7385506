"""Pixels of image messages, live or recorded, read by the names of their fields, so that no ROS is needed.

The encoding decides the unit (REP-118): 16UC1 is millimetres, 32FC1 metres.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geo4d_ros.errors import Geo4dError, InvalidInputError, require

# Channels in memory order, and which of them are red, green, blue.
COLOUR_ENCODINGS = {'rgb8': (3, (0, 1, 2)), 'bgr8': (3, (2, 1, 0)), 'rgba8': (4, (0, 1, 2)), 'bgra8': (4, (2, 1, 0)),
                    'mono8': (1, (0, 0, 0)), '8UC1': (1, (0, 0, 0))}
COUNT_M = 0.001  # of 16-bit depth, unless a camera says otherwise
DEPTH_ENCODINGS = {'16UC1': np.uint16, 'mono16': np.uint16, '32FC1': np.float32}


def pixel_rows(message: Any, dtype: Any, channels: int, error: type[Geo4dError] = InvalidInputError) -> np.ndarray:
    """(H, W, channels) pixels of an Image; step may be larger than a row. `error` where the size does not fit."""
    item = np.dtype(dtype).newbyteorder('>' if message.is_bigendian else '<')
    row, size = message.width * channels * item.itemsize, message.height * message.step
    require(message.height > 0 and message.width > 0, f'image of {message.header.frame_id!r} is empty', error)
    require(message.step >= row and len(message.data) >= size,
            f'image of {message.header.frame_id!r} is {message.width}x{message.height} {message.encoding} '
            f'but carries {len(message.data)} bytes with step {message.step}', error)
    data = np.frombuffer(message.data, np.uint8)[:size].reshape(message.height, message.step)[:, :row]
    return np.ascontiguousarray(data).view(item).reshape(message.height, message.width, channels)


def read_colour(message: Any, error: type[Geo4dError] = InvalidInputError) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a colour Image; `error` names an encoding that is not read."""
    require(message.encoding in COLOUR_ENCODINGS, f'colour image has encoding {message.encoding!r}, expected one of '
            f'{", ".join(COLOUR_ENCODINGS)}', error)
    channels, order = COLOUR_ENCODINGS[message.encoding]
    return np.ascontiguousarray(pixel_rows(message, np.uint8, channels, error)[..., order])


def read_depth(message: Any, unit: float = COUNT_M, error: type[Geo4dError] = InvalidInputError) -> np.ndarray:
    """(H, W) float32 [m], 0 = invalid, of a depth Image; unit: metres per count of the 16-bit encodings."""
    require(message.encoding in DEPTH_ENCODINGS, f'depth image has encoding {message.encoding!r}, expected one of '
            f'{", ".join(DEPTH_ENCODINGS)}', error)
    dtype = DEPTH_ENCODINGS[message.encoding]
    return in_metres(pixel_rows(message, dtype, 1, error)[..., 0], unit if dtype is np.uint16 else 1.0)


def in_metres(counts: np.ndarray, unit: float) -> np.ndarray:
    """float32 [m] of depth counts; NaN, inf and what is not ahead of the camera become 0 = invalid."""
    depth = counts.astype(np.float32) * np.float32(unit)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
