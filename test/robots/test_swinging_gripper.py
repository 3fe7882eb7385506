"""The second robot: six joints and fingers that swing, from its files alone; with its meshes, the task itself."""

import importlib.util

import numpy as np
import pytest

from geo4d_ros.robots.gripper import gripper_of
from geo4d_ros.robots.inverse_kinematics import ArmKinematics
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.robots.registry import load_robot

ROBOT = load_robot('ur5e_2f85')
needs_meshes = pytest.mark.skipif(importlib.util.find_spec('robosuite') is None, reason='make assets-ur5e')


def test_the_stroke_is_measured_on_the_description():
    motion = ROBOT.gripper.motion
    assert motion.stroke == pytest.approx(0.085, abs=1e-3)
    assert motion.position(motion.stroke) == pytest.approx(0.0) and motion.position(0.0) == pytest.approx(0.8)
    for opening in np.linspace(0, motion.stroke, 7):
        assert motion.opening(motion.position(opening)) == pytest.approx(opening, abs=1e-9)


def test_the_pads_are_apart_by_the_opening_and_keep_their_direction():
    for opening in (0.01, 0.03, 0.08):
        poses = ROBOT.urdf.link_poses(ROBOT.finger_positions(opening))
        T = np.linalg.inv(poses[ROBOT.tool_frame])
        left, right = (T @ poses[f'{side}_inner_finger'] for side in ('left', 'right'))
        pad = np.array([0, -0.0222 - 0.0067 / 2, 0.0324, 1.0])
        assert (left @ pad - right @ pad)[1] == pytest.approx(opening, abs=1e-4)
        np.testing.assert_allclose(left[:3, :3], np.eye(3), atol=1e-6)


def test_both_kinematics_agree_and_rest_points_down():
    kinematics = ArmKinematics(ROBOT)
    T = kinematics.forward(ROBOT.home)
    np.testing.assert_allclose(T[:3, 2], [0, 0, -1], atol=1e-3)
    np.testing.assert_allclose(T[:3, 3], [0.46, 0.0, 0.28], atol=1e-3)
    q = ROBOT.home + 0.2
    named = dict(zip(ROBOT.joints, q, strict=True))
    np.testing.assert_allclose(kinematics.forward(q), ROBOT.urdf.link_poses(named)[ROBOT.tool_frame], atol=1e-6)
    assert kinematics.arm_points(q).shape == (7, 3)


@needs_meshes
def test_fingers_that_swing_are_checked_for_collisions_where_they_are():
    model = RobotModel.of(ROBOT)
    assert model.dof == 6 and len(model.fingers) == 6
    for stations in model.fingers.values():
        assert len(stations) == 9 and not np.allclose(stations[0].homogeneous, stations[-1].homogeneous)


@needs_meshes
def test_the_trackers_gripper_opens_and_draws_back():
    gripper = gripper_of(ROBOT)
    tips = []
    for opening in (0.0, 0.08):
        vertices, faces, part = gripper.posed(opening)
        left, right = (vertices[faces[part == p]].reshape(-1, 3) for p in (1, 2))
        assert left[:, 1].min() - right[:, 1].max() == pytest.approx(opening, abs=5e-3)  # the drawn pads are thinner
        tips.append(left[:, 2].max())
    assert tips[0] - tips[1] == pytest.approx(0.0125, abs=2e-3)


@needs_meshes
def test_the_expert_does_a_task():
    from geo4d_ros.simulation.cell import Cell
    from geo4d_ros.simulation.rollout import rollout

    cell = Cell('cereal', 1, robot=ROBOT)
    assert rollout(cell).success and cell.opening == pytest.approx(cell.stroke, abs=2e-3)
