"""Films a running graph: what the cameras see, and beside it what was predicted for that moment."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image

from geo4d_ros.geometry.image_messages import read_colour
from geo4d_ros.geometry.resampling import nearest_indices
from geo4d_ros.ros.serve.diagnostics import Diagnostics
from geo4d_ros.ros.serve.qos import IMAGE_QOS
from geo4d_ros.ros.wire.guard import Boundary
from geo4d_ros.ros.wire.prediction import Prediction, PredictionReceiver
from geo4d_ros.types import Video4D


@dataclass(frozen=True)
class FilmPicture:
    """One moment: time [s, steady clock], real views (V, H, W, 3) uint8, index of the prediction then valid (-1)."""

    time: float
    real: np.ndarray
    prediction: int


@dataclass(frozen=True)
class PredictedClip:
    """A prediction as it came over the topics: plan id, small rgb (V, T+1, H, W, 3) uint8, and all of it."""

    plan: str
    rgb: np.ndarray
    video: Video4D | None = None


class RunRecorder:
    """Subscribes on a node that somebody else spins. Pictures are kept small (`size`: height, width)."""

    def __init__(self, node: Node, cameras: tuple[str, ...], size: tuple[int, int] = (192, 256),
                 period: float = 0.3) -> None:
        self.pictures: list[FilmPicture] = []
        self.predictions: list[PredictedClip] = []
        self._size, self._period = size, period
        self._newest: list[np.ndarray | None] = [None] * len(cameras)
        for i, camera in enumerate(cameras):
            node.create_subscription(Image, f'{camera}/color/image_raw', lambda m, i=i: self._on_image(i, m), IMAGE_QOS)
        self._receiver = PredictionReceiver(
            node, Boundary(node, Diagnostics(node)), len(cameras), self._on_prediction,
            lambda plan, cause: node.get_logger().warning(f'prediction {plan}: {cause}'))

    def _on_image(self, view: int, message: Image) -> None:
        if self._newest[view] is None or self._due():
            self._newest[view] = small(read_colour(message), self._size)
            if all(image is not None for image in self._newest) and self._due():
                self.pictures.append(FilmPicture(time.monotonic(), np.stack(self._newest), len(self.predictions) - 1))
                self._newest = [None] * len(self._newest)

    def _due(self) -> bool:
        return not self.pictures or time.monotonic() - self.pictures[-1].time >= self._period

    def _on_prediction(self, prediction: Prediction) -> None:
        rgb = np.stack([[small(frame, self._size) for frame in view] for view in prediction.video.rgb])
        self.predictions.append(PredictedClip(prediction.plan, rgb, prediction.video))


def small(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image (H, W, 3) at another (height, width), nearest pixels."""
    rows, columns = nearest_indices(image.shape[0], size[0]), nearest_indices(image.shape[1], size[1])
    return np.ascontiguousarray(image[np.ix_(rows, columns)])
