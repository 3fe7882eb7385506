"""A predicted video on standard topics, and back: /geo4d/prediction/<view>/... and /geo4d/prediction/info."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from geo4d_interfaces.msg import PredictionInfo as InfoMessage
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from geo4d_ros.errors import Geo4dError
from geo4d_ros.geometry.cameras import unproject
from geo4d_ros.geometry.image_messages import read_colour, read_depth
from geo4d_ros.geometry.transforms import transform_points
from geo4d_ros.ros.serve.qos import NO_PUBLISHER_EVENTS, PREDICTION_QOS, STATE_QOS, TF_STATIC_QOS, overridden
from geo4d_ros.ros.wire import compressed
from geo4d_ros.ros.wire.camera import IMAGE_BYTES
from geo4d_ros.ros.wire.conversions import (
    camera_info_message,
    image_message,
    point_cloud_message,
    to_nanoseconds,
    transform_message,
)
from geo4d_ros.ros.wire.guard import Boundary, Malformed
from geo4d_ros.ros.wire.prediction_info import INFO_BYTES, PredictionInfo, info_message, parse_prediction_info
from geo4d_ros.types import Observation, RgbdFrame, Video4D

VIEWS = ('reference', 'second')
ROOT = 'geo4d/prediction'
MOST_STAMPS = 64  # of a topic whose frames wait for the rest of their prediction
PIXELS = 4096 * 4096


def view_name(view: int) -> str:
    """'reference', 'second', 'view3', ..."""
    return VIEWS[view] if view < len(VIEWS) else f'view{view + 1}'


@dataclass(frozen=True)
class Prediction:
    """One answer of the generator: its id, what it saw, what it expects; frame_id of the reference camera."""

    plan: str
    observation: Observation
    video: Video4D

    @property
    def frame_id(self) -> str:
        """Optical frame all points are in."""
        return self.observation.views[0].frame_id


class PredictionPublisher:
    """Publishes predictions, each topic only when somebody listens; `info` goes out last and is latched."""

    def __init__(self, node: Node, views: int) -> None:
        def create(kind: type, topic: str, qos: QoSProfile) -> Publisher:
            return node.create_publisher(kind, topic, overridden(node, topic, qos, 'publisher'),
                                         event_callbacks=NO_PUBLISHER_EVENTS)

        def publishers(view: int) -> dict[str, Publisher]:
            topics = {'colour': (Image, 'color/image_raw'), 'depth': (Image, 'depth/image_rect_raw'),
                      'mask': (Image, 'gripper_mask/image_raw'), 'info': (CameraInfo, 'camera_info'),
                      'jpeg': (CompressedImage, f'color/image_raw/{compressed.COLOUR}'),
                      'png': (CompressedImage, f'depth/image_rect_raw/{compressed.DEPTH}')}
            return {kind: create(message_type, f'{ROOT}/{view_name(view)}/{topic}', PREDICTION_QOS)
                    for kind, (message_type, topic) in topics.items()}

        self._views = [publishers(view) for view in range(views)]
        self._points = create(PointCloud2, f'{ROOT}/points', PREDICTION_QOS)
        self._info = node.create_publisher(InfoMessage, f'{ROOT}/info', STATE_QOS,
                                           event_callbacks=NO_PUBLISHER_EVENTS)
        self._static = node.create_publisher(TFMessage, '/tf_static', TF_STATIC_QOS,
                                             event_callbacks=NO_PUBLISHER_EVENTS)

    def publish(self, prediction: Prediction) -> None:
        """Frames are stamped observation + k dt; the second view's frame is `geo4d_second_optical_frame`."""
        video = prediction.video
        frame_ids = [prediction.frame_id, *[f'geo4d_{view_name(v)}_optical_frame' for v in range(1, video.views)]]
        self._static.publish(TFMessage(transforms=[
            transform_message(video.T_ref_view[v], int(video.stamps[0]), frame_ids[0], frame_ids[v])
            for v in range(1, video.views)]))
        for view, frame_id in enumerate(frame_ids):
            for frame, stamp in enumerate(video.stamps.tolist()):
                self._publish_frame(self._views[view], video, view, frame, stamp, frame_id)
        if self._points.get_subscription_count():
            for frame, stamp in enumerate(video.stamps.tolist()):
                valid = video.valid[:, frame]
                self._points.publish(point_cloud_message(video.points[:, frame][valid], video.rgb[:, frame][valid],
                                                         stamp, frame_ids[0]))
        self._info.publish(info_message(prediction.plan, prediction.observation, video))

    @staticmethod
    def _publish_frame(topics: dict[str, Publisher], video: Video4D, view: int, frame: int, stamp: int,
                       frame_id: str) -> None:
        height, width = video.rgb.shape[2:4]
        makers: dict[str, Callable[[], Any]] = {
            'colour': lambda: image_message(video.rgb[view, frame], stamp, frame_id),
            'depth': lambda: image_message(video.depth(view, frame), stamp, frame_id),
            'info': lambda: camera_info_message(video.K[view], height, width, stamp, frame_id),
            'jpeg': lambda: compressed.compressed_colour(video.rgb[view, frame], stamp, frame_id),
            'png': lambda: compressed.compressed_depth(video.depth(view, frame), stamp, frame_id),
        }
        mask = video.gripper_mask
        if mask is not None:
            makers['mask'] = lambda: image_message(
                np.rint(mask[view, frame].clip(0, 1) * 255).astype(np.uint8), stamp, frame_id)
        for kind, make in makers.items():
            if topics[kind].get_subscription_count():
                topics[kind].publish(make())


