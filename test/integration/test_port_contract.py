"""What the driver counts on, of both ports: the simulated one, and the robot's over DDS with the fakes."""

import os
import time
from dataclasses import replace
from types import SimpleNamespace

os.environ.setdefault('MUJOCO_GL', 'egl')

import numpy as np
import pytest
import rclpy
from fakes.graph import PATIENT, new_group, start_prediction
from fakes.prediction import SlidingTracker, StillGenerator
from rclpy.executors import SingleThreadedExecutor

from geo4d_ros.loop.port import Predicted
from geo4d_ros.motion.collision import Scene
from geo4d_ros.motion.gripper_segments import GripperSegment
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import RobotState, TimedMotion, plan_trajectory
from geo4d_ros.ros.serve.lifecycle import bring_up
from geo4d_ros.types import Plan

PATIENCE = 90.0  # [s]
LIMITS = replace(MotionLimits(), joint_state_age=1.0, future_tolerance=0.5, plan_age=600.0)


class Simulated:
    """A real cell; time goes on in `advance`."""

    def __init__(self):
        from fakes import panda

        from geo4d_ros.evaluation.closed_loop.cell_rig import CellRig, episode_cameras
        from geo4d_ros.robots.kinematics import RobotModel
        from geo4d_ros.simulation.cell import Cell
        from geo4d_ros.simulation.port import SimulatedPort

        cell = Cell('apple', 510_000)
        node = SimpleNamespace(get_parameter=lambda name: SimpleNamespace(value='none'),
                               context=SimpleNamespace(ok=lambda: True))
        self.rig = CellRig(cell.model, episode_cameras(510_000, 'held-out', (120, 160)))
        self.port = SimulatedPort(cell, self.rig, StillGenerator(node), SlidingTracker(node),
                                  RobotModel.from_urdf(panda.urdf_text()))
        self.advance = self.port.advance

    def close(self):
        self.rig.close()


class Real:
    """The executor's own port in this process, its world in others."""

    def __init__(self, folder):
        self.before = dict(os.environ)
        self.group, domain_id = new_group(folder)
        os.environ.update({k: v for k, v in self.group.environment.items() if k.startswith(('ROS_', 'RMW_', 'FAST'))})
        self.group.__enter__()
        self.group.start_node('simulated_cell', {'camera_rate': 4.0})
        start_prediction(self.group)
        options = {'use_sim_time': True, 'dry_run': False, **PATIENT}
        arguments = [a for k, v in options.items() for a in ('-p', f'{k}:={str(v).lower()}')]
        rclpy.init(args=['--ros-args', *arguments], domain_id=domain_id)
        from geo4d_ros.nodes.plan_executor import PlanExecutor

        self.node = PlanExecutor()
        bring_up(self.node)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.port = self.node.port
        self.port.limits = replace(self.port.limits, pair_age=5.0, future_tolerance=0.5)
        self.port.scene = Scene.table()

    def advance(self):
        self.executor.spin_once(timeout_sec=0.05)

    def close(self):
        self.node.close()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown()
        self.group.__exit__(None, None, None)
        os.environ.clear()
        os.environ.update(self.before)


@pytest.fixture(scope='module', params=['simulation', 'ros'])
def cell(request, tmp_path_factory):
    made = Simulated() if request.param == 'simulation' else Real(tmp_path_factory.mktemp('logs'))
    end = time.monotonic() + PATIENCE
    while made.port.model is None or made.port.ready(moves=True) is not None:
        assert time.monotonic() < end, made.port.ready(moves=True)
        made.advance()
    yield made
    made.close()


def until(cell, condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'it did not happen'
        cell.advance()


def a_move(cell):
    """The first motion of a slide sideways."""
    port = cell.port
    until(cell, lambda: port.at_rest(0.0) and isinstance(port.robot_state(None), RobotState))
    state = port.robot_state(None)
    T_start = port.model.forward(state.q)
    T = np.tile(T_start, (4, 1, 1))
    T[:, 2, 3] += 0.015 * np.arange(1, 5)
    plan = Plan('p', T, np.full(4, state.opening), 0.5 * np.arange(1, 5), state.stamp, T_start, state.opening,
                np.ones(4))
    motion = plan_trajectory(plan, state, LIMITS, port.scene, port.model, state.stamp)
    assert isinstance(motion, TimedMotion), motion
    return motion.segments[0]


def test_a_robot_that_stands_is_known(cell):
    until(cell, lambda: cell.port.at_rest(0.0))
    state = cell.port.robot_state(True)
    assert isinstance(state, RobotState) and state.gripper_closed is True
    assert np.isfinite(state.q).all() and np.isfinite(state.dq).all() and 0 <= state.opening <= 0.081
    before = cell.port.clock()
    assert not cell.port.at_rest(before)  # nothing was measured since
    until(cell, lambda: cell.port.at_rest(before))
    assert cell.port.clock() > before and cell.port.health() is None and not cell.port.stop_asked()


def test_a_look_a_prediction_and_its_plan_are_answered_once(cell):
    port, looks, predictions, plans = cell.port, [], [], []
    since = port.stamp()
    port.observe(looks.append)
    until(cell, lambda: looks)
    port.predict(predictions.append)
    until(cell, lambda: predictions)
    assert isinstance(predictions[0], Predicted), predictions
    assert predictions[0].stamp >= since - 1_000_000_000
    port.track(predictions[0], plans.append)
    until(cell, lambda: plans)
    assert isinstance(plans[0], Plan), plans
    assert (plans[0].id, plans[0].observation_stamp) == (predictions[0].plan_id, predictions[0].stamp)
    for _ in range(5):
        cell.advance()
    assert looks == [None] and len(predictions) == len(plans) == 1


def test_a_motion_ends_where_it_should(cell):
    segment, ends = a_move(cell), []
    cell.port.move(segment, ends.append)
    assert not ends
    until(cell, lambda: ends)
    assert ends == [None]
    until(cell, lambda: cell.port.at_rest(0.0))
    assert np.abs(cell.port.robot_state(None).q - segment.q[-1]).max() < 0.02


def test_nothing_is_answered_after_a_stop_and_the_arm_stands(cell):
    segment, ends = a_move(cell), []
    cell.port.move(segment, ends.append)
    until(cell, lambda: not cell.port.at_rest(0.0))
    cell.port.stop(None)
    stopped = cell.port.clock()
    until(cell, lambda: cell.port.at_rest(stopped))
    for _ in range(10):
        cell.advance()
    assert ends == []
    assert np.abs(cell.port.robot_state(None).q - segment.q[-1]).max() > 0.005


def test_the_gripper_closes_and_opens(cell):
    for target, closing in ((0.0, True), (0.08, False)):
        ends = []
        cell.port.grip(GripperSegment(target, closing, 0.0), ends.append)
        until(cell, lambda ends=ends: ends)
        assert ends == [None]
