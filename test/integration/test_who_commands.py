"""Who may move the arm, with real nodes over DDS: the run action, approval by id, and plans of a stranger."""

import os

import numpy as np
import pytest
import rclpy
from fakes.graph import new_group, start_loop
from geo4d_interfaces.action import RunTask
from geo4d_interfaces.msg import Plan
from rclpy.action import ActionClient
from rclpy.context import Context

from geo4d_ros.ros.graph.probe import LoopProbe
from geo4d_ros.ros.serve.qos import STATE_QOS

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')
PATIENCE = 90.0  # [s] for whatever should happen within a second on an idle machine


@pytest.fixture(scope='module')
def graph(tmp_path_factory):
    group, domain_id = new_group(tmp_path_factory.mktemp('logs'))
    os.environ.update({k: v for k, v in group.environment.items() if k.startswith(('ROS_', 'RMW_', 'FAST'))})
    with group:
        start_loop(group, approval_seconds=120.0)
        with LoopProbe(domain_id) as probe:
            assert probe.wait_for(lambda: probe.predict(PATIENCE)[0], PATIENCE)
            yield group, probe, domain_id


@pytest.fixture(autouse=True)
def resting(graph):
    _, probe, _ = graph
    assert probe.set_parameter('/plan_executor', 'auto', True, PATIENCE)
    yield
    probe.call('/geo4d/stop')
    probe.wait_for_phase('IDLE', 'DONE', 'FAULT', seconds=PATIENCE)
    probe.call('/geo4d/reset')
    probe.wait_for_phase('IDLE', 'DONE', seconds=PATIENCE)


class Stranger:
    """A node of another participant that publishes plans."""

    def __init__(self, domain_id):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = rclpy.create_node('intruder', context=self.context)
        self.publisher = self.node.create_publisher(Plan, '/geo4d/plan', STATE_QOS)

    def close(self):
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def stranger(graph):
    made = []

    def make():
        made.append(Stranger(graph[2]))
        return made[-1]

    yield make
    for one in made:
        one.close()


def step(probe):
    """Begin a cycle; again while the graph is not complete."""
    probe.begin('/geo4d/step', PATIENCE)


def test_the_run_action_tells_what_happens_and_how_it_ended(graph):
    _, probe, _ = graph
    client, feedback = ActionClient(probe.node, RunTask, '/geo4d/run'), []
    assert probe.wait_for(client.server_is_ready, PATIENCE)
    probe.spin(1.0)
    sent = client.send_goal_async(RunTask.Goal(cycles=1), feedback_callback=lambda m: feedback.append(m.feedback))
    assert probe.wait_for(sent.done, PATIENCE) and sent.result().accepted
    ended = sent.result().get_result_async()
    assert probe.wait_for(ended.done, PATIENCE)
    result = ended.result().result
    assert (result.reason, result.cycles, result.success) == ('CYCLE_LIMIT', 1, False), result
    assert {'PREDICTING', 'EXECUTING'} & {f.phase for f in feedback}


def test_only_the_plan_that_waits_is_approved_and_only_by_its_id(graph):
    _, probe, _ = graph
    assert probe.set_parameter('/plan_executor', 'auto', False, PATIENCE)
    before = dict(probe.joints)
    step(probe)
    assert probe.wait_for_phase('AWAITING_APPROVAL', seconds=PATIENCE), probe.state
    for plan_id in ('', 'another'):
        assert probe.approve(plan_id, PATIENCE) == (False, 'APPROVAL_WRONG_PLAN')
    assert probe.state['state'] == 'AWAITING_APPROVAL'
    probe.spin(0.5)
    assert all(abs(probe.joints[name] - value) < 1e-3 for name, value in before.items())
    assert probe.approve(probe.state['plan_id'], PATIENCE) == (True, '')
    assert probe.wait_for_phase('DONE', seconds=PATIENCE), probe.state
    assert probe.state['reason'] == 'STEP_DONE', probe.state


def test_no_run_begins_beside_a_stranger_s_publisher(graph, stranger):
    _, probe, _ = graph
    stranger()
    for _ in range(10):  # a publisher is known before the name of its node is; either way nothing may begin
        probe.spin(2.0)
        accepted, values = probe.call('/geo4d/step', PATIENCE)
        assert not accepted and values['code'] == 'SOURCE_CHANGED', values
        if 'intruder' in values['detail']:
            return
    raise AssertionError(values)


def test_a_plan_of_a_stranger_does_not_move_the_arm(graph, stranger):
    """It knows the plan's id, which is no secret, and joins in the middle of the run."""
    _, probe, _ = graph
    assert probe.set_parameter('/plan_executor', 'auto', False, PATIENCE)
    step(probe)
    assert probe.wait_for_phase('AWAITING_APPROVAL', seconds=PATIENCE), probe.state
    before = np.array([probe.joints[name] for name in sorted(probe.joints)])
    forged, plan_id = stranger(), probe.state['plan_id']
    message = Plan(id=plan_id, seconds=[0.0, 0.5], openings=[0.08, 0.0], confidences=[1.0, 1.0])
    for _ in range(3):
        forged.publisher.publish(message)
        probe.spin(0.3)
    assert probe.wait_for_phase('FAULT', seconds=PATIENCE), probe.state
    assert probe.state['reason'] == 'SOURCE_CHANGED' and '/geo4d/plan' in probe.state['detail'], probe.state
    assert probe.approve(plan_id, PATIENCE)[0] is False
    probe.spin(1.0)
    after = np.array([probe.joints[name] for name in sorted(probe.joints)])
    assert np.abs(after - before).max() < 2e-3
