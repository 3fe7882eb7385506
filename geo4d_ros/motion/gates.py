"""The safety gates: one small pure function each, every one failing closed.

A gate returns None when its condition holds and a `Refusal` when it does not. A prefix gate returns
how many leading poses pass, and the `Refusal` for the first that does not (None when all pass).
Comparisons are written so that NaN fails: a value passes only if it is known to be good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from geo4d_ros.geometry.transforms import translation_distance
from geo4d_ros.motion.limits import Box, MotionLimits
from geo4d_ros.reasons import Measured, Reason, Refusal
from geo4d_ros.types import Plan

Prefix = tuple[int, Refusal | None]

_FAR = 100.0  # m: no arm reaches there, and squares of such numbers stay finite
_ROUNDING = 1e-9
_RIGID = 1e-4  # largest entry of R R^T - 1 and of the last row


def seconds_between(earlier: int, later: int) -> float:
    """Difference of two stamps [ns] in seconds."""
    return (later - earlier) * 1e-9


def check_age(stamp: int, now: int, max_age: float, future_tolerance: float, reason: Reason) -> Refusal | None:
    """A stamp [ns] may be at most `max_age` [s] old, and may not lie in the future."""
    age = seconds_between(stamp, now)
    values: Measured = {'age_s': age, 'limit_s': max_age}
    if not age >= -future_tolerance:
        return Refusal(Reason.CLOCK_JUMP, f'{-age:.3f} s ahead of the clock', values)
    if not age <= max_age:
        return Refusal(reason, f'{age:.3f} s old, at most {max_age:.3f} s', values)
    return None


def check_pair(stamps: Sequence[int], now: int, limits: MotionLimits) -> Refusal | None:
    """The views' stamps [ns] lie close together and the oldest of them is fresh."""
    if not stamps:
        return Refusal(Reason.OBSERVATION_INVALID, 'no view')
    skew = seconds_between(min(stamps), max(stamps))
    if not skew <= limits.pair_skew:
        return Refusal(Reason.OBSERVATION_SKEWED, f'{skew * 1e3:.0f} ms, at most {limits.pair_skew * 1e3:.0f} ms',
                       {'skew_s': skew, 'limit_s': limits.pair_skew})
    stale = check_age(min(stamps), now, limits.pair_age, limits.future_tolerance, Reason.OBSERVATION_STALE)
    return stale or check_age(max(stamps), now, limits.pair_age, limits.future_tolerance, Reason.OBSERVATION_STALE)


