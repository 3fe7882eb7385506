"""The depth noise grows with the square of the distance, is reproducible, and invents nothing."""

import numpy as np
import pytest

from geo4d_ros.errors import InvalidInputError
from geo4d_ros.geometry.cameras import intrinsics
from geo4d_ros.simulation.noise import add_depth_noise, d435_depth

K = intrinsics(134.4, 128, 96)


def wall(z):
    return np.full((96, 128), z, np.float32)


def test_noise_follows_the_square_of_the_distance():
    rms = []
    for z in (0.5, 1.0, 2.0):
        noisy = d435_depth(wall(z), K, np.random.default_rng(0))
        rms.append(np.std(noisy[noisy > 0] - z))
        assert abs(np.median(noisy[noisy > 0]) - z) < 3e-3
    assert rms[1] == pytest.approx(1**2 * 0.08 / (672 * 0.05), rel=0.25)
    assert rms[1] / rms[0] > 2.5 and rms[2] / rms[1] == pytest.approx(4, rel=0.3)


def test_shadow_lies_left_of_a_near_object():
    depth = wall(1.2)
    depth[30:60, 60:80] = 0.5
    noisy = d435_depth(depth, K, np.random.default_rng(0))
    assert (noisy[35:55, 54:59] == 0).mean() > 0.9
    assert (noisy[35:55, 84:90] == 0).mean() < 0.1


def test_invalid_stays_invalid_and_range_is_kept():
    rng = np.random.default_rng(1)
    depth = rng.uniform(0.3, 1.5, (96, 128)).astype(np.float32)
    depth[:40] = 0
    depth[41:50] = 6.0
    noisy = d435_depth(depth, K, rng)
    assert noisy.dtype == np.float32 and (noisy[:38] == 0).all() and (noisy[42:49] == 0).all()
    assert np.isfinite(noisy).all() and (noisy >= 0).all() and noisy.max() <= 4.1


def test_seed_decides_and_none_is_none():
    a, b, c = (add_depth_noise('d435', wall(1), K, np.random.default_rng(s)) for s in (0, 0, 1))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert add_depth_noise('none', wall(1), K, np.random.default_rng(0)) is not None
    with pytest.raises(InvalidInputError, match='d435'):
        add_depth_noise('kinect', wall(1), K, np.random.default_rng(0))
