"""What the simulated cell says on topics: clock, joints, transforms, robot description, camera images."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rosgraph_msgs.msg import Clock
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from geo4d_ros.geometry.cameras import Camera
from geo4d_ros.geometry.transforms import make_transform
from geo4d_ros.robots.description import RobotDescription
from geo4d_ros.ros.serve.qos import IMAGE_QOS, STATE_QOS, TF_QOS, TF_STATIC_QOS, overridden
from geo4d_ros.ros.wire.conversions import camera_info_message, image_message, to_stamp, transform_message
from geo4d_ros.simulation.runner import STATE_PERIOD, Snapshot

TF_EVERY = 4  # snapshots: 31 Hz


class RobotPublisher:
    """/clock, /joint_states, /tf of each snapshot; /robot_description once."""

    def __init__(self, node: Node, robot: RobotDescription, link_names: tuple[str, ...]) -> None:
        self._robot, self._links, self._count = robot, link_names, 0
        self._clock = node.create_publisher(Clock, '/clock', 10)
        self._joints = node.create_publisher(JointState, 'joint_states', 10)
        self._tf = node.create_publisher(TFMessage, '/tf', TF_QOS)
        self._description = node.create_publisher(String, 'robot_description', STATE_QOS)
        self._description.publish(String(data=robot.urdf_text))

    def publish(self, state: Snapshot) -> None:
        """Called with every snapshot, from the simulation thread."""
        self.publish_clock(state.stamp)
        self.publish_joints(state)
        if self._count % TF_EVERY == 0:
            self.publish_transforms(state)
        self._count += 1

    def publish_clock(self, stamp: int) -> None:
        """/clock at a stamp [ns]."""
        self._clock.publish(Clock(clock=to_stamp(stamp)))

    def publish_joints(self, state: Snapshot) -> None:
        """/joint_states: arm and fingers."""
        self._joints.publish(self.joint_message(state))

    def joint_message(self, state: Snapshot) -> JointState:
        """Arm and fingers, positions and velocities."""
        joints = JointState(name=[*self._robot.joints, *self._robot.finger_joints])
        joints.header.stamp = to_stamp(state.stamp)
        fingers, before = (list(self._robot.finger_positions(opening).values()) for opening in
                           (state.opening, state.opening - state.opening_velocity * STATE_PERIOD))
        joints.position = [*state.q.tolist(), *fingers]
        joints.velocity = [*state.dq.tolist(), *((a - b) / STATE_PERIOD for a, b in zip(fingers, before, strict=True))]
        return joints

    def publish_transforms(self, state: Snapshot) -> None:
        """/tf: the links and the tool in the base frame."""
        rotations = Rotation.from_quat(state.link_quaternions[:, [1, 2, 3, 0]]).as_matrix()
        poses = {name: make_transform(R, t)
                 for name, R, t in zip(self._links, rotations, state.link_positions, strict=True)}
        base = self._robot.base_frame
        del poses[base]
        poses[self._robot.tool_frame] = state.T_base_gripper
        self._tf.publish(TFMessage(transforms=[
            transform_message(T, state.stamp, base, name) for name, T in poses.items()]))


class CameraPublisher:
    """Cameras under realsense-ros names: colour rgb8, aligned depth 16UC1 [mm], camera_info; static TF."""

    def __init__(self, node: Node, cameras: tuple[Camera, ...], namespaces: tuple[str, ...], base_frame: str) -> None:
        self._cameras, self._base_frame = cameras, base_frame
        self._frames = [f'{name.strip("/").split("/")[-1]}_color_optical_frame' for name in namespaces]

        def publisher(kind: type, topic: str) -> Publisher:
            return node.create_publisher(kind, topic, overridden(node, topic, IMAGE_QOS, 'publisher'))

        self._publishers = [(publisher(Image, f'{name}/color/image_raw'),
                             publisher(Image, f'{name}/aligned_depth_to_color/image_raw'),
                             publisher(CameraInfo, f'{name}/color/camera_info')) for name in namespaces]
        self._static = node.create_publisher(TFMessage, '/tf_static', TF_STATIC_QOS)
        self.publish_poses([camera.T_base_camera for camera in cameras])

    def publish_poses(self, T_base_camera: list[np.ndarray]) -> None:
        """Where the cameras stand, on /tf_static."""
        self._static.publish(TFMessage(transforms=[
            transform_message(T, 0, self._base_frame, frame)
            for T, frame in zip(T_base_camera, self._frames, strict=True)]))

    def publish(self, stamp: int, views: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """One moment of all cameras: rgb (H, W, 3) uint8, depth (H, W) float32 [m] each; stamp [ns]."""
        for index, (rgb, depth) in enumerate(views):
            for topic, message in zip(self._publishers[index], self.messages(index, stamp, rgb, depth), strict=True):
                topic.publish(message)

    def messages(self, index: int, stamp: int, rgb: np.ndarray, depth: np.ndarray) -> tuple[Image, Image, CameraInfo]:
        """Colour, depth and camera_info of one camera."""
        camera, frame = self._cameras[index], self._frames[index]
        millimetres = np.clip(np.rint(depth * 1000), 0, 65535).astype(np.uint16)
        return (image_message(rgb, stamp, frame), image_message(millimetres, stamp, frame),
                camera_info_message(camera.K, camera.height, camera.width, stamp, frame))
