"""How an object moves, from the gripper's path alone: along with the fingers that hold it, down when let go."""

from __future__ import annotations

import numpy as np

from geo4d_ros.geometry.transforms import invert, transform_points

OPEN_M = 0.074  # an opening wider than this holds nothing
EMPTY_M = 0.002  # nor one narrower than this
LETS_GO_M = 0.004  # the opening grows by this much: the object is let go
GRASP_BOX_M = (0.03, 0.045, 0.03)  # half sizes about the tool centre: what is in it is between the fingers
GRASP_SHARE, GRASP_POINTS = 0.02, 2
REST_GAP_M = 0.005


def object_motion(points: np.ndarray, rest: np.ndarray, T_base_gripper: np.ndarray, opening: np.ndarray,
                  ) -> tuple[np.ndarray, np.ndarray]:
    """Motion since frame 0 (T+1, 4, 4) in the base frame (z up), and whether it is held (T+1,) bool.

    points (N, 3) of the object and rest (M, 3) of the resting scene at frame 0 [m]; T_base_gripper (T+1, 4, 4) and
    opening (T+1,) [m] of the gripper, measured at index 0. A grasp that closes on nothing moves nothing.
    """
    steps = len(opening)
    motion, held = np.tile(np.eye(4), (steps, 1, 1)), np.zeros(steps, bool)
    now, holding, grip = np.eye(4), False, 0.0
    if not len(points):
        return motion, held
    for t in range(steps):
        if holding and t > 0:
            now = T_base_gripper[t] @ invert(T_base_gripper[t - 1]) @ now
            if opening[t] > grip + LETS_GO_M or opening[t] < EMPTY_M:
                holding = False
                now = _fallen(now, points, rest)
            grip = min(grip, opening[t])
        elif _grasped(points, now, T_base_gripper[t], opening, t):
            holding, grip = True, float(opening[t])
        motion[t], held[t] = now, holding
    return motion, held


def _grasped(points: np.ndarray, now: np.ndarray, T_base_gripper: np.ndarray, opening: np.ndarray, t: int) -> bool:
    closing = EMPTY_M < opening[t] < OPEN_M and (t == 0 or opening[t] < opening[t - 1] + LETS_GO_M / 2)
    if not closing:
        return False
    local = np.abs(transform_points(invert(T_base_gripper) @ now, points))
    between = int((local < GRASP_BOX_M).all(1).sum())
    return between >= max(GRASP_POINTS, GRASP_SHARE * len(points))


def _fallen(now: np.ndarray, points: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """The motion after a fall straight down onto what lies below."""
    moved = transform_points(now, points)
    middle = np.median(moved, 0)
    below = (np.abs(rest[:, :2] - middle[:2]).max(1) < 0.02) & (rest[:, 2] < middle[2])
    floor = float(np.percentile(rest[below, 2], 80)) if below.sum() > 5 else 0.0
    out = now.copy()
    out[2, 3] -= max(0.0, float(np.percentile(moved[:, 2], 2)) - floor - REST_GAP_M)
    return out
