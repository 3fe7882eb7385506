"""Robots are read from URDF, SRDF and YAML; every mistake is one line."""

import numpy as np
import pytest
import yaml
from fakes import panda

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.resources import resource
from geo4d_ros.robots.finger_motion import FingerMotion
from geo4d_ros.robots.gripper import gripper_of
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.robots.registry import ROBOTS, load_robot
from geo4d_ros.tracking.opening_network import opening_reader


def changed(tmp_path, **changes):
    """The default robot's YAML with values replaced, `section.key=value`; and its URDF beside it."""
    folder = resource('config', 'robots')
    for name in ('panda.urdf', 'panda.srdf'):
        (tmp_path / name).write_text((folder / name).read_text())
    values = yaml.safe_load((folder / 'panda.yaml').read_text())
    for path, value in changes.items():
        *sections, key = path.split('.')
        place = values
        for section in sections:
            place = place[section]
        if value is None:
            del place[key]
        else:
            place[key] = value
    file = tmp_path / 'robot.yaml'
    file.write_text(yaml.safe_dump(values))
    return file


def test_one_object_per_robot_whatever_it_is_called_by():
    assert load_robot('panda') is load_robot() is load_robot(resource('config', 'robots', 'panda.yaml'))
    assert 'panda' in ROBOTS and load_robot().dof == 7


def test_an_unknown_robot_lists_what_exists():
    with pytest.raises(ConfigurationError, match=r"unknown robot 'nobody'; pick one of fr3, panda"):
        load_robot('nobody')


def test_the_fr3_has_the_links_and_the_hand_of_the_panda_under_other_names_and_limits():
    fr3, panda = load_robot('fr3'), load_robot()
    for q in (panda.rest, panda.posture):
        poses = [RobotModel.of(robot).forward(np.array(q)) for robot in (fr3, panda)]
        np.testing.assert_array_equal(*poses)
    assert all(name.startswith('fr3_') for name in (*fr3.joints, *fr3.arm_frames, fr3.tool_frame))
    hands = gripper_of(fr3), gripper_of(panda)
    assert opening_reader('auto', hands[0]) is not None and hands[0].name == hands[1].name
    limits = [fr3.urdf.joint(name) for name in fr3.joints]
    assert [j.lower for j in limits][5] == 0.5445 and [j.velocity for j in limits][4:] == [5.26, 4.18, 5.26]


@pytest.mark.parametrize(('changes', 'message'), [
    ({'arm.rest': [0.0, 1.0]}, 'arm.rest should be 7 finite numbers but got'),
    ({'arm.rest': 'nowhere'}, "no group_state 'nowhere'"),
    ({'arm.group': 'nobody'}, "no group 'nobody'"),
    ({'arm.speed': 1}, "unknown key 'speed' in arm; known: acceleration"),
    ({'gripper.kind': 'magnet'}, 'gripper.kind should be one of'),
    ({'gripper.kind': 'swinging'}, 'panda_finger_joint1 is prismatic, a swinging gripper has revolute ones'),
    ({'gripper.stroke': None}, 'gripper.stroke should be a finite number but is missing'),
    ({'gripper.pads': ['panda_leftpad', 'no_pad']}, "pad 'no_pad' should be the name of one collision box"),
    ({'gripper.hand': ['no_link']}, "gripper link 'no_link' is not in the URDF"),
    ({'arm.tool_frame': 'no_link'}, "link 'no_link' is not in the URDF"),
    ({'simulation.servo': [[1, 2]]}, '7 pairs of kp and kv'),
    ({'urdf': 'missing.urdf'}, 'urdf .*missing.urdf cannot be read'),
    ({'meshes.files': {'hand': 3}}, 'meshes.files should be NAME: {file: PATH, faces: COUNT}'),
])
def test_every_mistake_says_its_mend(tmp_path, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        load_robot(changed(tmp_path, **changes))


def test_forward_kinematics_agree_with_pinocchio():
    robot, model = panda.ROBOT, RobotModel.of(panda.ROBOT)
    rng = np.random.default_rng(0)
    for _ in range(5):
        q = rng.uniform(*robot.joint_limits)
        T = robot.urdf.link_poses(dict(zip(robot.joints, q, strict=True)))[robot.tool_frame]
        np.testing.assert_allclose(T, model.forward(q), atol=1e-9)


def test_sliding_fingers_share_the_opening():
    motion = panda.ROBOT.gripper.motion
    assert motion.position(0.05) == 0.025 and motion.opening(0.025) == 0.05
    assert motion.opening(-1.0) == 0.0 and motion.position(1.0) == 0.04
    assert panda.ROBOT.finger_positions(0.06) == {'panda_finger_joint1': 0.03, 'panda_finger_joint2': 0.03}


@pytest.mark.parametrize(('openings', 'positions'), [
    ((0.01, 0.08), (0.0, 1.0)), ((0.0, 0.08, 0.05), (0.0, 1.0, 2.0)), ((0.0, 0.04, 0.08), (0.0, 1.0, 0.5)),
    ((0.0, 0.9), (0.0, 1.0)), ((0.0,), (0.0,))])
def test_finger_motions_that_cannot_be_are_refused(openings, positions):
    with pytest.raises(ConfigurationError):
        FingerMotion(openings, positions)


def test_a_function_may_give_the_finger_joints(tmp_path):
    file = changed(tmp_path, **{'gripper.kind': 'function', 'gripper.function': 'math:sqrt'})
    motion = load_robot(file).gripper.motion
    assert motion.position(0.04) == pytest.approx(0.2, abs=2e-3)
    assert motion.opening(0.2) == pytest.approx(0.04, abs=1e-3)
    with pytest.raises(ConfigurationError, match=r'package\.module:name'):
        load_robot(changed(tmp_path, **{'gripper.kind': 'function', 'gripper.function': 'nowhere:nothing',
                                        'name': 'other'}).rename(tmp_path / 'other.yaml'))
