"""Films a running graph: what the cameras see, and beside it what was predicted for that moment."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import String

from geo4d_ros.geometry.image_messages import read_colour
from geo4d_ros.geometry.resampling import nearest_indices
from geo4d_ros.ros.serve.qos import IMAGE_QOS, PREDICTION_QOS, STATE_QOS
from geo4d_ros.ros.wire.conversions import to_nanoseconds
from geo4d_ros.ros.wire.prediction import ROOT, view_name


@dataclass(frozen=True)
class FilmPicture:
    """One moment: time [s, steady clock], real views (V, H, W, 3) uint8, index of the prediction then valid (-1)."""

    time: float
    real: np.ndarray
    prediction: int


@dataclass(frozen=True)
class PredictedClip:
    """A prediction as it came over the topics: plan id, rgb (V, T+1, H, W, 3) uint8."""

    plan: str
    rgb: np.ndarray


class RunRecorder:
    """Subscribes on a node that somebody else spins. Pictures are kept small (`size`: height, width)."""

    def __init__(self, node: Node, cameras: tuple[str, ...], size: tuple[int, int] = (192, 256),
                 period: float = 0.3) -> None:
        self.pictures: list[FilmPicture] = []
        self.predictions: list[PredictedClip] = []
        self._size, self._period = size, period
        self._newest: list[np.ndarray | None] = [None] * len(cameras)
        self._frames: list[dict[int, np.ndarray]] = [{} for _ in cameras]
        self._waiting: dict | None = None
        for i, camera in enumerate(cameras):
            node.create_subscription(Image, f'{camera}/color/image_raw', lambda m, i=i: self._on_image(i, m), IMAGE_QOS)
            node.create_subscription(Image, f'{ROOT}/{view_name(i)}/color/image_raw',
                                     lambda m, i=i: self._on_predicted(i, m), PREDICTION_QOS)
        node.create_subscription(String, f'{ROOT}/info', self._on_info, STATE_QOS)

    def _on_image(self, view: int, message: Image) -> None:
        if self._newest[view] is None or self._due():
            self._newest[view] = small(read_colour(message), self._size)
            if all(image is not None for image in self._newest) and self._due():
                self.pictures.append(FilmPicture(time.monotonic(), np.stack(self._newest), len(self.predictions) - 1))
                self._newest = [None] * len(self._newest)

    def _due(self) -> bool:
        return not self.pictures or time.monotonic() - self.pictures[-1].time >= self._period

    def _on_predicted(self, view: int, message: Image) -> None:
        frames = self._frames[view]
        frames[to_nanoseconds(message.header.stamp)] = read_colour(message)
        while len(frames) > 64:
            frames.pop(next(iter(frames)))
        self._assemble()

    def _on_info(self, message: String) -> None:
        self._waiting = json.loads(message.data)
        self._assemble()

    def _assemble(self) -> None:
        """The announced prediction, once all its frames are here."""
        if self._waiting is None:
            return
        stamps = self._waiting['stamps']
        if all(stamp in frames for frames in self._frames for stamp in stamps):
            rgb = np.stack([[small(frames[s], self._size) for s in stamps] for frames in self._frames])
            self.predictions.append(PredictedClip(self._waiting['plan'], rgb))
            self._waiting = None


def small(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image (H, W, 3) at another (height, width), nearest pixels."""
    rows, columns = nearest_indices(image.shape[0], size[0]), nearest_indices(image.shape[1], size[1])
    return np.ascontiguousarray(image[np.ix_(rows, columns)])
