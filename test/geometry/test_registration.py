"""Pose-free registration on ray-cast synthetic scenes: it finds any pose, and refuses what does not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.errors import RegistrationError
from geo4d_ros.geometry.cameras import intrinsics, look_at, unproject
from geo4d_ros.geometry.registration import register_views
from geo4d_ros.geometry.transforms import invert, rotation_angle, transform_points
from geo4d_ros.types import RgbdFrame

HEIGHT, WIDTH = 96, 128
K = intrinsics(1.05 * WIDTH, WIDTH, HEIGHT)


def cast(origin, rays, boxes):
    """Distances along rays (N, 3) and box index (N,) of axis-aligned boxes (low, high); -1 where none is hit."""
    best, which = np.full(len(rays), np.inf), np.full(len(rays), -1)
    for index, (low, high, _) in enumerate(boxes):
        with np.errstate(divide='ignore', invalid='ignore'):
            t1, t2 = (low - origin) / rays, (high - origin) / rays
        near, far = np.minimum(t1, t2).max(1), np.maximum(t1, t2).min(1)
        hit = (near < far) & (near > 0) & (near < best)
        best[hit], which[hit] = near[hit], index
    return best, which


def make_scene(seed):
    """A table and nine coloured boxes on it, as (low corner, high corner, colour)."""
    rng = np.random.default_rng(seed)
    boxes = [(np.array([-0.1, -0.7, -0.05]), np.array([1.1, 0.7, 0.0]), np.array([150, 120, 90]))]
    for _ in range(9):
        x, y = rng.uniform(0.25, 0.75), rng.uniform(-0.3, 0.3)
        half = rng.uniform(0.02, 0.06, 2)
        top = rng.uniform(0.04, 0.25)
        boxes.append((np.array([x - half[0], y - half[1], 0]), np.array([x + half[0], y + half[1], top]),
                      rng.integers(20, 255, 3)))
    return boxes


def photograph(boxes, T_base_camera, noise=0.0, seed=0):
    rays = unproject(np.ones((HEIGHT, WIDTH), np.float32), K).reshape(-1, 3).astype(float) @ T_base_camera[:3, :3].T
    depth, which = cast(T_base_camera[:3, 3], rays, boxes)
    colours = np.array([*(c for _, _, c in boxes), [60, 60, 70]])[which]
    rng = np.random.default_rng(seed)
    depth = np.where(np.isfinite(depth), depth + noise * rng.standard_normal(len(depth)), 0)
    return RgbdFrame(colours.reshape(HEIGHT, WIDTH, 3).astype(np.uint8),
                     depth.reshape(HEIGHT, WIDTH).astype(np.float32), K)


def rig_pose(azimuth_deg, elevation_deg, radius):
    a, e = np.radians([azimuth_deg, elevation_deg])
    offset = radius * np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    return look_at(np.array([0.5, 0, 0.1]) + offset, np.array([0.5, 0, 0.08]))


def workspace_error(T, truth, T_base_second):
    corners = np.array([[x, y, z] for x in (0.3, 0.7) for y in (-0.25, 0.25) for z in (0, 0.3)])
    points = transform_points(invert(T_base_second), corners)
    return np.linalg.norm(transform_points(T, points) - transform_points(truth, points), axis=1).max()


@settings(deadline=None, max_examples=12, derandomize=True)
@given(seed=st.integers(0, 10_000), azimuth=st.floats(-180, 180), separation=st.floats(25, 75),
       sign=st.sampled_from([-1, 1]), elevation=st.floats(30, 60), radius=st.floats(0.9, 1.2))
def test_it_finds_the_pose_of_any_pair(seed, azimuth, separation, sign, elevation, radius):
    boxes = make_scene(seed)
    T_a, T_b = rig_pose(azimuth, 45, 1.0), rig_pose(azimuth + sign * separation, elevation, radius)
    result = register_views(photograph(boxes, T_a), photograph(boxes, T_b))
    truth = invert(T_a) @ T_b
    assert workspace_error(result.T_ref_second, truth, T_b) < 0.01
    assert np.degrees(rotation_angle(result.T_ref_second, truth)) < 1
    assert result.inlier_fraction > 0.85 and result.rms_m < 0.01


def test_noise_is_borne():
    boxes, T_a, T_b = make_scene(1), rig_pose(0, 45, 1.0), rig_pose(50, 40, 1.1)
    result = register_views(photograph(boxes, T_a, 0.002, 1), photograph(boxes, T_b, 0.002, 2))
    assert workspace_error(result.T_ref_second, invert(T_a) @ T_b, T_b) < 0.01


def test_a_guess_is_refined():
    boxes, T_a, T_b = make_scene(2), rig_pose(0, 45, 1.0), rig_pose(40, 40, 1.1)
    truth = invert(T_a) @ T_b
    guess = truth.copy()
    guess[:3, 3] += [0.01, -0.01, 0.005]
    result = register_views(photograph(boxes, T_a), photograph(boxes, T_b), guess)
    assert workspace_error(result.T_ref_second, truth, T_b) < 0.005


def test_views_of_different_scenes_are_refused():
    refused = 0
    for seed in range(6):
        a = photograph(make_scene(seed), rig_pose(0, 45, 1.0))
        b = photograph(make_scene(seed + 100), rig_pose(40, 45, 1.0))
        try:
            register_views(a, b)
        except RegistrationError as error:
            refused += 1
            assert 'fit' in str(error)
    assert refused == 6


def test_no_plane_and_no_depth_are_refused():
    rng = np.random.default_rng(0)
    good = photograph(make_scene(0), rig_pose(0, 45, 1.0))
    clutter = RgbdFrame(good.rgb, rng.uniform(0.5, 1.5, good.depth.shape).astype(np.float32), K)
    empty = RgbdFrame(good.rgb, np.zeros_like(good.depth), K)
    for bad in (clutter, empty):
        with pytest.raises(RegistrationError):
            register_views(good, bad)


def test_an_empty_table_is_ambiguous_and_refused():
    table = make_scene(0)[:1]
    with pytest.raises(RegistrationError):
        register_views(photograph(table, rig_pose(0, 50, 0.6)), photograph(table, rig_pose(40, 50, 0.6)))
