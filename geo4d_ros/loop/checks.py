"""What has to hold right before a segment is sent, whichever it is: one list, for every port."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geo4d_ros.motion import gates
from geo4d_ros.motion.collision import Scene
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import RobotState, TimedMotion
from geo4d_ros.motion.timing import MoveSegment
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.types import Plan

# What may come right by itself within a moment: a message that is late, an arm that still settles.
PASSING = frozenset({Reason.JOINT_STATES_STALE, Reason.ROBOT_MOVING})


@dataclass(frozen=True)
class World:
    """What a motion was judged against. Compared by identity of the model: a new description is a new robot."""

    model: RobotModel
    scene: Scene

    def check_same(self, model: RobotModel | None, scene: Scene) -> Refusal | None:
        """MODEL_CHANGED unless robot and scene are still those."""
        if model is not self.model:
            return Refusal(Reason.MODEL_CHANGED, 'the robot description')
        if scene != self.scene:
            return Refusal(Reason.MODEL_CHANGED, 'the scene')
        return None


@dataclass(frozen=True)
class Judged:
    """A plan that passed the gates, the motion made of it, and the world that they judged it in."""

    plan: Plan
    motion: TimedMotion
    world: World


def check_robot(state: RobotState, model: RobotModel, limits: MotionLimits, now: int) -> Refusal | None:
    """The measured robot is one to plan from: finite, within its limits, fresh at `now` [ns]."""
    return (gates.check_joint_state(state.q, state.dq, model.lower, model.upper)
            or gates.check_opening_state(state.opening, limits)
            or gates.check_age(state.stamp, now, limits.joint_state_age, limits.future_tolerance,
                               Reason.JOINT_STATES_STALE))


def check_segment(judged: Judged, index: int, state: RobotState, resting: bool, limits: MotionLimits,
                  now: int) -> Refusal | None:
    """Segment `index` may be sent at `now` [ns]: state good and fresh, at rest, where it starts, plan young enough.

    resting: measured at rest for a while, not only in `state`. A later segment starts where the one before
    ended; there the fingers may have pushed the arm a little.
    """
    motion = judged.motion
    tolerance = limits.start_joint_tolerance if index == 0 else limits.pushed_joint_tolerance
    return (check_robot(state, judged.world.model, limits, now)
            or gates.check_at_rest(np.asarray(state.dq), limits)
            or (None if resting else Refusal(Reason.ROBOT_MOVING, 'not at rest for long enough'))
            or gates.check_unmoved(planned_start(motion, index), np.asarray(state.q), tolerance)
            or gates.check_age(judged.plan.observation_stamp, now, limits.plan_age, limits.future_tolerance,
                               Reason.PLAN_STALE))


def planned_start(motion: TimedMotion, index: int) -> np.ndarray:
    """Joints (j,) [rad] that the arm should stand at when segment `index` begins."""
    moves = [s for s in motion.segments[:index] if isinstance(s, MoveSegment)]
    return np.asarray(moves[-1].q[-1] if moves else motion.q_start)
