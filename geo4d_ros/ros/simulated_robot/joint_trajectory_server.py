"""Action servers of the embedded robot: FollowJointTrajectory and ParallelGripperCommand on a CellRunner.

They answer as ros2_control's joint_trajectory_controller and parallel_gripper_action_controller do, so that
real hardware swaps in. Both block one thread of a multi-threaded executor per running goal.
"""

from __future__ import annotations

import math

import numpy as np
from control_msgs.action import FollowJointTrajectory, ParallelGripperCommand
from control_msgs.msg import JointTolerance
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectoryPoint

from geo4d_ros.errors import InvalidInputError
from geo4d_ros.ros.wire.conversions import to_nanoseconds, to_stamp
from geo4d_ros.ros.wire.trajectory_messages import from_message
from geo4d_ros.simulation.controllers import Goal, JointPath, Outcome, Tolerances
from geo4d_ros.simulation.runner import CellRunner

FEEDBACK_PERIOD = 0.05  # [s]
RESULT_SECONDS = 10  # a goal and its trajectory are kept so long after its end; rclpy's 900 grow for a quarter hour
_CODES = {
    Outcome.SUCCEEDED: FollowJointTrajectory.Result.SUCCESSFUL,
    Outcome.PATH_TOLERANCE_VIOLATED: FollowJointTrajectory.Result.PATH_TOLERANCE_VIOLATED,
    Outcome.GOAL_TOLERANCE_VIOLATED: FollowJointTrajectory.Result.GOAL_TOLERANCE_VIOLATED,
    # ros2_control reports a cancelled and a preempted goal alike, the sentence tells them apart.
    Outcome.CANCELED: FollowJointTrajectory.Result.SUCCESSFUL,
    Outcome.PREEMPTED: FollowJointTrajectory.Result.INVALID_GOAL,
}


class JointTrajectoryServer:
    """`/joint_trajectory_controller/follow_joint_trajectory` of the runner's arm.

    path_tolerance, goal_tolerance [rad] apply to joints whose tolerance the goal leaves open (0);
    a negative one switches the check off for that joint, as control_msgs documents.
    """

    def __init__(self, node: Node, runner: CellRunner, joint_names: tuple[str, ...], path_tolerance: float = 0.2,
                 goal_tolerance: float = 0.02, name: str = 'joint_trajectory_controller') -> None:
        self._node, self._runner, self._joints = node, runner, joint_names
        self._path_tolerance, self._goal_tolerance = path_tolerance, goal_tolerance
        self._goals: dict[bytes, Goal] = {}
        self._server = ActionServer(
            node, FollowJointTrajectory, f'{name}/follow_joint_trajectory', self.execute,
            goal_callback=self.accept, cancel_callback=self.cancel, callback_group=ReentrantCallbackGroup(),
            result_timeout=RESULT_SECONDS)

    def accept(self, request: FollowJointTrajectory.Goal) -> GoalResponse:
        """Goal callback: only a trajectory that can start from here is accepted."""
        try:
            path = JointPath(*from_message(request.trajectory, self._joints))
            self._tolerances(request)
            with self._runner.lock:
                refusal = self._runner.trajectory.check(path)
        except InvalidInputError as error:
            refusal = str(error)
        if refusal:
            self._node.get_logger().warning(f'trajectory refused: {refusal}')
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _tolerances(self, request: FollowJointTrajectory.Goal) -> Tolerances:
        patience = to_nanoseconds(request.goal_time_tolerance) * 1e-9
        return Tolerances(
            path=self._per_joint(request.path_tolerance, self._path_tolerance),
            goal=self._per_joint(request.goal_tolerance, self._goal_tolerance),
            goal_time=patience if patience > 0 else 2.0)

    def _per_joint(self, tolerances: list[JointTolerance], default: float) -> np.ndarray:
        out = np.full(len(self._joints), default)
        for tolerance in tolerances:
            if tolerance.name not in self._joints:
                raise InvalidInputError(f'a tolerance names the unknown joint {tolerance.name!r}')
            if tolerance.position != 0 or not math.isfinite(tolerance.position):
                value = tolerance.position
                out[self._joints.index(tolerance.name)] = value if value > 0 else np.inf
        return out

    def cancel(self, handle: object) -> CancelResponse:
        """Cancel callback: brakes at once."""
        # The stop begins here, not in `execute`: nothing may stand between the request and the brakes.
        runner, goal = self._runner, self._goals.get(bytes(handle.goal_id.uuid))
        with runner.lock:
            if goal is not None and runner.trajectory.goal is goal:
                runner.trajectory.stop(Outcome.CANCELED, 'cancelled by request', runner.now)
                runner.lock.notify_all()
        return CancelResponse.ACCEPT

    def execute(self, handle: object) -> FollowJointTrajectory.Result:
        """Execute callback: blocks until the goal has ended and, if cancelled, the arm stands."""
        runner, key = self._runner, bytes(handle.goal_id.uuid)
        path = JointPath(*from_message(handle.request.trajectory, self._joints))
        with runner.lock:
            goal = runner.trajectory.start(path, self._tolerances(handle.request), runner.now)
            self._goals[key] = goal
            if handle.is_cancel_requested:
                runner.trajectory.stop(Outcome.CANCELED, 'cancelled by request', runner.now)
        try:
            while goal.outcome is None and runner.running:
                with runner.lock:
                    runner.lock.wait(FEEDBACK_PERIOD)
                handle.publish_feedback(self._feedback())
            self._finish(handle, goal)
        finally:
            del self._goals[key]
        result = FollowJointTrajectory.Result()
        result.error_code = _CODES[goal.outcome or Outcome.PREEMPTED]
        result.error_string = goal.message
        return result

    def _finish(self, handle: object, goal: Goal) -> None:
        if goal.outcome is Outcome.SUCCEEDED:
            handle.succeed()
        elif goal.outcome is Outcome.CANCELED:
            self._wait_for_rest(handle)
            handle.canceled()
        else:
            handle.abort()
            self._node.get_logger().warning(f'trajectory aborted: {goal.message}')

    def _wait_for_rest(self, handle: object) -> None:
        """A cancelled goal is over when the arm stands; the handle also has to have left EXECUTING by then."""
        runner = self._runner
        while runner.running and (runner.trajectory.moving or not handle.is_cancel_requested):
            with runner.lock:
                runner.lock.wait(0.01)

    def _feedback(self) -> FollowJointTrajectory.Feedback:
        trajectory, state = self._runner.trajectory, self._runner.state
        feedback = FollowJointTrajectory.Feedback(joint_names=list(self._joints))
        feedback.header.stamp = to_stamp(state.stamp)
        feedback.desired = JointTrajectoryPoint(
            positions=trajectory.q.tolist(), velocities=trajectory.dq.tolist())
        feedback.actual = JointTrajectoryPoint(positions=state.q.tolist(), velocities=state.dq.tolist())
        feedback.error = JointTrajectoryPoint(positions=trajectory.error.tolist())
        return feedback


