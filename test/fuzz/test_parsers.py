"""Every parser is total: whatever its message holds, a value or a refusal comes out, never an exception."""

import json

import numpy as np
import pytest
from fuzz.messages import messages, spoilt
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String

from geo4d_ros.geometry.cameras import intrinsics
from geo4d_ros.ros.wire.camera import CameraModel, parse_camera_info, parse_image_header
from geo4d_ros.ros.wire.conversions import camera_info_message, image_message, to_stamp
from geo4d_ros.ros.wire.guard import Malformed
from geo4d_ros.ros.wire.joint_state import JointSample, parse_joint_state
from geo4d_ros.ros.wire.prediction_info import PredictionInfo, parse_prediction_info

THOROUGH = settings(max_examples=300, deadline=None)
JOINTS = JointState(name=['a', 'b'], position=[1.0, 2.0], velocity=[0.0, 0.0])
JOINTS.header.stamp = to_stamp(1_800_000_000_000_000_000)
CAMERA = camera_info_message(intrinsics(60, 64, 48), 48, 64, 1_800_000_000_000_000_000, 'optical')
PICTURE = image_message(np.zeros((4, 6, 3), np.uint8), 1_800_000_000_000_000_000, 'optical')
INFO = {'plan': 'p', 'frame_id': 'optical', 'stamps': [1, 2, 3], 'K': [np.eye(3).tolist()] * 2,
        'T_ref_view': [np.eye(4).tolist()] * 2, 'opening': 0.04, 'T_ref_gripper': np.eye(4).tolist(),
        'gripper_mask': False, 'state': None}


@pytest.mark.parametrize('kind, good, parse, result', [
    (JointState, JOINTS, parse_joint_state, JointSample), (CameraInfo, CAMERA, parse_camera_info, CameraModel),
    (Image, PICTURE, parse_image_header, Image)], ids=lambda value: getattr(value, '__name__', None))
def test_any_message(kind, good, parse, result):
    assert isinstance(parse(good), result)

    @THOROUGH
    @given(messages(kind) | spoilt(good))
    def check(message):
        parsed = parse(message)
        assert isinstance(parsed, (result, Malformed))
        if isinstance(parsed, Malformed):
            assert parsed.field and len(str(parsed)) < 2000 and str(parsed).isprintable()
        elif isinstance(parsed, JointSample):
            assert np.isfinite(parsed.positions).all() and len(set(parsed.names)) == len(parsed.positions)
        elif isinstance(parsed, CameraModel):
            assert np.isfinite(parsed.K).all() and parsed.K[0, 0] > 0 and min(parsed.size) > 0

    check()


jsons = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
                     lambda part: st.lists(part, max_size=6) | st.dictionaries(st.text(max_size=8), part, max_size=6))


@THOROUGH
@given(st.text(max_size=200) | jsons.map(json.dumps)
       | st.tuples(st.sampled_from(sorted(INFO)), jsons).map(lambda change: json.dumps({**INFO, change[0]: change[1]}))
       | st.sampled_from(sorted(INFO)).map(lambda name: json.dumps({k: v for k, v in INFO.items() if k != name})))
def test_any_prediction_info(text):
    parsed = parse_prediction_info(String(data=text))
    assert isinstance(parsed, (PredictionInfo, Malformed))
    if isinstance(parsed, PredictionInfo):
        assert len(parsed.stamps) >= 2 and np.isfinite(parsed.K).all() and parsed.T_ref_view.shape[1:] == (4, 4)


@pytest.mark.parametrize('name', sorted(INFO))
def test_a_missing_field_is_named(name):
    wrong = parse_prediction_info(String(data=json.dumps({k: v for k, v in INFO.items() if k != name})))
    assert isinstance(wrong, Malformed) and wrong.field == name and wrong.why == 'missing'
    assert isinstance(parse_prediction_info(String(data=json.dumps(INFO))), PredictionInfo)


@pytest.mark.parametrize('text', ['}{', '{"stamp":1e999}', '[' * 100_000, '9' * 10_000, '{"stamps":[1e999,2]}', 'NaN'])
def test_what_is_no_json_or_infinite(text):
    assert isinstance(parse_prediction_info(String(data=text)), Malformed)
