"""Two cameras, joint states and transforms without a simulator; every fault of a real rig can be switched on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from fakes.panda import ARM_FRAMES, BASE_FRAME, TOOL_FRAME
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, JointState
from tf2_msgs.msg import TFMessage

from geo4d_ros.geometry.cameras import intrinsics
from geo4d_ros.geometry.transforms import make_transform
from geo4d_ros.ros.serve.qos import IMAGE_QOS, TF_QOS, TF_STATIC_QOS
from geo4d_ros.ros.wire.conversions import camera_info_message, image_message, to_stamp, transform_message

SIZE = (24, 32)
FRAMES = ('cam1_optical', 'cam2_optical', 'cam3_optical')
T_BASE_CAMERA = np.array([[0, -1, 0, 0.5], [-1, 0, 0, 0], [0, 0, -1, 1.0], [0, 0, 0, 1]], float)
T_BASE_TOOL = np.diag([1.0, -1.0, -1.0, 1.0]) + make_transform(None, np.array([0.4, 0.0, 0.3])) - np.eye(4)


class FakeCameras(Node):
    """Publishes at 20 Hz; `fault` is '' or one of the branches below.

    The third of `count` has no transform. edit(topic, index, message) may change a camera's messages;
    time() [ns] stamps everything.
    """

    def __init__(self, count: int = 2, **options: object) -> None:
        super().__init__('fake_cameras', **options)
        self.fault, self.T_base_tool = '', T_BASE_TOOL
        self.edit: Callable[[str, int, Any], Any] = lambda topic, index, message: message
        self.time: Callable[[], int] = lambda: self.get_clock().now().nanoseconds
        self.K = intrinsics(30, SIZE[1], SIZE[0])
        self.random = np.random.default_rng(0)
        topics = (('color/image_raw', Image), ('aligned_depth_to_color/image_raw', Image),
                  ('color/camera_info', CameraInfo))
        self._cameras = [[self.create_publisher(kind, f'/camera{i}/camera{i}/{topic}', IMAGE_QOS)
                          for topic, kind in topics] for i in range(1, count + 1)]
        self._joints = self.create_publisher(JointState, 'joint_states', 10)
        self._tf = self.create_publisher(TFMessage, '/tf', TF_QOS)
        self._static = self.create_publisher(TFMessage, '/tf_static', TF_STATIC_QOS)
        self.publish_cameras()
        self.create_timer(0.05, self._tick)

    def publish_cameras(self, T_ref_second: np.ndarray | None = None) -> None:
        """The static transforms; the second camera is 20 cm beside the first unless told otherwise."""
        offset = make_transform(None, np.array([0.2, 0, 0])) if T_ref_second is None else T_ref_second
        self._static.publish(TFMessage(transforms=[
            transform_message(T, 0, BASE_FRAME, frame)
            for T, frame in zip((T_BASE_CAMERA, T_BASE_CAMERA @ offset), FRAMES[:2], strict=True)]))

    def _tick(self) -> None:
        now = self.time()
        if self.fault != 'no tf':
            self._tf.publish(TFMessage(transforms=[transform_message(self.T_base_tool, now, BASE_FRAME, frame)
                                                   for frame in (TOOL_FRAME, *ARM_FRAMES[1:])]))
        joints = JointState(name=['panda_finger_joint1', 'panda_finger_joint2'], position=[0.02, 0.02])
        joints.header.stamp = to_stamp(now)
        if self.fault != 'no joints':
            self._joints.publish(joints)
        for index in range(len(self._cameras)):
            self._send(index, now)

    def _send(self, index: int, now: int) -> None:
        second = index == 1
        if self.fault == 'second camera silent' and second:
            return
        stamp = {'stale': now - 3_000_000_000, 'future': now + 3_000_000_000}.get(self.fault, now)
        stamp -= 25_000_000 if self.fault == 'skewed' and second else 0
        seed = 0 if self.fault == 'frozen' else int(self.random.integers(2**31))
        rgb = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        depth = np.full(SIZE, 800, np.uint16)
        if self.fault == 'empty depth' and second:
            depth[:] = 0
        if self.fault == 'sizes' and second:
            depth = depth[::2]
        colour = image_message(rgb, stamp, FRAMES[index])
        if self.fault == 'encoding' and second:
            colour.encoding = 'yuv422'
        K = self.K * 0 if self.fault == 'intrinsics' and second else self.K
        info = camera_info_message(K, *SIZE, stamp, FRAMES[index])
        parts = ('colour', colour), ('depth', image_message(depth, stamp, FRAMES[index])), ('info', info)
        for publisher, (topic, message) in zip(self._cameras[index], parts, strict=True):
            publisher.publish(self.edit(topic, index, message))