class GripperServer:
    """`/gripper_controller/gripper_cmd` of the runner's gripper.

    The commanded position is that of the gripper's first driven joint, see `robots.finger_motion`.
    Fingers that stand still before the target are `stalled`, which ends the goal as succeeded
    (allow_stalling of parallel_gripper_action_controller): on an object that is a grasp.
    """

    def __init__(self, node: Node, runner: CellRunner, name: str = 'gripper_controller') -> None:
        gripper = runner.cell.robot.gripper
        self._node, self._runner, self._joint, self._motion = node, runner, gripper.joints[0], gripper.motion
        self._current: object = None
        self._server = ActionServer(
            node, ParallelGripperCommand, f'{name}/gripper_cmd', self.execute, goal_callback=self.accept,
            cancel_callback=self.cancel, callback_group=ReentrantCallbackGroup(),
            result_timeout=RESULT_SECONDS)

    def accept(self, request: ParallelGripperCommand.Goal) -> GoalResponse:
        """Goal callback: only one position of the finger joint within its stroke is accepted."""
        command, ends = request.command, sorted((self._motion.positions[0], self._motion.positions[-1]))
        good = (list(command.name) in ([self._joint], []) and len(command.position) == 1
                and ends[0] - 1e-6 <= command.position[0] <= ends[1] + 1e-6)
        if not good:
            self._node.get_logger().warning(
                f'gripper command refused: wanted one position of {self._joint} in {ends} but '
                f'got {list(command.name)} {list(command.position)}')
        return GoalResponse.ACCEPT if good else GoalResponse.REJECT

    def cancel(self, handle: object) -> CancelResponse:
        """Cancel callback: always granted; the fingers keep their last target, and so what they hold."""
        return CancelResponse.ACCEPT

    def execute(self, handle: object) -> ParallelGripperCommand.Result:
        """Execute callback: blocks until the fingers arrive, stall, or a newer command takes over."""
        runner = self._runner
        with runner.lock:
            runner.set_opening_target(self._motion.opening(handle.request.command.position[0]))
            self._current = handle
        while runner.running and runner.gripper.active and self._current is handle:
            if handle.is_cancel_requested:
                with runner.lock:
                    runner.gripper.cancel()
                break
            with runner.lock:
                runner.lock.wait(FEEDBACK_PERIOD)
            handle.publish_feedback(ParallelGripperCommand.Feedback(state=self._state()))
        gripper = runner.gripper
        mine = self._current is handle
        result = ParallelGripperCommand.Result(
            state=self._state(), stalled=mine and gripper.stalled, reached_goal=mine and gripper.reached)
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.stalled or result.reached_goal:
            handle.succeed()
        else:
            handle.abort()
        return result

    def _state(self) -> JointState:
        state = self._runner.state
        message = JointState(name=[self._joint], position=[self._motion.position(state.opening)])
        message.header.stamp = to_stamp(state.stamp)
        return message
