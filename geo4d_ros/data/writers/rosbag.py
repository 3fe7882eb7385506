"""Episodes as rosbag2 recordings (MCAP or sqlite3), with the topics a real cell records; written without ROS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geo4d_ros.data.episodes import Episode, decode_depth
from geo4d_ros.data.readers.rosbag import (
    COLOUR,
    COMMANDS,
    DEPTH,
    INFO,
    LABELS,
    OBJECT_FRAME,
    OPENING_JOINT,
    STATES,
    TF,
    TF_STATIC,
)
from geo4d_ros.errors import BackendUnavailableError, ConfigurationError, DatasetError
from geo4d_ros.geometry.transforms import pose_to_quaternion

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

FIRST_STAMP_NS = 1_000_000_000  # of an episode's time 0: stamps of 0 mean "unset" to many tools
STORAGES = ('mcap', 'sqlite3')


def write_bag(episode: Episode, out: Path, storage: str = 'mcap', base_frame: str = 'base_link',
              gripper_frame: str = 'tool0') -> None:
    """Write the new folder `out`: depth as 32FC1 m, so that nothing is lost; what the episode lacks is left out.

    Raises DatasetError when `out` exists or the episode is damaged.
    """
    try:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.rosbag2.errors import WriterError
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise BackendUnavailableError('writing bags needs the package rosbags: pip install rosbags') from error
    types = get_typestore(Stores.ROS2_JAZZY)
    messages = _Messages(types.types, base_frame, gripper_frame)
    connections: dict[str, Connection] = {}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with Writer(out, version=9, storage_plugin=StoragePlugin[storage.upper()]) as bag:
            bag.set_custom_data('geo4d', json.dumps({k: v for k, v in episode.attributes.items() if k != 'arrays'}))
            for topic, stamp, message in messages.of(episode):
                if topic not in connections:
                    connections[topic] = bag.add_connection(topic, message.__msgtype__, typestore=types)
                bag.write(connections[topic], stamp, types.serialize_cdr(message, message.__msgtype__))
    except WriterError as error:
        raise DatasetError(f'{out}: {error}; choose a new folder') from error
    except OSError as error:
        raise ConfigurationError(f'cannot write {out}: {error.strerror}; choose a writable place') from error


class _Messages:
    """Makes the messages of an episode in the order of their stamps."""

    def __init__(self, types: Any, base_frame: str, gripper_frame: str) -> None:
        self._types, self._base, self._gripper = types, base_frame, gripper_frame

    def of(self, episode: Episode) -> Iterator[tuple[str, int, Any]]:
        arrays = episode.load()
        stamps = [FIRST_STAMP_NS + round(float(t) * 1e9) for t in arrays['times']]
        if 'T_base_camera' in arrays:
            edges = [self._edge(T, stamps[0], _optical(c)) for c, T in enumerate(arrays['T_base_camera'])]
            yield TF_STATIC, stamps[0], self._make('tf2_msgs/msg/TFMessage', transforms=edges)
        for k, stamp in enumerate(stamps):
            yield from self._robot(arrays, episode.joint_names, k, stamp)
            for c in range(episode.cameras):
                yield from self._camera(arrays, c, k, stamp)

    def _robot(self, arrays: dict[str, np.ndarray], names: tuple[str, ...], k: int, stamp: int) -> Iterator[Any]:
        edges = [self._edge(arrays[name][k], stamp, frame) for name, frame in
                 (('T_base_gripper', self._gripper), ('object_pose', OBJECT_FRAME)) if name in arrays]
        if edges:
            yield TF, stamp, self._make('tf2_msgs/msg/TFMessage', transforms=edges)
        measured = dict(zip(names, arrays['joints'][k], strict=True)) if 'joints' in arrays else {}
        if 'opening' in arrays:
            measured[OPENING_JOINT] = arrays['opening'][k]
        if measured:
            yield STATES, stamp, self._joints(measured, stamp)
        if 'opening_command' in arrays:
            yield COMMANDS, stamp, self._joints({OPENING_JOINT: arrays['opening_command'][k]}, stamp)

    def _camera(self, arrays: dict[str, np.ndarray], c: int, k: int, stamp: int) -> Iterator[Any]:
        space, frame = f'/camera{c + 1}/camera{c + 1}', _optical(c)
        rgb = arrays['rgb'][c, k]
        yield space + COLOUR, stamp, self._image(rgb, 'rgb8', stamp, frame)
        if 'depth' in arrays:
            yield space + DEPTH, stamp, self._image(decode_depth(arrays['depth'][c, k]), '32FC1', stamp, frame)
        if 'labels' in arrays:
            yield space + LABELS, stamp, self._image(arrays['labels'][c, k], 'mono8', stamp, frame)
        if 'K' in arrays:
            K = np.asarray(arrays['K'][c], np.float64)
            roi = self._make('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0, width=0,
                             do_rectify=False)
            yield space + INFO, stamp, self._make(
                'sensor_msgs/msg/CameraInfo', header=self._header(stamp, frame), height=rgb.shape[0],
                width=rgb.shape[1], distortion_model='plumb_bob', d=np.zeros(5), k=K.ravel(), r=np.eye(3).ravel(),
                p=np.hstack([K, np.zeros((3, 1))]).ravel(), binning_x=0, binning_y=0, roi=roi)

    def _make(self, kind: str, /, **fields: Any) -> Any:
        return self._types[kind](**fields)

    def _header(self, stamp: int, frame: str) -> Any:
        sec, nanosec = divmod(stamp, 1_000_000_000)
        return self._make('std_msgs/msg/Header', frame_id=frame,
                          stamp=self._make('builtin_interfaces/msg/Time', sec=sec, nanosec=nanosec))

    def _image(self, pixels: np.ndarray, encoding: str, stamp: int, frame: str) -> Any:
        pixels = np.ascontiguousarray(pixels)
        return self._make('sensor_msgs/msg/Image', header=self._header(stamp, frame), height=pixels.shape[0],
                          width=pixels.shape[1], encoding=encoding, is_bigendian=0, step=pixels[0].nbytes,
                          data=pixels.reshape(-1).view(np.uint8))

    def _joints(self, values: dict[str, float], stamp: int) -> Any:
        empty = np.zeros(0)
        return self._make('sensor_msgs/msg/JointState', header=self._header(stamp, ''), name=list(values),
                          position=np.array(list(values.values()), np.float64), velocity=empty, effort=empty)

    def _edge(self, T: np.ndarray, stamp: int, child: str) -> Any:
        x, y, z, w = map(float, pose_to_quaternion(T))
        vector = self._make('geometry_msgs/msg/Vector3', x=float(T[0, 3]), y=float(T[1, 3]), z=float(T[2, 3]))
        turn = self._make('geometry_msgs/msg/Quaternion', x=x, y=y, z=z, w=w)
        return self._make('geometry_msgs/msg/TransformStamped', header=self._header(stamp, self._base),
                          child_frame_id=child,
                          transform=self._make('geometry_msgs/msg/Transform', translation=vector, rotation=turn))


def _optical(camera: int) -> str:
    return f'camera{camera + 1}_color_optical_frame'
