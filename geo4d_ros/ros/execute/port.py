"""A robot cell behind ROS topics, services and actions as the driver's port.

Everything runs in the node's one executor thread, except that joint states, the cameras' pulse and /clock are heard in
a thread of their own: while this node computes, nobody else is silent. Deadlines count on the steady clock, so that a
simulation which stands still cannot freeze them; stamps are the node's clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.clock import Clock

from geo4d_ros.loop.port import Done, Predicted
from geo4d_ros.motion.collision import Scene
from geo4d_ros.motion.gripper_segments import GripperSegment
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import RobotState
from geo4d_ros.motion.timing import MoveSegment
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.ros.execute.actions import GripperClient
from geo4d_ros.ros.execute.plan_inbox import PlanInbox
from geo4d_ros.ros.execute.predictor_client import PredictClient
from geo4d_ros.ros.execute.stop_process import Guardian
from geo4d_ros.ros.observe.robot_monitor import CameraMonitor, ClockMonitor, RobotMonitor
from geo4d_ros.types import Plan

OBSERVE_PATIENCE = 1.0  # [s] that a pair which fails its gates has to become good: the other camera may be under way
BEAT = 0.09  # [s] between two bytes to the guardian


class RosPort:
    """Port over a `plan_executor`'s subscriptions and clients; `arm` is a TrajectoryClient or a MoveItClient.

    silence: (cameras, joint states) [s] that stops a run. `limits`, `scene`, `instruction` and `guardian` are set by
    the node between runs; missing_peers() names the nodes that should run and do not.
    """

    def __init__(self, clock: Clock, robot: RobotMonitor, cameras: CameraMonitor, predictor: PredictClient,
                 inbox: PlanInbox, arm: Any, gripper: GripperClient, silence: tuple[float, float],
                 missing_peers: Callable[[], list[str]]) -> None:
        self._stamps, self.robot, self._cameras = clock, robot, cameras
        self._predictor, self._inbox, self._arm, self._gripper = predictor, inbox, arm, gripper
        self._camera_silence, self._joint_silence = silence
        self._missing_peers = missing_peers
        self._clock = ClockMonitor(clock)
        self.limits, self.scene = MotionLimits(), Scene()
        self.instruction = ''
        self.guardian: Guardian | None = None
        self._looking: tuple[float, Done] | None = None
        self._beat = 0.0

    @property
    def model(self) -> RobotModel | None:
        """The robot of the newest /robot_description."""
        return self.robot.model

    def clock(self) -> float:
        """The steady clock [s]."""
        return time.monotonic()

    def stamp(self) -> int:
        """The node's clock [ns]."""
        return self._stamps.now().nanoseconds

    # --- may it run ---

    def ready(self, moves: bool) -> Refusal | None:
        """Robot description, joint states, peers, services, controllers, guardian, cameras, plans: in this order."""
        if self.robot.model is None:
            return Refusal(Reason.ROBOT_STATE_INVALID, self.robot.model_error)
        state = self.robot_state(None)
        if isinstance(state, Refusal):
            return state
        missing = self._missing_peers()
        if missing:
            return Refusal(Reason.PEER_DEAD, f'{", ".join(missing)} not running')
        if not self._predictor.ready:  # a node can be known before its services are
            return Refusal(Reason.PEER_DEAD, 'no /geo4d/predict service')
        return ((self._no_controller() if moves else None) or self._cameras.check_silence(self._camera_silence)
                or self._predictor.check() or self._inbox.bind())

    def _no_controller(self) -> Refusal | None:
        absent = [name for part in (self._arm, self._gripper) if not part.ready for name in part.actions]
        if absent:
            return Refusal(Reason.BACKEND_UNAVAILABLE, f'no server of {", ".join(absent)}')
        if self.guardian is None or not self.guardian.alive:
            return Refusal(Reason.PEER_DEAD, 'the guardian process does not start')
        return None

    def health(self) -> Refusal | None:
        """Clock, sources of plans and predictions, cameras, joint states, guardian."""
        refusal = (self._clock.check() or self._inbox.check() or self._predictor.check()
                   or self._cameras.check_silence(self._camera_silence))
        if refusal is None and not self.robot.silence <= self._joint_silence:
            refusal = Refusal(Reason.JOINT_STATES_STALLED, f'{self.robot.silence:.2f} s: {self.robot.silence_cause}')
        if refusal is None and self.guardian is not None and not self.guardian.alive:
            refusal = Refusal(Reason.PEER_DEAD, 'guardian')
        return refusal

    def stop_asked(self) -> bool:
        """Whether the guardian took a stop on /geo4d/stop: it has cancelled everything already."""
        return self.guardian is not None and self.guardian.take_stop()

    # --- what is measured ---

    def robot_state(self, gripper_closed: bool | None) -> RobotState | Refusal:
        """The newest joint state, or what is wrong with it; JOINT_STATES_STALLED when it is too long ago."""
        refusal, state = self.robot.refusal(), self.robot.state(gripper_closed)
        if refusal is None and (state is None or not self.robot.silence <= self._joint_silence):
            refusal = Refusal(Reason.JOINT_STATES_STALLED, self.robot.silence_cause)
        return refusal or state

    def at_rest(self, since: float) -> bool:
        """As the joint states say."""
        return self.robot.at_rest(since)

    # --- requests ---

    def observe(self, done: Done) -> None:
        """Wait for a good pair by its pulse on camera_info; the generator itself takes one exposed later."""
        self._looking = time.monotonic(), done
        self._look()

    def _look(self) -> None:
        if self._looking is None:
            return
        since, done = self._looking
        refusal, heard = self._cameras.check_pair(0, self.limits)
        if not heard or (refusal is not None and time.monotonic() - since < OBSERVE_PATIENCE):
            return
        self._looking = None
        done(refusal)

    def predict(self, done: Callable[[Predicted | Refusal], None]) -> None:
        """Call /geo4d/predict."""
        self._predictor.call(self.instruction, done)

    def track(self, predicted: Predicted, done: Callable[[Plan | Refusal], None]) -> None:
        """The plan with that id from /geo4d/plan."""
        self._inbox.await_plan(predicted.plan_id, done)

    def move(self, segment: MoveSegment, done: Done) -> None:
        """Send a goal to the arm's controller, or have MoveIt do it."""
        self._arm.move(segment, done)

    def grip(self, segment: GripperSegment, done: Done) -> None:
        """Send a goal to the gripper's controller."""
        self._gripper.grip(segment, done)

    def stop(self, hold: np.ndarray | None) -> None:
        """Cancel every goal of arm and gripper."""
        self._looking = None
        self._arm.stop()
        self._gripper.stop()
        if hold is not None:
            self._arm.hold(hold)

    def poll(self, moving: bool) -> None:
        """Deadlines of the clients, the guardian's heartbeat."""
        self._arm.poll()
        self._gripper.poll()
        self._look()
        now = time.monotonic()
        if self.guardian is not None and now - self._beat > BEAT:
            self._beat = now
            self.guardian.beat(moving)
