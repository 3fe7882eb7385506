"""The default tracker on drawn scenes whose truth is known, and on inputs that are wrong."""

from dataclasses import replace

import numpy as np
import pytest
from fakes.gripper_scene import gripper_scene

from geo4d_ros.errors import InvalidInputError
from geo4d_ros.evaluation.metrics.tracker import add_distance
from geo4d_ros.evaluation.tracker.sequences import shift_second_view
from geo4d_ros.geometry.transforms import from_rotvec, rotation_angle, translation_distance
from geo4d_ros.tracking.clip import Masks
from geo4d_ros.tracking.frame_zero import FrameZeroLimits
from geo4d_ros.tracking.model_tracker import ModelTracker, ModelTrackerConfig
from geo4d_ros.types import GripperTrack, Observation, TrackStatus


def track(scene, masks=None, readout='video', **config):
    tracker = ModelTracker(scene.gripper, masks or scene.masks, readout, ModelTrackerConfig(**config))
    return tracker.track(scene.video, scene.observation)


def add_mm(result, scene):
    points = scene.gripper.surface_points(0.08, 200)
    return 1000 * add_distance(result.details['raw_T_ref_gripper'][1:], scene.T_ref_gripper[1:], points)


@pytest.mark.parametrize(('seed', 'noise'), [(0, 0.0), (1, 0.02), (2, 0.04)])
def test_two_views_follow_the_gripper(seed, noise):
    scene = gripper_scene(seed, noise=noise)
    result = track(scene)
    assert add_mm(result, scene).mean() < 8
    assert set(result.status) == {TrackStatus.OK}
    np.testing.assert_array_equal(result.T_ref_gripper[0], scene.observation.T_ref_gripper)
    assert abs(result.opening[-1] - 0.03) < 0.012 and abs(result.opening[1] - 0.08) < 0.012


def test_one_view_follows_on_clean_depth():
    scene = gripper_scene(3)
    assert add_mm(track(scene, views=1), scene).mean() < 15


def test_large_images_are_tracked_at_small_size():
    small, large = gripper_scene(4), gripper_scene(4, size=(480, 640))
    result = track(large)
    assert add_mm(result, large).mean() < 8
    assert result.details['covariance'].shape == (small.video.frames, 6, 6)


def test_the_same_input_gives_the_same_track():
    scene = gripper_scene(1, noise=0.02)
    np.testing.assert_array_equal(track(scene).T_ref_gripper, track(scene).T_ref_gripper)


def test_a_wrong_calibration_is_corrected_or_refused():
    for seed in range(3):
        scene = gripper_scene(seed)
        video = shift_second_view(scene.video, np.random.default_rng(seed), np.radians(2), 0.02)
        result = track(replace(scene, video=video))
        refused = result.trusted == 1
        assert refused or add_mm(result, scene).mean() < 12
        assert refused or result.details['frame_zero'].correction_m[1] > 0.003


def test_a_correction_that_the_scene_leaves_open_drops_the_view():
    scene = gripper_scene(0)
    video = shift_second_view(scene.video, np.random.default_rng(0), np.radians(2), 0.02)
    # The scene itself leaves millimetres open; a stricter limit stands for one that leaves more.
    result = track(replace(scene, video=video), frame_zero=FrameZeroLimits(max_uncertainty_m=1e-6))
    assert result.details['frame_zero'].dropped == [1]
    assert result.confidence[1:].max() < ModelTrackerConfig().confidence.ok


def test_a_gross_calibration_error_is_refused_with_the_reason():
    scene = gripper_scene(0)
    video = shift_second_view(scene.video, np.random.default_rng(0), np.radians(25), 0.3)
    result = track(replace(scene, video=video))
    assert result.trusted == 1 and 'calibrat' in result.details['reason']


def test_depth_in_the_wrong_unit_is_refused_and_a_small_bias_is_not():
    scene = gripper_scene(2)

    def with_depth(factor):
        origin = scene.video.T_ref_view[:, None, None, None, :3, 3].astype(np.float32)
        points = origin + (scene.video.points - origin) * np.float32(factor)
        return replace(scene, video=replace(scene.video, points=points))

    refused = track(with_depth(1.3), views=1)
    assert refused.trusted == 1 and 'depth' in refused.details['reason']
    biased = with_depth(1.02)
    result = track(biased, views=1)
    assert result.details['frame_zero'].scale[0] == pytest.approx(1 / 1.02, abs=0.004)


