"""Receives the cameras' images and turns the newest match into an `Observation`."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from geo4d_ros.errors import Geo4dError, require
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.observe.receiver import Receiver
from geo4d_ros.ros.observe.rgbd_pairing import CameraMessages, Match, RgbdPairing
from geo4d_ros.ros.serve.qos import IMAGE_QOS
from geo4d_ros.ros.wire.conversions import read_colour, read_depth, read_intrinsics, to_nanoseconds
from geo4d_ros.types import RgbdFrame

TOPICS = (('colour', Image, 'color/image_raw'), ('depth', Image, 'aligned_depth_to_color/image_raw'),
          ('info', CameraInfo, 'color/camera_info'))
# Cameras' clocks may run ahead of ours by this much before it counts as a jump.
CLOCK_TOLERANCE_S = 0.1


class RgbdSync:
    """Subscribes realsense-ros topics under each of `namespaces`; the first camera is the reference.

    Callbacks only store the newest message; everything else happens in the caller of `wait`. A receiver of
    its own holds 30 Hz of two cameras, a multi-threaded executor does not.
    """

    def __init__(self, receiver: Receiver, namespaces: tuple[str, ...]) -> None:
        require(len(set(namespaces)) == len(namespaces), f'the cameras should differ but are {namespaces}')
        self.node, self.pairing = receiver.node, RgbdPairing(namespaces)
        for camera, namespace in enumerate(namespaces):
            for kind, message_type, topic in TOPICS:
                receiver.create_subscription(
                    message_type, f'{namespace}/{topic}',
                    lambda m, c=camera, k=kind: self.pairing.add(c, k, to_nanoseconds(m.header.stamp), m), IMAGE_QOS)

    def wait(self, slop_s: float, max_age_s: float, timeout_s: float, fresh: bool = True) -> Match | Refusal:
        """The newest match of all cameras that is at most `max_age_s` old, or why there is none.

        With `fresh`, only images taken after this call count, for which it waits up to `timeout_s`.
        """
        now = self.node.get_clock().now().nanoseconds
        not_before = now if fresh else now - int(max_age_s * 1e9)
        match = self.pairing.wait(slop_s, not_before, timeout_s)
        if isinstance(match, Refusal):
            return match
        age = self.age(match)
        if age > max_age_s:
            return Refusal(Reason.OBSERVATION_STALE, f'the camera pair is {age:.3f} s old, {max_age_s} s allowed',
                           {'age_s': age})
        if age < -CLOCK_TOLERANCE_S:
            return Refusal(Reason.CLOCK_JUMP, f'the camera pair is {-age:.3f} s in the future', {'age_s': age})
        return match

    def age(self, match: Match) -> float:
        """Seconds since the oldest image of the match, on the node's clock."""
        return (self.node.get_clock().now().nanoseconds - min(c.stamp for c in match.cameras)) * 1e-9


def read_frame(camera: CameraMessages, min_valid_depth: float = 0.05) -> RgbdFrame:
    """Messages -> frame; raises InvalidInputError for unreadable encodings, sizes, intrinsics or empty depth."""
    rgb, depth = read_colour(camera.colour), read_depth(camera.depth)
    K = read_intrinsics(camera.info)
    frame_id = camera.colour.header.frame_id
    require(rgb.shape[:2] == depth.shape, f'{frame_id}: colour is {rgb.shape[1]}x{rgb.shape[0]} but depth is '
            f'{depth.shape[1]}x{depth.shape[0]}; enable depth alignment')
    info_size = (camera.info.height, camera.info.width)
    require(info_size == rgb.shape[:2], f'{frame_id}: camera_info is for {info_size[1]}x{info_size[0]} but the '
            f'image is {rgb.shape[1]}x{rgb.shape[0]}')
    valid = float(np.count_nonzero(depth)) / depth.size
    require(valid >= min_valid_depth, f'{frame_id}: only {valid:.1%} of the depth is valid, '
            f'{min_valid_depth:.1%} needed')
    return RgbdFrame(rgb, depth, K, camera.stamp, frame_id)


def read_frames(match: Match, min_valid_depth: float = 0.05) -> tuple[RgbdFrame, ...] | Refusal:
    """`read_frame` of every camera, or OBSERVATION_INVALID with the first one's fault."""
    try:
        return tuple(read_frame(camera, min_valid_depth) for camera in match.cameras)
    except Geo4dError as error:
        return Refusal(Reason.OBSERVATION_INVALID, str(error))
