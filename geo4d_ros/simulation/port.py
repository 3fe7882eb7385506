"""A simulated cell as the driver's port: the same controllers as behind the simulated robot's action servers, no ROS.

What is asked for is done in `advance`: either one look, prediction or track, while simulated time stands still,
or a little physics. So nothing is answered before its request has returned, as on a robot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from geo4d_ros.errors import InvalidInputError
from geo4d_ros.generation.protocol import VideoGenerator
from geo4d_ros.loop.port import Done, Predicted
from geo4d_ros.loop.verdict import judge
from geo4d_ros.motion.collision import Scene
from geo4d_ros.motion.gripper_segments import GripperSegment
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import RobotState
from geo4d_ros.motion.timing import MoveSegment
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.simulation.controllers import (
    Goal,
    GripperController,
    JointPath,
    Outcome,
    Tolerances,
    TrajectoryController,
)
from geo4d_ros.tracking.protocol import Tracker
from geo4d_ros.types import Observation, Plan, Video4D

CONTROL_PERIOD = 0.004  # [s] between two commands, the period of the simulated controllers
TICK = 0.04  # [s] of physics in one `advance`, the period of the executor's timer
PATH_TOLERANCE, GOAL_TOLERANCE = 0.05, 0.02  # [rad]: the executor's `tracking_error`, the server's default
REST_SECONDS = 0.2  # of rest, measured, before the arm counts as standing
HOLD_SECONDS = 0.5  # from a speed that the motion limits allow to a stand
_ENDS = {Outcome.PATH_TOLERANCE_VIOLATED: Reason.TRACKING_ERROR, Outcome.GOAL_TOLERANCE_VIOLATED: Reason.TRACKING_ERROR}


class SimulatedPort:
    """Port over a `simulation.cell.Cell`, cameras `rig` (anything with `observe(cell)` and `cameras`), and the models.

    scene: what the gates know of the cell's obstacles. watch(cell) is called every `watch_period` [s] of simulated
    time. `instruction` goes with every look. `observation`, `video`: the last of the loop.
    """

    def __init__(self, cell: Any, rig: Any, generator: VideoGenerator, tracker: Tracker, model: RobotModel,
                 scene: Scene | None = None, seed: int = 0, watch: Callable[[Any], None] | None = None,
                 watch_period: float = 0.25, instruction: str | None = None) -> None:
        self.cell, self.model, self.scene = cell, model, scene or Scene.table()
        self._rig, self._generator, self._tracker, self._seed = rig, generator, tracker, seed
        self._instruction = instruction
        self.observation: Observation | None = None
        self.video: Video4D | None = None
        self._predictions = 0
        self._watch, self._watch_period, self._next_watch = watch, watch_period, cell.time
        self._controller, self._gripper = TrajectoryController(
            cell.joint_positions, cell.robot.velocity_limits, np.array(cell.robot.acceleration)), GripperController()
        self._job: Callable[[], None] | None = None
        self._motion: tuple[Goal, Done] | None = None
        self._grip: tuple[GripperSegment, Done] | None = None
        self._rest_since: float | None = None

    def advance(self) -> None:
        """Do what was asked for, or let `TICK` of simulated time pass."""
        if self._job is not None:
            job, self._job = self._job, None
            job()
            return
        for _ in range(round(TICK / CONTROL_PERIOD)):
            self._step()
        self._answer()

    # --- what the driver asks ---

    def clock(self) -> float:
        """Simulated time [s]."""
        return float(self.cell.time)

    def stamp(self) -> int:
        """Simulated time [ns]."""
        return round(self.cell.time * 1e9)

    def ready(self, moves: bool) -> Refusal | None:
        """A simulated cell is always ready."""
        return None

    def health(self) -> Refusal | None:
        """Nothing in it fails."""
        return None

    def stop_asked(self) -> bool:
        """There is no operator."""
        return False

    def robot_state(self, gripper_closed: bool | None) -> RobotState | Refusal:
        """The robot as its joint states report it now."""
        cell = self.cell
        return RobotState(cell.joint_positions, cell.joint_velocities, cell.opening, self.stamp(), gripper_closed)

    def at_rest(self, since: float) -> bool:
        """All of the last 0.2 s, after `since`."""
        return self._rest_since is not None and self.cell.time - max(self._rest_since, since) >= REST_SECONDS - 1e-9

    def observe(self, done: Done) -> None:
        """Render the cameras."""
        def look() -> None:
            self.observation = replace(self._rig.observe(self.cell), instruction=self._instruction)
            done(None)

        self._job = look

    def predict(self, done: Callable[[Predicted | Refusal], None]) -> None:
        """Predict from the observation; a video that cannot be made is refused."""
        def run() -> None:
            try:
                self.video = self._generator.predict(self.observation, seed=self._seed)
            except InvalidInputError as error:
                done(Refusal(Reason.PREDICTION_INVALID, str(error)))
                return
            self._predictions += 1
            done(Predicted(f'{self.cell.seed}-{self._predictions}', int(self.video.stamps[0]),
                           judgement=judge(self.video, self.cell.opening)))

        self._job = run

    def track(self, predicted: Predicted, done: Callable[[Plan | Refusal], None]) -> None:
        """Track the predicted video."""
        def run() -> None:
            track = self._tracker.track(self.video, self.observation)
            done(Plan.of_track(track, self._rig.cameras[0].T_base_camera, self.video.stamps, predicted.plan_id)
                 if track.trusted > 1 else Refusal(Reason.TRACK_LOST))

        self._job = run

    def move(self, segment: MoveSegment, done: Done) -> None:
        """Hand the segment to the trajectory controller."""
        path, n = JointPath(segment.times, segment.q, segment.dq), len(segment.q[0])
        refused = self._controller.check(path)
        if refused:
            done(Refusal(Reason.GOAL_REJECTED, refused))
            return
        tolerances = Tolerances(np.full(n, PATH_TOLERANCE), np.full(n, GOAL_TOLERANCE))
        self._motion = self._controller.start(path, tolerances, self.cell.time), done

    def grip(self, segment: GripperSegment, done: Done) -> None:
        """Hand the opening to the gripper's controller."""
        self.cell.set_opening_target(segment.target)
        self._gripper.start(segment.target, self.cell.time)
        self._grip = segment, done

    def stop(self, hold: np.ndarray | None) -> None:
        """Decelerate; the fingers keep what they hold."""
        self._job = self._motion = self._grip = None
        self._gripper.cancel()
        self._controller.stop(Outcome.CANCELED, 'stopped', self.cell.time)
        if hold is not None:
            anything = np.full(len(hold), np.inf)
            self._controller.start(JointPath(np.array([HOLD_SECONDS]), hold[None]), Tolerances(anything, anything),
                                   self.cell.time)

    def poll(self, moving: bool) -> None:
        """Time goes on in `advance`."""

    # --- physics ---

    def _step(self) -> None:
        """One period of the controllers."""
        cell = self.cell
        q = self._controller.update(cell.time, cell.joint_positions, cell.joint_velocities)
        cell.set_joint_target(q, self._controller.dq)
        cell.step(max(1, round(CONTROL_PERIOD / cell.dt)))
        self._gripper.update(cell.time, cell.opening)
        if not np.abs(cell.joint_velocities).max() < MotionLimits.rest_velocity:
            self._rest_since = None
        elif self._rest_since is None:
            self._rest_since = cell.time
        if self._watch is not None and cell.time >= self._next_watch - 1e-9:
            self._next_watch += self._watch_period
            self._watch(cell)

    def _answer(self) -> None:
        """Tell what has ended."""
        if self._motion is not None and self._motion[0].outcome is not None:
            (goal, done), self._motion = self._motion, None
            done(None if goal.outcome is Outcome.SUCCEEDED else
                 Refusal(_ENDS.get(goal.outcome, Reason.EXECUTION_ABORTED), goal.message))
        elif self._grip is not None and not self._gripper.active:
            (segment, done), self._grip = self._grip, None
            arrived = self._gripper.reached or (self._gripper.stalled and segment.closing)
            reason = Reason.GRASP_UNSETTLED if segment.closing else Reason.GRIPPER_FAILED
            done(None if arrived else Refusal(reason, f'opening {self.cell.opening:.3f} m'))
