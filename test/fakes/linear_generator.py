"""A generator without a model: the picture stands still, the state stream descends 2 cm per frame."""

from __future__ import annotations

import sys

import numpy as np

from geo4d_ros.geometry.cameras import unproject
from geo4d_ros.geometry.resampling import resize_frame
from geo4d_ros.nodes.prediction import compose
from geo4d_ros.nodes.video_generator import VideoGeneratorNode
from geo4d_ros.ros.spin import run_node, run_nodes
from geo4d_ros.types import GripperTrack, Observation, TrackStatus, Video4D


class LinearGenerator:
    """Predicts `frames` frames of the first frame, with a straight state stream along -x of the camera."""

    name, frames, dt = 'linear', 10, 0.5

    def predict(self, observation: Observation, seed: int = 0) -> Video4D:
        views = [resize_frame(view, 48, 64) for view in observation.views]
        n = self.frames + 1
        T = np.tile(observation.T_ref_gripper, (n, 1, 1))
        T[:, 0, 3] -= 0.02 * np.arange(n)
        points = np.stack([unproject(view.depth, view.K) for view in views])
        state = GripperTrack(T, np.full(n, observation.opening), np.ones(n), (TrackStatus.OK,) * n)
        return Video4D(
            rgb=np.stack([[view.rgb] * n for view in views]), points=np.repeat(points[:, None], n, axis=1),
            valid=np.stack([[view.depth > 0] * n for view in views]),
            stamps=observation.stamp + np.arange(n, dtype=np.int64) * 500_000_000,
            K=np.stack([view.K for view in views]), T_ref_view=np.tile(np.eye(4), (len(views), 1, 1)), state=state,
            timings={'model': 0.0})


class FakeGeneratorNode(VideoGeneratorNode):
    """The real node around the fake model."""

    def create_generator(self) -> LinearGenerator:
        return LinearGenerator()


if __name__ == '__main__':
    kind, arguments = sys.argv[1], sys.argv[2:]
    if kind == 'prediction':
        sys.exit(run_nodes(compose(generator_class=FakeGeneratorNode), arguments, threads=4))
    sys.exit(run_node(FakeGeneratorNode, arguments, threads=4))