class PredictionReceiver:
    """Puts a prediction together again from the topics and hands it to `on_prediction`, once per plan id.

    Frames that wait for theirs are few: the oldest of more than `MOST_STAMPS` stamps per topic are forgotten.
    """

    def __init__(self, node: Node, boundary: Boundary, views: int, on_prediction: Callable[[Prediction], None],
                 on_error: Callable[[str, str], None], callback_group: Any = None) -> None:
        self._on_prediction, self._on_error = on_prediction, on_error
        self._frames: dict[tuple[int, int, str], np.ndarray] = {}
        self._latest: PredictionInfo | None = None
        self._views = views
        topics = {'colour': 'color/image_raw', 'depth': 'depth/image_rect_raw', 'mask': 'gripper_mask/image_raw'}
        for view in range(views):
            for kind, topic in topics.items():
                read = partial(_pixels, kind=kind)
                boundary.subscribe(Image, f'{ROOT}/{view_name(view)}/{topic}', read,
                                   lambda frame, number, v=view, k=kind: self._image(v, k, frame), PREDICTION_QOS,
                                   limit=IMAGE_BYTES, callback_group=callback_group,
                                   refused=lambda cause: self._on_error('', cause))
        boundary.subscribe(InfoMessage, f'{ROOT}/info', parse_prediction_info, lambda info, number: self._info(info),
                           STATE_QOS, limit=INFO_BYTES, callback_group=callback_group,
                           refused=lambda cause: self._on_error('', cause))

    def _image(self, view: int, kind: str, frame: tuple[int, np.ndarray]) -> None:
        stamp, pixels = frame
        self._frames[view, stamp, kind] = pixels
        waiting = [key for key in self._frames if key[0] == view and key[2] == kind]
        for key in waiting[:-MOST_STAMPS]:  # in the order of their arrival
            del self._frames[key]
        self._assemble()

    def _info(self, info: PredictionInfo) -> None:
        if len(info.K) != self._views:
            self._on_error(info.plan, f'the prediction has {len(info.K)} views, this node reads {self._views}')
            return
        if self._latest is not None:
            self._on_error(self._latest.plan, 'frames of the prediction are missing on the topics')
        self._latest = info
        self._frames = {key: pixels for key, pixels in self._frames.items() if key[1] in info.stamps}
        self._assemble()

    def _assemble(self) -> None:
        info = self._latest
        if info is None:
            return
        kinds = ('colour', 'depth', 'mask') if info.gripper_mask else ('colour', 'depth')
        wanted = [(v, s, k) for v in range(self._views) for s in info.stamps for k in kinds]
        if not all(key in self._frames for key in wanted):
            return
        frames, self._latest = self._frames, None
        self._frames = {key: pixels for key, pixels in frames.items() if key[1] > info.stamps[-1]}
        try:
            prediction = self._build(info, frames)
        except (Geo4dError, ValueError) as error:
            self._on_error(info.plan, f'the prediction on the topics cannot be used: {error}')
            return
        self._on_prediction(prediction)

    def _build(self, info: PredictionInfo, frames: dict[tuple[int, int, str], np.ndarray]) -> Prediction:
        stacks: dict[str, list] = defaultdict(list)
        for view in range(self._views):
            depth = [frames[view, s, 'depth'] for s in info.stamps]
            stacks['rgb'].append([frames[view, s, 'colour'] for s in info.stamps])
            stacks['points'].append([transform_points(info.T_ref_view[view], unproject(d, info.K[view]))
                                     for d in depth])
            stacks['valid'].append([d > 0 for d in depth])
            if info.gripper_mask:
                stacks['mask'].append([frames[view, s, 'mask'][..., 0] for s in info.stamps])
        mask = np.asarray(stacks['mask'], np.float32) / np.float32(255) if info.gripper_mask else None
        video = Video4D(np.asarray(stacks['rgb']), np.asarray(stacks['points'], np.float32),
                        np.asarray(stacks['valid']), np.array(info.stamps, np.int64), info.K, info.T_ref_view, mask,
                        info.state)
        first = info.stamps[0]
        views = tuple(RgbdFrame(frames[v, first, 'colour'], frames[v, first, 'depth'], info.K[v], first,
                                info.frame_id if v == 0 else f'geo4d_{view_name(v)}_optical_frame')
                      for v in range(self._views))
        return Prediction(info.plan, Observation(views, info.T_ref_gripper, info.opening), video)


def _pixels(message: Image, kind: str) -> tuple[int, np.ndarray] | Malformed:
    """(stamp [ns], pixels) of a predicted frame."""
    if message.height * message.width > PIXELS:
        return Malformed('size', f'{message.width}x{message.height}', f'more than {PIXELS} pixels')
    try:
        return to_nanoseconds(message.header.stamp), (read_depth if kind == 'depth' else read_colour)(message)
    except Geo4dError as error:
        return Malformed('data', f'{message.width}x{message.height} {message.encoding[:40]}', str(error))
