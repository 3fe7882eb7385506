"""The real generator and tracker nodes around a fake model and a fake tracker, which can be told to fail.

The plan slides the gripper sideways, 10 cm there and 10 cm back, prediction by prediction. The parameter
`fault` of `video_generator` (none, raise, hang, nan, lost, late) and of `gripper_tracker` (none, lost, raise, and
grip, which is a plan that closes the gripper) may change at any time. None of this exists in the package: the real
executables have no such parameter.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace

import numpy as np

from geo4d_ros.errors import PeerLostError, PredictionTimeoutError
from geo4d_ros.geometry.cameras import unproject
from geo4d_ros.geometry.resampling import resize_frame
from geo4d_ros.geometry.transforms import make_transform
from geo4d_ros.nodes.gripper_tracker import GripperTrackerNode
from geo4d_ros.nodes.prediction import compose
from geo4d_ros.nodes.video_generator import VideoGeneratorNode
from geo4d_ros.ros.serve.spin import run_nodes
from geo4d_ros.types import GripperTrack, Observation, TrackStatus, Video4D

FRAMES, DT, STEP = 10, 0.5, 0.02


@dataclass
class StillGenerator:
    """Predicts that nothing moves, or fails as `fault()` says."""

    node: VideoGeneratorNode
    name: str = 'still'
    frames: int = FRAMES
    dt: float = DT

    def predict(self, observation: Observation, seed: int = 0) -> Video4D:
        fault = self.node.get_parameter('fault').value
        if fault == 'raise':
            raise RuntimeError('injected')
        if fault in ('lost', 'late'):  # as a remote generator whose server is gone or busy
            raise {'lost': PeerLostError, 'late': PredictionTimeoutError}[fault]('injected')
        while self.node.get_parameter('fault').value == 'hang' and self.node.context.ok():
            time.sleep(0.05)
        views = [resize_frame(view, 24, 32) for view in observation.views]
        n = FRAMES + 1
        points = np.repeat(np.stack([unproject(view.depth, view.K) for view in views])[:, None], n, axis=1)
        if fault == 'nan':
            points = points * np.float32('nan')
        return Video4D(
            rgb=np.stack([[view.rgb] * n for view in views]), points=points,
            valid=np.stack([[view.depth > 0] * n for view in views]),
            stamps=observation.stamp + np.arange(n, dtype=np.int64) * round(DT * 1e9),
            K=np.stack([view.K for view in views]), T_ref_view=np.tile(np.eye(4), (len(views), 1, 1)))


class SlidingTracker:
    """Slides along the finger opening axis, to one side and back; the fingers stay as they are."""

    name, readout = 'sliding', 'fused'

    def __init__(self, node: GripperTrackerNode) -> None:
        self.node, self.direction = node, 1

    def track(self, video: Video4D, observation: Observation) -> GripperTrack:
        fault = self.node.get_parameter('fault').value
        if fault == 'raise':
            raise RuntimeError('injected')
        n = video.frames
        slides = [make_transform(None, np.array([0, self.direction * STEP * min(i, 5), 0])) for i in range(n)]
        self.direction = -self.direction
        T = np.stack([observation.T_ref_gripper @ slide for slide in slides])
        opening = np.full(n, observation.opening)
        if fault == 'grip':
            opening[2:] = 0.0
        track = GripperTrack(T, opening, np.ones(n), (TrackStatus.OK,) * n)
        if fault == 'lost':
            return replace(track, status=(TrackStatus.OK,) + (TrackStatus.LOST,) * (n - 1))
        return track

    def close(self) -> None:
        return None


class FakeGenerator(VideoGeneratorNode):
    """The real node around the fake model."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.declare_parameter('fault', 'none')

    def create_generator(self) -> StillGenerator:
        return StillGenerator(self)


class FakeTracker(GripperTrackerNode):
    """The real node around the fake tracker."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.declare_parameter('fault', 'none')

    def create_tracker(self) -> SlidingTracker:
        return SlidingTracker(self)


if __name__ == '__main__':
    sys.exit(run_nodes(compose(FakeGenerator, FakeTracker), sys.argv[1:]))
