"""Pose and scale of a view from its own prediction, with most of the scene static."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.errors import RegistrationError
from geo4d_ros.generation.unet.anchoring import depth_scale, view_similarity
from geo4d_ros.geometry.transforms import from_rotvec, rotation_angle, transform_points


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.8, 1.25))
def test_similarity_is_found_although_a_fifth_moves(seed, scale):
    rng = np.random.default_rng(seed)
    own = rng.uniform([-0.5, -0.5, 0.5], [0.5, 0.5, 1.5], (20, 30, 3))
    T = from_rotvec(rng.normal(size=3), rng.normal(size=3))
    predicted = scale * transform_points(T, own)
    predicted[:4] += rng.normal(0, 0.2, (4, 30, 3))
    found, s = view_similarity(own, predicted, np.ones((20, 30), bool))
    assert s == pytest.approx(scale, rel=0.02)
    assert rotation_angle(found, T) < 0.02
    np.testing.assert_allclose(found[:3, 3], T[:3, 3], atol=0.05)


def test_too_few_pixels_fail_closed():
    points = np.ones((5, 5, 3))
    with pytest.raises(RegistrationError, match='25 pixels'):
        view_similarity(points, points, np.ones((5, 5), bool))


def test_depth_scale_is_a_median_over_common_pixels():
    rng = np.random.default_rng(0)
    z = rng.uniform(0.5, 1.5, (20, 20))
    predicted = z / 1.1
    predicted[:5] = 0
    assert depth_scale(z, predicted) == pytest.approx(1.1)
    predicted[5:9] *= 7  # a fifth moves
    assert depth_scale(z, predicted) == pytest.approx(1.1)
    assert depth_scale(z[:3, :3], z[:3, :3] * 2) == 1.0
