"""More views than a model predicts: the further ones are placed by registration and mend the depth of the others."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from geometry.test_registration import make_scene, photograph, rig_pose

from geo4d_ros.generation.extra_views import condense, predicted_views
from geo4d_ros.types import Observation


@pytest.fixture(scope='module')
def views():
    boxes = make_scene(3)
    return tuple(photograph(boxes, rig_pose(azimuth, 50, 0.9)) for azimuth in (-25, 25, 0))


def holed(view):
    depth = view.depth.copy()
    depth[40:60, 50:75] = 0
    return replace(view, depth=depth)


def test_a_third_view_fills_the_holes_of_both_that_are_predicted(views):
    observation = Observation((holed(views[0]), holed(views[1]), views[2]), np.eye(4), 0.04)
    seen = condense(observation, 2)
    assert len(seen.observation.views) == 2 and not seen.unplaced
    assert min(seen.filled) > 100
    for before, after, true in zip(observation.views, seen.observation.views, views, strict=False):
        filled = (before.depth == 0) & (after.depth > 0)
        assert np.median(np.abs(after.depth[filled] - true.depth[filled])) < 0.01
    assert seen.observation.opening == 0.04


def test_a_view_that_cannot_be_placed_is_named_and_left_out(views):
    elsewhere = replace(photograph(make_scene(9), rig_pose(0, 50, 0.9)), frame_id='side_optical')
    seen = condense(Observation((*views[:2], elsewhere)), 2)
    assert seen.unplaced == ('side_optical',) and seen.filled == (0, 0)
    assert [np.array_equal(a.depth, b.depth) for a, b in zip(seen.observation.views, views, strict=False)] == [True] * 2


def test_as_many_views_as_wanted_or_fewer_stay_as_they_are(views):
    for count in (1, 2):
        observation = Observation(views[:count])
        seen = condense(observation, 2)
        assert seen.observation == observation or seen.observation.views == observation.views
        assert seen.filled == (0,) * count


def test_a_generator_says_how_many_views_it_predicts():
    assert predicted_views(SimpleNamespace(views=3)) == 3
    assert predicted_views(SimpleNamespace(config=SimpleNamespace(views=1))) == 1
    assert predicted_views(SimpleNamespace(metadata=SimpleNamespace(views=4))) == 4
    assert predicted_views(SimpleNamespace()) == 2
