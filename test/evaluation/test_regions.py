"""Metrics by region on a made-up clip with known answers: right, copied, vanished, blurred, blocky, displaced."""

from dataclasses import replace

import numpy as np
import pytest
from fakes.moving_object import FOCAL, NEAR, STEP, moving_object
from scipy.ndimage import gaussian_filter

from geo4d_ros.errors import InvalidInputError
from geo4d_ros.evaluation.metrics.futures import future_figures
from geo4d_ros.evaluation.metrics.regions import (
    episode_colours,
    has_moved,
    motion_error_cm,
    object_pixels,
    region_masks,
)
from geo4d_ros.evaluation.simulated_truth import copy_video
from geo4d_ros.evaluation.video.oracle_motion import oracle_motion_video
from geo4d_ros.evaluation.video.regions import region_sums, summarise_regions
from geo4d_ros.geometry.transforms import invert


@pytest.fixture(scope='module')
def clip():
    return moving_object()


def judged(video, clip):
    return summarise_regions([region_sums(video, clip)], ['one'])


def recoloured(clip, change):
    """The truth with frames 1.. changed: change(rgb (T, H, W, 3) float) -> the same."""
    rgb = clip.video.rgb.copy()
    rgb[0, 1:] = np.clip(change(rgb[0, 1:].astype(float)), 0, 255).astype(np.uint8)
    return replace(clip.video, rgb=rgb)


def test_regions_come_from_the_labels_of_now_and_of_frame_zero():
    labels = np.array([[[1, 5, 0, 2]], [[0, 0, 5, 2]]], np.uint8)
    masks = {name: mask[0, 0].tolist() for name, mask in region_masks(labels, np.array([False, True])).items()}
    assert masks['object'] == masks['object_moved'] == [False, False, True, False]
    assert masks['robot'] == masks['gripper'] == [False, False, False, True] and not any(masks['arm'])
    assert masks['uncovered'] == [True, True, False, False]
    assert not any(masks['static'])
    assert not region_masks(labels, np.zeros(2, bool))['object_moved'].any()


