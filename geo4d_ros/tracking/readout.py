"""The state stream of a video as a track of its own: passed through after checks, never corrected."""

from __future__ import annotations

import numpy as np

from geo4d_ros.errors import require
from geo4d_ros.geometry.transforms import rotation_angle, translation_distance
from geo4d_ros.types import GripperTrack, Observation, TrackDetails, TrackStatus, Video4D

MAX_STEP_M, MAX_STEP_RAD = 0.25, 1.2
MAX_START_M, MAX_START_RAD = 0.03, 0.17


def require_state(video: Video4D) -> GripperTrack:
    """The video's state stream. Raises InvalidInputError when it has none."""
    require(video.state is not None,
            'this read-out needs a generator with a state stream and the video has none; choose readout: video')
    return video.state


class StateTracker:
    """`readout='state'`: no image is looked at."""

    name = 'state'
    readout = 'state'

    def track(self, video: Video4D, observation: Observation) -> GripperTrack:
        """The state stream with frame 0 set to the measured state; impossible steps end it (LOST)."""
        state = require_state(video)
        require(observation.T_ref_gripper is not None,
                'the state read-out is checked against the measured gripper pose: the observation lacks T_ref_gripper')
        T = state.T_ref_gripper.copy()
        opening, confidence = state.opening.copy(), state.confidence.copy()
        status = list(state.status)
        details: TrackDetails = {'backend': self.name}
        far = (translation_distance(T[0], observation.T_ref_gripper) > MAX_START_M
               or rotation_angle(T[0], observation.T_ref_gripper) > MAX_START_RAD)
        T[0] = observation.T_ref_gripper
        opening[0] = state.opening[0] if observation.opening is None else observation.opening
        jumps = (translation_distance(T[:-1], T[1:]) > MAX_STEP_M) | (rotation_angle(T[:-1], T[1:]) > MAX_STEP_RAD)
        lost = 1 if far else int(np.argmax(jumps)) + 1 if jumps.any() else len(T)
        lost = min(lost, max(1, state.trusted))
        if lost < len(T):
            details['reason'] = ('the state stream does not start at the measured pose' if far
                                 else f'the state stream jumps or ends at frame {lost}')
            T[lost:], opening[lost:], confidence[lost:] = T[lost - 1], opening[lost - 1], 0.0
            status[lost:] = [TrackStatus.LOST] * (len(T) - lost)
        status[0], confidence[0] = TrackStatus.OK, 1.0
        return GripperTrack(T, opening, confidence, tuple(status), details)

    def close(self) -> None:
        """Nothing to release."""
