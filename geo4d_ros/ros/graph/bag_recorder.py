"""Records the topics of a cell as rosbag2, with a live check of rates and ages; messages are stored as they came."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, JointState
from tf2_msgs.msg import TFMessage

from geo4d_ros.errors import BackendUnavailableError, ConfigurationError, DatasetError
from geo4d_ros.ros.serve.qos import SENSOR_QOS, TF_QOS, TF_STATIC_QOS

# Suffixes of a camera's topics; labels of the gripper (mono8) are recorded where somebody publishes them.
LABELS = 'segmentation/image_raw'
CAMERA_TOPICS = (('color/image_raw', Image), ('aligned_depth_to_color/image_raw', Image),
                 ('color/camera_info', CameraInfo), (LABELS, Image))
ROBOT_TOPICS: tuple[tuple[str, type, QoSProfile], ...] = (
    ('/joint_states', JointState, SENSOR_QOS), ('/joint_commands', JointState, SENSOR_QOS),
    ('/tf', TFMessage, TF_QOS), ('/tf_static', TFMessage, TF_STATIC_QOS))
MIN_RATE_HZ = 5.0  # of pictures: episodes have 4 moments a second
MAX_AGE_S = 0.5
OPTIONAL_TOPICS = ('/joint_commands', LABELS)


class TopicFigures(TypedDict):
    """A topic in the report."""

    count: int
    rate_hz: float
    age_ms_p50: float | None  # of stamps on arrival
    age_ms_max: float | None


@dataclass
class TopicCheck:
    """What came on a topic: count, times of arrival [s, steady clock], stamps' ages on arrival [s]."""

    count: int = 0
    first: float = 0.0
    last: float = 0.0
    ages: list[float] = field(default_factory=list)

    def rate(self) -> float:
        """Messages per second; 0 before the second one."""
        return (self.count - 1) / (self.last - self.first) if self.count > 1 and self.last > self.first else 0.0

    def as_json(self) -> TopicFigures:
        """Figures for the report."""
        return {'count': self.count, 'rate_hz': self.rate(),
                'age_ms_p50': float(np.median(self.ages)) * 1e3 if self.ages else None,
                'age_ms_max': max(self.ages) * 1e3 if self.ages else None}


class BagRecorder:
    """Subscribes on a node that somebody else spins and writes into the new folder `out`. Use as a context manager."""

    def __init__(self, node: Node, cameras: tuple[str, ...], out: Path, storage: str = 'mcap') -> None:
        try:
            from rosbags.rosbag2 import StoragePlugin, Writer
            from rosbags.rosbag2.errors import WriterError
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise BackendUnavailableError('recording needs the package rosbags: pip install rosbags') from error
        self._node, self.checks = node, {}
        types = get_typestore(Stores.ROS2_JAZZY)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._writer = Writer(out, version=9, storage_plugin=StoragePlugin[storage.upper()])
            self._writer.open()
        except WriterError as error:
            raise DatasetError(f'{out}: {error}; choose a new folder') from error
        except OSError as error:
            raise ConfigurationError(f'cannot write {out}: {error.strerror}; choose a writable place') from error
        wanted = [(f'{camera.rstrip("/")}/{topic}', kind, SENSOR_QOS) for camera in cameras
                  for topic, kind in CAMERA_TOPICS]
        for topic, kind, qos in (*wanted, *ROBOT_TOPICS):
            name = f'{kind.__module__.split(".")[0]}/msg/{kind.__name__}'
            connection = self._writer.add_connection(topic, name, typestore=types)
            self.checks[topic] = TopicCheck()
            node.create_subscription(kind, topic, self._keep(topic, connection, kind is not TFMessage), qos, raw=True)

    def __enter__(self) -> BagRecorder:
        return self

    def __exit__(self, *exc: object) -> None:
        self._writer.close()

    def _keep(self, topic: str, connection: Any, has_header: bool) -> Callable[[bytes], None]:
        check = self.checks[topic]

        def callback(raw: bytes) -> None:
            now, arrival = self._node.get_clock().now().nanoseconds, time.monotonic()
            self._writer.write(connection, now, raw)
            check.first = check.first or arrival
            check.count, check.last = check.count + 1, arrival
            if has_header:
                sec, nanosec = struct.unpack_from('<iI' if raw[1] & 1 else '>iI', raw, 4)
                check.ages.append(now * 1e-9 - (sec + nanosec * 1e-9))

        return callback

    def problems(self) -> list[str]:
        """What a training would miss, one line each."""
        found = []
        for topic, check in self.checks.items():
            if check.count == 0:
                if not topic.endswith(OPTIONAL_TOPICS):
                    found.append(f'{topic}: nothing came; is it published under this name?')
            elif topic.endswith('image_raw') and check.rate() < MIN_RATE_HZ:
                found.append(f'{topic}: only {check.rate():.1f} Hz, expected at least {MIN_RATE_HZ:.0f}')
            if check.ages and float(np.median(check.ages)) > MAX_AGE_S:
                found.append(f'{topic}: messages are {float(np.median(check.ages)):.2f} s old; are the clocks in step?')
            elif check.ages and min(check.ages) < -0.1:
                found.append(f'{topic}: stamps lie in the future; are the clocks in step?')
        return found

    def summary(self) -> str:
        """The pictures' rates and their greatest age lately, for a progress line."""
        pictures = {t: c for t, c in self.checks.items() if t.endswith('image_raw') and (c.count or LABELS not in t)}
        ages = [max(check.ages[-20:]) for check in pictures.values() if check.ages]
        old = f', at most {1e3 * max(ages):.0f} ms old' if ages else ''
        return ' '.join(f'{check.rate():.0f}' for check in pictures.values()) + old
