"""Executes timed motions in a simulated cell without ROS, with the controllers that its action servers use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from geo4d_ros.motion.gripper_segments import GripperSegment, let_go
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import RobotState
from geo4d_ros.motion.timing import MoveSegment
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.simulation.controllers import (
    GripperController,
    JointPath,
    Outcome,
    Tolerances,
    TrajectoryController,
)

TICK = 0.004  # [s] between two commands, the period of the simulated controllers
PATH_TOLERANCE, GOAL_TOLERANCE = 0.05, 0.02  # [rad]: the executor's `tracking_error`, the server's default
SETTLE_VELOCITY, SETTLE_TIME, SETTLE_LIMIT = 0.01, 0.2, 3.0  # [rad/s], [s], [s]


class CellArm:
    """Arm and gripper of a `simulation.cell.Cell`, stepping its physics; everything ends at rest."""

    def __init__(self, cell: Any, watch: Callable[[Any], None] | None = None, watch_period: float = 0.25) -> None:
        """`watch(cell)` is called every `watch_period` [s] of simulated time."""
        self._cell, self._watch, self._watch_period = cell, watch, watch_period
        self._next_watch = cell.time
        self._steps = max(1, round(TICK / cell.dt))
        self._controller = TrajectoryController(cell.joint_positions)
        self._gripper = GripperController()
        self.gripper_closed = False

    def state(self) -> RobotState:
        """The robot as its joint states report it now."""
        cell = self._cell
        return RobotState(cell.joint_positions, cell.joint_velocities, cell.opening, self.stamp,
                          self.gripper_closed)

    @property
    def stamp(self) -> int:
        """Simulated time [ns]."""
        return round(self._cell.time * 1e9)

    def move(self, segment: MoveSegment) -> Refusal | None:
        """Follow a segment to its end; the reason when the controller gave up."""
        n = len(segment.q[0])
        path = JointPath(segment.times, segment.q, segment.dq)
        refused = self._controller.check(path)
        if refused:
            return Refusal(Reason.GOAL_REJECTED, refused)
        tolerances = Tolerances(np.full(n, PATH_TOLERANCE), np.full(n, GOAL_TOLERANCE))
        goal = self._controller.start(path, tolerances, self._cell.time)
        while goal.outcome is None:
            self._tick()
        if goal.outcome is Outcome.SUCCEEDED:
            return None
        return Refusal(Reason.TRACKING_ERROR, goal.message)

    def grip(self, segment: GripperSegment) -> Refusal | None:
        """Open or close with the arm standing, then dwell; the reason when the fingers never came to rest."""
        self.gripper_closed, before = segment.closing, self._cell.opening
        self._cell.set_opening_target(segment.target)
        self._gripper.start(segment.target, self._cell.time)
        while self._gripper.active:
            self._tick()
            self._gripper.update(self._cell.time, self._cell.opening)
        self.wait(segment.dwell)
        done = self._gripper.reached or (self._gripper.stalled and segment.closing) \
            or (not segment.closing and let_go(before, self._cell.opening, MotionLimits()))
        if done:
            return None
        reason = Reason.GRASP_UNSETTLED if segment.closing else Reason.GRIPPER_FAILED
        return Refusal(reason, f'opening {self._cell.opening:.3f} m')

    def settle(self) -> Refusal | None:
        """Wait until every joint has been slow for SETTLE_TIME."""
        end, still_since = self._cell.time + SETTLE_LIMIT, None
        while self._cell.time < end:
            self._tick()
            moving = np.abs(self._cell.joint_velocities).max() > SETTLE_VELOCITY
            still_since = None if moving else still_since or self._cell.time
            if still_since is not None and self._cell.time - still_since >= SETTLE_TIME:
                return None
        return Refusal(Reason.SETTLE_TIMEOUT, f'{np.abs(self._cell.joint_velocities).max():.3f} rad/s')

    def wait(self, seconds: float) -> None:
        """Hold for simulated `seconds`."""
        end = self._cell.time + seconds
        while self._cell.time < end - 1e-9:
            self._tick()

    def _tick(self) -> None:
        cell = self._cell
        q = self._controller.update(cell.time, cell.joint_positions, cell.joint_velocities)
        cell.set_joint_target(q, self._controller.dq)
        cell.step(self._steps)
        if self._watch is not None and cell.time >= self._next_watch - 1e-9:
            self._next_watch += self._watch_period
            self._watch(cell)
