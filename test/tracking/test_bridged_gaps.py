"""Gaps between two trusted frames are filled by interpolation; the end of a track is never invented."""

import numpy as np
import pytest

from geo4d_ros.tracking.confidence import ConfidenceModel
from geo4d_ros.tracking.model_tracker import MAX_GAP, bridge_gaps


def _track(confidence):
    n = len(confidence)
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, 0, 3] = 0.02 * np.arange(n)
    return poses, np.full(n, 0.08), np.array(confidence, float)


def test_a_single_bad_frame_is_interpolated_and_marked():
    poses, openings, confidence = _track([1, 0.9, 0.1, 0.95, 0.9])
    poses[2, :3, 3] = [9, 9, 9]
    openings[3:] = 0.04
    out = bridge_gaps(poses, openings, confidence, ConfidenceModel())
    assert poses[2, :3, 3] == pytest.approx([0.04, 0, 0])
    assert openings[2] == pytest.approx(0.06)
    assert out[2] == ConfidenceModel().lost and (out[[0, 1, 3, 4]] == confidence[[0, 1, 3, 4]]).all()


@pytest.mark.parametrize('confidence', [[1, 0.9, 0.1, 0.1], [1, 0.9, 0.1, 0.6, 0.6],
                                        [1] + [0.1] * (MAX_GAP + 1) + [1]])
def test_ends_and_long_gaps_stay_lost(confidence):
    poses, openings, confidence = _track(confidence)
    before = poses.copy()
    np.testing.assert_array_equal(bridge_gaps(poses, openings, confidence, ConfidenceModel()), confidence)
    np.testing.assert_array_equal(poses, before)


def test_degraded_frames_are_left_alone():
    poses, openings, confidence = _track([1, 0.9, 0.6, 0.95])
    assert bridge_gaps(poses, openings, confidence, ConfidenceModel())[2] == 0.6
