"""The rig keeps its promises for any seed: regions disjoint, views apart, hand in view."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.errors import InvalidInputError
from geo4d_ros.simulation import cameras
from geo4d_ros.simulation.cameras import (
    HELD_OUT_AZIMUTHS_DEG,
    MARGIN_DEG,
    TABLE_CENTRE,
    azimuth_deg,
    sample_cameras,
    sees_workspace,
    view_separation_deg,
)


def distance_to_held_out(azimuth):
    """Degrees outside the nearest held-out band, 0 inside."""
    return min(max(low - azimuth, azimuth - high, 0.0) for low, high in HELD_OUT_AZIMUTHS_DEG)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 4), split=st.sampled_from(['train', 'held-out']))
def test_rig_properties(seed, n, split):
    cameras = sample_cameras(np.random.default_rng(seed), n, split)
    assert len(cameras) == n
    for i, camera in enumerate(cameras):
        distance = distance_to_held_out(azimuth_deg(camera))
        assert distance == 0 if split == 'held-out' else distance >= MARGIN_DEG - 1e-6
        assert abs(azimuth_deg(camera)) <= 135.01
        radius = np.linalg.norm(camera.T_base_camera[:3, 3] - TABLE_CENTRE)
        assert 0.7 - 1e-9 <= radius <= 1.2 + 1e-9
        assert sees_workspace(camera)
        for other in cameras[:i]:
            assert view_separation_deg(camera, other) >= 20
    assert camera.K[0, 0] == pytest.approx(1.05 * 128) and camera.K[0, 2] == 63.5


def test_same_seed_same_cameras():
    a, b = (sample_cameras(np.random.default_rng(3), 2, width=640, height=480) for _ in range(2))
    assert np.array_equal(a[1].T_base_camera, b[1].T_base_camera)
    assert (a[0].height, a[0].width) == (480, 640)


def test_impossible_requests_are_refused(monkeypatch):
    monkeypatch.setattr(cameras, 'MIN_SEPARATION_DEG', 170.0)
    monkeypatch.setattr(cameras, 'sees_workspace', lambda camera: True)  # it takes most of the time
    with pytest.raises(InvalidInputError, match='do not fit'):
        sample_cameras(np.random.default_rng(0), 2, 'held-out')
    with pytest.raises(InvalidInputError, match='split'):
        sample_cameras(np.random.default_rng(0), 2, 'test')
