"""Two views of a floor with a box on it: agreement tells a right rig from a swapped or shifted one."""

import numpy as np
import pytest

from geo4d_ros.geometry.agreement import view_agreement
from geo4d_ros.geometry.cameras import intrinsics, look_at
from geo4d_ros.geometry.transforms import invert
from geo4d_ros.types import RgbdFrame

HEIGHT, WIDTH = 120, 160
K = intrinsics(1.05 * WIDTH, WIDTH, HEIGHT)
A = look_at(np.array([1.2, 0.3, 0.7]), np.array([0.5, 0.0, 0.0]))
B = look_at(np.array([0.4, 0.9, 0.5]), np.array([0.5, 0.0, 0.0]))


def frame(T_base_camera, box=(0.45, 0.6, -0.1, 0.1, 0.2)):
    """Depth of the plane z = 0 with a box (x, x, y, y, height) on it, by ray casting on its planes."""
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u, float)], -1)
    rays = rays @ T_base_camera[:3, :3].T
    origin = T_base_camera[:3, 3]
    best = np.full(u.shape, np.inf)
    x0, x1, y0, y1, top = box
    for axis, value in ((2, 0.0), (2, top), (0, x0), (0, x1), (1, y0), (1, y1)):
        with np.errstate(divide='ignore', invalid='ignore'):
            t = (value - origin[axis]) / rays[..., axis]
            hit = origin + t[..., None] * rays
        on_box = ((hit[..., 0] >= x0 - 1e-9) & (hit[..., 0] <= x1 + 1e-9) & (hit[..., 1] >= y0 - 1e-9)
                  & (hit[..., 1] <= y1 + 1e-9) & (hit[..., 2] >= 0) & (hit[..., 2] <= top + 1e-9))
        good = (t > 0) & (on_box | ((axis == 2) & (value == 0.0)))
        best = np.where(good & (t < best), t, best)
    depth = np.where(np.isfinite(best) & (best < 5), best, 0).astype(np.float32)
    return RgbdFrame(np.zeros((HEIGHT, WIDTH, 3), np.uint8), depth, K)


T_AB = invert(A) @ B


def test_a_right_rig_agrees_both_ways():
    a, b = frame(A), frame(B)
    assert view_agreement(a, b, T_AB) > 0.95
    assert view_agreement(b, a, invert(T_AB)) > 0.95


def test_swapped_cameras_disagree():
    a, b = frame(A), frame(B)
    assert min(view_agreement(b, a, T_AB), view_agreement(a, b, invert(T_AB))) < 0.6


def test_hidden_surfaces_do_not_count():
    """What the reference cannot see for a tall box in front of it is no contradiction."""
    tall = (0.6, 0.75, -0.3, 0.3, 0.4)
    assert view_agreement(frame(A, tall), frame(B, tall), T_AB) > 0.7


@pytest.mark.parametrize('empty', ['reference', 'second'])
def test_without_depth_there_is_no_answer(empty):
    a, b = frame(A), frame(B)
    blank = RgbdFrame(a.rgb, np.zeros_like(a.depth), K)
    assert view_agreement(*((blank, b) if empty == 'reference' else (a, blank)), T_AB) is None


def test_views_that_look_apart_have_no_answer():
    away = look_at(np.array([0.4, 0.9, 0.5]), np.array([0.4, 5.0, 0.4]))
    assert view_agreement(frame(A), frame(B), invert(A) @ away) is None
