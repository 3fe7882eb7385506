"""Receives the cameras' images and turns the newest match into an `Observation`."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from geo4d_ros.data.readers import ros_images
from geo4d_ros.errors import Geo4dError, require
from geo4d_ros.geometry.image_messages import read_colour, read_depth
from geo4d_ros.geometry.rectification import rectify
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.observe.receiver import Receiver
from geo4d_ros.ros.observe.rgbd_pairing import CameraMessages, Match, RgbdPairing
from geo4d_ros.ros.serve.clock_jump import NO_CLOCK
from geo4d_ros.ros.serve.qos import IMAGE_QOS
from geo4d_ros.ros.wire import compressed as compressed_images
from geo4d_ros.ros.wire.camera import (
    IMAGE_BYTES,
    CameraModel,
    frame_name,
    parse_camera_info,
    parse_image_header,
)
from geo4d_ros.ros.wire.conversions import to_nanoseconds
from geo4d_ros.ros.wire.guard import SMALL, Boundary
from geo4d_ros.ros.wire.sources import Source
from geo4d_ros.types import RgbdFrame

COLOUR, DEPTH = 'color/image_raw', 'aligned_depth_to_color/image_raw'
# A D405 publishes its colour rectified, under another name.
RECTIFIED = 'color/image_rect_raw'
# Cameras' clocks may run ahead of ours by this much before it counts as a jump.
CLOCK_TOLERANCE_S = 0.1
DAY_S = 86400.0


class RgbdSync:
    """Subscribes realsense-ros topics under each of `namespaces`; the first camera is the reference.

    Callbacks only store the newest message; everything else happens in the caller of `wait`. A receiver of
    its own holds 30 Hz of two cameras, a multi-threaded executor does not.
    """

    def __init__(self, receiver: Receiver, boundary: Boundary, namespaces: tuple[str, ...],
                 compressed: bool = False) -> None:
        require(len(set(namespaces)) == len(namespaces), f'the cameras should differ but are {namespaces}')
        suffix, kind = (f'/{compressed_images.COLOUR}', CompressedImage) if compressed else ('', Image)
        self._colours = COLOUR + suffix, RECTIFIED + suffix
        depth = f'{DEPTH}/{compressed_images.DEPTH}' if compressed else DEPTH
        self.node, self.pairing = receiver.node, RgbdPairing(namespaces)
        self._namespaces = namespaces
        self._sources: dict[str, Source] = {}
        self._invalid: dict[int, str] = {}  # camera -> why its newest camera_info is refused
        self._raw_colour = [False] * len(namespaces)
        for camera, namespace in enumerate(namespaces):
            for part, topic in (*(('colour', colour) for colour in self._colours), ('depth', depth)):
                self._listen(receiver, boundary, kind, camera, part, f'{namespace}/{topic}')
            for part, topic in (('info', 'color/camera_info'), ('depth_info', 'aligned_depth_to_color/camera_info')):
                self._listen(receiver, boundary, CameraInfo, camera, part, f'{namespace}/{topic}')

    def _listen(self, receiver: Receiver, boundary: Boundary, kind: type, camera: int, part: str, topic: str) -> None:
        source = self._sources[topic] = Source()

        def accept(message: Any, number: int | None) -> None:
            if part == 'colour':
                raw, rectified = self._colours
                self._raw_colour[camera] |= topic.endswith(raw)
                if self._raw_colour[camera] and topic.endswith(rectified):
                    return
            if source.see(number, time.monotonic()):
                self.pairing.forget(camera)
            stamp = message.stamp if isinstance(message, CameraModel) else to_nanoseconds(message.header.stamp)
            self.pairing.add(camera, part, stamp, message)
            if part == 'info':
                self._invalid.pop(camera, None)

        def refused(cause: str) -> None:
            self._invalid[camera] = cause

        parse, limit = (parse_camera_info, SMALL) if kind is CameraInfo else (parse_image_header, IMAGE_BYTES)
        boundary.subscribe(kind, topic, parse, accept, IMAGE_QOS, limit=limit, host=receiver,
                           refused=refused if part == 'info' else None)

    def wait(self, slop_s: float, max_age_s: float, timeout_s: float, fresh: bool = True) -> Match | Refusal:
        """The newest match of all cameras that is at most `max_age_s` old, or why there is none.

        With `fresh`, only images taken after this call count, for which it waits up to `timeout_s`.
        """
        now = self._now(timeout_s)
        if not now:
            return Refusal(Reason.OBSERVATION_TIMEOUT, NO_CLOCK)
        not_before = now if fresh else now - int(max_age_s * 1e9)
        match = self.pairing.wait(slop_s, not_before, timeout_s)
        wrong = self._wrong()
        if wrong is not None:
            return wrong
        if isinstance(match, Refusal):
            return self._explained(match)
        age = self.age(match)
        if age > max_age_s:
            return self._explained(Refusal(Reason.OBSERVATION_STALE, f'the camera pair is {age:.3f} s old, '
                                           f'{max_age_s} s allowed', {'age_s': age}))
        if age < -CLOCK_TOLERANCE_S:
            return self._explained(Refusal(Reason.CLOCK_JUMP, f'the camera pair is {-age:.3f} s in the future',
                                           {'age_s': age}))
        return match

    def _now(self, timeout_s: float) -> int:
        """[ns] of the node's clock; 0 where none came in time (simulated time that nobody publishes)."""
        deadline = time.monotonic() + timeout_s
        while not (now := self.node.get_clock().now().nanoseconds) and time.monotonic() < deadline:
            time.sleep(0.02)
        return now

    def _wrong(self) -> Refusal | None:
        """What a camera sends cannot be used, or two of them send it."""
        now = time.monotonic()
        for topic, source in self._sources.items():
            if source.doubled(now):
                return Refusal(Reason.OBSERVATION_INVALID, f'two publishers of {topic}: give each camera a namespace '
                               'of its own')
        for cause in self._invalid.values():
            return Refusal(Reason.OBSERVATION_INVALID, cause)
        return None

    def _explained(self, refusal: Refusal) -> Refusal:
        """The refusal with the likely cause in front, where the graph or the numbers show one."""
        hint = ''
        age = refusal.values.get('age_s')
        if isinstance(age, float) and abs(age) > DAY_S:
            hint = 'the stamps of the cameras and the clock of this node are of different times: set use_sim_time ' \
                   'to true for a simulation or replay, to false for a real cell; '
        elif refusal.reason is Reason.OBSERVATION_TIMEOUT:
            names = [name for name, _ in self.node.get_topic_names_and_types() if name.endswith(
                tuple(f'/{topic}' for topic in self._colours))]
            ours = {self.node.resolve_topic_name(f'{namespace}/{topic}') for namespace in self._namespaces
                    for topic in self._colours}
            sent = [name for name in names if self.node.count_publishers(name)]
            others = sorted({name.partition('/color/')[0] for name in set(sent) - ours if '/geo4d/' not in name})
            if others and not set(sent) >= {name for name in ours if name.endswith('/' + self._colours[0])}:
                hint = f'images come under {", ".join(others)} (parameters reference_camera, second_camera); '
        return Refusal(refusal.reason, hint + refusal.detail, refusal.values) if hint else refusal

    def age(self, match: Match) -> float:
        """Seconds since the oldest image of the match, on the node's clock."""
        return (self.node.get_clock().now().nanoseconds - min(c.stamp for c in match.cameras)) * 1e-9


