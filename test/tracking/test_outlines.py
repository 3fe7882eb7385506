"""The rasteriser against brute force, outline fields, ghosts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posed_hands import SIZE, K, posed, union_of_triangles

from geo4d_ros.geometry.cameras import project
from geo4d_ros.tracking.objective import covered
from geo4d_ros.tracking.outlines import keep_near, outline_field, rasterise


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=3, max_size=3), st.floats(-0.15, 0.15), st.floats(0.6, 1.2))
def test_raster_covers_what_the_triangles_cover(turn, x, z):
    vertices, faces = posed(turn, (x, 0.02, z))
    drawn = covered(rasterise(vertices, faces, K, SIZE), SIZE)
    true = union_of_triangles(vertices, faces)
    assert (drawn & true).sum() / (drawn | true).sum() > 0.85


def test_contour_points_project_back_and_lie_on_the_outline():
    vertices, faces = posed((2.2, 0.4, 0.3), (0.05, 0.02, 0.9))
    raster = rasterise(vertices, faces, K, SIZE)
    uv, points = raster.contour(K, 80)
    again, depth = project(points, K)
    np.testing.assert_allclose(again, uv, atol=1e-9)
    assert (depth > 0.7).all()
    distance, _, known = outline_field(union_of_triangles(vertices, faces)).query(uv)
    assert abs(distance.mean()) < 0.3 and np.abs(distance).max() < 1.5
    assert (known == 1).all()


def test_depth_of_covered_pixels_is_that_of_the_surface():
    vertices, faces = posed((0, 0, 0), (0, 0, 0.8))
    raster = rasterise(vertices, faces, K, SIZE)
    u, v, face = raster.pixels()
    z = raster.depth_at(u.astype(float), v.astype(float), face, K)
    assert z.min() >= vertices[:, 2].min() - 1e-9 and z.max() <= vertices[:, 2].max() + 1e-9


@pytest.mark.parametrize('place', [(0, 0, 0.0), (0, 0, -1.0), (3, 0, 1.0)])
def test_gripper_that_cannot_be_drawn_gives_none(place):
    assert rasterise(*posed((0, 0, 0), place), K, SIZE) is None


def test_outline_field_is_signed_and_empty_masks_have_none():
    mask = np.zeros(SIZE, bool)
    assert outline_field(mask) is None
    assert outline_field(~mask) is None
    mask[30:60, 40:80] = True
    field = outline_field(mask)
    distance, gradient, _ = field.query(np.array([[60.0, 45.0], [35.0, 45.0], [39.5, 45.0]]))
    assert distance[0] > 10 and distance[1] == pytest.approx(-4.5) and abs(distance[2]) < 0.1
    assert gradient[2][0] > 0.5


def test_nothing_is_known_where_something_may_hide_the_outline():
    mask, unknown = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    mask[30:60, 40:80] = True
    unknown[30:60, 80:100] = True
    field = outline_field(mask, unknown)
    _, _, known = field.query(np.array([[90.0, 45.0], [60.0, 45.0]]))
    assert known.tolist() == [0, 1]
    distance, _, _ = field.query(np.array([[104.0, 45.0]]))
    assert distance[0] == pytest.approx(-4.5)  # to the pixels that may hide it, not to the seen ones


def test_ghosts_far_away_are_dropped_but_a_jump_is_kept():
    mask, expected = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    expected[40:50, 40:60] = True
    mask[42:52, 45:65] = True
    ghost = mask.copy()
    ghost[5:15, 100:120] = True
    np.testing.assert_array_equal(keep_near(ghost, expected), mask)
    jumped = np.zeros(SIZE, bool)
    jumped[80:90, 100:120] = True
    jumped[60:62, 100:102] = True
    np.testing.assert_array_equal(keep_near(jumped, expected), jumped)
