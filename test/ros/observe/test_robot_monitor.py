"""What the executor believes of joint states, cameras and clock."""

import re
import time
from types import SimpleNamespace

import numpy as np
import pytest
from fakes.boundary import FakeBoundary
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.geometry.cameras import intrinsics
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.reasons import Reason
from geo4d_ros.ros.observe import robot_monitor
from geo4d_ros.ros.observe.robot_monitor import CameraMonitor, ClockMonitor, RobotMonitor
from geo4d_ros.ros.wire.conversions import camera_info_message, to_stamp

ARM = ('a', 'b')


@pytest.fixture
def boundary():
    return FakeBoundary()


@pytest.fixture
def steady(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(robot_monitor.time, 'monotonic', lambda: clock.now)
    return clock


def joints(names=('finger', 'b', 'a'), position=(0.02, 2.0, 1.0), velocity=(0.0, 0.0, 0.0)):
    message = JointState(name=list(names), position=list(position), velocity=list(velocity))
    message.header.stamp = to_stamp(5_000_000_000)
    return message


def monitor(boundary, build=lambda urdf: urdf):
    return RobotMonitor(boundary, ARM, 'finger', lambda position: 2 * position, build)


def test_joints_are_found_by_name(boundary):
    robot = monitor(boundary)
    assert robot.state(None) is None
    boundary.say('/joint_states', joints())
    state = robot.state(True)
    np.testing.assert_allclose(state.q, [1.0, 2.0])
    assert (state.opening, state.stamp, state.gripper_closed) == (0.04, 5_000_000_000, True)


def test_messages_of_other_joints_are_left_alone(boundary):
    robot = monitor(boundary)
    boundary.say('/joint_states', joints())
    heard = robot.heard
    time.sleep(0.01)
    boundary.say('/joint_states', joints(('wheel',), (0.0,), (0.0,)))
    assert robot.heard == heard
    assert robot.state(None).opening == pytest.approx(0.04)


def test_joints_that_got_another_prefix_are_told_as_the_cause_of_the_silence(boundary, steady):
    robot = monitor(boundary)
    boundary.say('/joint_states', joints())
    assert robot.silence_cause == 'nothing usable on /joint_states'
    steady.now += 1.0
    boundary.say('/joint_states', joints(('left_finger', 'left_b', 'left_a')))
    assert 'lack a, b' in robot.silence_cause and 'left_a (parameter arm_joints)' in robot.silence_cause
    boundary.say('/joint_states', joints())
    assert robot.silence_cause == 'nothing usable on /joint_states'


WRONG = {
    'no positions': ({'position': ()}, 'positions are missing'),
    'a position less': ({'position': (0.0, 1.0)}, 'too many or few'),
    'positions longer than names': ({'position': (0.0,) * 4}, 'too many or few'),
    'a name twice': ({'names': ('a', 'b', 'a')}, 'a joint is named twice'),
    'NaN': ({'position': (0.0, float('nan'), 1.0)}, 'not finite'),
    'infinite velocity': ({'velocity': (0.0, float('inf'), 1.0)}, 'velocity = .*not finite'),
    'two velocities': ({'velocity': (0.0, 1.0)}, 'velocities should be 3 or none'),
    'no names': ({'names': (), 'position': (), 'velocity': ()}, '0 names'),
}


@pytest.mark.parametrize('change, text', WRONG.values(), ids=WRONG)
def test_a_message_that_cannot_be_used_is_named_and_stands_in_the_way(boundary, steady, change, text):
    robot = monitor(boundary)
    for _ in range(4):
        boundary.say('/joint_states', joints())
        steady.now += 0.1
    assert robot.refusal() is None and robot.at_rest(0.0)
    boundary.say('/joint_states', joints(**change))
    refusal = robot.refusal()
    assert refusal.reason is Reason.ROBOT_STATE_INVALID and re.search(text, refusal.detail), refusal
    assert not robot.at_rest(0.0), 'nobody knows that the arm stands'
    assert re.search(text, boundary.cause('/joint_states'))
    steady.now += 0.2
    boundary.say('/joint_states', joints())
    assert robot.refusal() is None, 'the next good ones count again'


@pytest.mark.parametrize('names, missing', [(('left_a', 'left_b', 'left_finger'), 'a, b'), (('left_a', 'b', 'f'), 'a')])
def test_a_joint_prefix_is_named_with_the_parameter_that_mends_it(boundary, names, missing):
    robot = monitor(boundary)
    boundary.say('/joint_states', joints(names))
    assert f'lack {missing}; they carry left_a' in robot.refusal().detail and 'arm_joints' in robot.refusal().detail


def test_one_publisher_may_send_several_sets_of_joints(boundary, steady):
    robot = monitor(boundary)
    for _ in range(6):
        boundary.say('/joint_states', joints())
        boundary.say('/joint_states', joints(('finger',), (0.02,), (0.0,)))
        steady.now += 0.05
    assert robot.refusal() is None and robot.at_rest(0.0)


def test_missing_velocities_are_derived_from_the_positions(boundary, steady):
    robot = monitor(boundary)
    for i, angle in enumerate((0.0, 0.0, 0.05, 0.05)):
        message = joints(position=(0.02, 2.0, angle), velocity=())
        message.header.stamp = to_stamp(5_000_000_000 + i * 100_000_000)
        boundary.say('/joint_states', message)
        steady.now += 0.1
        speed = robot.state(None).dq[0]
        assert speed == pytest.approx([np.inf, 0.0, 0.5, 0.0][i])
    assert not robot.at_rest(0.0)


def test_standstill_is_not_believed_from_the_velocity_alone(boundary, steady):
    robot = monitor(boundary)
    for i in range(10):
        boundary.say('/joint_states', joints(position=(0.02, 2.0, 0.01 * i)))
        steady.now += 0.05
    assert not robot.at_rest(0.0), 'the arm moves at 0.2 rad/s and says 0'
    for _ in range(10):
        boundary.say('/joint_states', joints(position=(0.02, 2.0, 0.09)))
        steady.now += 0.05
    assert robot.at_rest(0.0)


def test_a_silent_gripper_joint_does_not_keep_its_last_opening(boundary, steady):
    robot = monitor(boundary)
    boundary.say('/joint_states', joints())
    assert robot.state(None).opening == pytest.approx(0.04) and robot.refusal() is None
    for _ in range(35):
        steady.now += 1.0
        boundary.say('/joint_states', joints(('a', 'b'), (1.0, 2.0), (0.0, 0.0)), source=1)
    assert np.isnan(robot.state(None).opening)
    assert 'silent for 35.0 s' in robot.refusal().detail and 'gripper_joint' in robot.refusal().detail


def test_arm_and_gripper_may_come_in_messages_of_their_own(boundary, steady):
    robot = monitor(boundary)
    for _ in range(20):
        boundary.say('/joint_states', joints(('finger',), (0.01,), (0.0,)), source=1)
        boundary.say('/joint_states', joints(('a', 'b'), (1.0, 2.0), (0.0, 0.0)), source=2)
        steady.now += 0.05
    assert robot.refusal() is None and robot.at_rest(0.0)
    assert robot.state(None).opening == pytest.approx(0.02)


@pytest.mark.parametrize('names', [('finger', 'b', 'a'), ('a', 'b'), ('b',)])
def test_two_publishers_of_a_joint_are_refused(boundary, steady, names):
    robot = monitor(boundary)
    for i in range(6):
        boundary.say('/joint_states', joints(), source=0)
        if i > 2:
            boundary.say('/joint_states', joints(names, (0.5,) * len(names), (0.0,) * len(names)), source=1)
        steady.now += 0.05
    assert 'two' in robot.refusal().detail and 'source' in robot.refusal().detail
    assert not robot.at_rest(0.0)


def test_a_restarted_publisher_is_not_a_second_one(boundary, steady):
    robot = monitor(boundary)
    for _ in range(20):
        boundary.say('/joint_states', joints())
        steady.now += 0.05
    boundary.numbers.clear()
    boundary.say('/joint_states', joints())
    assert robot.refusal() is None
    assert not robot.at_rest(0.0), 'the rest of the old one does not count'
    for _ in range(6):
        boundary.say('/joint_states', joints())
        steady.now += 0.05
    assert robot.refusal() is None and robot.at_rest(0.0)


def test_the_rounding_of_an_encoder_at_its_limit_is_clamped(boundary):
    model = SimpleNamespace(lower=np.array([0.0, 0.0]), upper=np.array([1.0, 2.0]))
    robot = monitor(boundary, lambda urdf: model)
    boundary.say('/robot_description', String(data='<robot/>'))
    boundary.say('/joint_states', joints(position=(0.02, 2.0 + 1e-6, 1.0 + 2e-4)))
    q = robot.state(None).q
    assert q[1] == 2.0 and q[0] > 1.0, 'a millirad is no rounding'


def test_a_changed_description_is_counted_and_a_repeated_one_is_not(boundary):
    robot = monitor(boundary)
    for text in ('one', 'one', 'two'):
        boundary.say('/robot_description', String(data=text))
    assert (robot.model, robot.model_version) == ('two', 2)


def test_an_opening_that_was_never_measured_is_unknown(boundary):
    robot = monitor(boundary)
    boundary.say('/joint_states', joints(('a', 'b'), (1.0, 2.0), (0.0, 0.0)))
    assert np.isnan(robot.state(None).opening)


def test_rest_needs_two_tenths_of_a_second_of_slow_joints(boundary, steady):
    robot = monitor(boundary)
    for now, speed, rests in ((100.0, 0.0, False), (100.1, 0.005, False), (100.25, 0.0, True), (100.3, 0.02, False),
                              (100.4, 0.0, False), (100.65, 0.0, True), (100.7, float('nan'), False)):
        steady.now = now
        boundary.say('/joint_states', joints(velocity=(0.0, 0.0, speed)))
        assert robot.at_rest(0.0) is rests, now
    steady.now = 101.0
    boundary.say('/joint_states', joints())
    steady.now = 101.3
    boundary.say('/joint_states', joints())
    assert robot.at_rest(0.0)
    assert not robot.at_rest(101.2), 'rest before the order to stop does not count'


def test_silence_is_not_rest(boundary, steady):
    robot = monitor(boundary)
    boundary.say('/joint_states', joints())
    steady.now += 5.0
    assert robot.silence == 5.0
    assert not robot.at_rest(0.0), 'nobody measured that the arm stands'


def test_a_bad_robot_description_is_kept_as_the_reason(boundary):
    def build(text):
        raise ConfigurationError(f'cannot read {text}')

    robot = monitor(boundary, build)
    with pytest.raises(ConfigurationError, match='no /robot_description'):
        robot.require_model()
    boundary.say('/robot_description', String(data='<xml'))
    with pytest.raises(ConfigurationError, match='cannot read <xml'):
        robot.require_model()


def info(stamp):
    message = camera_info_message(intrinsics(60, 64, 48), 48, 64, 0, 'optical')
    message.header.stamp = to_stamp(stamp)
    return message


def test_cameras(boundary, steady):
    cameras = CameraMonitor(boundary.node.get_clock(), boundary, ('/one', '/two'))
    assert cameras.check_silence(1.0).reason is Reason.CAMERA_SILENT
    assert cameras.check_pair(0, MotionLimits()) == (None, False)
    boundary.say('/one/color/camera_info', info(boundary.node.now))
    steady.now += 0.5
    boundary.say('/two/color/camera_info', info(boundary.node.now))
    assert cameras.check_silence(1.0) is None
    assert cameras.check_pair(0, MotionLimits()) == (None, True)
    steady.now += 0.7
    refusal = cameras.check_silence(1.0)
    assert refusal.reason is Reason.CAMERA_SILENT and '/one' in refusal.detail and '/two' not in refusal.detail
    boundary.say('/two/color/camera_info', info(boundary.node.now - 100_000_000))
    assert cameras.check_pair(0, MotionLimits())[0].reason is Reason.OBSERVATION_SKEWED
    assert cameras.check_pair(boundary.node.now, MotionLimits()) == (None, False)


def test_the_clock_may_not_go_back(boundary):
    clock = ClockMonitor(boundary.node.get_clock())
    assert clock.check() is None
    boundary.node.now -= 50_000_000
    assert clock.check() is None, 'a correction of the system clock'
    boundary.node.now -= 2_000_000_000
    assert clock.check().reason is Reason.CLOCK_JUMP
    assert clock.check() is None, 'once per jump'


def test_a_mimic_joint_that_nobody_sends_is_not_missed(boundary):
    """Drivers often leave the second finger out: its position follows from the first."""
    robot = monitor(boundary)
    boundary.say('/joint_states', joints(('a', 'b', 'finger'), (1.0, 2.0, 0.02), (0.0,) * 3))
    assert robot.refusal() is None and robot.state(None).opening == 0.04