def test_moved_means_two_centimetres_or_fifteen_degrees():
    T = np.tile(np.eye(4), (4, 1, 1))
    T[1, 0, 3], T[2, 0, 3] = 0.019, 0.021
    angle = np.deg2rad(16)
    T[3, :2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert has_moved(T).tolist() == [False, False, True, True]


def test_the_truth_scores_perfectly(clip):
    found = judged(clip.video, clip)
    for name in ('object', 'object_moved', 'gripper', 'robot', 'uncovered', 'static'):
        region = found['regions'][name]
        assert region['psnr'] == 100 and region['error_3d_cm'] == region['abs_rel'] == 0 and region['coverage'] == 1
    assert found['regions']['arm']['psnr'] is None  # there is none in the picture
    assert found['object']['iou_mean'] > 0.99 and found['object']['miss'] == 0
    assert found['object']['centroid_cm'] == pytest.approx(0, abs=1e-3)
    assert found['object']['motion_error_cm_mean'] is None  # a picture does not say how it moved the object
    crisp = found['sharpness']
    assert [crisp[k] for k in ('gradient_energy', 'gradient_cosine', 'block_ratio')] == pytest.approx([1, 1, 1])


def test_a_copy_leaves_the_object_behind(clip):
    found = judged(copy_video(clip), clip)
    assert found['object']['iou_mean'] < 0.3 and found['object']['iou_10'] == 0
    # The object's middle stays where it was: after t steps it is off by t steps.
    steps = STEP / FOCAL * NEAR * 100 * np.arange(1, 11)
    assert found['object']['centroid_cm'] == pytest.approx(np.median(steps[steps > 2]), rel=0.05)
    assert found['regions']['static']['psnr'] == 100 and found['regions']['uncovered']['psnr'] < 20


def test_a_vanished_object_is_missed(clip):
    rgb = clip.video.rgb.copy()
    rgb[clip.labels == 5] = 70
    rgb[:, 0] = clip.video.rgb[:, 0]
    found = judged(replace(clip.video, rgb=rgb), clip)['object']
    assert found['miss'] == 1 and found['iou_mean'] == 0 and found['n'] > 5


def test_an_error_of_known_size_has_its_decibels(clip):
    rgb = clip.video.rgb.copy()
    rgb[clip.labels == 5] -= 20
    rgb[:, 0] = clip.video.rgb[:, 0]
    regions = judged(replace(clip.video, rgb=rgb), clip)['regions']
    assert regions['object']['psnr'] == pytest.approx(-20 * np.log10(20 / 255), abs=0.01)
    assert regions['gripper']['psnr'] == regions['static']['psnr'] == 100


def test_displaced_points_are_measured_in_centimetres_and_relative_depth(clip):
    points = clip.video.points.copy()
    points[..., 2] += 0.03
    regions = judged(replace(clip.video, points=points), clip)['regions']
    assert regions['robot']['error_3d_cm'] == pytest.approx(3, abs=1e-3)
    assert regions['robot']['abs_rel'] == pytest.approx(0.03 / NEAR, rel=1e-3)
    valid = clip.video.valid.copy()
    valid[:, 1:, :, ::2] = False
    half = judged(replace(clip.video, valid=valid), clip)['regions']['static']
    assert half['coverage'] == pytest.approx(0.5, abs=0.03)


def test_blur_costs_gradients_and_blocks_show_at_their_borders(clip):
    blurred = judged(recoloured(clip, lambda x: gaussian_filter(x, (0, 1.5, 1.5, 0))), clip)['sharpness']
    assert blurred['gradient_energy'] < 0.5

    def blocky(x):
        height, width = x.shape[1:3]
        coarse = x.reshape(len(x), height // 8, 8, width // 8, 8, 3).mean(axis=(2, 4), keepdims=True)
        return 0.5 * x + 0.5 * np.broadcast_to(coarse, (len(x), height // 8, 8, width // 8, 8, 3)).reshape(x.shape)

    assert judged(recoloured(clip, blocky), clip)['sharpness']['block_ratio'] > 1.3


def test_a_declared_motion_is_judged_at_the_object_s_points(clip):
    T = clip.T_ref_object @ invert(clip.T_ref_object[0])
    T[:, 1, 3] += 0.012
    found = judged(replace(clip.video, T_ref_object_motion=T), clip)['object']
    assert found['motion_error_cm_median'] == found['motion_error_cm_mean'] == pytest.approx(1.2, abs=1e-3)
    turned = np.eye(4)
    turned[:2, :2] = [[0, -1], [1, 0]]
    points = np.array([[0.1, 0, 0], [-0.1, 0, 0]])
    assert motion_error_cm(points, turned, np.eye(4)) == pytest.approx(10 * np.sqrt(2))
    assert np.isnan(motion_error_cm(points[:0], turned, np.eye(4)))


def test_the_ceiling_by_true_motion_carries_object_and_gripper(clip):
    video = oracle_motion_video(clip)
    found = judged(video, clip)
    assert found['object']['iou_mean'] > 0.95 and found['object']['motion_error_cm_mean'] == 0
    assert found['regions']['object_moved']['error_3d_cm'] < 0.2 and found['regions']['gripper']['psnr'] > 25
    assert found['regions']['static']['psnr'] > 35
    np.testing.assert_array_equal(video.rgb[:, 0], clip.video.rgb[:, 0])


def test_object_colours_that_are_the_background_s_do_not_count(clip):
    everywhere = np.full_like(clip.video.rgb[0, 0], 70)
    assert not object_pixels(everywhere, 0, clip.colours).any()
    empty = episode_colours(clip.video.rgb, np.zeros_like(clip.labels))
    assert not object_pixels(clip.video.rgb[0, 0], 0, empty).any()


def test_pixels_are_pooled_within_an_episode_and_episodes_averaged(clip):
    good, bad = region_sums(clip.video, clip), region_sums(recoloured(clip, lambda x: x - 20), clip)
    together = summarise_regions([good, bad], ['one', 'one'])['regions']['object']
    apart = summarise_regions([good, bad], ['one', 'two'])['regions']['object']
    alone = summarise_regions([bad], ['one'])['regions']['object']
    assert together['psnr'] == pytest.approx(alone['psnr'] + 10 * np.log10(2), abs=0.01) and together['n'] == 1
    assert apart['psnr'] == pytest.approx((100 + alone['psnr']) / 2, abs=0.01) and apart['n'] == 2
    assert apart['ci95']['psnr'][0] < apart['psnr'] < apart['ci95']['psnr'][1]


def test_futures_of_known_spread():
    rng = np.random.default_rng(0)
    true = np.zeros((400, 3))
    figures = future_figures(rng.normal(0, 0.01, (8, 400, 3)), rng.normal(0, 0.01, (400, 3)))
    assert figures['covered_90'] == pytest.approx(0.87, abs=0.06)
    assert figures['spread_cm'] == pytest.approx(figures['error_cm'], rel=0.1)
    off = np.zeros((3, 400, 3))
    off[0, :, 0], off[1, :, 0] = 0.05, 0.02
    figures = future_figures(off, true)
    assert figures['one_cm'] == pytest.approx(5) and figures['best_of_k_cm'] == 0 and figures['k'] == 3
    with pytest.raises(InvalidInputError, match='K >= 2'):
        future_figures(off[:1], true)
