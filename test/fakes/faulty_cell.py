"""The simulated cell with sensors and controllers that can be told to fail, by the parameter `fault`.

What it did and when (steady clock) goes out on /faulty_cell/log as JSON; the true joint states on
/faulty_cell/joint_states. None of this exists in the package: the real executable has no such parameter.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace

import numpy as np
from control_msgs.action import FollowJointTrajectory, ParallelGripperCommand
from rcl_interfaces.msg import SetParametersResult
from rclpy.action import CancelResponse, GoalResponse
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from geo4d_ros.nodes.simulated_cell import SimulatedCell
from geo4d_ros.robots.registry import load_robot
from geo4d_ros.ros.serve.spin import run_node
from geo4d_ros.ros.simulated_robot.cell_publishers import CameraPublisher, RobotPublisher
from geo4d_ros.ros.simulated_robot.joint_trajectory_server import GripperServer, JointTrajectoryServer
from geo4d_ros.ros.wire.conversions import image_message, to_stamp
from geo4d_ros.simulation.controllers import Outcome

LATE = 1_000_000_000  # [ns]
BACK = 5_000_000_000  # [ns]


class FaultyRobotPublisher(RobotPublisher):
    """clock_back, joints_*, gripper_joint_silent, transform_missing, transform_future, description_changed."""

    def __init__(self, node, robot, links):
        super().__init__(node, robot, links)
        self.node = node
        self.stranger = None  # a second publisher of the joint states, when it is wanted
        self.truth = node.create_publisher(JointState, '/faulty_cell/joint_states', 10)

    def publish_clock(self, stamp):
        super().publish_clock(stamp - (BACK if self.node.fault == 'clock_back' else 0))

    def publish_joints(self, state):
        self.truth.publish(JointState(name=[str(i) for i in range(7)], position=state.q.tolist(),
                                      velocity=state.dq.tolist()))
        if self.node.fault != 'joints_stall':
            super().publish_joints(state)
        if self.node.fault == 'joints_two_sources':
            self.stranger = self.stranger or self.node.create_publisher(JointState, '/joint_states', 10)
            message = self.joint_message(state)
            message.position[0] += 0.3
            self.stranger.publish(message)
        elif self.stranger is not None:
            self.node.destroy_publisher(self.stranger)
            self.stranger = None

    def joint_message(self, state):
        message = super().joint_message(state)
        fault = self.node.fault
        if fault == 'joints_no_positions':
            message.position = []
        if fault == 'joints_nan':
            message.position[3] = float('nan')
        if fault == 'joints_velocity_nan':
            message.velocity[2] = float('nan')
        if fault == 'joints_doubled':
            message.name[1] = message.name[0]
        if fault == 'gripper_joint_silent':
            message.name, message.position, message.velocity = (
                list(values)[:7] for values in (message.name, message.position, message.velocity))
        return message

    def publish_transforms(self, state):
        if self.node.fault == 'transform_future':
            state = replace(state, stamp=state.stamp + 100_000_000_000)
        if self.node.fault != 'transform_missing':
            super().publish_transforms(state)

    def describe(self, changed):
        """The robot's description, or that of another one."""
        text = load_robot('panda').urdf_text
        self._description.publish(String(data=text.replace('effort="87"', 'effort="86"', 1) + '\n<!-- another -->'
                                         if changed else text))


class FaultyCameraPublisher(CameraPublisher):
    """Everything a camera can do wrong."""

    def __init__(self, node, cameras, namespaces, base_frame):
        super().__init__(node, cameras, namespaces, base_frame)
        self.node, self.poses = node, [camera.T_base_camera for camera in cameras]
        self.frozen = None

    def publish(self, stamp, views):
        fault = self.node.fault
        self.frozen = (self.frozen or [(rgb.copy(), depth) for rgb, depth in views]) if fault == 'frozen' else None
        views = self.frozen or views
        if fault == 'swapped':
            views = views[::-1]
        if fault == 'late':
            stamp -= LATE
        if fault in ('camera_a_dead', 'camera_b_dead'):
            index = 1 if fault == 'camera_a_dead' else 0
            for topic, message in zip(self._publishers[index], self.messages(index, stamp, *views[index]), strict=True):
                topic.publish(message)
            return
        super().publish(stamp, views)

    def messages(self, index, stamp, rgb, depth):
        fault = self.node.fault
        colour, millimetres, info = super().messages(
            index, stamp, rgb, np.zeros_like(depth) if fault == 'zero_depth' else depth)
        if fault == 'nan_depth':
            millimetres = image_message(np.full_like(depth, np.nan), stamp, self._frames[index])
        if fault == 'wrong_encoding':
            colour.encoding = 'yuv422'
        if fault == 'no_intrinsics':
            info.k = [0.0] * 9
        if fault == 'lens_unknown':
            info.distortion_model, info.d = 'equidistant', [-0.3, 0.1, 0.0, 0.0]
        if fault == 'binning':
            info.binning_x = info.binning_y = 2
        if fault == 'region_of_interest':
            info.roi.x_offset, info.roi.width, info.roi.height = 16, 320, 240
        if fault == 'depth_not_aligned':
            millimetres.header.frame_id = f'camera{index + 1}_depth_optical_frame'
        if fault == 'depth_unit':
            counts = np.clip(np.rint(depth * 10000), 0, 65535).astype(np.uint16)
            millimetres = image_message(counts, stamp, self._frames[index])
        if fault == 'image_cut':
            colour.data = colour.data[:-640]
        if fault == 'future':
            for message in (colour, millimetres, info):
                message.header.stamp = to_stamp(stamp + 5_000_000_000)
        return colour, millimetres, info


