"""The real nodes as processes over DDS: one cycle by services, an operator's stop, and each node killed in turn."""

import os

import numpy as np
import pytest
from fakes.graph import new_group, start_executor, start_loop, start_prediction
from fakes.panda import JOINT_NAMES, urdf_text

from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.ros.graph.probe import LoopProbe

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')
# A motion lasts seven seconds, so that it can be interrupted half way.
SLOW = {'speed': 0.015, 'predict_seconds': 15.0}
PATIENCE = 60.0  # [s] for whatever should happen within a second on an idle machine
PLAN_LENGTH = 0.1  # [m] the fake prediction slides the gripper


@pytest.fixture(scope='module')
def graph(tmp_path_factory):
    group, domain_id = new_group(tmp_path_factory.mktemp('logs'))
    os.environ.update({k: v for k, v in group.environment.items() if k.startswith(('ROS_', 'RMW_', 'FAST'))})
    with group:
        start_loop(group, **SLOW)
        with LoopProbe(domain_id) as probe:
            yield group, probe


@pytest.fixture(scope='module')
def robot():
    return RobotModel.from_urdf(urdf_text())


def tool(robot, probe):
    return robot.forward(np.array([probe.joints[name] for name in JOINT_NAMES]))[:3, 3]


def begin(graph):
    """Put the loop into the middle of a motion."""
    group, probe = graph
    group.check()
    probe.call('/geo4d/reset')
    assert probe.wait_for_phase('IDLE', 'DONE', seconds=PATIENCE), probe.state
    probe.begin(seconds=PATIENCE)
    assert probe.wait_for(lambda: probe.state['state'] == 'EXECUTING' and probe.speed > 0.02, PATIENCE), probe.state


def complete_a_cycle(probe):
    """Within three tries: to a peer that was just restarted the first request may get lost."""
    for _ in range(3):
        probe.begin('/geo4d/step', PATIENCE)
        assert probe.wait_for(lambda: probe.state['state'] in ('DONE', 'FAULT'), PATIENCE), probe.state
        if probe.state['reason'] == 'STEP_DONE':
            return
    raise AssertionError(probe.state)


def wait_for_rest(probe):
    probe.spin(0.3)
    assert probe.wait_for(lambda: probe.speed < 0.005, PATIENCE), probe.speed


def test_one_cycle_by_services(graph, robot):
    group, probe = graph
    probe.begin('/geo4d/step', PATIENCE)
    before = tool(robot, probe)
    assert probe.wait_for_phase('DONE', seconds=PATIENCE), probe.state
    assert probe.state['reason'] == 'STEP_DONE'
    assert abs(np.linalg.norm(tool(robot, probe) - before) - PLAN_LENGTH) < 0.01
    group.check()


def test_a_normal_start_cannot_be_told_to_fail(graph):
    _, probe = graph
    for node in ('/simulated_cell', '/plan_executor'):
        assert not probe.set_parameter(node, 'fault', 'frozen')


def test_operator_stop_in_the_middle_of_a_motion(graph, robot):
    _, probe = graph
    begin(graph)
    start = tool(robot, probe)
    accepted, _ = probe.call('/geo4d/stop')
    assert accepted
    assert probe.wait_for_phase('IDLE', seconds=PATIENCE), probe.state
    assert probe.state['reason'] == 'OPERATOR_STOP'
    wait_for_rest(probe)
    assert np.linalg.norm(tool(robot, probe) - start) < PLAN_LENGTH / 2


def test_killed_prediction_stops_the_arm_and_the_loop_recovers(graph, robot):
    group, probe = graph
    begin(graph)
    start = tool(robot, probe)
    group.kill('prediction')
    assert probe.wait_for_phase('FAULT', seconds=PATIENCE), probe.state
    assert probe.state['reason'] == 'PEER_DEAD'
    wait_for_rest(probe)
    assert np.linalg.norm(tool(robot, probe) - start) < PLAN_LENGTH / 2
    assert probe.wait_for(lambda: any('PEER_DEAD' in text for _, _, text in probe.errors), PATIENCE), probe.errors
    accepted, reply = probe.call('/geo4d/start')
    assert not accepted and reply['code'] == 'NOT_ALLOWED_NOW', reply
    start_prediction(group)
    assert probe.call('/geo4d/reset')[0]
    complete_a_cycle(probe)


def test_killed_executor_leaves_no_motion_behind(graph, robot):
    group, probe = graph
    begin(graph)
    start = tool(robot, probe)
    group.kill('plan_executor')
    assert probe.wait_for_phase('FAULT', seconds=PATIENCE), probe.state
    assert probe.state['detail'] == 'the executor died; its motion was cancelled'
    wait_for_rest(probe)
    assert np.linalg.norm(tool(robot, probe) - start) < PLAN_LENGTH / 2
    group.check()
    start_executor(group, **SLOW)
    complete_a_cycle(probe)


def test_killed_cell_is_reported(graph):
    group, probe = graph
    begin(graph)
    group.kill('simulated_cell')
    assert probe.wait_for_phase('FAULT', seconds=PATIENCE), probe.state
    assert probe.state['reason'] in ('BACKEND_UNAVAILABLE', 'JOINT_STATES_STALLED', 'CAMERA_SILENT',
                                     'STOP_NOT_CONFIRMED'), probe.state
    group.check()


def test_everything_ends_cleanly(graph):
    group, _ = graph
    failed = {name: (code, (group.log_directory / f'{name}.log').read_text()[-2000:])
              for name, code in group.close().items() if code}
    assert not failed
