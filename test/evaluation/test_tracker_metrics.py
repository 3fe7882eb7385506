"""Pose metrics in closed form."""

from dataclasses import replace

import numpy as np
import pytest

from geo4d_ros.evaluation.baselines.trackers import best_threshold, finger_distance, threshold_rule
from geo4d_ros.evaluation.metrics.tracker import add_distance, adds_distance, auc, auroc, failed
from geo4d_ros.evaluation.simulated_truth import TruthClip
from geo4d_ros.evaluation.tracker.evaluate import one_view
from geo4d_ros.geometry.transforms import from_rotvec
from geo4d_ros.types import GripperTrack, Observation, Video4D


def test_add_of_a_shift_is_its_length_and_adds_is_blind_to_symmetry():
    points = np.array([[0.1, 0, 0], [-0.1, 0, 0]])
    shift = from_rotvec(np.zeros(3), np.array([0, 0.03, 0]))[None]
    turn = from_rotvec(np.array([0, 0, np.pi]))[None]
    still = np.eye(4)[None]
    assert add_distance(shift, still, points)[0] == pytest.approx(0.03)
    assert add_distance(turn, still, points)[0] == pytest.approx(0.2)
    assert adds_distance(turn, still, points)[0] == pytest.approx(0, abs=1e-12)


def test_area_under_the_curve():
    assert auc(np.zeros(4)) == 100
    assert auc(np.full(4, 0.025)) == pytest.approx(75)
    assert auc(np.array([0.0, 0.2])) == 50


def test_failure_is_three_centimetres_or_fifteen_degrees():
    T = np.stack([from_rotvec(np.zeros(3), np.array([0.029, 0, 0])), from_rotvec(np.zeros(3), np.array([0.031, 0, 0])),
                  from_rotvec(np.array([0, np.radians(14), 0])), from_rotvec(np.array([0, np.radians(16), 0]))])
    assert failed(T, np.tile(np.eye(4), (4, 1, 1))).tolist() == [False, True, False, True]


def test_auroc():
    assert auroc(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])) == 1
    assert auroc(np.array([0.5, 0.5]), np.array([0, 1])) == 0.5
    assert auroc(np.array([0.5, 0.6]), np.array([0, 0])) is None


def test_centroid_rule_and_its_best_threshold():
    label = np.zeros((1, 2, 8, 8), int)
    label[0, :, :, 0], label[0, 0, :, 1], label[0, 1, :, 4] = 3, 4, 4
    p = np.eye(5)[label].transpose(0, 1, 4, 2, 3)
    points = np.zeros((1, 2, 8, 8, 3))
    points[..., 0] = 0.02 * np.arange(8)
    distance = finger_distance(p, points, np.ones((1, 2, 8, 8), bool), 3, 4)
    np.testing.assert_allclose(distance, [0.02, 0.08])
    unseen = np.array([0.08, np.nan, 0.02, np.nan])
    assert threshold_rule(unseen, 0.05, False).tolist() == [False, False, True, True]
    threshold, accuracy = best_threshold([unseen], [np.array([False, False, True, True])])
    assert 0.02 < threshold < 0.08 and accuracy == 1


def test_one_view_cuts_video_and_observation_alike():
    video, observation = Video4D.example(), Observation.example()
    poses = np.tile(np.eye(4), (len(observation.views), 1, 1))
    labels = np.zeros(video.rgb.shape[:4], np.uint8)
    clip = TruthClip(replace(observation, T_ref_view=poses), video, GripperTrack.example(), labels)
    cut, cut_video = one_view(clip, video)
    assert len(cut.observation.views) == cut_video.views == len(cut.observation.T_ref_view) == 1
    assert one_view(replace(clip, observation=observation), video)[0].observation.T_ref_view is None
