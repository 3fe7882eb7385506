"""Between numpy and the standard message types; pixel data is never copied element by element."""

from __future__ import annotations

import array
import sys
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Pose, PoseStamped, Transform, TransformStamped
from nav_msgs.msg import Path
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from geo4d_ros.errors import InvalidInputError, require
from geo4d_ros.geometry.transforms import from_quaternion, pose_to_quaternion

OPENING_JOINT = 'gripper_opening'


def to_nanoseconds(stamp: Time | Duration) -> int:
    """Integer nanoseconds of a message stamp or duration."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def to_stamp(nanoseconds: int) -> Time:
    """Message stamp of integer nanoseconds."""
    sec, nanosec = divmod(int(nanoseconds), 1_000_000_000)
    return Time(sec=sec, nanosec=nanosec)


def to_duration(seconds: float) -> Duration:
    """Message duration of seconds >= 0."""
    sec, nanosec = divmod(round(seconds * 1e9), 1_000_000_000)
    return Duration(sec=sec, nanosec=nanosec)


def _bytes(data: np.ndarray) -> array.array:
    """The one fast way into `uint8[]`: rclpy checks every element of anything else."""
    out = array.array('B')
    out.frombytes(memoryview(np.ascontiguousarray(data)).cast('B'))
    return out


def image_message(pixels: np.ndarray, stamp: int, frame_id: str) -> Image:
    """rgb8 from (H, W, 3) uint8, mono8 from (H, W) uint8, 32FC1 [m] from float32, 16UC1 [mm] from uint16."""
    kinds = {(3, 'uint8'): 'rgb8', (2, 'uint8'): 'mono8', (2, 'float32'): '32FC1', (2, 'uint16'): '16UC1'}
    key = (pixels.ndim, pixels.dtype.name)
    require(key in kinds, f'an image should be uint8, uint16 or float32 but got {pixels.dtype} {pixels.shape}')
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=kinds[key],
                    is_bigendian=int(sys.byteorder == 'big'),
                    step=int(pixels.strides[0] if pixels.flags.c_contiguous else pixels[0].nbytes))
    message.header.stamp, message.header.frame_id = to_stamp(stamp), frame_id
    message.data = _bytes(pixels)
    return message


def camera_info_message(K: np.ndarray, height: int, width: int, stamp: int, frame_id: str) -> CameraInfo:
    """A rectified pinhole camera without distortion."""
    message = CameraInfo(height=height, width=width, distortion_model='plumb_bob', d=[0.0] * 5)
    message.header.stamp, message.header.frame_id = to_stamp(stamp), frame_id
    message.k = K.reshape(-1).tolist()
    message.r = np.eye(3).reshape(-1).tolist()
    message.p = np.hstack([K, np.zeros((3, 1))]).reshape(-1).tolist()
    return message


def point_cloud_message(points: np.ndarray, rgb: np.ndarray, stamp: int, frame_id: str) -> PointCloud2:
    """Unorganised coloured cloud from points (N, 3) float32 [m] and rgb (N, 3) uint8, as RViz reads it."""
    require(points.ndim == 2 and points.shape == rgb.shape and points.shape[1] == 3,
            f'a cloud needs points and colours (N, 3) but got {points.shape} and {rgb.shape}')
    packed = np.zeros(len(points), np.dtype([('xyz', '<f4', 3), ('rgb', '<u4')]))
    packed['xyz'] = points
    colour = rgb.astype(np.uint32)
    packed['rgb'] = colour[:, 0] << 16 | colour[:, 1] << 8 | colour[:, 2]
    message = PointCloud2(height=1, width=len(points), point_step=16, row_step=16 * len(points), is_dense=True)
    message.header.stamp, message.header.frame_id = to_stamp(stamp), frame_id
    message.fields = [PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
                      for i, name in enumerate(('x', 'y', 'z', 'rgb'))]
    message.data = _bytes(packed.view(np.uint8))
    return message


def pose_message(T: np.ndarray) -> Pose:
    """Pose of a (4, 4) transform."""
    message = Pose()
    message.position.x, message.position.y, message.position.z = map(float, T[:3, 3])
    x, y, z, w = map(float, pose_to_quaternion(T))
    message.orientation.x, message.orientation.y, message.orientation.z, message.orientation.w = x, y, z, w
    return message


def read_pose(message: Pose) -> np.ndarray:
    """(4, 4) transform of a pose; a quaternion far from unit length is refused, never normalised away."""
    return _matrix(message.orientation, message.position)


def transform_message(T: np.ndarray, stamp: int, parent: str, child: str) -> TransformStamped:
    """TransformStamped of T_parent_child."""
    pose = pose_message(T)
    message = TransformStamped(child_frame_id=child)
    message.header.stamp, message.header.frame_id = to_stamp(stamp), parent
    translation = message.transform.translation
    translation.x, translation.y, translation.z = pose.position.x, pose.position.y, pose.position.z
    message.transform.rotation = pose.orientation
    return message


def read_transform(message: Transform) -> np.ndarray:
    """(4, 4) of a transform message, checked like `read_pose`."""
    return _matrix(message.rotation, message.translation)


def _matrix(q: Any, t: Any) -> np.ndarray:
    xyzw = np.array([q.x, q.y, q.z, q.w])
    position = np.array([t.x, t.y, t.z])
    good = np.isfinite(xyzw).all() and abs(np.linalg.norm(xyzw) - 1) < 0.01 and np.isfinite(position).all()
    if not good:
        raise InvalidInputError(f'not a rigid transform: quaternion {xyzw.tolist()}, translation {position.tolist()}')
    return from_quaternion(xyzw, position)


def path_message(T_base_gripper: np.ndarray, stamps: np.ndarray, frame_id: str) -> Path:
    """Path whose header has the stamp of the first pose (the observation) and whose poses carry their own.

    T_base_gripper (n, 4, 4); stamps (n,) int64 [ns]; n >= 1, index 0 is the measured pose.
    """
    path = Path()
    path.header.stamp, path.header.frame_id = to_stamp(stamps[0]), frame_id
    for T, stamp in zip(T_base_gripper, stamps, strict=True):
        pose = PoseStamped(pose=pose_message(T))
        pose.header.stamp, pose.header.frame_id = to_stamp(stamp), frame_id
        path.poses.append(pose)
    return path
