"""Camera messages -> values, total: sizes, intrinsics, distortion, binning and region of interest are all looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from geo4d_ros.geometry.rectification import DISTORTION_MODELS
from geo4d_ros.ros.wire.conversions import to_nanoseconds
from geo4d_ros.ros.wire.guard import Malformed

IMAGE_BYTES = 64 << 20  # of one image: 4096 x 2160 in 32FC4 fits
NEGLIGIBLE = 1e-6  # distortion coefficients below it move no pixel


@dataclass(frozen=True)
class CameraModel:
    """A calibrated camera: stamp [ns], optical frame, K (3, 3), (height, width), distortion coefficients or none."""

    stamp: int
    frame_id: str
    K: np.ndarray
    size: tuple[int, int]
    distortion: tuple[float, ...] = ()


def frame_name(frame_id: str) -> str:
    """A frame as TF names it: tf2 has no leading slashes."""
    return frame_id.lstrip('/')


def parse_camera_info(message: CameraInfo) -> CameraModel | Malformed:
    """Intrinsics of the full image; what they would have to be converted for is refused by the field's name."""
    wrong = _geometry(message)
    if wrong is not None:
        return wrong
    K = np.array(message.k, np.float64).reshape(3, 3)
    good = np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0 and K[2, 2] == 1 and not K[1, 0] and not K[2, :2].any()
    if not good:
        return Malformed('k', K.reshape(-1).tolist(), 'no usable K: the camera is not calibrated')
    d = np.array(message.d, np.float64)
    if not np.isfinite(d).all():
        return Malformed('d', d[:14].tolist(), 'the distortion is not finite')
    distortion: tuple[float, ...] = ()
    if (np.abs(d) > NEGLIGIBLE).any():
        sizes = DISTORTION_MODELS.get(message.distortion_model)
        if sizes is None or len(d) not in sizes:
            return Malformed('d', f'{d[:14].tolist()} ({message.distortion_model!r})', 'this distortion is not '
                             f'rectified here ({", ".join(DISTORTION_MODELS)} are): publish rectified images')
        distortion = tuple(d.tolist())
    return CameraModel(to_nanoseconds(message.header.stamp), frame_name(message.header.frame_id), K,
                       (message.height, message.width), distortion)


def _geometry(message: CameraInfo) -> Malformed | None:
    if message.header.stamp.sec < 0:
        return Malformed('header.stamp', message.header.stamp.sec, 'before 1970')
    if not (0 < message.height <= 16384 and 0 < message.width <= 16384):
        return Malformed('size', f'{message.width}x{message.height}', 'no size of an image')
    if message.binning_x > 1 or message.binning_y > 1:
        return Malformed('binning', f'{message.binning_x}x{message.binning_y}', 'K belongs to the image without '
                         'binning: switch binning off')
    roi = message.roi
    whole = (roi.x_offset, roi.y_offset) == (0, 0) and roi.width in (0, message.width) \
        and roi.height in (0, message.height)
    if not whole:
        return Malformed('roi', f'{roi.width}x{roi.height}+{roi.x_offset}+{roi.y_offset}', 'K belongs to the whole '
                         'image: publish it without a region of interest')
    return None


def parse_image_header(message: Image) -> Image | Malformed:
    """An image whose header can be used; its pixels are read when somebody looks, since most are never looked at."""
    if message.header.stamp.sec < 0:
        return Malformed('header.stamp', message.header.stamp.sec, 'before 1970')
    if len(message.header.frame_id) > 256:
        return Malformed('header.frame_id', message.header.frame_id, 'longer than 256 characters')
    return message
