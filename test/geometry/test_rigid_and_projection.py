"""Axioms of SE(3) and of pinhole projection, over random poses, cameras and points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.errors import InvalidInputError
from geo4d_ros.geometry.cameras import Camera, intrinsics, look_at, project, scale_intrinsics, unproject
from geo4d_ros.geometry.resampling import nearest_indices, resize_frame
from geo4d_ros.geometry.transforms import (
    check_transform,
    fit_rigid,
    from_quaternion,
    from_rotvec,
    interpolate,
    invert,
    pose_to_quaternion,
    rotation_angle,
    rotvec,
    transform_points,
    translation_distance,
)
from geo4d_ros.types import RgbdFrame

numbers = st.floats(-2, 2)
vectors = st.tuples(numbers, numbers, numbers).map(np.array)
poses = st.builds(from_rotvec, vectors, vectors)
quick = settings(max_examples=60, deadline=None)


@quick
@given(poses, poses, poses)
def test_composition_is_associative_and_inverse_cancels(A, B, C):
    np.testing.assert_allclose((A @ B) @ C, A @ (B @ C), atol=1e-12)
    np.testing.assert_allclose(invert(A) @ A, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(invert(A @ B), invert(B) @ invert(A), atol=1e-12)
    check_transform('AB', A @ B)


@quick
@given(poses, poses, vectors)
def test_composed_transform_moves_points_one_after_the_other(A, B, p):
    points = np.stack([p, -p, 2 * p])
    np.testing.assert_allclose(transform_points(A @ B, points), transform_points(A, transform_points(B, points)),
                               atol=1e-9)


@quick
@given(poses)
def test_quaternion_and_rotation_vector_return_the_pose(T):
    np.testing.assert_allclose(from_quaternion(pose_to_quaternion(T), T[:3, 3]), T, atol=1e-9)
    np.testing.assert_allclose(from_rotvec(rotvec(T), T[:3, 3]), T, atol=1e-9)


@quick
@given(poses, poses, st.floats(0, 1))
def test_interpolation_is_straight_and_at_constant_rate(A, B, s):
    ends = interpolate(A, B, np.array([0.0, 1.0]))
    np.testing.assert_allclose(ends, np.stack([A, B]), atol=1e-9)
    middle = interpolate(A, B, np.array([s]))[0]
    check_transform('middle', middle)
    assert translation_distance(A, middle) == pytest.approx(s * translation_distance(A, B), abs=1e-9)
    assert rotation_angle(A, middle) == pytest.approx(s * rotation_angle(A, B), abs=1e-6)


@quick
@given(poses, st.integers(3, 20), st.integers(0, 2**31 - 1))
def test_rigid_fit_recovers_the_transform(T, count, seed):
    points = np.random.default_rng(seed).normal(size=(count, 3))
    np.testing.assert_allclose(fit_rigid(transform_points(T, points), points), T, atol=1e-7)


def test_rigid_fit_of_mirrored_points_is_still_a_rotation():
    points = np.random.default_rng(0).normal(size=(20, 3))
    check_transform('fit', fit_rigid(points * [1, 1, -1], points))


@quick
@given(st.floats(50, 900), st.integers(2, 40), st.integers(2, 40), st.floats(0.2, 4))
def test_projection_undoes_unprojection(focal, width, height, distance):
    K = intrinsics(focal, width, height)
    depth = np.full((height, width), distance, np.float32)
    pixels, z = project(unproject(depth, K).astype(np.float64), K)
    v, u = np.mgrid[:height, :width]
    np.testing.assert_allclose(pixels, np.stack([u, v], axis=-1), atol=2e-3)
    np.testing.assert_allclose(z, depth, atol=1e-6)


def test_invalid_depth_becomes_the_zero_point():
    assert not unproject(np.zeros((3, 4), np.float32), intrinsics(100, 4, 3)).any()


@quick
@given(st.integers(1, 5), st.floats(0.5, 3), st.floats(-1, 1), st.floats(-1, 1))
def test_scaled_intrinsics_keep_the_ray_of_a_pixel_corner(factor, z, x, y):
    K = intrinsics(120, 64, 48)
    fine = scale_intrinsics(K, factor, factor)
    (u, v), _ = project(np.array([x, y, z]), K)
    (u_fine, v_fine), _ = project(np.array([x, y, z]), fine)
    assert u_fine + 0.5 == pytest.approx((u + 0.5) * factor, abs=1e-6)
    assert v_fine + 0.5 == pytest.approx((v + 0.5) * factor, abs=1e-6)


def test_resizing_never_invents_a_depth():
    frame = RgbdFrame.example(48, 64)
    depth = np.where(np.arange(64) < 31, np.float32(0.5), np.float32(2.0)) * np.ones((48, 1), np.float32)
    frame = RgbdFrame(frame.rgb, depth, frame.K)
    small = resize_frame(frame, 17, 23)
    assert set(np.unique(small.depth)) == {np.float32(0.5), np.float32(2.0)}
    assert resize_frame(frame, 48, 64) is frame
    with pytest.raises(InvalidInputError):
        resize_frame(frame, 1, 64)


@quick
@given(st.integers(1, 300), st.integers(1, 300))
def test_nearest_indices_are_ordered_and_inside(size_in, size_out):
    indices = nearest_indices(size_in, size_out)
    assert (np.diff(indices) >= 0).all() and indices[0] >= 0 and indices[-1] < size_in


@quick
@given(vectors.filter(lambda p: np.hypot(p[0], p[1]) > 0.1))
def test_camera_looks_at_its_target_without_roll(position):
    T = look_at(position, np.zeros(3))
    check_transform('T', T)
    target = transform_points(invert(T), np.zeros((1, 3)))[0]
    np.testing.assert_allclose(target, [0, 0, np.linalg.norm(position)], atol=1e-9)
    assert abs(T[2, 0]) < 1e-9  # its x axis is level
    Camera(intrinsics(100, 8, 6), T, 8, 6)


@pytest.mark.parametrize('T', [np.eye(3), np.zeros((4, 4)), np.diag([1, 1, -1.0, 1]), np.full((4, 4), np.nan),
                               np.diag([1.001, 1, 1, 1]), [[1]]])
def test_what_is_no_rigid_transform_is_refused(T):
    with pytest.raises(InvalidInputError):
        check_transform('T', T)
