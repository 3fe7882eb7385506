"""geo4d_interfaces/PredictionInfo: what goes out comes in, and what cannot be used is named by its field."""

import numpy as np
import pytest
from fakes.messages import FRAMES, STAMP, example_info
from geo4d_interfaces.msg import PredictionInfo as InfoMessage
from rclpy.serialization import deserialize_message, serialize_message

from geo4d_ros.ros.wire.conversions import to_stamp
from geo4d_ros.ros.wire.guard import Malformed
from geo4d_ros.ros.wire.prediction_info import INFO_BYTES, MOST_FRAMES, info_message, parse_prediction_info
from geo4d_ros.types import GripperTrack, Observation, RgbdFrame, TrackStatus, Video4D

K = np.array([[60.0, 0, 3.5], [0, 61, 2.5], [0, 0, 1]])


def sent(state=None, T=None, opening=None):
    frame = RgbdFrame(np.zeros((6, 8, 3), np.uint8), np.ones((6, 8), np.float32), K, STAMP, 'optical')
    shape, T_ref_view = (2, FRAMES, 6, 8), np.tile(np.eye(4), (2, 1, 1))
    T_ref_view[1, 0, 3] = 0.4
    video = Video4D(np.zeros((*shape, 3), np.uint8), np.ones((*shape, 3), np.float32), np.ones(shape, bool),
                    STAMP + np.arange(FRAMES, dtype=np.int64), np.stack([K, K * [[2], [2], [1]]]), T_ref_view, None,
                    state)
    return info_message('p', Observation((frame, frame), T, opening), video), video


def test_a_prediction_returns_as_it_went():
    state = GripperTrack.example(FRAMES)
    message, video = sent(state, np.eye(4), 0.03)
    data = serialize_message(message)
    assert len(data) < INFO_BYTES
    info = parse_prediction_info(deserialize_message(data, InfoMessage))
    assert (info.plan, info.frame_id, info.stamps) == ('p', 'optical', tuple(video.stamps.tolist()))
    np.testing.assert_array_equal(info.K, video.K)
    np.testing.assert_allclose(info.T_ref_view, video.T_ref_view, atol=1e-12)
    np.testing.assert_allclose(info.T_ref_gripper, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(info.state.T_ref_gripper, state.T_ref_gripper, atol=1e-12)
    np.testing.assert_array_equal(info.state.opening, state.opening)
    assert info.opening == 0.03 and info.gripper_mask is False and info.state.status == state.status


def test_what_was_not_measured_stays_unknown():
    info = parse_prediction_info(sent()[0])
    assert info.opening is None and info.T_ref_gripper is None and info.state is None


def test_every_status_has_its_number():
    assert parse_prediction_info(example_info()).state.status == tuple(TrackStatus)


@pytest.mark.parametrize('field, spoil', [
    ('id', lambda m: setattr(m, 'id', '')), ('header.frame_id', lambda m: setattr(m.header, 'frame_id', 'x' * 300)),
    ('stamps', lambda m: setattr(m, 'stamps', m.stamps[::-1])), ('stamps', lambda m: setattr(m, 'stamps', [])),
    ('stamps', lambda m: setattr(m.stamps[0], 'sec', -5)), ('stamps', lambda m: setattr(m.stamps[0], 'nanosec', 2**31)),
    ('stamps', lambda m: setattr(m, 'stamps', [to_stamp(i) for i in range(MOST_FRAMES + 1)])),
    ('k', lambda m: setattr(m, 'views', [])), ('views', lambda m: (setattr(m, 'views', []), setattr(m, 'k', []))),
    ('views', lambda m: setattr(m.views[1].orientation, 'w', 0.5)),
    ('k', lambda m: setattr(m, 'k', m.k[:-1])), ('k', lambda m: m.k.__setitem__(0, float('inf'))),
    ('k', lambda m: m.k.__setitem__(0, -1.0)), ('opening', lambda m: setattr(m, 'opening', [float('nan')])),
    ('gripper', lambda m: setattr(m.gripper[0].position, 'x', float('inf'))),
    ('state_poses', lambda m: setattr(m, 'state_status', [0, 1, 7])),
    ('state_poses', lambda m: setattr(m, 'state_openings', [0.04])),
    ('state_poses', lambda m: m.state_confidences.__setitem__(1, 1.5)),
])
def test_the_field_that_cannot_be_used_is_named(field, spoil):
    message = example_info()
    spoil(message)
    wrong = parse_prediction_info(message)
    assert isinstance(wrong, Malformed) and wrong.field == field, wrong