def read_frame(camera: CameraMessages, min_valid_depth: float = 0.05, depth_unit: float = 0.001) -> RgbdFrame:
    """Messages -> frame, rectified; raises InvalidInputError for encodings, sizes or intrinsics that cannot be used,
    depth that is not aligned to colour, or empty depth."""
    rgb = (ros_images.read_colour if ros_images.is_compressed(camera.colour) else read_colour)(camera.colour)
    depth = (ros_images.read_depth if ros_images.is_compressed(camera.depth) else read_depth)(camera.depth, depth_unit)
    model, frame_id = camera.info, frame_name(camera.colour.header.frame_id)
    require(rgb.shape[:2] == depth.shape, f'{frame_id}: colour is {rgb.shape[1]}x{rgb.shape[0]} but depth is '
            f'{depth.shape[1]}x{depth.shape[0]}; enable depth alignment')
    _require_aligned(camera, frame_id)
    require(model.size == rgb.shape[:2], f'{frame_id}: camera_info is for {model.size[1]}x{model.size[0]} but the '
            f'image is {rgb.shape[1]}x{rgb.shape[0]}')
    require(model.frame_id in ('', frame_id), f'{frame_id}: camera_info is of the frame {model.frame_id!r}')
    valid = float(np.count_nonzero(depth)) / depth.size
    require(valid >= min_valid_depth, f'{frame_id}: only {valid:.1%} of the depth is valid, '
            f'{min_valid_depth:.1%} needed')
    if model.distortion:
        rgb, depth = rectify(rgb, depth, model.K, model.distortion)
    return RgbdFrame(rgb, depth, model.K, camera.stamp, frame_id)


def _require_aligned(camera: CameraMessages, frame_id: str) -> None:
    """Depth in the colour camera's frame and with its intrinsics, as far as the messages tell."""
    depth_frame = frame_name(camera.depth.header.frame_id)
    require(depth_frame == frame_id, f'{frame_id}: depth is not aligned to colour, its frame is {depth_frame!r}; '
            'enable align_depth of the camera driver')
    other = camera.depth_info
    if other is not None:
        same = other.frame_id == camera.info.frame_id and other.size == camera.info.size \
            and np.allclose(other.K, camera.info.K, rtol=1e-3)
        require(same, f'{frame_id}: depth is not aligned to colour, its camera_info (frame {other.frame_id!r}, K '
                f'{np.round(other.K[[0, 1, 0, 1], [0, 1, 2, 2]], 1).tolist()}) is not that of colour; enable '
                'align_depth of the camera driver')


def read_frames(match: Match, min_valid_depth: float = 0.05, depth_unit: float = 0.001,
                ) -> tuple[RgbdFrame, ...] | Refusal:
    """`read_frame` of every camera, or OBSERVATION_INVALID with the first one's fault."""
    try:
        return tuple(read_frame(camera, min_valid_depth, depth_unit) for camera in match.cameras)
    except Geo4dError as error:
        return Refusal(Reason.OBSERVATION_INVALID, str(error))
