"""The world of `plan_executor` without a simulator: joints, cameras' pulse, generator, tracker and controllers.

The arm never moves: a goal that arrives is the proof that a plan was accepted, and is kept in `goals`.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from control_msgs.action import FollowJointTrajectory, ParallelGripperCommand
from fakes.graph_operator import Operator
from fakes.panda import BASE_FRAME, JOINT_NAMES, urdf_text
from geo4d_interfaces.msg import Plan
from geo4d_interfaces.srv import Predict
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, JointState
from std_msgs.msg import String

from geo4d_ros.geometry.cameras import intrinsics
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.ros.serve.liveness import announce
from geo4d_ros.ros.serve.qos import IMAGE_QOS, SERVICE_QOS, STATE_QOS
from geo4d_ros.ros.wire.conversions import camera_info_message, to_nanoseconds, to_stamp
from geo4d_ros.ros.wire.plan_message import plan_message
from geo4d_ros.types import GripperTrack, TrackStatus

ARM, GRIPPER = '/joint_trajectory_controller/follow_joint_trajectory', '/gripper_controller/gripper_cmd'
NAMES = (*JOINT_NAMES, 'panda_finger_joint1', 'panda_finger_joint2')
FRAMES, STEP = 6, 0.015


class PlayedRobot:
    """Everything around the executor. edit_joints(message) -> message or a list of (publisher or None, message);
    edit_plan(message) -> what is published instead."""

    def __init__(self, operator: Operator) -> None:
        self.operator, self.goals = operator, []
        self.robot = RobotModel.from_urdf(urdf_text())
        self._count, self._live = itertools.count(), []
        node = self.node = operator.add(lambda **o: rclpy.create_node('played_cell', **o))
        self._joints = node.create_publisher(JointState, '/joint_states', 10)
        self._info = [node.create_publisher(CameraInfo, f'/camera{i}/camera{i}/color/camera_info', IMAGE_QOS)
                      for i in (1, 2)]
        self._description = node.create_publisher(String, '/robot_description', STATE_QOS)
        self._description.publish(String(data=urdf_text()))
        self.generator, self.tracker = (operator.add(lambda n=name, **o: rclpy.create_node(n, **o))
                                        for name in ('video_generator', 'gripper_tracker'))
        self._alive = [announce(self.generator), announce(self.tracker)]
        self._plan = self.tracker.create_publisher(Plan, '/geo4d/plan', STATE_QOS)
        self.generator.create_service(Predict, '/geo4d/predict', self._predict, qos_profile=SERVICE_QOS)
        self._controllers()
        self.normal()
        node.create_timer(0.02, self._tick)
        node.create_timer(0.1, self._look)

    def normal(self) -> None:
        """Nothing is bent."""
        self.edit_joints: Callable[[JointState], Any] = lambda message: message
        self.edit_plan: Callable[[Plan], Any] = lambda message: message

    def _tick(self) -> None:
        message = JointState(name=list(NAMES), position=[*self.robot.posture, 0.04, 0.04], velocity=[0.0] * len(NAMES))
        message.header.stamp = to_stamp(time.time_ns())
        bent = self.edit_joints(message)
        for publisher, out in bent if isinstance(bent, list) else [(None, bent)]:
            (publisher or self._joints).publish(out)

    def _look(self) -> None:
        for i, publisher in enumerate(self._info):
            publisher.publish(camera_info_message(intrinsics(60, 64, 48), 48, 64, time.time_ns(), f'optical{i}'))

    # --- generator and tracker ---

    def plan(self) -> Plan:
        """A good plan of now: a slide sideways."""
        stamp = time.time_ns()
        T = np.tile(self.robot.forward(self.robot.posture), (FRAMES, 1, 1))
        T[:, 1, 3] += STEP * np.arange(FRAMES)
        track = GripperTrack(T, np.full(FRAMES, 0.08), np.ones(FRAMES), (TrackStatus.OK,) * FRAMES)
        stamps = stamp + np.arange(FRAMES, dtype=np.int64) * 500_000_000
        return plan_message(f'{stamp}-{next(self._count)}', track, np.eye(4), stamps, BASE_FRAME)

    def _predict(self, request: Any, response: Any) -> Any:
        plan = self.plan()
        self._plan.publish(self.edit_plan(copy.deepcopy(plan)))
        return Predict.Response(success=True, plan_id=plan.id, stamp=to_stamp(to_nanoseconds(plan.header.stamp)),
                                generator='played', frames=FRAMES)

    # --- controllers ---

    def _controllers(self) -> None:
        node = self.operator.add(lambda **o: rclpy.create_node('played_controllers', **o))
        self._servers = [ActionServer(node, kind, name, execute_callback=self._execute,
                                      goal_callback=lambda goal, n=name: self._goal(n),
                                      cancel_callback=lambda handle: CancelResponse.ACCEPT)
                         for kind, name in ((FollowJointTrajectory, ARM), (ParallelGripperCommand, GRIPPER))]
        node.create_timer(0.05, self._feed_back)

    def _goal(self, name: str) -> GoalResponse:
        self.goals.append((time.monotonic(), name))
        return GoalResponse.ACCEPT

    async def _execute(self, handle: Any) -> Any:
        ended = Future(executor=self.operator.executor)
        self._live.append((handle, ended))
        await ended
        handle.canceled() if handle.is_cancel_requested else handle.abort()
        arm = hasattr(handle.request, 'trajectory')
        return FollowJointTrajectory.Result() if arm else ParallelGripperCommand.Result()

    def _feed_back(self) -> None:
        for entry in list(self._live):
            handle, ended = entry
            if handle.is_cancel_requested:
                self._live.remove(entry)
                ended.set_result(None)
            elif hasattr(handle.request, 'trajectory'):
                feedback = FollowJointTrajectory.Feedback(joint_names=handle.request.trajectory.joint_names)
                feedback.error.positions = [0.0] * len(feedback.joint_names)
                handle.publish_feedback(feedback)
