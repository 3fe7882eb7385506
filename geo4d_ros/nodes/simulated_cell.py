"""The node `simulated_cell`: a robot cell on topics, services and actions, as a real one would be."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rclpy._rclpy_pybind11 import RCLError
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_srvs.srv import Trigger

from geo4d_ros.errors import Geo4dError, NodeFailure
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.registry import DEFAULT, load_robot
from geo4d_ros.ros.serve import diagnostics
from geo4d_ros.ros.serve.liveness import announce
from geo4d_ros.ros.serve.parameters import NodeParameters, parameter
from geo4d_ros.ros.serve.spin import leave, run_node
from geo4d_ros.ros.simulated_robot.cell_publishers import CameraPublisher, RobotPublisher
from geo4d_ros.ros.simulated_robot.joint_trajectory_server import GripperServer, JointTrajectoryServer
from geo4d_ros.ros.wire.guard import Boundary
from geo4d_ros.simulation.camera_feed import CameraFeed
from geo4d_ros.simulation.cameras import SPLITS, sample_cameras
from geo4d_ros.simulation.cell import make_cell
from geo4d_ros.simulation.noise import NOISE_MODELS
from geo4d_ros.simulation.runner import CellRunner
from geo4d_ros.simulation.tasks import TASKS

WIDTH, HEIGHT = 640, 480


@dataclass(frozen=True)
class CellParameters:
    """Parameters of the node; `task` and `seed` take effect on the next /geo4d/cell/reset."""

    task: str = parameter('apple', 'Task of the cell, taken on reset.', choices=tuple(TASKS))
    robot: str = parameter(DEFAULT, 'Name of a described robot, or its YAML file.', read_only=True)
    seed: int = parameter(500000, 'Seed of the scene, taken on reset.', minimum=0, maximum=2**31 - 1)
    cameras: str = parameter('held-out', 'Region of the camera rig.', choices=SPLITS, read_only=True)
    camera_seed: int = parameter(0, 'Seed of the two camera poses.', minimum=0, maximum=2**31 - 1, read_only=True)
    camera_rate: float = parameter(6.0, 'Image rate of both cameras [Hz].', minimum=0.1, maximum=30.0, read_only=True)
    noise: str = parameter('none', 'Depth noise model.', choices=NOISE_MODELS, read_only=True)
    realtime_factor: float = parameter(1.0, 'Speed of the simulated clock; 0 = as fast as possible.',
                                       minimum=0.0, maximum=100.0, read_only=True)
    reference_camera: str = parameter('camera1/camera1', 'Namespace of the first camera.', read_only=True)
    second_camera: str = parameter('camera2/camera2', 'Namespace of the second camera.', read_only=True)
    path_tolerance: float = parameter(0.1, 'Joint error that aborts a trajectory [rad].', minimum=0.001,
                                      maximum=1.0, read_only=True)
    goal_tolerance: float = parameter(0.01, 'Joint error allowed at the goal [rad].', minimum=0.0005,
                                      maximum=0.5, read_only=True)


class SimulatedCell(Node):
    """One process owns the simulator: a thread steps it, a thread renders, the executor serves requests."""

    robot_publisher, camera_publisher = RobotPublisher, CameraPublisher
    arm_server, gripper_server = JointTrajectoryServer, GripperServer

    def __init__(self) -> None:
        super().__init__('simulated_cell')
        self.parameters = NodeParameters(self, CellParameters)
        p = self.parameters.values
        robot = load_robot(p.robot)
        self.runner = CellRunner(lambda: make_cell(p.task, p.seed, robot=robot), p.realtime_factor)
        self._robot_publisher = self.robot_publisher(self, self.runner.cell.robot, self.runner.link_names)
        self.runner.on_state = self._unless_ending(self._robot_publisher.publish)
        cameras = sample_cameras(np.random.default_rng(p.camera_seed), 2, p.cameras, WIDTH, HEIGHT)
        namespaces = (p.reference_camera, p.second_camera)
        self._camera_publisher = self.camera_publisher(self, cameras, namespaces, self.runner.cell.robot.base_frame)
        self._feed = CameraFeed(self.runner, cameras, p.camera_rate, p.noise,
                                self._unless_ending(self._camera_publisher.publish))
        self._arm = self.arm_server(self, self.runner, self.runner.cell.robot.joints, p.path_tolerance,
                                    p.goal_tolerance)
        self._gripper = self.gripper_server(self, self.runner)
        boundary = Boundary(self, diagnostics.Diagnostics(self))
        self._resetting = threading.Lock()
        # One reset at a time; the others hear so at once instead of waiting in a row.
        boundary.service(Trigger, 'geo4d/cell/reset', self._reset, _failed, callback_group=ReentrantCallbackGroup())
        boundary.service(Trigger, 'geo4d/cell/status', self._status, _failed)
        self._alive = announce(self)
        # On the steady clock: a stopped simulation must still be noticed.
        self.create_timer(0.25, self._check_threads, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.runner.start()
        self._feed.start()
        self.get_logger().info(f'task {p.task}, seed {p.seed}, {p.cameras} cameras {p.camera_seed}')

    def _unless_ending(self, publish: Callable[..., None]) -> Callable[..., None]:
        """The threads outlive the ROS context by a moment when the process is told to end."""
        def publish_while_alive(*args: object) -> None:
            try:
                publish(*args)
            except RCLError:
                if self.context.ok():
                    raise
        return publish_while_alive

    def _check_threads(self) -> None:
        if self._feed.error is not None:
            raise NodeFailure(f'the cameras stopped: {self._feed.error}')
        if not self.runner.running:
            raise NodeFailure('the simulation thread stopped; see the log above')

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        p = self.parameters.values
        if not self._resetting.acquire(blocking=False):
            response.success, response.message = False, Refusal(Reason.BUSY, 'a reset is under way').message
            return response
        try:
            self.runner.reset(lambda: make_cell(p.task, p.seed, robot=self.runner.cell.robot))
            response.success, response.message = True, json.dumps({'task': p.task, 'seed': p.seed})
        except Geo4dError as error:
            response.success, response.message = False, str(error)
        finally:
            self._resetting.release()
        return response

    def _status(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        status = self.runner.call(self.runner.cell.status)
        status['stamp'] = self.runner.state.stamp
        response.success, response.message = True, json.dumps(status)
        return response

    def close(self) -> None:
        """Stop the threads before the publishers they use are gone."""
        self._feed.close()
        self.runner.close()


def _failed(response: Trigger.Response, cause: str) -> Trigger.Response:
    response.success, response.message = False, cause
    return response


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable `simulated_cell`."""
    os.environ.setdefault('MUJOCO_GL', 'egl')
    # All is closed by then; what Mesa and MuJoCo do at the interpreter's end crashes one time in ten (signal 11).
    leave(run_node(SimulatedCell, args, threads=6))


if __name__ == '__main__':
    sys.exit(main())
