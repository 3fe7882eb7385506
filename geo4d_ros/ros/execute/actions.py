"""Clients of the arm's and the gripper's action servers in which every wait has a deadline.

A dead server answers nothing at all: its futures stay pending for ever (rclpy #367). So each goal is watched
by `poll`, which the owner calls from a timer. All methods belong to the executor's thread: action calls from
another thread can lose their answers (rclpy #1123).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from action_msgs.msg import GoalStatus
from action_msgs.srv import CancelGoal
from control_msgs.action import FollowJointTrajectory, GripperCommand, ParallelGripperCommand
from rclpy.action import ActionClient
from rclpy.node import Node
from sensor_msgs.msg import JointState

from geo4d_ros.motion.gripper_segments import GripperSegment
from geo4d_ros.motion.timing import MoveSegment
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.finger_motion import FingerMotion
from geo4d_ros.ros.execute.stop_process import PATIENCE, Stop
from geo4d_ros.ros.wire.guard import Malformed
from geo4d_ros.ros.wire.trajectory_messages import to_message

CANCEL = '/_action/cancel_goal'
HOLD_SECONDS = 0.5  # from a speed the motion limits allow to a stand

Done = Callable[[Refusal | None], None]


@dataclass(frozen=True)
class Patience:
    """How long a server may take to accept or reject a goal, and stay silent while one runs [s]."""

    answer: float = 1.0
    feedback: float = 0.5


class ActionPeer:
    """One action server, one goal at a time.

    `send` calls on_end(status, result) once with the outcome, or on_end(None, refusal) when the server
    rejects, vanishes or falls silent. After `cancel_all` nothing of the goal is heard any more.
    feedback: whether the server sends it regularly, so that its silence tells.
    """

    def __init__(self, node: Node, action: Any, name: str, patience: Patience, feedback: bool = False) -> None:
        # In full: the guardian cancels by it, outside this node's namespace and remappings.
        self.name = node.resolve_service_name(f'{name}{CANCEL}').removesuffix(CANCEL)
        self._client = ActionClient(node, action, name)
        self._cancel = node.create_client(CancelGoal, f'{name}{CANCEL}')
        self._patience, self._feedback = patience, feedback
        self._cancelling: Stop | None = None
        self._cancel_until = 0.0
        self._token = 0
        self._end: Callable[[int | None, Any], None] | None = None
        self._deadline: float | None = None

    @property
    def ready(self) -> bool:
        """Whether the server is known; a dead one is known for a few seconds more."""
        return self._client.server_is_ready()

    @property
    def busy(self) -> bool:
        """Whether a goal of ours is under way."""
        return self._end is not None

    def send(self, goal: Any, on_end: Callable[[int | None, Any], None],
             on_feedback: Callable[[Any], None] = lambda feedback: None) -> None:
        """Send a goal; the one before should have ended."""
        self._token += 1
        self._cancelling = None  # a cancel that is repeated must not end the new goal
        token, self._end = self._token, on_end
        if not self.ready:
            self._finish(token, None, Refusal(Reason.BACKEND_UNAVAILABLE, f'no server of {self.name}'))
            return
        self._deadline = time.monotonic() + self._patience.answer

        def heard(message: Any) -> None:
            if token == self._token and self._end is not None:
                self._hear()
                on_feedback(message.feedback)

        self._client.send_goal_async(goal, feedback_callback=heard).add_done_callback(
            lambda future: self._answered(token, future.result()))

    def cancel_all(self) -> None:
        """Ask the server to cancel every goal it has, ours and others', and forget ours.

        `poll` asks again until the server has answered, a goal is sent, or 3 s have passed.
        """
        self._token += 1
        self._end = self._deadline = None
        # A request with a zero id and a zero stamp means all goals (action_msgs/srv/CancelGoal).
        self._cancelling = Stop({self.name: self._cancel}, CancelGoal.Request())
        self._cancel_until = time.monotonic() + PATIENCE
        self._cancelling.poll(time.monotonic())

    def poll(self) -> None:
        """End the goal when its server is gone or silent for too long; call ten times a second or more."""
        now = time.monotonic()
        if self._cancelling is not None and (self._cancelling.poll(now) or now > self._cancel_until):
            self._cancelling = None
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._finish(self._token, None, Refusal(Reason.BACKEND_UNAVAILABLE, f'{self.name} is silent'))
        elif self.busy and not self.ready:
            self._finish(self._token, None, Refusal(Reason.BACKEND_UNAVAILABLE, f'{self.name} is gone'))

    def _hear(self) -> None:
        self._deadline = time.monotonic() + self._patience.feedback if self._feedback else None

    def _answered(self, token: int, handle: Any) -> None:
        if token != self._token or self._end is None:
            if handle.accepted and self._end is None:
                handle.cancel_goal_async()  # accepted after we gave it up: it must not run
            return
        if not handle.accepted:
            self._finish(token, None, Refusal(Reason.GOAL_REJECTED, self.name))
            return
        self._hear()
        handle.get_result_async().add_done_callback(
            lambda future: self._finish(token, future.result().status, future.result().result))

    def _finish(self, token: int, status: int | None, result: Any) -> None:
        if token == self._token and self._end is not None:
            end, self._end, self._deadline = self._end, None, None
            end(status, result)


class TrajectoryClient:
    """Any controller that serves control_msgs/action/FollowJointTrajectory.

    tracking_error [rad]: a joint that is further from the controller's own set point ends the motion.
    """

    def __init__(self, node: Node, name: str, joint_names: tuple[str, ...], tracking_error: float,
                 patience: Patience) -> None:
        self._joints, self.tracking_error = joint_names, tracking_error
        self.patience = patience
        self._peer = ActionPeer(node, FollowJointTrajectory, name, patience, feedback=True)

    @property
    def actions(self) -> list[str]:
        """Actions whose goals have to be cancelled for the arm to stop."""
        return [self._peer.name]

    @property
    def ready(self) -> bool:
        """Whether the controller is known."""
        return self._peer.ready

    def move(self, segment: MoveSegment, done: Done) -> None:
        """Execute a timed segment; done(None) when the controller reports its end, else the reason.

        The reason does not stop the arm: whoever hears it stops everything, on the one path for that.
        """
        goal = FollowJointTrajectory.Goal(
            trajectory=to_message(self._joints, segment.times, segment.q, segment.dq, segment.ddq))

        def watch(feedback: FollowJointTrajectory.Feedback) -> None:
            error = joint_error(feedback, self._joints)
            if isinstance(error, Malformed):
                done(Refusal(Reason.TRACKING_ERROR, f'feedback of {self._peer.name}: {error}'))
            elif not error <= self.tracking_error:
                done(Refusal(Reason.TRACKING_ERROR, f'{error:.3f} rad, at most {self.tracking_error}'))

        self._peer.send(goal, lambda status, result: done(_arm_outcome(status, result)), watch)

    def stop(self) -> None:
        """Cancel every goal of the controller."""
        self._peer.cancel_all()

    def hold(self, q: np.ndarray) -> None:
        """Take the controller over with the order to stand at q (j,): for one that ignores a cancel."""
        goal = FollowJointTrajectory.Goal(trajectory=to_message(self._joints, np.array([HOLD_SECONDS]), q[None]))
        self._peer.send(goal, lambda status, result: None)

    def poll(self) -> None:
        """Watch the running goal; call ten times a second or more."""
        self._peer.poll()


def joint_error(feedback: FollowJointTrajectory.Feedback, joints: tuple[str, ...]) -> float | Malformed:
    """Largest distance of a joint from the controller's set point [rad], from `error` or desired - actual."""
    names = list(feedback.joint_names)[:1000] or list(joints)
    missing = [name for name in joints if name not in names]
    if missing or len(set(names)) != len(names):
        return Malformed('joint_names', names, f'lack {", ".join(missing)}' if missing else 'a joint is named twice')
    error = np.array(feedback.error.positions, np.float64)
    if not error.size:
        desired, actual = (np.array(p.positions, np.float64) for p in (feedback.desired, feedback.actual))
        if desired.size != actual.size or not actual.size:
            return Malformed('error.positions', '0 values', 'nobody tells where the joints are')
        error = desired - actual
    if error.size != len(names):
        return Malformed('error.positions', f'{error.size} values', f'for {len(names)} joints')
    ours = np.abs(error[[names.index(name) for name in joints]])
    if not np.isfinite(ours).all():
        return Malformed('error.positions', error.tolist(), 'not finite')
    return float(ours.max())


