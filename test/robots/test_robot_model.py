"""Kinematics against closed forms, finite differences and themselves."""

import numpy as np
import pytest
from fakes import panda_urdf
from fakes.panda import JOINT_NAMES as PANDA_JOINTS
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.geometry.transforms import check_transform, from_rotvec, rotation_angle, rotvec, translation_distance
from geo4d_ros.robots.kinematics import RobotModel


def test_forward_at_zero_is_the_datasheet_sum(robot):
    T = robot.forward(np.zeros(7))
    assert T[:3, 3] == pytest.approx([0.088, 0, 0.333 + 0.316 + 0.384 - 0.107 - 0.1034], abs=1e-7)
    assert T[:3, 2] == pytest.approx([0, 0, -1], abs=1e-7)  # straight down
    check_transform('T', T)


def test_base_frame_is_the_reference_wherever_the_root_is(robot):
    text = panda_urdf.urdf_text().replace('<robot name="panda">', '<robot name="cell"><link name="world"/>'
                                          '<joint name="mount" type="fixed"><parent link="world"/>'
                                          '<child link="panda_link0"/><origin xyz="1 2 3" rpy="0 0 1"/></joint>')
    mounted = RobotModel.from_urdf(text)
    q = robot.posture + 0.1
    assert mounted.forward(q) == pytest.approx(robot.forward(q), abs=1e-9)
    result = mounted.inverse(robot.forward(q), robot.posture)
    assert result.distance < 1e-3


def test_jacobian_is_the_derivative(robot):
    q, h = robot.posture + 0.05, 1e-6
    T = robot.forward(q)
    J = robot.jacobian(q)
    for j in range(7):
        moved = robot.forward(q + h * np.eye(7)[j])
        linear = T[:3, :3].T @ (moved[:3, 3] - T[:3, 3]) / h
        angular = rotvec(np.linalg.inv(T) @ moved) / h
        assert np.concatenate([linear, angular]) == pytest.approx(J[:, j], abs=1e-5)


def test_condition_number_tells_a_stretched_arm(robot):
    assert robot.condition_number(robot.posture) < 15
    stretched = np.array([0, 0, 0, -0.07, 0, 1.6, 0])
    assert robot.condition_number(stretched) > 40
    both = robot.condition_numbers(np.stack([robot.posture, stretched]))
    assert both == pytest.approx([robot.condition_number(robot.posture), robot.condition_number(stretched)])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.floats(-0.15, 0.15), min_size=7, max_size=7))
def test_inverse_finds_what_forward_gives(offsets):
    robot = ROBOT
    target = robot.forward(robot.posture + np.array(offsets))
    result = robot.inverse(target, robot.posture)
    reached = robot.forward(result.q)
    assert translation_distance(reached, target) < 1e-4 and rotation_angle(reached, target) < 1e-3
    assert result.distance < 1e-4 and robot.within_limits(result.q)


def test_inverse_stays_on_its_branch_along_a_path(robot):
    """Small steps of the tool are small steps of the joints: the wrist never flips."""
    q, T = robot.posture, robot.forward(robot.posture)
    for i in range(60):
        T = T @ from_rotvec(np.array([0, 0, 0.02]), np.array([0, 0, 0.002 * np.cos(i / 9)]))
        result = robot.inverse(T, q)
        assert result.distance < 1e-4 and np.abs(result.q - q).max() < 0.08
        q = result.q


def test_redundancy_is_pulled_towards_the_posture(robot):
    T = robot.forward(robot.posture)
    null = np.linalg.svd(robot.jacobian(robot.posture))[2][-1]
    q = robot.inverse(T, robot.posture + 0.4 * null, relax=False).q
    away = np.abs(q - robot.posture).max()
    for _ in range(100):
        q = robot.inverse(T, q).q
    assert away > 0.1 and np.abs(q - robot.posture).max() < 0.2 * away
    assert translation_distance(robot.forward(q), T) < 1e-4


