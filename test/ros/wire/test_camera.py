"""camera_info: what changes the geometry of an image is read or refused by its name, whatever the message holds."""

import re

import numpy as np
import pytest

from geo4d_ros.geometry.cameras import intrinsics
from geo4d_ros.ros.wire.camera import CameraModel, parse_camera_info
from geo4d_ros.ros.wire.conversions import camera_info_message, to_stamp
from geo4d_ros.ros.wire.guard import Malformed

K = intrinsics(60, 64, 48)


def info(**changes):
    message = camera_info_message(K, 48, 64, 5_000_000_000, '/optical')
    for name, value in changes.items():
        target = message
        *path, last = name.split('__')
        for part in path:
            target = getattr(target, part)
        setattr(target, last, value)
    return message


def test_a_calibrated_camera():
    model = parse_camera_info(info())
    assert isinstance(model, CameraModel)
    assert (model.stamp, model.frame_id, model.size, model.distortion) == (5_000_000_000, 'optical', (48, 64), ())
    np.testing.assert_array_equal(model.K, K)


@pytest.mark.parametrize('changes, text', [
    ({'k': [0.0] * 9}, 'k = .*no usable K'),
    ({'k': [float('nan')] * 9}, 'no usable K'),
    ({'width': 0}, 'size = .*0x48'),
    ({'height': 2**31}, 'no size of an image'),
    ({'binning_x': 2}, 'binning = .*2x0'),
    ({'roi__x_offset': 16}, 'roi = '),
    ({'roi__width': 32}, 'roi = '),
    ({'distortion_model': 'equidistant', 'd': [0.1, 0.0, 0.0, 0.0]}, 'distortion is not rectified'),
    ({'distortion_model': '', 'd': [0.1]}, 'distortion is not rectified'),
    ({'d': [0.1, float('inf'), 0.0, 0.0, 0.0]}, 'distortion is not finite'),
    ({'header__stamp': to_stamp(-1)}, 'before 1970'),
])
def test_what_cannot_be_used_is_refused_by_the_name_of_its_field(changes, text):
    wrong = parse_camera_info(info(**changes))
    assert isinstance(wrong, Malformed) and re.search(text, str(wrong)), wrong


@pytest.mark.parametrize('changes', [{'d': []}, {'d': [0.0] * 8}, {'binning_x': 1, 'binning_y': 1},
                                     {'roi__width': 64, 'roi__height': 48}, {'distortion_model': ''}])
def test_what_changes_nothing_is_accepted(changes):
    assert parse_camera_info(info(**changes)).distortion == ()


def test_distortion_is_kept_for_the_one_who_rectifies():
    assert parse_camera_info(info(d=[-0.3, 0.1, 0.0, 0.0, 0.0])).distortion == (-0.3, 0.1, 0.0, 0.0, 0.0)
