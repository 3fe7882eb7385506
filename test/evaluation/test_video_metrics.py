"""The metric functions against closed-form cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.errors import InvalidInputError
from geo4d_ros.evaluation.metrics import frechet
from geo4d_ros.evaluation.metrics.consistency import carry_mask, chamfer_cm, covisible_iou, iou
from geo4d_ros.evaluation.metrics.depth import abs_rel, delta1, error_3d_cm, moved_mask
from geo4d_ros.evaluation.metrics.image import PSNR_CEILING_DB, psnr, ssim
from geo4d_ros.evaluation.metrics.pose import centroid_error_cm, path_distance, pose_errors
from geo4d_ros.evaluation.metrics.statistics import bootstrap_interval, percentiles_ms, summary
from geo4d_ros.geometry.cameras import intrinsics, look_at, project, unproject
from geo4d_ros.geometry.transforms import from_rotvec, invert, transform_points

RNG = np.random.default_rng(0)


def test_psnr_of_a_constant_offset_is_closed_form():
    a = np.full((4, 5, 3), 100, np.uint8)
    b = np.full((4, 5, 3), 151, np.uint8)
    assert psnr(a, b) == pytest.approx(-20 * np.log10(51 / 255), abs=1e-9)
    assert psnr(a, a) == PSNR_CEILING_DB


def test_psnr_counts_only_the_mask():
    a = np.zeros((4, 4, 3), np.uint8)
    b = a.copy()
    b[0, 0] = 255
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = True
    assert psnr(a, b, mask) == pytest.approx(0.0)
    assert psnr(a, b, ~mask) == PSNR_CEILING_DB
    assert np.isnan(psnr(a, b, np.zeros((4, 4), bool)))


def test_psnr_refuses_floats_and_other_shapes():
    with pytest.raises(InvalidInputError):
        psnr(np.zeros((4, 4, 3)), np.zeros((4, 4, 3)))
    with pytest.raises(InvalidInputError):
        psnr(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8))


def test_ssim_of_constants_is_the_luminance_term():
    a = np.full((16, 16, 3), 51, np.uint8)
    b = np.full((16, 16, 3), 102, np.uint8)
    expected = (2 * 0.2 * 0.4 + 1e-4) / (0.2**2 + 0.4**2 + 1e-4)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)


def test_ssim_falls_with_noise_and_is_one_for_the_same_image():
    image = RNG.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    noisy = np.clip(image + RNG.normal(0, 40, image.shape), 0, 255).astype(np.uint8)
    noisier = np.clip(image + RNG.normal(0, 120, image.shape), 0, 255).astype(np.uint8)
    assert ssim(image, image) == pytest.approx(1.0)
    assert 1 > ssim(noisy, image) > ssim(noisier, image)
    clip_ssim = ssim(np.stack([image, noisy]), np.stack([image, image]))
    assert clip_ssim == pytest.approx((1 + ssim(noisy, image)) / 2)


def test_depth_errors_of_a_scaled_depth():
    true = RNG.uniform(0.5, 2, (3, 6, 7)).astype(np.float32)
    mask = np.ones(true.shape, bool)
    assert abs_rel(1.1 * true, true, mask) == pytest.approx(0.1, abs=1e-6)
    assert delta1(1.1 * true, true, mask) == 1.0
    assert delta1(1.3 * true, true, mask) == 0.0
    assert delta1(true / 1.3, true, mask) == 0.0
    assert delta1(0 * true, true, mask) == 0.0


def test_invalid_truth_is_left_out_of_depth_errors():
    true = np.array([[1.0, 0.0]], np.float32)
    assert abs_rel(np.array([[1.5, 9.0]], np.float32), true, np.ones((1, 2), bool)) == pytest.approx(0.5)
    assert np.isnan(abs_rel(true, true, np.zeros((1, 2), bool)))


def test_error_3d_of_a_shift():
    points = RNG.normal(size=(4, 5, 3)).astype(np.float32)
    mask = np.ones((4, 5), bool)
    assert error_3d_cm(points + np.float32([0.03, 0.04, 0]), points, mask) == pytest.approx(5.0, abs=1e-3)


def test_moved_mask_sees_points_colours_and_appearing_pixels():
    rgb = np.full((2, 2, 2, 3), 90, np.uint8)
    points = np.ones((2, 2, 2, 3), np.float32)
    valid = np.ones((2, 2, 2), bool)
    rgb[1, 0, 0, 1] = 130
    points[1, 0, 1, 0] += 0.02
    valid[1, 1, 0] = False
    expected = np.array([[True, True], [True, False]])
    moved = moved_mask(rgb, points, valid)
    assert not moved[0].any()
    np.testing.assert_array_equal(moved[1], expected)


def test_chamfer_of_two_parallel_planes():
    ticks = np.linspace(0, 1, 20)
    grid = np.stack(np.meshgrid(ticks, ticks, indexing='ij'), -1).reshape(-1, 2)
    plane = np.column_stack([grid, np.zeros(len(grid))])
    assert chamfer_cm(plane, plane) == pytest.approx(0)
    assert chamfer_cm(plane, plane + np.array([0, 0, 0.02])) == pytest.approx(2.0)
    assert np.isnan(chamfer_cm(plane, plane[:0]))


def test_carried_mask_lands_where_the_points_project():
    K = intrinsics(60.0, 64, 48)
    T_base_ref = look_at(np.array([1.0, 0.2, 0.5]), np.zeros(3))
    T_base_other = look_at(np.array([0.9, -0.4, 0.6]), np.zeros(3))
    depth = np.full((48, 64), 1.0, np.float32)
    points = unproject(depth, K)
    mask = np.zeros((48, 64), bool)
    mask[20:30, 25:40] = True
    T_ref_other = invert(T_base_ref) @ T_base_other
    drawn = carry_mask(mask, points, K, T_ref_other, (48, 64))
    pixels, _ = project(transform_points(invert(T_ref_other), points[25, 32].astype(float)), K)
    u, v = np.rint(pixels).astype(int)
    assert drawn[v, u]
    assert 0.5 < drawn.sum() / mask.sum() < 1.5
    assert iou(carry_mask(mask, points, K, np.eye(4), (48, 64)), mask) == 1.0


def test_a_mask_behind_the_other_camera_is_not_drawn():
    points = np.full((4, 4, 3), [0, 0, 1.0], np.float32)
    behind = from_rotvec(np.array([0, np.pi, 0.0]))
    drawn = carry_mask(np.ones((4, 4), bool), points, intrinsics(4.0, 4, 4), behind, (4, 4))
    assert not drawn.any()


def two_views_of_a_ball(shift_of_the_second=0.0):
    """Masks, points, K and poses of a ball of 15 cm seen by two cameras 90 degrees apart, 1 m away."""
    K = intrinsics(100.0, 64, 48)
    T_base = [look_at(np.array([1.0, 0, 0.4]), np.zeros(3)), look_at(np.array([0, 1.0, 0.4]), np.zeros(3))]
    rays = unproject(np.ones((48, 64), np.float32), K)
    rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    masks, points = [], []
    for i, T in enumerate(T_base):
        centre = transform_points(invert(T), np.array([0, 0, i * shift_of_the_second]))
        along = rays @ centre
        inside = along**2 - centre @ centre + 0.15**2
        distance = along - np.sqrt(np.maximum(inside, 0))
        masks.append(inside > 0)
        points.append(transform_points(invert(T_base[0]) @ T, rays * distance[..., None]))
    T_ref_view = np.stack([np.eye(4), invert(T_base[0]) @ T_base[1]])
    return np.stack(masks), np.stack(points), np.stack(masks), np.stack([K, K]), T_ref_view


def test_what_only_one_camera_sees_is_no_inconsistency():
    masks, points, valid, K, T = two_views_of_a_ball()
    assert iou(carry_mask(masks[0], points[0], K[1], T[1], (48, 64)), masks[1]) < 0.65
    assert covisible_iou(masks, points, valid, K, T) > 0.85


def test_views_that_disagree_are_seen():
    assert covisible_iou(*two_views_of_a_ball(shift_of_the_second=0.08)) < 0.6
    masks, *rest = two_views_of_a_ball()
    assert covisible_iou(np.stack([masks[0], masks[1] & False]), *rest) == 0.0
    assert np.isnan(covisible_iou(masks & False, *rest))


def test_iou_closed_form():
    a = np.zeros((6, 6), bool)
    b = np.zeros((6, 6), bool)
    a[0:2, 0:4] = True
    b[0:2, 2:6] = True
    assert iou(a, b) == pytest.approx(4 / 12)
    assert np.isnan(iou(a & b & False, b & False))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.001, 0.2), st.floats(-3, 3), st.integers(0, 100))
def test_pose_errors_measure_the_applied_offset(shift, angle, seed):
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    T = from_rotvec(rng.normal(size=3), rng.normal(size=3))
    direction = rng.normal(size=3)
    offset = from_rotvec(axis / np.linalg.norm(axis) * angle)
    moved = T @ offset
    moved[:3, 3] = T[:3, 3] + shift * direction / np.linalg.norm(direction)
    position, rotation = pose_errors(moved[None], T[None])
    assert position[0] == pytest.approx(100 * shift, rel=1e-6)
    assert rotation[0] == pytest.approx(np.degrees(abs(angle)), abs=1e-4)


def test_centroid_error_needs_the_gripper_in_truth_and_prediction():
    mask = np.zeros((3, 8, 8), bool)
    mask[:2, 2:6, 2:6] = True
    points = np.ones((3, 8, 8, 3), np.float32)
    predicted_mask = mask.copy()
    predicted_mask[1] = False
    errors = centroid_error_cm(predicted_mask, points + np.float32([0, 0, 0.05]), mask, points)
    assert errors[0] == pytest.approx(5.0, abs=1e-4)
    assert np.isinf(errors[1])
    assert np.isnan(errors[2])


def test_path_distance_ignores_timing():
    path = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0.0]])
    points = np.array([[0.37, 0, 0], [1.0, 0.9, 0.02], [2, 1, 0]])
    np.testing.assert_allclose(path_distance(points, path), [0, 0.02, 1], atol=1e-12)
    np.testing.assert_allclose(path_distance(points, path[:1]), np.linalg.norm(points, axis=1))


def test_frechet_of_shifted_gaussians_is_the_squared_shift():
    a = RNG.normal(size=(400, 5))
    assert frechet.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet.frechet_distance(a, a + np.array([3, 0, 4, 0, 0])) == pytest.approx(25, abs=1e-6)
    assert frechet.frechet_distance(a, 2 * a - a.mean(0)) == pytest.approx(np.trace(np.cov(a.T)), rel=1e-6)


def test_own_features_are_fixed_and_see_motion():
    clip = RNG.integers(0, 256, (11, 24, 32, 3)).astype(np.uint8)
    still = np.repeat(clip[:1], 11, axis=0)
    np.testing.assert_array_equal(frechet.own_features(clip), frechet.own_features(clip))
    assert np.linalg.norm(frechet.own_features(clip) - frechet.own_features(still)) > 0.1
    assert frechet.own_features(clip).shape == (frechet.FEATURES,)


def test_bootstrap_interval_holds_the_mean_and_narrows():
    values = RNG.normal(2, 1, 400)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    wide = bootstrap_interval(values[:20])
    assert wide[1] - wide[0] > high - low


def test_summary_of_nothing_is_json():
    assert summary(np.array([np.nan, np.inf])) == {'mean': None, 'ci95': None, 'n': 0}
    assert summary(np.array([1.0, 1.0, np.nan]))['n'] == 2
    assert percentiles_ms([]) is None
    assert percentiles_ms([0.1, 0.1])['p95'] == pytest.approx(100)
