"""Silhouettes drawn from rims: exactly the union of the triangles, whatever the mesh."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from posed_hands import SIZE, K, posed, union_of_triangles

from geo4d_ros.geometry.cameras import project
from geo4d_ros.robots.gripper import gripper_of
from geo4d_ros.tracking.outlines import outline_field
from geo4d_ros.tracking.rasteriser import DrawnGripper, Shape, draw, outline_points, paste

turns = st.lists(st.floats(-2, 2), min_size=3, max_size=3)


@settings(max_examples=20, deadline=None)
@given(turns, st.floats(-0.4, 0.4), st.floats(0.5, 1.2))
def test_drawn_pixels_are_the_union_of_the_triangles(turn, x, z):
    vertices, faces = posed(turn, (x, 0.02, z))
    drawing = draw(Shape(faces), vertices[None], K[None], SIZE)
    assert (paste(drawing, 0, SIZE) ^ union_of_triangles(vertices, faces)).sum() <= 2  # ties on an edge


@settings(max_examples=10, deadline=None)
@given(turns, st.integers(0, 2**31))
def test_winding_and_holes_do_not_matter(turn, seed):
    rng = np.random.default_rng(seed)
    vertices, faces = posed(turn, (0, 0, 0.8))
    faces = faces[rng.random(len(faces)) < 0.7].copy()
    flipped = rng.random(len(faces)) < 0.5
    faces[flipped] = faces[flipped][:, ::-1]
    drawing = draw(Shape(faces), vertices[None], K[None], SIZE)
    assert (paste(drawing, 0, SIZE) ^ union_of_triangles(vertices, faces)).sum() <= 2


def test_many_at_once_are_each_alone_and_some_cannot_be_seen():
    places = [(0, 0, 0.8), (0.1, 0, 0.6), (0, 0, -1.0), (3, 0, 1.0), (0, 0, 0)]
    faces = posed((1, 1, 0), places[0])[1]
    points = np.stack([posed((1, 1, 0), place)[0] for place in places])
    together = draw(Shape(faces), points, np.tile(K, (5, 1, 1)), SIZE)
    assert together.seen.tolist() == [True, True, False, False, False]
    for i in range(5):
        alone = draw(Shape(faces), points[i:i + 1], K[None], SIZE)
        np.testing.assert_array_equal(paste(together, i, SIZE), paste(alone, 0, SIZE))
    assert not together.mask[2:].any()


def test_outline_points_lie_on_the_outer_outline_only():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        vertices, faces = posed(rng.uniform(-2, 2, 3), (0.05, 0.02, 0.8))
        shape = Shape(faces)
        drawing = draw(shape, vertices[None], K[None], SIZE, 3)
        points, count = outline_points(drawing, shape, vertices[None], 80)
        assert 30 < count[0] <= 80
        uv, _ = project(points[0, :count[0]], K)
        distance, _, _ = outline_field(union_of_triangles(vertices, faces)).query(uv)
        assert abs(distance.mean()) < 0.2 and np.abs(distance).max() < 1.5


def test_fingers_slide_apart_with_the_opening():
    drawn, gripper = DrawnGripper(gripper_of()), gripper_of()
    for vertices, opening in zip(drawn.at(np.array([0.0, 0.03, 0.08])), (0.0, 0.03, 0.08), strict=True):
        np.testing.assert_allclose(vertices, gripper.posed(opening)[0])
    assert -0.06 < drawn.between_z < -0.03
