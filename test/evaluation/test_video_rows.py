"""The metrics of one clip and their means: perfect, copied and wrong predictions on a made-up moving box."""

from dataclasses import replace

import numpy as np
import pytest
from fakes.moving_square import moving_square

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.evaluation.simulated_truth import clip_of, copy_video, observe
from geo4d_ros.evaluation.video.rows import aggregate, clip_metrics, grouped_mean, step_medians
from geo4d_ros.geometry.transforms import invert

FRAMES = 4


def _recording():
    return moving_square(FRAMES)


def test_the_truth_scores_perfectly():
    clip = clip_of(_recording())
    result = clip_metrics(clip.video, clip)
    for view in ('reference', 'second'):
        for region in ('full_frame', 'motion_masked'):
            values = result['views'][view][region]
            assert values['psnr'] == 100 and values['ssim'] == pytest.approx(1)
            assert values['abs_rel'] == 0 and values['delta1'] == 1 and values['error_3d_cm'] == 0
            assert values['coverage'] == 1
    np.testing.assert_allclose(result['centroid_cm'], 0)


def test_copying_looks_good_in_the_full_frame_and_bad_where_things_moved():
    clip = clip_of(_recording())
    view = clip_metrics(copy_video(clip), clip)['views']['reference']
    assert view['full_frame']['abs_rel'] < 0.1 < 0.25 < view['motion_masked']['abs_rel']
    assert view['motion_masked']['psnr'] < view['full_frame']['psnr']
    assert view['motion_masked']['error_3d_cm'] > 20


def test_a_uniform_depth_scale_shows_up_as_that_abs_rel():
    clip = clip_of(_recording())
    scaled = replace(clip.video, points=clip.video.points * np.float32(1.1))
    full_frame = clip_metrics(scaled, clip)['views']['reference']['full_frame']
    assert full_frame['abs_rel'] == pytest.approx(0.1, abs=1e-5)


def test_invalid_predictions_lower_coverage_and_delta_but_not_abs_rel():
    clip = clip_of(_recording())
    valid = clip.video.valid.copy()
    valid[:, :, :12] = False
    holes = clip_metrics(replace(clip.video, valid=valid), clip)['views']['reference']['full_frame']
    assert holes['coverage'] == pytest.approx(0.5)
    assert holes['delta1'] == pytest.approx(0.5)
    assert holes['abs_rel'] == 0


def test_a_prediction_of_another_size_is_refused_with_the_way_out():
    clip = clip_of(_recording())
    video = clip.video
    smaller = replace(video, rgb=video.rgb[:, :, ::2], points=video.points[:, :, ::2],
                      valid=video.valid[:, :, ::2], gripper_mask=None)
    with pytest.raises(ConfigurationError, match='--size'):
        clip_metrics(smaller, clip)


def test_windows_repeat_the_last_moment_and_keep_stamps_increasing():
    recording = _recording()
    window = recording.window(3, 4)
    np.testing.assert_array_equal(window.rgb[:, 1], window.rgb[:, 4])
    assert (np.diff(window.stamps) == 500_000_000).all()
    assert window.stamps[0] == recording.stamps[3]
    assert len(recording.window(0, 2, stride=2)) == 3
    assert recording.window(0, 2, stride=2).stamps[1] == 1_000_000_000


def test_observation_holds_the_gripper_in_the_reference_frame():
    recording = _recording()
    observation = observe(recording, 1)
    expected = invert(recording.T_base_camera[0]) @ recording.T_base_gripper[1]
    np.testing.assert_allclose(observation.T_ref_gripper, expected)
    assert observation.stamp == 500_000_000 and observation.opening == pytest.approx(0.08)


def test_row_has_means_intervals_and_steps():
    clip = clip_of(_recording())
    good, bad = clip_metrics(clip.video, clip), clip_metrics(copy_video(clip), clip)
    row = aggregate([good, bad, good, bad], ['a', 'a', 'b', 'b'])
    assert row['n_clips'] == 4 and row['n_episodes'] == 2
    views = [view for result in (good, bad) for view in result['views'].values()]
    expected = np.mean([view['full_frame']['psnr'] for view in views])
    assert row['full_frame']['psnr'] == pytest.approx(expected, abs=1e-3)
    low, high = row['ci95']['full_frame']['psnr']
    assert low <= row['full_frame']['psnr'] <= high
    assert len(row['gripper_centroid_cm']) == FRAMES
    assert set(row['views']) == {'reference', 'second'}


def test_groups_weigh_equally_and_nothing_is_none():
    assert grouped_mean([1.0, 1.0, 1.0, 5.0], ['a', 'a', 'a', 'b'])[0] == pytest.approx(3)
    assert grouped_mean([float('nan')], ['a']) == (None, None)


def test_step_medians_count_missing_grippers_as_far():
    inf, nan = np.inf, np.nan
    assert step_medians(np.array([[1, inf, nan], [3, inf, nan], [5, 2, nan]])) == [3.0, None, None]
