"""QoS as the user's parameters want it, under rclpy's names; a simulated clock that is missing or stands is named."""

import os

import pytest
import rclpy
from rclpy.context import Context
from rclpy.qos import ReliabilityPolicy
from rclpy.time import Time
from std_msgs.msg import String

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.ros.observe.receiver import Receiver
from geo4d_ros.ros.serve.diagnostics import ERROR, OK, WARN, Diagnostics
from geo4d_ros.ros.serve.environment import loopback_environment
from geo4d_ros.ros.serve.qos import IMAGE_QOS, STATE_QOS, overridden


@pytest.fixture
def make(monkeypatch):
    for key, value in loopback_environment().items():
        monkeypatch.setitem(os.environ, key, value)
    made = []

    def node(**parameters):
        context = Context()
        given = [word for name, value in parameters.items() for word in ('-p', f'{name}:={value}')]
        rclpy.init(context=context, args=['--ros-args', *given])
        made.append(rclpy.create_node('listener', namespace='/cell', context=context))
        return made[-1]

    yield node
    for node in made:
        node.destroy_node()
        node.context.try_shutdown()


def test_what_a_helper_hears_follows_the_parameters_of_its_node(make):
    node = make(**{'qos_overrides./cell/words.subscription.reliability': 'reliable',
                   'qos_overrides./cell/words.subscription.depth': '7'})
    receiver = Receiver(node, 'ears')
    receiver.create_subscription(String, 'words', print, IMAGE_QOS)
    receiver.create_subscription(String, 'others', print, IMAGE_QOS)
    found = {topic: node.get_subscriptions_info_by_topic(f'/cell/{topic}')[0].qos_profile.reliability
             for topic in ('words', 'others')}
    assert found == {'words': ReliabilityPolicy.RELIABLE, 'others': ReliabilityPolicy.BEST_EFFORT}
    assert overridden(node, 'words', IMAGE_QOS, 'subscription').depth == 7
    assert (IMAGE_QOS.depth, IMAGE_QOS.reliability) == (1, ReliabilityPolicy.BEST_EFFORT)  # shared by all
    receiver.close()


def test_durability_stays_and_a_wrong_value_lists_the_right_ones(make):
    name = 'qos_overrides./cell/state.publisher.'
    node = make(**{name + 'reliability': 'sometimes'})
    with pytest.raises(ConfigurationError, match=r'state\.publisher\.reliability should be one of best_effort, rel'):
        overridden(node, 'state', STATE_QOS, 'publisher')
    kept = overridden(make(**{name + 'history': 'keep_all'}), 'state', STATE_QOS, 'publisher')
    assert kept.durability is STATE_QOS.durability and kept.history.name == 'KEEP_ALL'
    with pytest.raises(ConfigurationError, match='depth should lie in'):
        overridden(make(**{name + 'depth': '0'}), 'state', STATE_QOS, 'publisher')


def test_a_simulated_clock_that_does_not_come_or_stands_is_named(make):
    node = make(use_sim_time='true')
    report = Diagnostics(node)

    def level(now):
        report.check_clock(now)
        return report._status['clock'].level

    assert level(1.0) == ERROR and 'no /clock' in report._status['clock'].message
    node.get_clock().set_ros_time_override(Time(seconds=5))
    assert level(2.0) == OK
    assert level(6.0) == OK and level(7.5) == WARN and 'stands still' in report._status['clock'].message
    node.get_clock().set_ros_time_override(Time(seconds=6))
    assert level(8.0) == OK


def test_the_systems_clock_is_no_subject(make):
    report = Diagnostics(make())
    report.check_clock(0.0)
    report.check_clock(100.0)
    assert 'clock' not in report._status
