"""A request that a handler cannot bear is answered all the same, and a callback that fails does not end the node."""

import pytest
import rclpy
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import Trigger

from geo4d_ros.errors import NodeFailure
from geo4d_ros.ros.serve import spin
from geo4d_ros.ros.serve.environment import free_domain_id
from geo4d_ros.ros.serve.guarded_services import guard_services


@pytest.fixture(scope='module')
def context():
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=free_domain_id())
    yield context
    rclpy.shutdown(context=context)


@pytest.fixture
def node(context):
    made = Node('victim', context=context, use_global_arguments=False)
    made.create_service(Trigger, 'trigger', lambda request, response: 1 / 0)
    guard_services(made)
    yield made
    made.destroy_node()


def callback(node, kind):
    return next(s.callback for s in node.services if s.srv_type is kind)


def test_a_parameter_of_an_unknown_type_is_refused_with_an_answer(node):
    request = SetParameters.Request(parameters=[ParameterMessage(name='x')] * 2)
    request.parameters[1].value.type = 200
    results = callback(node, SetParameters)(request, SetParameters.Response()).results
    assert len(results) == 2 and not results[1].successful and results[1].reason
    request = SetParametersAtomically.Request(parameters=request.parameters)
    answer = callback(node, SetParametersAtomically)(request, SetParametersAtomically.Response())
    assert not answer.result.successful and answer.result.reason


def test_a_handler_that_raises_answers(node):
    answer = callback(node, Trigger)(Trigger.Request(), Trigger.Response())
    assert not answer.success and 'ZeroDivisionError' in answer.message


@pytest.mark.parametrize('error, ends', [(ValueError('before 1970'), False), (NodeFailure('no cameras'), True)])
def test_only_a_node_that_cannot_go_on_ends(context, monkeypatch, error, ends):
    node = Node('timed', context=context, use_global_arguments=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    monkeypatch.setattr(spin.rclpy, 'ok', context.ok)

    def fail():
        raise error

    node.create_timer(0.01, fail, clock=Clock(clock_type=ClockType.STEADY_TIME))
    try:
        if ends:
            with pytest.raises(NodeFailure):
                for _ in range(20):
                    spin._spin(executor, [node])
        else:
            for _ in range(3):
                spin._spin(executor, [node])
    finally:
        executor.shutdown()
        node.destroy_node()
