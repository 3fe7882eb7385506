"""A stand-in for MoveIt's move_group with the real interface types and the documented manners of Jazzy.

As there: success is reported for any fraction of a Cartesian path, speed limits and jump thresholds are ignored,
the cancel of an execution is accepted and changes nothing, and only the stop event stops. The parameter
`fault` adds: partial, empty, jump, fast, stray, reject, abort, hang (accepts and does nothing), deaf (ignores the
stop event too), slow (compute_cartesian_path never answers).
"""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
from action_msgs.srv import CancelGoal
from control_msgs.action import FollowJointTrajectory
from moveit_msgs.action import ExecuteTrajectory
from moveit_msgs.msg import CollisionObject, MoveItErrorCodes
from moveit_msgs.srv import GetCartesianPath
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from std_msgs.msg import String

from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.robots.registry import load_robot
from geo4d_ros.ros.serve.spin import run_node
from geo4d_ros.ros.wire.conversions import read_pose
from geo4d_ros.ros.wire.trajectory_messages import to_message

CONTROLLER = '/joint_trajectory_controller/follow_joint_trajectory'


def cartesian_path(robot: RobotModel, q: np.ndarray, poses: list[np.ndarray]) -> np.ndarray:
    """Joint positions (n + 1, j) through the poses."""
    path = [q]
    for pose in poses:
        path.append(robot.inverse(pose, path[-1]).q)
    return np.array(path)


def distort(path: np.ndarray, fault: str) -> tuple[np.ndarray, float]:
    """The path and the fraction as a misbehaving MoveIt would return them."""
    if fault == 'partial':
        kept = max(2, len(path) // 2)
        return path[:kept], (kept - 1) / (len(path) - 1)
    if fault == 'empty':
        return path[:0], 0.0
    path = path.copy()
    if fault == 'jump':
        path[len(path) // 2:, 6] += 1.0
    if fault == 'stray':
        path[:, 0] += np.linspace(0, 0.1, len(path))
    return path, 1.0


class FakeMoveGroup(Node):
    """compute_cartesian_path, execute_trajectory, trajectory_execution_event, collision_object."""

    def __init__(self) -> None:
        super().__init__('move_group')
        self.declare_parameter('fault', 'none')
        self.robot = RobotModel.from_urdf(load_robot('panda').urdf_text)
        self.objects, self.stopped = [], threading.Event()
        group = ReentrantCallbackGroup()
        self.controller = ActionClient(self, FollowJointTrajectory, CONTROLLER, callback_group=group)
        self.cancel_client = self.create_client(CancelGoal, f'{CONTROLLER}/_action/cancel_goal', callback_group=group)
        self.create_service(GetCartesianPath, '/compute_cartesian_path', self.compute, callback_group=group)
        self.create_subscription(String, '/trajectory_execution_event', self.on_event, 1, callback_group=group)
        self.create_subscription(CollisionObject, '/collision_object', self.objects.append, 10, callback_group=group)
        self.server = ActionServer(
            self, ExecuteTrajectory, '/execute_trajectory', self.execute, callback_group=group,
            goal_callback=lambda goal: GoalResponse.REJECT if self.fault == 'reject' else GoalResponse.ACCEPT,
            cancel_callback=lambda handle: CancelResponse.ACCEPT)  # and nothing else: moveit2 #2808

    @property
    def fault(self) -> str:
        return self.get_parameter('fault').value

    def compute(self, request: GetCartesianPath.Request, response: GetCartesianPath.Response):
        while self.fault == 'slow' and self.context.ok():
            time.sleep(0.05)
        q = np.array(request.start_state.joint_state.position)
        path, response.fraction = distort(
            cartesian_path(self.robot, q, [read_pose(pose) for pose in request.waypoints]), self.fault)
        pace = 0.002 if self.fault == 'fast' else 0.05
        response.solution.joint_trajectory = to_message(self.robot.joint_names, pace * np.arange(len(path)), path)
        response.error_code.val = MoveItErrorCodes.SUCCESS  # whatever the fraction: moveit2 #2404
        return response

    def on_event(self, message: String) -> None:
        if message.data == 'stop' and self.fault != 'deaf':
            self.stopped.set()
            self.cancel_client.call_async(CancelGoal.Request())

    def execute(self, handle) -> ExecuteTrajectory.Result:
        self.stopped.clear()
        result = ExecuteTrajectory.Result()
        while self.fault == 'hang' and not self.stopped.is_set() and self.context.ok():
            time.sleep(0.05)
        if self.fault == 'abort' or self.stopped.is_set():
            result.error_code.val = MoveItErrorCodes.CONTROL_FAILED
            handle.abort()
            return result
        ended = threading.Event()
        goal = FollowJointTrajectory.Goal(trajectory=handle.request.trajectory.joint_trajectory)
        codes: list[int] = []

        def finished(future) -> None:
            codes.append(future.result().result.error_code)
            ended.set()

        def answered(future) -> None:
            if future.result().accepted:
                future.result().get_result_async().add_done_callback(finished)
            else:
                ended.set()

        # Action calls belong to the executor's thread.
        self.executor.create_task(lambda: self.controller.send_goal_async(goal).add_done_callback(answered))
        while not ended.wait(0.05) and not self.stopped.is_set() and self.context.ok():
            pass
        good = codes == [FollowJointTrajectory.Result.SUCCESSFUL] and not self.stopped.is_set()
        result.error_code.val = MoveItErrorCodes.SUCCESS if good else MoveItErrorCodes.CONTROL_FAILED
        (handle.succeed if good else handle.abort)()
        return result


if __name__ == '__main__':
    sys.exit(run_node(FakeMoveGroup, sys.argv[1:], threads=4))
