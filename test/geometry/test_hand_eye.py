"""Hand-eye calibration finds what was put in, says how well, and refuses what cannot tell."""

import numpy as np
import pytest

from geo4d_ros.errors import RegistrationError
from geo4d_ros.geometry.hand_eye import solve_hand_eye
from geo4d_ros.geometry.transforms import from_rotvec, invert, rotation_angle, translation_distance

T_BASE_CAMERA = from_rotvec(np.array([1.9, -0.4, 0.3]), np.array([0.9, -0.3, 0.7]))
T_GRIPPER_BOARD = from_rotvec(np.array([0.1, 0.2, -0.4]), np.array([0.02, -0.03, 0.1]))


def poses(count, rng, axes=3):
    turns = np.zeros((count, 3))
    turns[:, :axes] = rng.uniform(-0.6, 0.6, (count, axes))
    gripper = np.stack([from_rotvec(r, t) for r, t in zip(turns, rng.uniform(-0.2, 0.2, (count, 3)), strict=True)])
    return gripper, invert(T_BASE_CAMERA) @ gripper @ T_GRIPPER_BOARD


@pytest.mark.parametrize('count', [3, 12])
def test_exact_poses_give_the_exact_answer(count):
    result = solve_hand_eye(*poses(count, np.random.default_rng(count)))
    np.testing.assert_allclose(result.T_base_camera, T_BASE_CAMERA, atol=1e-6)
    np.testing.assert_allclose(result.T_gripper_board, T_GRIPPER_BOARD, atol=1e-6)
    assert result.residual_m.max() < 1e-6 and result.residual_rad.max() < 1e-6


def test_noise_is_averaged_and_an_outlier_stands_out():
    rng = np.random.default_rng(1)
    gripper, seen = poses(30, rng)
    seen = np.stack([T @ from_rotvec(rng.normal(0, 0.004, 3), rng.normal(0, 0.001, 3)) for T in seen])
    seen[7] = seen[7] @ from_rotvec(np.zeros(3), np.array([0.05, 0, 0]))
    result = solve_hand_eye(gripper, seen)
    assert translation_distance(result.T_base_camera, T_BASE_CAMERA) < 0.004
    assert rotation_angle(result.T_base_camera[None], T_BASE_CAMERA[None])[0] < 0.005
    assert result.residual_m.argmax() == 7 and result.residual_m[7] > 0.04


@pytest.mark.parametrize('count,axes,words', [(2, 3, 'at least 3 poses'), (12, 1, 'one axis only'), (5, 0, 'one axis')])
def test_poses_that_cannot_tell_are_refused(count, axes, words):
    with pytest.raises(RegistrationError, match=words):
        solve_hand_eye(*poses(count, np.random.default_rng(0), axes))