SILENT_OR_LYING = ('execution_hangs', 'execution_endless', 'feedback_nan', 'feedback_empty')


class FaultyArm(JointTrajectoryServer):
    """goal_rejected, execution_aborted, execution_hangs (silent), execution_endless (talks on), deaf (to cancel)."""

    def __init__(self, node, *options):
        super().__init__(node, *options)
        self.node = node

    def accept(self, request):
        self.node.log('goal', points=len(request.trajectory.points))
        return GoalResponse.REJECT if self.node.fault == 'goal_rejected' else super().accept(request)

    def cancel(self, handle):
        self.node.log('cancel')
        return CancelResponse.ACCEPT if self.node.fault == 'deaf' else super().cancel(handle)

    def execute(self, handle):
        while self.node.fault in SILENT_OR_LYING and not handle.is_cancel_requested:
            feedback = self._feedback()
            if self.node.fault == 'feedback_nan':
                feedback.error.positions = [0.0] * 6 + [float('nan')]
            if self.node.fault == 'feedback_empty':
                feedback = FollowJointTrajectory.Feedback()
            if self.node.fault != 'execution_hangs':
                handle.publish_feedback(feedback)
            time.sleep(0.05)
        if handle.is_cancel_requested:
            handle.canceled()
            return FollowJointTrajectory.Result()
        if self.node.fault == 'execution_aborted':
            handle.abort()
            return FollowJointTrajectory.Result(
                error_code=FollowJointTrajectory.Result.PATH_TOLERANCE_VIOLATED, error_string='injected')
        return super().execute(handle)

    def abort(self):
        with self._runner.lock:
            self._runner.trajectory.stop(Outcome.PATH_TOLERANCE_VIOLATED, 'injected', self._runner.now)
            self._runner.lock.notify_all()


class FaultyGripper(GripperServer):
    """gripper_fails: neither arrives nor stalls."""

    def __init__(self, node, *options):
        super().__init__(node, *options)
        self.node = node

    def execute(self, handle):
        if self.node.fault == 'gripper_fails':
            handle.abort()
            return ParallelGripperCommand.Result()
        return super().execute(handle)


class FaultyCell(SimulatedCell):
    """The real node around them."""

    robot_publisher, camera_publisher = FaultyRobotPublisher, FaultyCameraPublisher
    arm_server, gripper_server = FaultyArm, FaultyGripper
    fault = 'none'

    def __init__(self):
        super().__init__()
        self._log = self.create_publisher(String, '/faulty_cell/log', 50)
        self.declare_parameter('fault', 'none')
        self.add_on_set_parameters_callback(self.set_fault)

    def set_fault(self, parameters):
        for parameter in parameters:
            if parameter.name == 'fault':
                self.fault = parameter.value
                self.log('fault', fault=self.fault)
                self._robot_publisher.describe(self.fault == 'description_changed')
                poses = self._camera_publisher.poses
                self._camera_publisher.publish_poses([poses[0]] * 2 if self.fault == 'transform_identity' else poses)
                if self.fault == 'execution_aborted':
                    self._arm.abort()
        return SetParametersResult(successful=True)

    def log(self, event, **values):
        self._log.publish(String(data=json.dumps({'event': event, 'time': time.monotonic(), **values})))


if __name__ == '__main__':
    os.environ.setdefault('MUJOCO_GL', 'egl')
    sys.exit(run_node(FaultyCell, sys.argv[1:], threads=6))