def check_joint_state(q: np.ndarray, dq: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> Refusal | None:
    """Positions and velocities are complete, finite and inside the robot's joint limits."""
    if q.shape != lower.shape or dq.shape != lower.shape:
        detail = f'{q.shape} positions, {dq.shape} velocities for {len(lower)} joints'
        return Refusal(Reason.ROBOT_STATE_INVALID, detail)
    if not bool(np.isfinite(q).all() and np.isfinite(dq).all()):
        return Refusal(Reason.ROBOT_STATE_INVALID, 'positions or velocities are not finite')
    outside = ~((q >= lower) & (q <= upper))
    if outside.any():
        joint = int(np.argmax(outside))
        return Refusal(Reason.ROBOT_STATE_INVALID, f'joint {joint + 1} at {q[joint]:.3f} rad',
                       {'joint': joint, 'q': float(q[joint])})
    return None


def check_opening_state(opening: float, limits: MotionLimits) -> Refusal | None:
    """The measured opening [m] is finite and within the stroke."""
    if not -limits.opening_tolerance <= opening <= limits.stroke + limits.opening_tolerance:
        return Refusal(Reason.ROBOT_STATE_INVALID, f'gripper opening {opening} m, stroke {limits.stroke} m',
                       {'opening_m': float(opening)})
    return None


def check_at_rest(dq: np.ndarray, limits: MotionLimits) -> Refusal | None:
    """Every joint is slower than the rest velocity [rad/s]."""
    fastest = float(np.abs(dq).max())
    if not fastest <= limits.rest_velocity:
        return Refusal(Reason.ROBOT_MOVING, f'{fastest:.3f} rad/s, at most {limits.rest_velocity} rad/s',
                       {'velocity': fastest, 'limit': limits.rest_velocity})
    return None


def check_plan_finite(plan: Plan) -> Refusal | None:
    """Poses are rigid, openings and times finite, times positive and increasing."""
    if not len(plan.T_base_gripper):
        return Refusal(Reason.PLAN_EMPTY)
    T = np.concatenate([plan.T_base_gripper_start[None], plan.T_base_gripper])
    if not bool((np.abs(T) <= _FAR).all()):
        return Refusal(Reason.PLAN_INVALID, f'a pose is not finite or beyond {_FAR:.0f} m')
    R = T[:, :3, :3]
    error = float(np.abs(R @ np.swapaxes(R, 1, 2) - np.eye(3)).max())
    error = max(error, float(np.abs(T[:, 3] - [0, 0, 0, 1]).max()))
    if not (error < _RIGID and bool((np.linalg.det(R) > 0).all())):
        return Refusal(Reason.PLAN_INVALID, f'a pose is not a rigid transform, error {error:.1e}', {'error': error})
    if not bool(np.isfinite([*plan.opening, plan.opening_start]).all()):
        return Refusal(Reason.PLAN_INVALID, 'an opening is not finite')
    steps = np.diff(plan.time_from_start, prepend=0.0)
    if not bool(np.isfinite(steps).all() and (steps > 0).all()):
        return Refusal(Reason.PLAN_INVALID, 'times are not finite, positive and increasing')
    return None


def check_openings(plan: Plan, limits: MotionLimits) -> Refusal | None:
    """Commanded openings [m] lie within the stroke."""
    opening = np.append(plan.opening, plan.opening_start)
    low, high = float(opening.min()), float(opening.max())
    if not (low >= -limits.opening_tolerance and high <= limits.stroke + limits.opening_tolerance):
        return Refusal(Reason.OPENING_OUT_OF_RANGE, f'{low:.3f} to {high:.3f} m, stroke {limits.stroke} m',
                       {'low_m': low, 'high_m': high})
    return None


def check_start(T_measured: np.ndarray, T_plan: np.ndarray, limits: MotionLimits) -> Refusal | None:
    """The measured tool pose is where the plan's frame 0 says it is."""
    distance = float(translation_distance(T_measured, T_plan))
    angle = float(_turn(T_measured, T_plan))
    if not (distance <= limits.start_distance and angle <= limits.start_angle):
        return Refusal(Reason.START_MISMATCH, f'{distance * 1e3:.1f} mm, {np.degrees(angle):.1f} deg; at most '
                       f'{limits.start_distance * 1e3:.0f} mm, {np.degrees(limits.start_angle):.0f} deg',
                       {'distance_m': distance, 'angle_rad': angle})
    return None


def confident_prefix(confidence: np.ndarray | None, limits: MotionLimits) -> Prefix:
    """Poses before the first whose confidence is below the limit."""
    if confidence is None:
        return 0, Refusal(Reason.CONFIDENCE_MISSING)
    good = confidence >= limits.confidence
    return _prefix(good, lambda i: Refusal(Reason.CONFIDENCE_LOW, f'{confidence[i]:.2f} at pose {i + 1}, '
                                           f'at least {limits.confidence:.2f}', {'confidence': float(confidence[i])}))


def step_prefix(T_start: np.ndarray, T: np.ndarray, limits: MotionLimits) -> Prefix:
    """Poses before the first step (from T_start (4, 4) through T (n, 4, 4)) that is too far or turns too much."""
    chain = np.concatenate([T_start[None], T])
    distance = translation_distance(chain[:-1], chain[1:])
    angle = _turn(chain[:-1], chain[1:])
    good = (distance <= limits.step_distance) & (angle <= limits.step_angle)
    return _prefix(good, lambda i: Refusal(
        Reason.STEP_TOO_LARGE, f'{distance[i] * 1e2:.1f} cm, {np.degrees(angle[i]):.0f} deg to pose {i + 1}; at most '
        f'{limits.step_distance * 1e2:.0f} cm, {np.degrees(limits.step_angle):.0f} deg',
        {'distance_m': float(distance[i]), 'angle_rad': float(angle[i])}))


def workspace_prefix(T: np.ndarray, limits: MotionLimits, tolerance: float = 0.0) -> Prefix:
    """Poses of T (n, 4, 4) before the first that is outside the workspace box by more than `tolerance` [m]."""
    position = T[:, :3, 3]
    return _prefix(_inside(position, limits.workspace, tolerance),
                   lambda i: _at(Reason.OUTSIDE_WORKSPACE, position[i], i))


def keep_out_prefix(T: np.ndarray, limits: MotionLimits) -> Prefix:
    """Poses before the first inside a keep-out box."""
    position = T[:, :3, 3]
    free = np.isfinite(position).all(axis=1)
    for box in limits.keep_out:
        free &= ~_inside(position, box)  # NaN is inside nothing, hence the check above
    return _prefix(free, lambda i: _at(Reason.INSIDE_KEEP_OUT, position[i], i))


def table_prefix(T: np.ndarray, limits: MotionLimits, tolerance: float = 0.0) -> Prefix:
    """Poses of T (n, 4, 4) before the first closer to the table than the clearance less `tolerance` [m]."""
    height = T[:, 2, 3] - limits.table_height
    return _prefix(height >= limits.table_clearance - tolerance, lambda i: Refusal(
        Reason.TABLE_CLEARANCE, f'{height[i] * 1e3:.1f} mm at pose {i + 1}, at least '
        f'{limits.table_clearance * 1e3:.1f} mm', {'height_m': float(height[i])}))


def tilt_prefix(T: np.ndarray, limits: MotionLimits, tolerance: float = 0.0, leaving: bool = False) -> Prefix:
    """Poses before the first whose approach axis leaves the cone around straight down by more than `tolerance` [rad].

    `leaving`: an arm that starts outside the cone may come back into it, never tilting more than before.
    """
    if limits.tilt is None or not len(T):
        return len(T), None
    tilt = np.arccos(np.clip(-T[:, 2, 2], -1, 1))
    allowed = np.full(len(T), limits.tilt)
    if leaving:
        allowed = np.fmax(allowed, np.minimum.accumulate(tilt))
    return _prefix(tilt <= allowed + tolerance, lambda i: Refusal(
        Reason.TILT_TOO_LARGE, f'{np.degrees(tilt[i]):.0f} deg at pose {i + 1}', {'tilt_rad': float(tilt[i])}))


def check_ik(distance: float, angle: float, limits: MotionLimits) -> Refusal | None:
    """The residual of inverse kinematics is small."""
    if not (distance <= limits.ik_distance and angle <= limits.ik_angle):
        return Refusal(Reason.IK_FAILED, f'{distance * 1e3:.1f} mm, {np.degrees(angle):.2f} deg away',
                       {'distance_m': distance, 'angle_rad': angle})
    return None


def joint_limit_prefix(q: np.ndarray, lower: np.ndarray, upper: np.ndarray, limits: MotionLimits,
                       tolerance: float = 0.0) -> Prefix:
    """Samples of q (N, n) before the first nearer to a joint limit than the margin less `tolerance` [rad].

    A joint that starts inside the margin may move out of it: it may not get closer than it was. The limit itself
    is never passed.
    """
    if not len(q):
        return 0, None
    slack = np.minimum(q - lower, upper - q)
    needed = np.minimum(limits.joint_margin, slack[0])
    good = (slack >= np.maximum(needed - tolerance, 0) - _ROUNDING).all(axis=1)
    return _prefix(good, lambda i: Refusal(
        Reason.JOINT_LIMIT, f'joint {int(slack[i].argmin()) + 1} is {slack[i].min():.3f} rad from its limit, '
        f'at least {limits.joint_margin} rad', {'slack_rad': float(slack[i].min())}))


def joint_jump_prefix(q: np.ndarray, limits: MotionLimits) -> Prefix:
    """Samples of q (N, n) before the first that is a jump away from its neighbour."""
    jump = np.abs(np.diff(q, axis=0, prepend=q[:1])).max(axis=1)
    return _prefix(jump <= limits.joint_jump, lambda i: Refusal(
        Reason.JOINT_JUMP, f'{jump[i]:.3f} rad, at most {limits.joint_jump} rad', {'jump_rad': float(jump[i])}))


def singularity_prefix(condition: np.ndarray, limits: MotionLimits, tolerance: float = 0.0) -> Prefix:
    """Samples before the first whose Jacobian condition number (N,) is too large, by more than a share `tolerance`.

    When the arm already stands beyond the limit it may only leave the singularity.
    """
    if not len(condition):
        return 0, None
    allowed = np.fmax(limits.condition_number, np.minimum.accumulate(condition) + _ROUNDING)
    return _prefix((condition <= allowed * (1 + tolerance)) & np.isfinite(condition), lambda i: Refusal(
        Reason.SINGULARITY, f'condition number {condition[i]:.0f}, at most {limits.condition_number:.0f}',
        {'condition_number': float(condition[i])}))


def check_prefix_length(n: int, cut_by: Refusal | None, limits: MotionLimits) -> Refusal | None:
    """At least the smallest useful number of poses is left; the gate that cut names the reason."""
    if n >= limits.prefix:
        return None
    if cut_by is None:
        return Refusal(Reason.PLAN_TOO_SHORT, f'{n} poses, at least {limits.prefix}', {'poses': n})
    return Refusal(cut_by.reason, f'{cut_by.detail}; {n} poses left, at least {limits.prefix}',
                   {**cut_by.values, 'poses': n})


def check_deviation(distance: float, angle: float, limits: MotionLimits) -> Refusal | None:
    """The timed path stays on the checked path."""
    if not (distance <= limits.deviation_distance and angle <= limits.deviation_angle):
        return Refusal(Reason.TIMED_DEVIATION, f'{distance * 1e3:.2f} mm, {np.degrees(angle):.2f} deg',
                       {'distance_m': distance, 'angle_rad': angle})
    return None


def check_unmoved(q_planned: np.ndarray, q: np.ndarray, tolerance: float) -> Refusal | None:
    """The arm still stands where the motion starts, every joint within the tolerance [rad]."""
    if q.shape != q_planned.shape:
        return Refusal(Reason.ROBOT_STATE_INVALID, f'{q.shape} positions for {len(q_planned)} joints')
    moved = float(np.abs(q - q_planned).max())
    if not moved <= tolerance:
        return Refusal(Reason.START_MOVED, f'{moved:.4f} rad, at most {tolerance} rad',
                       {'moved_rad': moved})
    return None


def _turn(T_a: np.ndarray, T_b: np.ndarray) -> np.ndarray:
    """Angle [rad] between the rotations of (..., 4, 4) poses; NaN for what is none, where a library would raise."""
    trace = (T_a[..., :3, :3] * T_b[..., :3, :3]).sum(axis=(-2, -1))
    return np.arccos(np.clip((trace - 1) / 2, -1, 1))


def _prefix(good: np.ndarray, refusal: Callable[[int], Refusal]) -> Prefix:
    """Number of leading True values, and refusal(index) for the first False."""
    if bool(np.all(good)):
        return len(good), None
    first = int(np.argmin(good))
    return first, refusal(first)


def _inside(position: np.ndarray, box: Box, tolerance: float = 0.0) -> np.ndarray:
    low, high = np.array(box[:3]) - tolerance, np.array(box[3:]) + tolerance
    return np.asarray(((position >= low) & (position <= high)).all(axis=1))


def _at(reason: Reason, position: np.ndarray, index: int) -> Refusal:
    xyz = [round(float(v), 4) for v in position]
    return Refusal(reason, f'pose {index + 1} at {xyz} m', {'position_m': xyz})
