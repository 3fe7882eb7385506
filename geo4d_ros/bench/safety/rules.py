"""What may be commanded on which plan and state, and what the gripper may do: written apart from the gates."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.spatial.transform import Rotation

from geo4d_ros.bench.safety.cases import Case
from geo4d_ros.motion.planning import TimedMotion


def input_faults(case: Case, motion: TimedMotion, start: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> list[str]:
    """Nothing may move on stale, unsure, broken or misplaced input. start (4, 4): the measured tool pose."""
    return _state_faults(case, lower, upper) + _plan_faults(case) + _path_faults(case, motion.poses, start)


def _state_faults(case: Case, lower: np.ndarray, upper: np.ndarray) -> list[str]:
    plan, state, limits = case.plan, case.state, case.limits
    wrong = []
    for stamp, limit in ((plan.observation_stamp, limits.plan_age), (state.stamp, limits.joint_state_age)):
        if not -limits.future_tolerance - 1e-6 <= (case.now - stamp) / 1e9 <= limit:
            wrong.append('stale_input')
    if not np.all(np.abs(state.dq) <= limits.rest_velocity):
        wrong.append('started_while_moving')
    if state.q.shape != lower.shape or not np.all((state.q >= lower) & (state.q <= upper)):
        wrong.append('joint_state')
    if not -limits.opening_tolerance <= state.opening <= limits.stroke + limits.opening_tolerance:
        wrong.append('opening_state')
    return wrong


def _plan_faults(case: Case) -> list[str]:
    plan, limits = case.plan, case.limits
    wrong = []
    numbers = (plan.T_base_gripper, plan.opening, plan.time_from_start, plan.T_base_gripper_start, case.state.q)
    if not all(np.all(np.isfinite(v)) for v in numbers):
        return ['not_finite']
    openings = np.array([plan.opening_start, *plan.opening])
    if not np.all(np.abs(openings - limits.stroke / 2) <= limits.stroke / 2 + limits.opening_tolerance):
        wrong.append('opening_range')
    if not np.all(np.diff(np.array([0.0, *plan.time_from_start])) > 0):
        wrong.append('times')
    for T in (plan.T_base_gripper_start, *plan.T_base_gripper):
        R = T[:3, :3]
        if not (np.allclose(R.T @ R, np.eye(3), atol=1e-3) and np.linalg.det(R) > 0
                and np.allclose(T[3], [0, 0, 0, 1], atol=1e-3)):
            return [*wrong, 'not_rigid']
    return wrong


def _path_faults(case: Case, m: int, start: np.ndarray) -> list[str]:
    plan, limits = case.plan, case.limits
    wrong = []
    if plan.confidence is None or not np.all(plan.confidence[:m] >= limits.confidence):
        wrong.append('low_confidence')
    chain = np.concatenate([plan.T_base_gripper_start[None], plan.T_base_gripper[:m]])
    if np.any(np.linalg.norm(np.diff(chain[:, :3, 3], axis=0), axis=1) > limits.step_distance * 1.0001):
        wrong.append('step_too_large')
    if any(_angle(a, b) > limits.step_angle + 1e-3 for a, b in pairwise(chain)):
        wrong.append('step_turns_too_far')
    if not limits.prefix <= m <= case.k:
        wrong.append('wrong_prefix')
    if not np.linalg.norm(start[:3, 3] - chain[0, :3, 3]) <= limits.start_distance * 1.001:
        wrong.append('start_mismatch')
    if not _angle(start, chain[0]) <= limits.start_angle + 1e-3:
        wrong.append('start_turned')
    if limits.tilt is not None and np.any(tilt(chain[1:]) > limits.tilt + 1e-6):
        wrong.append('tilt')
    return wrong


def gripper_faults(case: Case, motion: TimedMotion) -> list[str]:
    """The gripper acts as commanded, waits, and only where the plan's openings change for it."""
    plan, state, limits = case.plan, case.state, case.limits
    acts = [s for s in motion.segments if not hasattr(s, 'q')]
    wrong = []
    for s in acts:
        if s.target not in (0.0, limits.stroke) or s.closing != (s.target == 0.0) or s.dwell != limits.dwell:
            wrong.append('gripper_command')
    if any(not hasattr(a, 'q') and not hasattr(b, 'q') for a, b in pairwise(motion.segments)) \
            and len({s.closing for s in acts}) < 2:
        wrong.append('gripper_twice')
    closed = state.gripper_closed
    closed = state.opening < limits.stroke - limits.opening_switch if closed is None else closed
    if (acts and acts[0].closing == closed) or any(a.closing == b.closing for a, b in pairwise(acts)):
        wrong.append('gripper_again')
    openings = np.array([state.opening, *plan.opening[:case.k]])
    change = openings.max() - openings.min()
    if acts and not change > limits.opening_switch - 1e-9:
        wrong.append('gripper_without_cause')
    if acts and not (closed and state.opening <= limits.missed_opening) and not _stands_somewhere(case):
        wrong.append('gripper_in_motion')
    return wrong


def _stands_somewhere(case: Case) -> bool:
    chain = np.concatenate([case.plan.T_base_gripper_start[None], case.plan.T_base_gripper])[:, :3, 3]
    return bool(np.linalg.norm(np.diff(chain, axis=0), axis=1).min() <= case.limits.standing_step + 0.011)


def tilt(T: np.ndarray) -> np.ndarray:
    """Angle [rad] of the approach axes of poses (N, 4, 4) from straight down."""
    across = np.hypot(T[:, 0, 2], T[:, 1, 2])
    return np.arctan2(across, -T[:, 2, 2])


def _angle(T_a: np.ndarray, T_b: np.ndarray) -> float:
    try:
        return float(Rotation.from_matrix(T_a[:3, :3].T @ T_b[:3, :3]).magnitude())
    except ValueError:  # no rotation at all: judged elsewhere
        return 0.0
