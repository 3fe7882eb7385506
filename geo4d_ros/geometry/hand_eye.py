"""Where a camera stands, from poses of the gripper and of a board that it holds (hand-eye calibration)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import least_squares

from geo4d_ros.errors import RegistrationError, require
from geo4d_ros.geometry.transforms import from_rotvec, invert, make_transform, rotvec

MIN_TURN = 0.15  # between two poses that count [rad]
MIN_SPREAD = 0.05  # of the turning axes: second largest share of their scatter; below, they all point one way
_ROTATION_WEIGHT = 0.3  # metres per radian: a turn counts as its shift at the board's distance from the wrist


@dataclass(frozen=True)
class HandEye:
    """T_base_camera and T_gripper_board (4, 4); per pose how far the two ways to the board differ [m, rad]."""

    T_base_camera: np.ndarray
    T_gripper_board: np.ndarray
    residual_m: np.ndarray
    residual_rad: np.ndarray


def solve_hand_eye(T_base_gripper: np.ndarray, T_camera_board: np.ndarray) -> HandEye:
    """Solve T_base_camera @ T_camera_board[i] = T_base_gripper[i] @ T_gripper_board for the two constants.

    Both (n, 4, 4), n >= 3. Rotations first, from the axes of relative turns (Park and Martin 1994), then translations,
    then all together by least squares. RegistrationError where the poses do not turn about two different axes.
    """
    require(T_base_gripper.shape == T_camera_board.shape and len(T_base_gripper) >= 3,
            f'calibration needs at least 3 poses, both (n, 4, 4), but got {T_base_gripper.shape} and '
            f'{T_camera_board.shape}', RegistrationError)
    pairs = list(combinations(range(len(T_base_gripper)), 2))
    A = np.stack([T_base_gripper[j] @ invert(T_base_gripper[i]) for i, j in pairs])
    B = np.stack([T_camera_board[j] @ invert(T_camera_board[i]) for i, j in pairs])
    alpha, beta = rotvec(A), rotvec(B)
    turned = (np.linalg.norm(alpha, axis=1) > MIN_TURN) & (np.linalg.norm(alpha, axis=1) < np.pi - MIN_TURN)
    axes = alpha[turned] / np.linalg.norm(alpha[turned], axis=1, keepdims=True)
    scatter = np.linalg.svd(axes, compute_uv=False) ** 2 / max(len(axes), 1) if len(axes) > 1 else np.zeros(3)
    require(len(scatter) > 1 and scatter[1] > MIN_SPREAD, 'the gripper turned about one axis only; tilt it about at '
            'least two, by 10 degrees and more, between the pictures', RegistrationError)
    U, _, Vt = np.linalg.svd(alpha[turned].T @ beta[turned])
    R = U @ np.diag([1, 1, np.sign(np.linalg.det(U @ Vt))]) @ Vt
    rows = (A[turned][:, :3, :3] - np.eye(3)).reshape(-1, 3)
    right = (np.einsum('ij,nj->ni', R, B[turned][:, :3, 3]) - A[turned][:, :3, 3]).reshape(-1)
    t = np.linalg.lstsq(rows, right, rcond=None)[0]
    return _refined(T_base_gripper, T_camera_board, make_transform(R, t))


def _refined(T_base_gripper: np.ndarray, T_camera_board: np.ndarray, T_base_camera: np.ndarray) -> HandEye:
    board = invert(T_base_gripper) @ T_base_camera @ T_camera_board
    start = [T_base_camera, board[len(board) // 2]]

    def unpack(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (start[0] @ from_rotvec(x[:3], x[3:6]), start[1] @ from_rotvec(x[6:9], x[9:]))

    def errors(x: np.ndarray) -> np.ndarray:
        X, Y = unpack(x)
        difference = invert(T_base_gripper @ Y) @ (X @ T_camera_board)
        return np.concatenate([difference[:, :3, 3], _ROTATION_WEIGHT * rotvec(difference)], axis=1)

    solution = least_squares(lambda x: errors(x).ravel(), np.zeros(12), loss='soft_l1', f_scale=0.005)
    X, Y = unpack(solution.x)
    left = errors(solution.x)
    return HandEye(X, Y, np.linalg.norm(left[:, :3], axis=1), np.linalg.norm(left[:, 3:], axis=1) / _ROTATION_WEIGHT)
