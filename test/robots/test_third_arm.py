"""An arm through the public door only: examples/kinova3 holds a URDF and a YAML file, and the package knows nothing."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from geo4d_ros.robots.inverse_kinematics import ArmKinematics
from geo4d_ros.robots.registry import ROBOTS, load_robot
from geo4d_ros.simulation.cell import Cell
from geo4d_ros.simulation.robot_check import check_robot
from geo4d_ros.simulation.rollout import rollout

FOLDER = Path(__file__).parents[2] / 'examples' / 'kinova3'
ROBOT = load_robot(FOLDER / 'kinova3_2f85.yaml')
needs_meshes = pytest.mark.skipif(importlib.util.find_spec('robosuite') is None, reason='make assets-ur5e')


def test_it_is_files_alone():
    assert {p.suffix for p in FOLDER.iterdir()} <= {'.yaml', '.urdf', '.md'}
    assert not any('kinova' in name for name in ROBOTS)


def test_seven_joints_and_rest_points_down():
    kinematics = ArmKinematics(ROBOT)
    T = kinematics.forward(ROBOT.home)
    np.testing.assert_allclose(T[:3, 2], [0, 0, -1], atol=2e-3)
    np.testing.assert_allclose(T[:3, 3], [0.46, 0.0, 0.28], atol=2e-3)
    assert kinematics.arm_points(ROBOT.home).shape == (7, 3)
    assert ROBOT.gripper.stroke == pytest.approx(0.085, abs=1e-3)


@needs_meshes
@pytest.mark.slow
def test_the_check_finds_nothing_and_the_expert_does_a_task():
    bad = [item for item in check_robot(ROBOT) if not item.good]
    assert not bad
    result = rollout(Cell('apple', 500_001, robot=ROBOT))
    assert result.success, result.failure
