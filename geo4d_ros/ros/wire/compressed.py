"""Pictures as sensor_msgs/CompressedImage under the names and formats of image_transport's plug-ins."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image as PilImage
from sensor_msgs.msg import CompressedImage

from geo4d_ros.ros.wire.conversions import to_stamp

COLOUR, DEPTH = 'compressed', 'compressedDepth'  # appended to the raw topic's name
QUALITY = 90  # of the JPEG
MM = 1000.0


def compressed_colour(rgb: np.ndarray, stamp: int, frame_id: str) -> CompressedImage:
    """JPEG of rgb (H, W, 3) uint8."""
    return _message(rgb, stamp, frame_id, 'rgb8; jpeg compressed bgr8', b'', format='JPEG', quality=QUALITY)


def compressed_depth(depth: np.ndarray, stamp: int, frame_id: str) -> CompressedImage:
    """PNG of depth (H, W) float32 [m] in millimetres, 0 = invalid, behind the header of its plug-in.

    The header (int32, two float32) is empty: 16-bit depth is not quantised.
    """
    counts = np.clip(np.rint(depth * MM), 0, 65535).astype(np.uint16)
    return _message(counts, stamp, frame_id, '16UC1; compressedDepth png', struct.pack('<iff', 0, 0.0, 0.0),
                    format='PNG', compress_level=1)


def _message(pixels: np.ndarray, stamp: int, frame_id: str, kind: str, head: bytes,
             **options: object) -> CompressedImage:
    picture = io.BytesIO()
    PilImage.fromarray(pixels).save(picture, **options)
    message = CompressedImage(format=kind)
    message.header.stamp, message.header.frame_id = to_stamp(stamp), frame_id
    message.data.frombytes(head + picture.getvalue())
    return message
