"""The state stream as a track, and the factory that picks a tracker."""

from dataclasses import replace

import numpy as np
import pytest

from geo4d_ros.errors import BackendUnavailableError, CheckpointError, ConfigurationError, InvalidInputError
from geo4d_ros.tracking.factory import create_tracker
from geo4d_ros.tracking.protocol import Tracker
from geo4d_ros.types import GripperTrack, Observation, TrackStatus, Video4D


def example():
    video = replace(Video4D.example(), state=GripperTrack.example())
    return video, replace(Observation.example(), T_ref_gripper=video.state.T_ref_gripper[0], opening=0.08)


def test_state_passes_through():
    video, observation = example()
    track = create_tracker(readout='state').track(video, observation)
    np.testing.assert_array_equal(track.T_ref_gripper, video.state.T_ref_gripper)
    np.testing.assert_array_equal(track.opening, video.state.opening)
    assert track.trusted == 11


def test_impossible_step_ends_the_track_and_the_pose_is_held():
    video, observation = example()
    T = video.state.T_ref_gripper.copy()
    T[6:, 0, 3] += 0.5
    video = replace(video, state=replace(video.state, T_ref_gripper=T))
    track = create_tracker(readout='state').track(video, observation)
    assert track.trusted == 6 and track.status[-1] is TrackStatus.LOST
    np.testing.assert_array_equal(track.T_ref_gripper[-1], T[5])


def test_state_that_starts_elsewhere_is_refused():
    video, observation = example()
    T = observation.T_ref_gripper.copy()
    T[0, 3] += 0.1
    track = create_tracker(readout='state').track(video, replace(observation, T_ref_gripper=T))
    assert track.trusted == 1 and 'measured pose' in track.details['reason']


def test_video_without_state_is_named():
    with pytest.raises(InvalidInputError, match='state stream'):
        create_tracker(readout='state').track(Video4D.example(), Observation.example())


@pytest.mark.parametrize(('options', 'error', 'message'), [
    ({'readout': 'both'}, ConfigurationError, 'readout'),
    ({'backend': 'magic'}, ConfigurationError, 'unknown tracker'),
    ({'masks': 'guess'}, ConfigurationError, 'masks'),
    ({'masks': 'files'}, ConfigurationError, 'mask_folder'),
    ({'masks': 'colour', 'speed': 3}, ConfigurationError, 'no option'),
    ({'backend': 'foundationpose', 'masks': 'colour'}, ConfigurationError, 'root'),
    ({'backend': 'foundationpose', 'masks': 'colour', 'root': '/nowhere'}, BackendUnavailableError, 'does not exist'),
    ({'backend': 'isaac', 'masks': 'colour'}, ConfigurationError, 'client'),
])
def test_bad_choices_are_named(options, error, message):
    with pytest.raises(error, match=message):
        create_tracker(**options)


def test_missing_segmenter_weights_are_named(tmp_path):
    with pytest.raises(CheckpointError, match='train segmenter'):
        create_tracker(masks='segmenter', segmenter=tmp_path)


def test_every_backend_is_a_tracker():
    assert isinstance(create_tracker(masks='colour'), Tracker)
    assert isinstance(create_tracker(readout='state'), Tracker)
