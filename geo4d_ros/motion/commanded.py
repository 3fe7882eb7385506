"""The gates on a timed motion as a controller interpolates it: what is sent is checked, not only what was planned."""

from __future__ import annotations

import numpy as np

from geo4d_ros.motion import gates
from geo4d_ros.motion.collision import CollisionChecker
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.timing import MoveSegment
from geo4d_ros.reasons import Refusal
from geo4d_ros.robots.kinematics import RobotModel

# How far the timed motion may pass what its path was checked for: a spline through samples is no polygon.
_JOINT_TOLERANCE = 0.005  # rad into the joint margin; never past the limit itself
_CONDITION_TOLERANCE = 0.05  # share of the condition number
_TILT_TOLERANCE = 0.01  # rad
_ROUNDING = 5e-5  # m


def control_points(segment: MoveSegment) -> np.ndarray:
    """Bezier control points (N - 1, 6, n) [rad] of the quintics between the samples.

    That is how ros2_control's joint_trajectory_controller interpolates positions, velocities and accelerations.
    A curve lies in the hull of its control points, which makes them a bound on every moment of it.
    """
    h = np.diff(segment.times)[:, None]
    q, v, a = segment.q, h * segment.dq[:-1], h**2 * segment.ddq[:-1]
    v_end, a_end = h * segment.dq[1:], h**2 * segment.ddq[1:]
    return np.stack([q[:-1], q[:-1] + v / 5, q[:-1] + 2 * v / 5 + a / 20,
                     q[1:] - 2 * v_end / 5 + a_end / 20, q[1:] - v_end / 5, q[1:]], axis=1)


def check_commanded(segment: MoveSegment, robot: RobotModel, limits: MotionLimits,
                    checker: CollisionChecker) -> Refusal | None:
    """Joint limits, jumps, singularity, borders, tilt and collision of a timed motion, between its samples too."""
    control = control_points(segment)
    bounds = control.reshape(-1, robot.dof)
    T, border = robot.forward_batch(segment.q), limits.path_tolerance + _ROUNDING
    for _, refusal in (
        gates.joint_limit_prefix(bounds, robot.lower, robot.upper, limits, _JOINT_TOLERANCE),
        gates.joint_jump_prefix(bounds, limits),
        gates.singularity_prefix(robot.condition_numbers(segment.q), limits, _CONDITION_TOLERANCE),
        gates.workspace_prefix(T[1:], limits, border),
        gates.table_prefix(T[1:], limits, border),
        gates.tilt_prefix(T, limits, _TILT_TOLERANCE, leaving=True),
    ):
        if refusal:
            return refusal
    contact = checker.first_contact_on_the_way(control, segment.opened)
    return contact and contact.refusal
