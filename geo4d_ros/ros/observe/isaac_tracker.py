"""isaac_ros_foundationpose as a pose backend: frames go to its selector's topics, poses come back as detections.

Start NVIDIA's selector and its two nodes beside this package and remap their topics to `isaac/...` of this node
(facts in the documentation of isaac_ros_foundationpose, release 4.4). The selector registers on its first frame, so it
is given frame 0 with the projected hand as the mask, and tracks from there; its blind periodic reset should be longer
than a chunk. It follows one camera: the reference view.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from geo4d_ros.geometry.transforms import translation_distance
from geo4d_ros.ros.serve.qos import PREDICTION_QOS
from geo4d_ros.ros.wire.conversions import camera_info_message, image_message, read_pose, to_nanoseconds
from geo4d_ros.tracking.backends.external import PoseBackendFault
from geo4d_ros.types import RgbdFrame

FRAME = 'geo4d_isaac_view'
MAX_START_M = 0.05
FRAME_PERIOD_NS = 33_333_333  # only orders the frames: the selector pairs its inputs by exact stamp


class IsaacPoseClient:
    """A `PoseBackend` over topics; the node has to spin in another thread than the one that tracks."""

    max_views = 1

    def __init__(self, node: Node, deadline_s: float = 2.0, start_s: float = 30.0) -> None:
        from vision_msgs.msg import Detection3DArray

        self._deadline_s, self._start_s = deadline_s, start_s
        self._stamp = 0
        self._answers: dict[int, np.ndarray | None] = {}
        self._arrived = threading.Condition()
        self._publishers = {name: node.create_publisher(kind, f'isaac/{name}', PREDICTION_QOS)
                            for name, kind in (('image', Image), ('depth_image', Image), ('segmentation', Image),
                                               ('camera_info', CameraInfo))}
        group = MutuallyExclusiveCallbackGroup()
        self._subscriptions = [
            node.create_subscription(Detection3DArray, f'isaac/{topic}/output', self._on_detections, PREDICTION_QOS,
                                     callback_group=group)
            for topic in ('tracking', 'pose_estimation')]
        self._node = node

    def begin(self, opening: float) -> None:
        """Nothing to prepare; raises PoseBackendFault when nobody listens."""
        if self._publishers['image'].get_subscription_count() == 0:
            raise PoseBackendFault('no node of isaac_ros_foundationpose listens on isaac/image; start its selector '
                                   'and remap its topics')

    def start(self, view: int, T_view_gripper: np.ndarray, frame: RgbdFrame, mask: np.ndarray) -> None:
        """Register on frame 0 (the selector takes no pose); a far answer is a fault: it would be followed."""
        T = self.register(view, frame.rgb, frame.depth, mask, frame.K)
        distance = float(translation_distance(T, T_view_gripper))
        if distance > MAX_START_M:
            raise PoseBackendFault(f'isaac_ros_foundationpose registered {100 * distance:.0f} cm from the measured '
                                   'hand pose; check its mesh and the unit of its depth')

    def step(self, view: int, rgb: np.ndarray, depth: np.ndarray, K: np.ndarray) -> np.ndarray:
        """T_view_gripper (4, 4) of the next frame. Raises PoseBackendFault when no answer comes in time."""
        return self._ask(rgb, depth, np.full(depth.shape, 255, np.uint8), K, self._deadline_s)

    def register(self, view: int, rgb: np.ndarray, depth: np.ndarray, mask: np.ndarray, K: np.ndarray) -> np.ndarray:
        """T_view_gripper (4, 4) found inside mask (H, W) bool."""
        return self._ask(rgb, depth, np.where(mask, 255, 0).astype(np.uint8), K, self._start_s)

    def close(self) -> None:
        """Leave the topics."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)

    def _ask(self, rgb: np.ndarray, depth: np.ndarray, mask: np.ndarray, K: np.ndarray, timeout_s: float) -> np.ndarray:
        self._stamp += FRAME_PERIOD_NS
        stamp, (height, width) = self._stamp, depth.shape
        self._publishers['camera_info'].publish(camera_info_message(K, height, width, stamp, FRAME))
        self._publishers['segmentation'].publish(image_message(mask, stamp, FRAME))
        self._publishers['depth_image'].publish(image_message(depth, stamp, FRAME))
        self._publishers['image'].publish(image_message(rgb, stamp, FRAME))
        with self._arrived:
            if not self._arrived.wait_for(lambda: stamp in self._answers, timeout_s):
                raise PoseBackendFault(f'isaac_ros_foundationpose gave no pose within {timeout_s:g} s')
            T = self._answers.pop(stamp)
        if T is None:
            raise PoseBackendFault('isaac_ros_foundationpose detected nothing')
        return T

    def _on_detections(self, message: Any) -> None:
        """Detection3DArray: the best hypothesis of the first detection, None when there is none."""
        T = None
        if message.detections and message.detections[0].results:
            best = max(message.detections[0].results, key=lambda result: result.hypothesis.score)
            T = read_pose(best.pose.pose)
        with self._arrived:
            self._answers = {to_nanoseconds(message.header.stamp): T}
            self._arrived.notify_all()
