"""The executor's lifecycle over DDS: not active it refuses every goal and moves nothing; deactivated it stops."""

import pytest
from fakes.graph import new_group, start_executor, start_prediction
from geo4d_interfaces.action import RunTask
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action import ActionClient

from geo4d_ros.ros.graph.probe import LoopProbe

PATIENCE = 60.0


class Operator:
    """Changes the states of a node and gives it goals."""

    def __init__(self, probe, node):
        self.probe = probe
        self.change = probe.node.create_client(ChangeState, f'{node}/change_state')
        self.get = probe.node.create_client(GetState, f'{node}/get_state')
        self.run = ActionClient(probe.node, RunTask, 'geo4d/run')
        assert probe.wait_for(lambda: self.change.service_is_ready() and self.get.service_is_ready(), PATIENCE)
        probe.spin(0.5)

    def ask(self, future):
        assert self.probe.wait_for(future.done, PATIENCE)
        return future.result()

    def take(self, transition):
        return self.ask(self.change.call_async(ChangeState.Request(transition=Transition(id=transition)))).success

    @property
    def state(self):
        return self.ask(self.get.call_async(GetState.Request())).current_state.id

    def goal(self):
        assert self.probe.wait_for(self.run.server_is_ready, PATIENCE)
        self.probe.spin(0.5)
        return self.ask(self.ask(self.run.send_goal_async(RunTask.Goal())).get_result_async()).result


@pytest.fixture(scope='module')

def probe(tmp_path_factory):
    group, domain_id = new_group(tmp_path_factory.mktemp('logs'))
    with group, LoopProbe(domain_id) as probe:
        group.start_node('simulated_cell', {'camera_rate': 4.0})
        start_prediction(group)
        start_executor(group, autostart=False)
        assert probe.wait_for(lambda: probe.predict(PATIENCE)[0], PATIENCE)
        yield probe
        group.check()
        assert set(group.close().values()) == {0}


def test_from_unconfigured_to_a_motion_and_back(probe):
    executor = Operator(probe, 'plan_executor')
    assert executor.state == State.PRIMARY_STATE_UNCONFIGURED and not executor.run.server_is_ready()
    assert executor.take(Transition.TRANSITION_CONFIGURE) and executor.state == State.PRIMARY_STATE_INACTIVE
    probe.spin(1.0)
    before = dict(probe.joints)
    assert executor.goal().reason == 'NODE_INACTIVE'
    accepted, answer = probe.call('geo4d/start', PATIENCE)
    assert not accepted and answer['code'] == 'NODE_INACTIVE'
    probe.spin(1.0)
    assert probe.joints == pytest.approx(before, abs=1e-3)

    assert executor.take(Transition.TRANSITION_ACTIVATE) and executor.state == State.PRIMARY_STATE_ACTIVE
    probe.begin('geo4d/start', PATIENCE)
    assert probe.wait_for(lambda: probe.speed > 0.01, PATIENCE)
    assert executor.take(Transition.TRANSITION_DEACTIVATE)
    assert probe.wait_for(lambda: probe.state.get('reason') == 'OPERATOR_STOP'
                          and probe.state.get('state') == 'IDLE', PATIENCE)
    probe.spin(0.5)
    assert probe.speed < 0.01
    assert probe.call('geo4d/start', PATIENCE)[1]['code'] == 'NODE_INACTIVE'

    assert executor.take(Transition.TRANSITION_CLEANUP) and executor.state == State.PRIMARY_STATE_UNCONFIGURED
    assert probe.wait_for(lambda: not executor.run.server_is_ready(), PATIENCE)
    assert executor.take(Transition.TRANSITION_CONFIGURE) and executor.take(Transition.TRANSITION_ACTIVATE)
    probe.begin('geo4d/step', PATIENCE)
    assert executor.take(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert executor.state == State.PRIMARY_STATE_FINALIZED
    assert probe.wait_for(lambda: probe.speed < 0.01, PATIENCE)


def test_a_generator_that_is_not_active_predicts_nothing(probe):
    generator = Operator(probe, 'video_generator')
    assert generator.take(Transition.TRANSITION_DEACTIVATE)
    assert probe.predict(PATIENCE)[1]['code'] == 'NODE_INACTIVE'
    assert generator.take(Transition.TRANSITION_CLEANUP) and generator.take(Transition.TRANSITION_CONFIGURE)
    assert generator.take(Transition.TRANSITION_ACTIVATE)
    assert probe.wait_for(lambda: probe.predict(PATIENCE)[0], PATIENCE)
    tracker = Operator(probe, 'gripper_tracker')
    assert tracker.take(Transition.TRANSITION_DEACTIVATE)
    assert probe.predict(PATIENCE)[1]['code'] == 'NODE_INACTIVE'
