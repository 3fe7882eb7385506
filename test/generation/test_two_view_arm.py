"""The arm's skeleton as rays see it: plain geometry, for any weights."""

import numpy as np
import pytest
import torch

from geo4d_ros.generation.two_view.arm import BONE_FEATURES, WIDTHS, bones_seen
from geo4d_ros.geometry.transforms import from_rotvec, transform_points

BELLS, SIDE, NORMAL, ALONG, AWAY = slice(0, 3), 3, slice(4, 6), 6, 7


def seen(joints, directions, T=None):
    """Features (rays, bones, BONE_FEATURES) of rays from the origin, everything moved by T."""
    T = np.eye(4) if T is None else T
    directions = np.asarray(directions, float) / np.linalg.norm(directions, axis=-1, keepdims=True)
    tensor = lambda a: torch.as_tensor(np.asarray(a, float))  # noqa: E731
    out = bones_seen(tensor(transform_points(T, np.asarray(joints, float)))[None, None],
                     tensor(directions @ T[:3, :3].T)[None, None, None], tensor(T[:3, 3])[None, None],
                     tensor(T[:3, :3])[None, None])
    return out[0, 0, 0, 0].unflatten(-1, (-1, BONE_FEATURES)).numpy()


def test_a_ray_through_a_bone_meets_it_where_it_is():
    bone = [[-0.2, 0, 1.0], [0.2, 0, 1.0]]
    hit = seen(bone, [[0.1, 0, 1.0]])[0, 0]
    np.testing.assert_allclose(hit[BELLS], 1, atol=1e-6)
    np.testing.assert_allclose(hit[ALONG], 0.75, atol=1e-6)
    np.testing.assert_allclose(hit[AWAY], np.hypot(0.1, 1.0), atol=1e-6)


def test_both_sides_of_a_bone_are_told_apart_and_its_ends_are_ends():
    bone = [[-0.2, 0, 1.0], [0.2, 0, 1.0]]
    above, below, beyond = seen(bone, [[0, -0.05, 1.0], [0, 0.05, 1.0], [0.4, 0, 1.0]])[:, 0]
    assert above[SIDE] * above[NORMAL][1] == pytest.approx(-below[SIDE] * below[NORMAL][1])
    np.testing.assert_allclose(above[BELLS], below[BELLS], atol=1e-9)
    reach = 0.4 - 0.2 - 0.2 * (1 - 1 / (1 + 0.16))  # roughly: what the ray passes the end by
    assert np.exp(-(0.2 / WIDTHS[1])**2) < beyond[1] < np.exp(-(reach * 0.8 / WIDTHS[1])**2)


def test_it_depends_on_where_the_arm_is_seen_from_only():
    rng = np.random.default_rng(0)
    joints = rng.normal(0, 0.3, (5, 3)) + np.array([0, 0, 1.0])
    rays = rng.normal(0, 0.3, (20, 3)) + np.array([0, 0, 1.0])
    T = from_rotvec(np.array([0.4, -1.0, 2.0]), np.array([0.3, -0.1, 0.6]))
    np.testing.assert_allclose(seen(joints, rays, T), seen(joints, rays), atol=1e-6)


def test_nothing_is_said_where_no_bone_is_near_and_degenerate_bones_are_finite():
    far = seen([[0, 3.0, 1.0], [0.1, 3.0, 1.0]], [[0, 0, 1.0]])
    assert np.abs(far).max() < 1e-6
    assert np.isfinite(seen([[0, 0, 1.0]] * 3, [[0, 0, 1.0], [0, 0.1, 1.0]])).all()