def _arm_outcome(status: int | None, result: Any) -> Refusal | None:
    if status is None:
        return result
    codes, text = FollowJointTrajectory.Result, f'{result.error_code} {result.error_string}'.strip()
    if status == GoalStatus.STATUS_SUCCEEDED and result.error_code == codes.SUCCESSFUL:
        return None
    if result.error_code in (codes.PATH_TOLERANCE_VIOLATED, codes.GOAL_TOLERANCE_VIOLATED):
        return Refusal(Reason.TRACKING_ERROR, text)
    return Refusal(Reason.EXECUTION_ABORTED, f'status {status}, {text}')


class GripperClient:
    """A gripper behind ParallelGripperCommand or GripperCommand.

    motion: opening [m] <-> position of `joint`. Stalling while closing is a grasp, whatever status
    the server ends the goal with (without allow_stalling it aborts on a held object); while opening it is a
    failure. max_effort [N] is passed on, 0 leaves it to the server.
    """

    def __init__(self, node: Node, name: str, kind: str, joint: str, motion: FingerMotion,
                 max_effort: float, patience: Patience) -> None:
        self._joint, self._motion, self._max_effort = joint, motion, max_effort
        self._parallel = kind == 'ParallelGripperCommand'
        self._peer = ActionPeer(node, ParallelGripperCommand if self._parallel else GripperCommand, name, patience)

    @property
    def actions(self) -> list[str]:
        """Actions whose goals have to be cancelled for the gripper to stop."""
        return [self._peer.name]

    @property
    def ready(self) -> bool:
        """Whether the gripper's server is known."""
        return self._peer.ready

    def opening(self, position: float) -> float:
        """Opening [m] at a measured joint position."""
        return self._motion.measured(position)

    def grip(self, segment: GripperSegment, done: Done) -> None:
        """Open or close; done(None) when the fingers arrived or, closing, hold something."""
        self._peer.send(self._goal(segment.target),
                        lambda status, result: done(_gripper_outcome(status, result, segment.closing)))

    def _goal(self, opening: float) -> Any:
        position = self._motion.position(opening)
        if not self._parallel:
            goal = GripperCommand.Goal()
            goal.command.position, goal.command.max_effort = position, self._max_effort
            return goal
        command = JointState(name=[self._joint], position=[position])
        if self._max_effort > 0:
            command.effort = [self._max_effort]
        return ParallelGripperCommand.Goal(command=command)

    def stop(self) -> None:
        """Cancel every goal of the gripper; the fingers keep what they hold."""
        self._peer.cancel_all()

    def poll(self) -> None:
        """Watch the running goal; call ten times a second or more."""
        self._peer.poll()


def _gripper_outcome(status: int | None, result: Any, closing: bool) -> Refusal | None:
    if status is None:
        return result
    if result.reached_goal or (result.stalled and closing):
        return None
    stalled = 'stalled while opening' if result.stalled else 'neither arrived nor stalled'
    return Refusal(Reason.GRASP_UNSETTLED if closing else Reason.GRIPPER_FAILED, f'status {status}, {stalled}')
