"""Every parser is total: whatever its message holds, a value or a refusal comes out, never an exception."""

import numpy as np
import pytest
from fakes.messages import example_info
from fuzz.messages import messages, spoilt
from geo4d_interfaces.msg import PredictionInfo as InfoMessage
from hypothesis import given, settings
from sensor_msgs.msg import CameraInfo, Image, JointState

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
INFO = example_info()


@pytest.mark.parametrize('kind, good, parse, result', [
    (JointState, JOINTS, parse_joint_state, JointSample), (CameraInfo, CAMERA, parse_camera_info, CameraModel),
    (Image, PICTURE, parse_image_header, Image),
    (InfoMessage, INFO, parse_prediction_info, PredictionInfo),
], ids=lambda value: getattr(value, '__name__', None))
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
        elif isinstance(parsed, PredictionInfo):
            assert len(parsed.stamps) >= 2 and np.isfinite(parsed.K).all() and parsed.T_ref_view.shape[1:] == (4, 4)

    check()
