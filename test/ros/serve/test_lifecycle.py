"""Managed nodes: what configure opens cleanup closes, what is wrong leaves nothing, inactive is inactive."""

import os
from dataclasses import dataclass

import pytest
import rclpy
from lifecycle_msgs.srv import ChangeState
from rclpy.action import ActionServer
from std_msgs.msg import Empty
from std_srvs.srv import Trigger

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.reasons import Reason
from geo4d_ros.ros.serve.environment import free_domain_id, loopback_environment
from geo4d_ros.ros.serve.lifecycle import DONE, REFUSED, LifecycleParameters, ManagedNode, bring_up
from geo4d_ros.ros.serve.parameters import NodeParameters, parameter


@dataclass(frozen=True)
class Parameters(LifecycleParameters):
    """Of the node below."""

    weights: str = parameter('here', 'Something that has to be there.')


class Worker(ManagedNode):
    def __init__(self):
        super().__init__('worker')
        self.parameters, self.told, self.moving = NodeParameters(self, Parameters), [], ''

    def set_up(self):
        from geo4d_interfaces.action import RunTask

        self.owned.callback(self.told.append, 'first closed')
        self.create_subscription(Empty, 'work', lambda _: None, 1)
        self.create_publisher(Empty, 'done', 1)
        self.create_timer(1.0, lambda: None)
        self.create_client(Trigger, 'other')
        ActionServer(self, RunTask, 'run', lambda handle: None)
        if self.parameters.values.weights != 'here':
            raise ConfigurationError('no weights')
        self.create_service(Trigger, 'ask', lambda request, response: 1 / 0)
        self.owned.callback(self.told.append, 'last closed')

    def stand_down(self):
        self.told.append('stands')

    def unfinished(self):
        return self.moving


@pytest.fixture(autouse=True)
def context():
    before = dict(os.environ)
    domain_id = free_domain_id()
    os.environ.update(loopback_environment(domain_id))
    rclpy.init(domain_id=domain_id)
    yield
    rclpy.try_shutdown()
    os.environ.clear()
    os.environ.update(before)


def opened(node):
    return len(node._entities())


def test_what_configure_opens_is_closed_by_cleanup_and_can_be_opened_again():
    node = Worker()
    before = opened(node)
    for _ in range(2):
        assert node.trigger_configure() is DONE and opened(node) > before + 4
        assert node.inactive.reason is Reason.NODE_INACTIVE and 'worker' in node.inactive.detail
        assert node.trigger_activate() is DONE and node.active and node.inactive is None
        node.told.clear()
        assert node.trigger_deactivate() is DONE and node.inactive and node.told == ['stands']
        node.moving = 'the arm'
        assert node.trigger_cleanup() is REFUSED and opened(node) > before + 4  # it is watched until it rests
        node.moving = ''
        assert node.trigger_cleanup() is DONE
        assert opened(node) == before and node.told[1:] == ['last closed', 'first closed']
    node.destroy_node()


def test_a_node_that_cannot_be_configured_says_why_and_keeps_nothing():
    node = Worker()
    before = opened(node)
    node.set_parameters([rclpy.Parameter('weights', value='elsewhere')])
    assert node.trigger_configure() is REFUSED
    assert opened(node) == before and node.told == ['first closed'] and not node.active
    with pytest.raises(ConfigurationError, match='no weights'):
        bring_up(node)
    node.set_parameters([rclpy.Parameter('weights', value='here')])
    bring_up(node)
    assert node.active
    node.close()
    node.destroy_node()


def test_a_shutdown_stops_first_from_wherever_it_comes():
    for steps in ((), ('configure',), ('configure', 'activate')):
        node = Worker()
        for step in steps:
            assert getattr(node, f'trigger_{step}')() is DONE
        assert node.trigger_shutdown() is DONE
        assert node.told[0] == 'stands' and not node.active
        assert node.told[1:] == (['last closed', 'first closed'] if steps else [])
        node.destroy_node()


def test_requests_that_come_too_early_or_make_no_sense_are_answered():
    node = Worker()
    bring_up(node)
    services = {service.srv_name: service for service in node.services}
    answer = services['ask'].callback(Trigger.Request(), Trigger.Response())
    assert not answer.success and 'ZeroDivisionError' in answer.message  # of a service that configure made
    from geo4d_ros.ros.serve.guarded_services import guard_services

    guard_services(node)
    change = next(s for name, s in services.items() if name.endswith('change_state'))
    request = ChangeState.Request()
    request.transition.id = 99
    assert not change.callback(request, ChangeState.Response()).success and node.active
    node.close()
    node.destroy_node()