def test_what_is_out_of_reach_leaves_a_residual_and_keeps_the_limits(robot):
    T = robot.forward(robot.posture)
    T[0, 3] = 3.0
    result = robot.inverse(T, robot.posture)
    assert result.distance > 1.0 and robot.within_limits(result.q)


def test_limits_have_a_margin(robot):
    q = robot.upper.copy()
    assert robot.within_limits(q) and not robot.within_limits(q, 0.01)
    assert not robot.within_limits(q + 1e-6) and not robot.within_limits(np.full(7, np.nan))


def test_fingers_are_locked_open(robot):
    assert robot.joint_names == PANDA_JOINTS and robot.dof == 7
    names = [g.name for g in robot.geometry.geometryObjects]
    assert any('finger' in name for name in names)


@pytest.mark.parametrize(('changes', 'word'), [
    ({'text': 'no robot'}, 'cannot be read'), ({'arm_joints': ('panda_joint9',)}, 'panda_joint9'),
    ({'tool_frame': 'nowhere'}, 'nowhere'), ({'base_frame': 'nowhere'}, 'nowhere'),
    ({'base_frame': 'panda_link3'}, 'moves'), ({'velocity_limits': [1.0]}, 'velocity_limits'),
    ({'velocity_limits': [0.0] * 7}, 'velocity_limits'), ({'acceleration_limits': -1.0}, 'acceleration_limits'),
    ({'posture': [0.0] * 6}, 'posture'), ({'arm_joints': PANDA_JOINTS[::-1]}, 'from base to tool'),
])
def test_bad_descriptions_are_named(changes, word):
    with pytest.raises(ConfigurationError, match=word):
        RobotModel.from_urdf(**{'text': panda_urdf.urdf_text(), **changes})


def with_joint(name, old, new):
    """The URDF with a change in one joint's element."""
    head, _, tail = panda_urdf.urdf_text().partition(f'name="{name}"')
    return head + f'name="{name}"' + tail.replace(old, new, 1)


@pytest.mark.parametrize('limit', ['<limit velocity="2.61" effort="87"/>', '<limit lower="0" upper="0" velocity="2.61" '
                                   'effort="87"/>'])
def test_a_continuous_joint_turns_as_a_revolute_one_beyond_its_limits(limit):
    plain, (name, *_, lower, upper, velocity) = RobotModel.from_urdf(panda_urdf.urdf_text()), panda_urdf._JOINTS[6]
    text = with_joint(name, 'revolute', 'continuous').replace(
        f'<limit lower="{lower}" upper="{upper}" velocity="{velocity}" effort="87"/></joint><joint name="panda_joint8"',
        limit + '</joint><joint name="panda_joint8"')
    assert limit in text and 'continuous' in text
    robot, q = RobotModel.from_urdf(text), np.array(panda_urdf.HOME)
    np.testing.assert_allclose(robot.forward(q), plain.forward(q), atol=1e-12)
    assert robot.velocity_limits[6] == velocity
    q[6] += 2 * np.pi
    assert robot.within_limits(q) and not plain.within_limits(q)
    np.testing.assert_allclose(robot.inverse(robot.forward(q), q).q[6], q[6], atol=1e-2)


def test_a_mimic_finger_is_a_finger():
    mimic = '<mimic joint="panda_finger_joint1" multiplier="1" offset="0"/>'
    text = with_joint('panda_finger_joint2', '<limit', mimic + '<limit')
    robot, plain = RobotModel.from_urdf(text), RobotModel.from_urdf(panda_urdf.urdf_text())
    q = np.array(panda_urdf.HOME)
    np.testing.assert_allclose(robot.forward(q), plain.forward(q), atol=1e-12)
    assert robot.fingers.keys() == plain.fingers.keys()


ROBOT = RobotModel.from_urdf(panda_urdf.urdf_text())
