"""What `geo4d demo` keeps of the predictions that a running graph publishes."""

import time

import numpy as np
import pytest

pytest.importorskip('rclpy')

from geo4d_ros.ros.graph.probe import LoopProbe
from geo4d_ros.ros.graph.run_recorder import RunRecorder
from geo4d_ros.ros.wire.prediction import Prediction, PredictionPublisher
from geo4d_ros.types import Observation, Video4D


def test_a_published_prediction_is_kept_whole(monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    video = Video4D.example()
    with LoopProbe(domain_id=143) as probe:
        recorder = RunRecorder(probe.node, ('camera1/camera1', 'camera2/camera2'), size=(12, 16))
        publisher = PredictionPublisher(probe.node, views=2)
        probe.spin(0.5)
        publisher.publish(Prediction('p1', Observation.example(), video))
        end = time.monotonic() + 20.0
        while not recorder.predictions and time.monotonic() < end:
            probe.spin(0.1)
    clip = recorder.predictions[0]
    assert clip.plan == 'p1' and clip.rgb.shape == (2, video.frames, 12, 16, 3)
    np.testing.assert_array_equal(clip.video.rgb, video.rgb)
    for frame in (0, video.frames - 1):
        np.testing.assert_allclose(clip.video.depth(0, frame), video.depth(0, frame), atol=1e-5)
