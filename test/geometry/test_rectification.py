"""Rectified images: points seen through the lens come out where a pinhole camera sees them."""

import numpy as np
import pytest

from geo4d_ros.geometry.cameras import intrinsics
from geo4d_ros.geometry.rectification import distort, rectify

K = intrinsics(60, 160, 120)
LENSES = [(-0.3, 0.1, 0.0, 0.0), (0.15, -0.05, 0.004, -0.003, 0.01), (0.4, 0.1, 0.001, 0.0, 0.0, 0.6, 0.1, 0.0)]


@pytest.mark.parametrize('lens', LENSES)
def test_a_spot_moves_to_its_pinhole_place(lens):
    for u, v in ((80, 60), (30, 25), (120, 90)):
        x, y = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
        xd, yd = distort(np.array(x), np.array(y), lens)
        ud, vd = K[0, 0] * xd + K[0, 2], K[1, 1] * yd + K[1, 2]
        rows, columns = np.mgrid[:120, :160]
        spot = np.exp(-((columns - ud) ** 2 + (rows - vd) ** 2) / 8)
        rgb = np.repeat((spot * 255).astype(np.uint8)[..., None], 3, axis=2)
        depth = np.where(spot > 0.5, 1.0, 2.0).astype(np.float32)
        colour, z = rectify(rgb, depth, K, lens)
        weight = colour[..., 0].astype(float)
        assert (weight * columns).sum() / weight.sum() == pytest.approx(u, abs=0.3)
        assert (weight * rows).sum() / weight.sum() == pytest.approx(v, abs=0.3)
        assert z[v, u] == 1.0 and set(np.unique(z)) <= {0.0, 1.0, 2.0}, 'depth is never mixed'


def test_what_the_lens_did_not_show_is_invalid():
    rgb, depth = np.full((120, 160, 3), 200, np.uint8), np.ones((120, 160), np.float32)
    colour, z = rectify(rgb, depth, K, (0.3, 0.0, 0.0, 0.0))
    assert z[0, 0] == 0 and not colour[0, 0].any() and z[60, 80] == 1
