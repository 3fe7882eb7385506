"""The motion prior between frames."""

import numpy as np
import pytest

from geo4d_ros.tracking.solver import Motion, _add_motion


@pytest.mark.parametrize('axis', [0, 3])
def test_a_sudden_change_pulls_less_than_a_small_one(axis):
    # Steps themselves cost next to nothing: what is left is the price of their change, whose scale is 1 cm or 0.01 rad.
    motion = Motion(step_m=100, step_rad=100, acceleration_ratio=1e-4, turn_change_rad=0.01)
    pulls = []
    for change in (0.01, 0.2):
        T = np.tile(np.eye(4), (4, 1, 1))
        if axis == 3:
            T[2:, 0, 3] = change
        else:
            T[2:, 1:3, 1:3] = [[np.cos(change), -np.sin(change)], [np.sin(change), np.cos(change)]]
        H, g = np.zeros((3, 6, 3, 6)), np.zeros((3, 6))
        _add_motion(H, g, T, motion, np.zeros(3, bool))
        pulls.append(np.abs(g[1, axis]))
        assert np.linalg.eigvalsh(H.reshape(18, 18)).min() > 0
    assert 0 < pulls[1] < 0.5 * pulls[0]
