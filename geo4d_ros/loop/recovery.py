"""The ways out of where the loop got stuck: open and leave, or go a little back the way the arm came.

They are plans like any other and pass the same gates; only their poses come from where the tool has been
(which was free) or from straight above, never from a prediction.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geo4d_ros.geometry.transforms import rotation_angle, translation_distance
from geo4d_ros.loop.state import Recovery
from geo4d_ros.motion.collision import Scene
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import RobotState, TimedMotion, plan_trajectory
from geo4d_ros.reasons import Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.types import Plan

_KEPT = 400  # poses of the trail: some 2 m
_ON_TRAIL = (0.05, 0.35)  # m, rad: an arm farther from its last path was moved by somebody else
_SPACING = (0.03, 0.15)  # m, rad between the poses of a way back


class Trail:
    """Where the tool has been lately: the checked paths of the predicted motions that were sent, oldest pose first.

    Ways out are none of it: the next one would lead back to where this one came from.
    """

    def __init__(self) -> None:
        self._T = np.zeros((0, 4, 4))
        self._last = self._T

    def follow(self, T_path: np.ndarray) -> None:
        """A motion along the poses T_path (N, 4, 4), base frame, is sent; said again for its later parts."""
        if T_path is self._last:
            return
        joins = len(self._T) and translation_distance(self._T[-1], T_path[0]) <= _ON_TRAIL[0]
        self._T, self._last = np.concatenate([self._T, T_path] if joins else [T_path])[-_KEPT:], T_path

    def back(self, T_now: np.ndarray, distance: float) -> np.ndarray:
        """Poses (n, 4, 4) from T_now (4, 4) back along the trail for `distance` [m]; none when it is elsewhere.

        The part of the trail ahead of T_now, which a motion that was held up never reached, is forgotten.
        """
        if not np.isfinite(T_now).all():
            self._T = self._T[:0]
            return self._T
        away = translation_distance(T_now, self._T) / _ON_TRAIL[0] + rotation_angle(T_now, self._T) / _ON_TRAIL[1]
        if not len(away) or not away.min() <= 1.0:
            self._T = self._T[:0]
            return self._T
        nearest = len(away) - 1 - int(np.argmin(away[::-1]))
        self._T = self._T[:nearest + 1]
        way, last, length = [], T_now, 0.0
        for T in self._T[::-1]:
            step, turn = float(translation_distance(last, T)), float(rotation_angle(last, T))
            enough = length + step >= distance
            if enough or step >= _SPACING[0] or turn >= _SPACING[1]:
                way.append(T)
                last, length = T, length + step
            if enough:
                break
        return np.array(way).reshape(-1, 4, 4)


def recovery_plans(recovery: Recovery, plan_id: str, T_base_gripper: np.ndarray, opening: float, stamp: int,
                   trail: Trail, limits: MotionLimits, again: int = 1) -> list[Plan]:
    """The ways out from T_base_gripper (4, 4) in the order to be tried; ids are plan_id with a suffix.

    OPEN opens, then goes up, or else back, or else stays. RETREAT keeps the opening and goes back, or else up.
    They go `retreat` or `back_off` far, up to twice or three times that where it does not help: `again` counts.
    stamp [ns]: of the joint state the pose was measured from.
    """
    opens = recovery is Recovery.OPEN
    distance = limits.retreat * min(max(again, 1), 2) if opens else limits.back_off * min(max(again, 1), 3)
    up, back = straight_up(T_base_gripper, distance, limits), trail.back(T_base_gripper, distance)
    ways = {'up': up, 'back': back} if opens else {'back': back, 'up': up}
    ways = {name: T for name, T in ways.items() if len(T)}
    if opens:  # the present pose comes first, so that the gripper acts before the arm moves
        here = T_base_gripper[None]
        ways = {name: np.concatenate([here, T]) for name, T in ways.items()} | {'here': here}
    target = limits.stroke if opens else min(max(opening, 0.0), limits.stroke)
    return [Plan(f'{plan_id}-{name}', T, np.full(len(T), target), 0.5 * np.arange(1, len(T) + 1), stamp,
                 T_base_gripper.copy(), opening, np.ones(len(T)))
            for name, T in ways.items()]


def straight_up(T_base_gripper: np.ndarray, distance: float, limits: MotionLimits) -> np.ndarray:
    """Poses (n, 4, 4) straight up from T_base_gripper (4, 4) for `distance` [m]."""
    steps = max(limits.prefix, int(np.ceil(distance / min(0.04, 0.9 * limits.step_distance))))
    T = np.tile(T_base_gripper, (steps, 1, 1))
    T[:, 2, 3] += distance * np.arange(1, steps + 1) / steps
    return T


def plan_recovery(plans: list[Plan], recovery: Recovery, state: RobotState, limits: MotionLimits, scene: Scene,
                  robot: RobotModel, now: int) -> tuple[Plan, RobotState, TimedMotion | Refusal]:
    """The first of the plans that passes every gate to its end, and the state it was judged from.

    Without one: the first of which a safe prefix is left, else the last, refused. For OPEN the gripper counts
    as closed whatever it measures, so that it is told to open in any case.
    """
    if recovery is Recovery.OPEN:
        state = replace(state, gripper_closed=True, opening=min(state.opening, limits.stroke / 4))
    prefix: tuple[Plan, RobotState, TimedMotion | Refusal] | None = None
    for plan in plans:
        result = plan_trajectory(plan, state, limits, scene, robot, now, len(plan.T_base_gripper))
        if isinstance(result, TimedMotion):
            prefix = prefix or (plan, state, result)
            if result.truncated_by is None:
                return plan, state, result
    return prefix or (plan, state, result)
