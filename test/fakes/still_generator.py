"""A generator without a model: nothing ever moves. It can be slow, fail, and counts how often it was asked."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from geo4d_ros.geometry.cameras import unproject
from geo4d_ros.geometry.resampling import resize_frame
from geo4d_ros.types import GripperTrack, Observation, TrackStatus, Video4D


@dataclass
class StillModel:
    """`gate`: predictions wait until it is set."""

    name: str = 'still'
    frames: int = 3
    dt: float = 0.5
    size: tuple[int, int] = (24, 32)
    error: Exception | None = None
    asked: int = 0
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def predict(self, observation: Observation, seed: int = 0) -> Video4D:
        self.asked += 1
        self.gate.wait(60)
        if self.error:
            raise self.error
        views = [resize_frame(view, *self.size) for view in observation.views]
        n = self.frames + 1
        points = np.repeat(np.stack([unproject(view.depth, view.K) for view in views])[:, None], n, axis=1)
        return Video4D(np.stack([[view.rgb] * n for view in views]), points.astype(np.float32),
                       np.stack([[view.depth > 0] * n for view in views]),
                       observation.stamp + np.arange(n, dtype=np.int64) * 500_000_000,
                       np.stack([view.K for view in views]), np.tile(np.eye(4), (len(views), 1, 1)),
                       timings={'paint': 0.001})


class StillTracker:
    """The gripper stays where it is."""

    name, readout = 'still', 'fused'

    def track(self, video: Video4D, observation: Observation) -> GripperTrack:
        n = video.frames
        return GripperTrack(np.tile(observation.T_ref_gripper, (n, 1, 1)), np.full(n, observation.opening), np.ones(n),
                            (TrackStatus.OK,) * n, {'readout': 'fused', 'object': object()})

    def close(self) -> None:
        return None
