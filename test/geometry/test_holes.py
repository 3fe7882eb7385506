"""Holes of a view's depth are filled with what another one sees there, and with nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from geo4d_ros.geometry.cameras import intrinsics, look_at, unproject
from geo4d_ros.geometry.holes import fill_holes
from geo4d_ros.geometry.transforms import invert
from geo4d_ros.types import RgbdFrame

HEIGHT, WIDTH = 60, 80
K = intrinsics(80.0, WIDTH, HEIGHT)


def plane(T_base_camera, height=0.0):
    """A view of the plane z = height."""
    rays = unproject(np.ones((HEIGHT, WIDTH), np.float32), K).astype(float) @ T_base_camera[:3, :3].T
    distance = (height - T_base_camera[2, 3]) / rays[..., 2]
    depth = np.where(distance > 0, distance, 0).astype(np.float32)
    return RgbdFrame(np.zeros((HEIGHT, WIDTH, 3), np.uint8), depth, K)


@pytest.fixture
def pair():
    T = [look_at(np.array([x, 0.0, 0.8]), np.zeros(3)) for x in (-0.5, 0.5)]
    return plane(T[0]), plane(T[1]), invert(T[0]) @ T[1]


def with_hole(view):
    depth = view.depth.copy()
    depth[25:35, 30:45] = 0
    return replace(view, depth=depth)


def test_a_hole_gets_the_depth_that_was_there_and_the_rest_is_not_touched(pair):
    view, other, T_view_other = pair
    mended, count = fill_holes(with_hole(view), other, T_view_other)
    hole = (with_hole(view).depth == 0) & (mended.depth > 0)
    assert count == hole.sum() > 100
    np.testing.assert_allclose(mended.depth[hole], view.depth[hole], rtol=0.02)
    np.testing.assert_array_equal(mended.depth[~hole], with_hole(view).depth[~hole])


def test_what_lies_far_before_or_behind_the_surface_around_does_not_go_in(pair):
    view, _, T_view_other = pair
    T = look_at(np.array([0.5, 0.0, 0.8]), np.zeros(3))
    for height in (0.3, -0.3):
        assert fill_holes(with_hole(view), plane(T, height), T_view_other)[1] == 0


def test_a_view_that_sees_nothing_here_changes_nothing(pair):
    view, other, _ = pair
    away = np.diag([1.0, -1.0, -1.0, 1.0])  # looks the other way
    away[2, 3] = -1.0
    mended, count = fill_holes(with_hole(view), other, away)
    assert count == 0 and np.array_equal(mended.depth, with_hole(view).depth)
