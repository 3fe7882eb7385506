"""Every type of types.py refuses what breaks its contract and accepts its own example."""

from dataclasses import replace

import numpy as np
import pytest

from geo4d_ros.errors import Geo4dError, InvalidInputError
from geo4d_ros.types import GripperTrack, Observation, Plan, RgbdFrame, TrackStatus, Video4D

NOT_RIGID = np.diag([1.0, 1.0, 2.0, 1.0])
MIRROR = np.diag([1.0, 1.0, -1.0, 1.0])


@pytest.mark.parametrize('kind', [RgbdFrame, Observation, GripperTrack, Video4D, Plan])
def test_example_is_valid_and_frozen(kind):
    example = kind.example()
    with pytest.raises(AttributeError):
        example.anything_at_all = 1


def with_value(array, value):
    out = array.copy()
    out.flat[0] = value
    return out


FRAME = RgbdFrame.example()
FRAME_FAULTS = {
    'grey image': {'rgb': FRAME.rgb[..., 0]},
    'float image': {'rgb': FRAME.rgb.astype(np.float32)},
    'list': {'rgb': FRAME.rgb.tolist()},
    'depth in millimetres as integers': {'depth': (FRAME.depth * 1000).astype(np.uint16)},
    'double depth': {'depth': FRAME.depth.astype(np.float64)},
    'depth of another size': {'depth': FRAME.depth[1:]},
    'NaN depth': {'depth': with_value(FRAME.depth, np.nan)},
    'infinite depth': {'depth': with_value(FRAME.depth, np.inf)},
    'negative depth': {'depth': with_value(FRAME.depth, -0.1)},
    'zero focal length': {'K': np.diag([0.0, 100, 1])},
    'K of the wrong shape': {'K': np.eye(4)},
    'NaN in K': {'K': np.diag([np.nan, 100, 1])},
    'K not normalised': {'K': np.diag([100.0, 100, 2])},
    'one pixel': {'rgb': FRAME.rgb[:1, :1], 'depth': FRAME.depth[:1, :1]},
}


@pytest.mark.parametrize('fault', FRAME_FAULTS)
def test_frame_refuses(fault):
    with pytest.raises(InvalidInputError) as error:
        replace(FRAME, **FRAME_FAULTS[fault])
    assert '\n' not in str(error.value)


OBSERVATION = Observation.example()
OBSERVATION_FAULTS = {
    'no view': {'views': ()},
    'transform not rigid': {'T_ref_gripper': NOT_RIGID},
    'mirrored transform': {'T_ref_gripper': MIRROR},
    'transform with NaN': {'T_ref_gripper': with_value(np.eye(4), np.nan)},
    'opening in millimetres': {'opening': 40.0},
    'negative opening': {'opening': -0.02},
    'opening NaN': {'opening': float('nan')},
}


@pytest.mark.parametrize('fault', OBSERVATION_FAULTS)
def test_observation_refuses(fault):
    with pytest.raises(InvalidInputError):
        replace(OBSERVATION, **OBSERVATION_FAULTS[fault])


def test_observation_has_the_stamp_of_its_reference():
    views = (replace(FRAME, stamp=7), replace(FRAME, stamp=9))
    assert Observation(views).stamp == 7


TRACK = GripperTrack.example()
TRACK_FAULTS = {
    'too few poses': {'T_ref_gripper': TRACK.T_ref_gripper[1:]},
    'pose not rigid': {'T_ref_gripper': np.tile(NOT_RIGID, (len(TRACK), 1, 1))},
    'opening of another length': {'opening': TRACK.opening[1:]},
    'opening NaN': {'opening': with_value(TRACK.opening, np.nan)},
    'confidence above one': {'confidence': TRACK.confidence + 0.1},
    'confidence NaN': {'confidence': with_value(TRACK.confidence, np.nan)},
    'no frames': {'status': ()},
}


@pytest.mark.parametrize('fault', TRACK_FAULTS)
def test_track_refuses(fault):
    with pytest.raises(InvalidInputError):
        replace(TRACK, **TRACK_FAULTS[fault])


@pytest.mark.parametrize('lost', [0, 1, 5, 10])
def test_only_what_comes_before_the_first_lost_frame_is_trusted(lost):
    status = [TrackStatus.OK] * len(TRACK)
    status[lost] = TrackStatus.LOST
    assert replace(TRACK, status=tuple(status)).trusted == lost
    assert replace(TRACK, status=(TrackStatus.DEGRADED,) * len(TRACK)).trusted == len(TRACK)


VIDEO = Video4D.example()
VIDEO_FAULTS = {
    'double points': {'points': VIDEO.points.astype(np.float64)},
    'points of another size': {'points': VIDEO.points[:, 1:]},
    'valid as integers': {'valid': VIDEO.valid.astype(np.uint8)},
    'stamps that repeat': {'stamps': np.zeros_like(VIDEO.stamps)},
    'stamps in seconds': {'stamps': VIDEO.stamps * 1e-9},
    'valid NaN point': {'points': with_value(VIDEO.points, np.nan)},
    'K of one view': {'K': VIDEO.K[:1]},
    'view pose not rigid': {'T_ref_view': np.stack([np.eye(4), NOT_RIGID])},
    'mask of another size': {'gripper_mask': np.zeros((2, 11, 24, 31), np.float32)},
    'state of another length': {'state': GripperTrack.example(5)},
}


@pytest.mark.parametrize('fault', VIDEO_FAULTS)
def test_video_refuses(fault):
    with pytest.raises(InvalidInputError):
        replace(VIDEO, **VIDEO_FAULTS[fault])


def test_video_accepts_nan_where_it_says_invalid():
    valid = VIDEO.valid.copy()
    valid[0, 0, 0, 0] = False
    video = replace(VIDEO, points=with_value(VIDEO.points, np.nan), valid=valid)
    assert video.depth(0, 0)[0, 0] == 0


def test_depth_of_a_view_is_z_in_its_own_frame():
    T = np.eye(4)
    T[2, 3] = 0.25
    video = replace(VIDEO, T_ref_view=np.stack([np.eye(4), T]))
    np.testing.assert_allclose(video.depth(0, 3), video.points[0, 3, ..., 2])
    np.testing.assert_allclose(video.depth(1, 3), video.points[1, 3, ..., 2] - 0.25, atol=1e-6)


PLAN = Plan.example()


@pytest.mark.parametrize('fault', [
    {'opening': PLAN.opening[1:]}, {'time_from_start': PLAN.time_from_start.astype(np.float32)},
    {'T_base_gripper': PLAN.T_base_gripper[:, :3]}, {'confidence': np.ones(2)},
])
def test_plan_refuses(fault):
    with pytest.raises(Geo4dError):
        replace(PLAN, **fault)