def test_a_hand_pose_that_does_not_fit_the_image_is_refused():
    scene = gripper_scene(0)
    T = scene.observation.T_ref_gripper @ from_rotvec(np.zeros(3), np.array([0.15, 0.1, 0]))
    result = track(replace(scene, observation=replace(scene.observation, T_ref_gripper=T)))
    assert result.trusted == 1
    assert result.confidence[1:].max() == 0


def test_empty_masks_are_lost_and_the_pose_is_held():
    scene = gripper_scene(0)

    def vanishing(chunk, T, opening):
        masks = scene.masks(chunk, T, opening)
        masks.gripper[:, 3:], masks.fingers[:, 3:] = 0, 0
        return masks

    result = track(scene, vanishing)
    assert result.trusted <= 3
    assert all(s is TrackStatus.LOST for s in result.status[result.trusted:])
    np.testing.assert_array_equal(result.T_ref_gripper[-1], result.T_ref_gripper[result.trusted - 1])
    assert result.confidence[-1] == 0


def test_no_mask_at_all_is_refused_not_raised():
    scene = gripper_scene(0)
    result = track(scene, lambda chunk, T, o: Masks(np.zeros(chunk.depth.shape, np.float32), 'none'))
    assert result.trusted == 1 and result.details['reason']


def test_hand_out_of_every_view_is_refused():
    scene = gripper_scene(0)
    T = scene.observation.T_ref_gripper.copy()
    T[:3, 3] = [0, 0, -1.0]
    result = track(replace(scene, observation=replace(scene.observation, T_ref_gripper=T)))
    assert result.trusted == 1 and 'out of view' in result.details['reason']


def test_wrong_masks_lower_the_confidence():
    scene = gripper_scene(1)

    def elsewhere(chunk, T, opening):
        masks = scene.masks(chunk, T, opening)
        masks.gripper[:, 2:] = np.roll(masks.gripper[:, 2:], 40, axis=3)
        return masks

    good, bad = track(scene), track(scene, elsewhere)
    assert bad.details['raw_confidence'][2:].max() < good.details['raw_confidence'][2:].min()


def test_masks_with_nan_are_named():
    scene = gripper_scene(0)
    with pytest.raises(InvalidInputError, match='NaN'):
        track(scene, lambda chunk, T, o: Masks(np.full(chunk.depth.shape, np.nan, np.float32), 'broken'))


def test_points_without_depth_still_track_by_outline():
    scene = gripper_scene(0)
    blind = replace(scene.video, valid=scene.video.valid & (np.arange(scene.video.frames) == 0)[None, :, None, None])
    assert add_mm(track(replace(scene, video=blind)), scene).mean() < 12


def test_missing_hand_pose_and_mismatched_views_are_named():
    scene = gripper_scene(0)
    with pytest.raises(InvalidInputError, match='T_ref_gripper'):
        track(replace(scene, observation=Observation(scene.observation.views)))
    with pytest.raises(InvalidInputError, match='2 views'):
        track(replace(scene, observation=replace(scene.observation, views=scene.observation.views[:1])))


def test_fused_follows_a_good_state_and_distrusts_a_far_one():
    scene = gripper_scene(5, noise=0.02)
    n = scene.video.frames
    state = GripperTrack(scene.T_ref_gripper, scene.opening, np.ones(n), (TrackStatus.OK,) * n)
    good = track(replace(scene, video=replace(scene.video, state=state)), readout='fused')
    assert add_mm(good, scene).mean() < 8
    far = scene.T_ref_gripper.copy()
    far[2:, 0, 3] += 0.12
    wrong = replace(state, T_ref_gripper=far)
    result = track(replace(scene, video=replace(scene.video, state=wrong)), readout='fused')
    assert translation_distance(result.details['raw_T_ref_gripper'], scene.T_ref_gripper).max() < 0.05
    assert result.details['raw_confidence'][2:].max() < good.details['raw_confidence'][2:].min()


def test_fused_without_a_state_stream_reads_the_video_and_says_so():
    scene = gripper_scene(5)
    fused = track(scene, readout='fused')
    np.testing.assert_array_equal(fused.T_ref_gripper, track(scene).T_ref_gripper)
    assert fused.details['readout'] == 'video'


def test_a_pose_and_its_half_turn_give_one_path():
    scene = gripper_scene(0)
    turned = scene.observation.T_ref_gripper @ np.diag([-1.0, -1.0, 1.0, 1.0])
    result = track(replace(scene, observation=replace(scene.observation, T_ref_gripper=turned)))
    if result.trusted > 1:
        jumps = rotation_angle(result.T_ref_gripper[:-1], result.T_ref_gripper[1:])
        assert jumps.max() < np.radians(60)
