"""What the executor believes of joint states, cameras and clock."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, JointState
from std_msgs.msg import String

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.reasons import Reason
from geo4d_ros.ros.observe import robot_monitor
from geo4d_ros.ros.observe.robot_monitor import CameraMonitor, ClockMonitor, RobotMonitor
from geo4d_ros.ros.wire.conversions import to_stamp

ARM = ('a', 'b')


class StubNode:
    def __init__(self):
        self.callbacks, self.now = {}, 10_000_000_000

    def create_subscription(self, kind, topic, callback, qos):
        self.callbacks[topic] = callback

    def get_clock(self):
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=self.now))


@pytest.fixture
def node():
    return StubNode()


@pytest.fixture
def steady(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(robot_monitor.time, 'monotonic', lambda: clock.now)
    return clock


def joints(names=('finger', 'b', 'a'), position=(0.02, 2.0, 1.0), velocity=(0.0, 0.0, 0.0)):
    message = JointState(name=list(names), position=list(position), velocity=list(velocity))
    message.header.stamp = to_stamp(5_000_000_000)
    return message


def monitor(node, build=lambda urdf: urdf):
    return RobotMonitor(node, ARM, 'finger', lambda position: 2 * position, build)


def test_joints_are_found_by_name(node):
    robot = monitor(node)
    assert robot.state(None) is None
    node.callbacks['/joint_states'](joints())
    state = robot.state(True)
    np.testing.assert_allclose(state.q, [1.0, 2.0])
    assert (state.opening, state.stamp, state.gripper_closed) == (0.04, 5_000_000_000, True)


def test_messages_of_other_joints_are_left_alone(node):
    robot = monitor(node)
    node.callbacks['/joint_states'](joints())
    heard = robot.heard
    time.sleep(0.01)
    node.callbacks['/joint_states'](joints(('finger',), (0.0,), (0.0,)))
    node.callbacks['/joint_states'](joints(velocity=()))
    assert robot.heard == heard
    assert robot.state(None).opening == pytest.approx(0.04)


def test_an_opening_that_was_never_measured_is_unknown(node):
    robot = monitor(node)
    node.callbacks['/joint_states'](joints(('a', 'b'), (1.0, 2.0), (0.0, 0.0)))
    assert np.isnan(robot.state(None).opening)


def test_rest_needs_two_tenths_of_a_second_of_slow_joints(node, steady):
    robot = monitor(node)
    for now, speed, rests in ((100.0, 0.0, False), (100.1, 0.005, False), (100.25, 0.0, True), (100.3, 0.02, False),
                              (100.4, 0.0, False), (100.65, 0.0, True), (100.7, float('nan'), False)):
        steady.now = now
        node.callbacks['/joint_states'](joints(velocity=(0.0, 0.0, speed)))
        assert robot.at_rest(0.0) is rests, now
    steady.now = 101.0
    node.callbacks['/joint_states'](joints())
    steady.now = 101.3
    node.callbacks['/joint_states'](joints())
    assert robot.at_rest(0.0)
    assert not robot.at_rest(101.2), 'rest before the order to stop does not count'


def test_silence_is_not_rest(node, steady):
    robot = monitor(node)
    node.callbacks['/joint_states'](joints())
    steady.now += 5.0
    assert robot.silence == 5.0
    assert not robot.at_rest(0.0), 'nobody measured that the arm stands'


def test_a_bad_robot_description_is_kept_as_the_reason(node):
    def build(text):
        raise ConfigurationError(f'cannot read {text}')

    robot = monitor(node, build)
    with pytest.raises(ConfigurationError, match='no /robot_description'):
        robot.require_model()
    node.callbacks['/robot_description'](String(data='<xml'))
    with pytest.raises(ConfigurationError, match='cannot read <xml'):
        robot.require_model()


def info(stamp):
    message = CameraInfo()
    message.header.stamp = to_stamp(stamp)
    return message


def test_cameras(node, steady):
    cameras = CameraMonitor(node, ('/one', '/two'))
    assert cameras.check_silence(1.0).reason is Reason.CAMERA_SILENT
    assert cameras.check_pair(0, MotionLimits()) == (None, False)
    node.callbacks['/one/color/camera_info'](info(node.now))
    steady.now += 0.5
    node.callbacks['/two/color/camera_info'](info(node.now))
    assert cameras.check_silence(1.0) is None
    assert cameras.check_pair(0, MotionLimits()) == (None, True)
    steady.now += 0.7
    refusal = cameras.check_silence(1.0)
    assert refusal.reason is Reason.CAMERA_SILENT and '/one' in refusal.detail and '/two' not in refusal.detail
    node.callbacks['/two/color/camera_info'](info(node.now - 100_000_000))
    assert cameras.check_pair(0, MotionLimits())[0].reason is Reason.OBSERVATION_SKEWED
    assert cameras.check_pair(node.now, MotionLimits()) == (None, False)


def test_the_clock_may_not_go_back(node):
    clock = ClockMonitor(node)
    assert clock.check() is None
    node.now -= 50_000_000
    assert clock.check() is None, 'a correction of the system clock'
    node.now -= 2_000_000_000
    assert clock.check().reason is Reason.CLOCK_JUMP
    assert clock.check() is None, 'once per jump'
