"""Landmark maps: where the points lie, what is found around an expected pixel, and a pose from maps alone."""

import numpy as np
import pytest
from fakes.gripper_scene import gripper_scene
from scipy.ndimage import gaussian_filter

from geo4d_ros.geometry.transforms import invert
from geo4d_ros.robots.gripper import gripper_of
from geo4d_ros.tracking.clip import Masks, prepare
from geo4d_ros.tracking.model_tracker import ModelTracker
from geo4d_ros.tracking.objective import Problem
from geo4d_ros.tracking.opening import OpeningModel, candidates, log_likelihood
from geo4d_ros.tracking.segmentation.landmarks import CHANNELS, LandmarkMaps, landmark_points, project_landmarks
from geo4d_ros.training.segmenter.train import landmark_targets

GRIPPER = gripper_of()


def maps_of(scene):
    """Sharp maps at the true places, (V, T+1, 4, 48, 64)."""
    maps = []
    for view in range(2):
        T = invert(scene.video.T_ref_view[view]) @ scene.T_ref_gripper
        uv = project_landmarks(GRIPPER, T, scene.opening, scene.video.K[view])
        maps.append(landmark_targets(uv, (48, 64))[0][..., :-1].reshape(len(uv), 4, 48, 64))
    return np.stack(maps)


def test_landmarks_turn_into_each_other_by_half_a_turn_and_tips_slide_apart():
    points = landmark_points(GRIPPER, np.array([0.0, 0.06]))
    turned = points * [-1, -1, 1]
    for k, channel in enumerate(CHANNELS):
        partners = np.flatnonzero(channel == CHANNELS)
        partner = partners[-1] if k == partners[0] else partners[0]
        np.testing.assert_allclose(turned[:, k], points[:, partner], atol=0.012)
    tips = points[:, CHANNELS == 3, 1]
    np.testing.assert_allclose(np.ptp(tips[1]) - np.ptp(tips[0]), 0.06, atol=1e-9)


def test_targets_are_chances_and_keep_the_place_below_a_cell():
    points = np.full((1, 6, 2), 20.3)
    points[0, 0] = 31.7, 12.4
    points[0, 4] = np.nan
    points[0, 1] = -50, 3
    target, known = landmark_targets(points, (32, 32))
    np.testing.assert_allclose(target.sum(2), 1, atol=1e-6)
    assert known.tolist() == [[1, 1, 1, 0]]
    y, x = np.divmod(np.arange(32 * 32), 32)
    np.testing.assert_allclose([(target[0, 0, :-1] * x).sum() * 2 + 0.5, (target[0, 0, :-1] * y).sum() * 2 + 0.5],
                               [31.7, 12.4], atol=1e-4)
    assert target[0, 1, -1] == 1


def test_a_peak_is_found_from_nearby_and_not_from_afar():
    points = np.full((1, 6, 2), 40.0)
    points[0, 0] = 61.3, 30.8
    maps = LandmarkMaps(landmark_targets(points, (48, 64))[0][:, :, :-1].reshape(1, 1, 4, 48, 64))
    expected = np.tile(np.array([64.0, 29.0]), (1, 1, 6, 1))
    mean, variance, here, anywhere = maps.find(np.array([0]), expected, 3)
    np.testing.assert_allclose(mean[0, 0, 0], [61.3, 30.8], atol=1e-4)
    assert here[0, 0, 0] == pytest.approx(1) and variance[0, 0, 0] <= 1.0
    assert here[0, 0, 1] == 0 and anywhere[0, 0, 1] == pytest.approx(1)
    outside = maps.find(np.array([0]), expected + 500, 3)
    assert outside[2].max() == 0 and np.isfinite(outside[0]).all()


@pytest.mark.parametrize('place', [(40.5, 30.5), (41.5, 31.5)])
def test_a_sharp_peak_is_as_sure_between_cells_as_in_the_middle_of_one(place):
    maps = landmark_targets(np.tile(np.array(place), (1, 6, 1)), (48, 64))[0][:, :, :-1].reshape(1, 1, 4, 48, 64)
    expected = np.tile(np.array(place) + 1, (1, 1, 6, 1))
    sharp = LandmarkMaps(maps).find(np.array([0]), expected, 3)[1]
    np.testing.assert_allclose(sharp, 0, atol=1e-4)
    blurred = LandmarkMaps(gaussian_filter(maps, (0, 0, 0, 1, 1))).find(np.array([0]), expected, 3)[1]
    assert (blurred > 2).all()


def test_pose_and_opening_follow_from_the_maps_where_no_outline_is_seen():
    scene = gripper_scene(2, frames=4)
    maps = maps_of(scene)

    def masks(chunk, T_ref_gripper, opening):
        full = scene.masks(chunk, T_ref_gripper, opening)
        # Frames 1.. are hidden behind something near: all the gripper's pixels are an occluder's.
        hidden = full.gripper.copy()
        full.gripper[:, 1:] = 0
        full.fingers[:, 1:] = 0
        hidden[:, 0] = 0
        return Masks(full.gripper, 'test', full.fingers, hidden, None, maps)

    track = ModelTracker(GRIPPER, masks, 'video').track(scene.video, scene.observation)
    far = np.linalg.norm(track.details['raw_T_ref_gripper'][1:, :3, 3] - scene.T_ref_gripper[1:, :3, 3], axis=1)
    assert far.max() < 0.01
    assert np.abs(track.details['raw_opening'] - scene.opening).max() < 0.02


def test_tips_tell_the_opening_where_fingers_are_hidden():
    scene = gripper_scene(1, frames=2)
    chunk = prepare(scene.video, scene.observation)
    masks = scene.masks(chunk, None, 0.08)
    masks.landmarks, masks.occluder = maps_of(scene), np.ones_like(masks.gripper)
    masks.gripper[:], masks.fingers[:] = 0, 0
    problem, model = Problem(chunk, masks, ModelTracker(GRIPPER, scene.masks)._sdf), OpeningModel()
    t = np.arange(scene.video.frames)
    problem.focus(t, scene.T_ref_gripper, scene.opening)
    score, told = log_likelihood(problem, t, scene.T_ref_gripper, model)
    best = candidates(problem, model)[score.argmax(1)]
    assert (told >= model.min_pixels).all()
    assert np.abs(best - scene.opening).max() <= 0.011
