"""Signed distance grids and their cache."""

import logging

import numpy as np
import pytest
import trimesh

from geo4d_ros.robots.gripper import gripper_of
from geo4d_ros.tracking.sdf import build_grid, gripper_sdf


def test_grid_of_a_box_has_exact_distances():
    box = trimesh.creation.box((0.06, 0.1, 0.04))
    grid = build_grid(np.asarray(box.vertices), np.asarray(box.faces))
    points = np.array([[0, 0, 0.012], [0.05, 0, 0], [0, 0, -0.05], [0, 0.045, 0]])
    distance, gradient = grid.query(points)
    np.testing.assert_allclose(distance, [-0.008, 0.02, 0.03, -0.005], atol=0.0015)
    np.testing.assert_allclose(gradient[1], [1, 0, 0], atol=0.1)
    np.testing.assert_allclose(gradient[2], [0, 0, -1], atol=0.1)


@pytest.mark.parametrize('opening', [0.0, 0.033, 0.08])
def test_surface_points_lie_on_the_surface_at_every_opening(opening, tmp_path):
    sdf = gripper_sdf(gripper_of(), tmp_path)
    distance, _ = sdf.query(gripper_of().surface_points(opening, 500), opening)
    # The default gripper is a union of hulls: a few of these points lie on faces inside another hull.
    assert np.percentile(np.abs(distance), 80) < 0.0025
    between, _ = sdf.query(np.zeros((1, 3)), opening)
    # From the tool centre point the pads are half the opening away, the front of the hand 37 mm.
    assert between[0] == pytest.approx(min(opening / 2, 0.1034 - 0.066), abs=0.002)


def test_damaged_cache_is_rebuilt_with_a_warning(tmp_path, caplog):
    sdf = gripper_sdf(gripper_of(), tmp_path)
    (file,) = tmp_path.glob('*.npz')
    file.write_bytes(file.read_bytes()[:500])
    with caplog.at_level(logging.WARNING):
        again = gripper_sdf(gripper_of(), tmp_path)
    assert 'damaged' in caplog.text
    np.testing.assert_array_equal(again.grids[0].distance, sdf.grids[0].distance)


def test_unwritable_cache_costs_only_time(tmp_path, caplog):
    blocked = tmp_path / 'file'
    blocked.write_text('')
    with caplog.at_level(logging.WARNING):
        gripper_sdf(gripper_of(), blocked / 'below')
    assert 'cannot cache' in caplog.text
