"""What a preset tells the nodes; the launch files hand it on."""

import ast
from dataclasses import fields
from pathlib import Path

import pytest

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.ros.graph.robot_parameters import robot_parameters

ROOT = Path(__file__).resolve().parents[3]
CONTROLLERS = {
    'fr3': ('fr3_arm_controller/follow_joint_trajectory', 'franka_gripper/gripper_action', 'GripperCommand', 'fr3_arm'),
    'panda': ('panda_arm_controller/follow_joint_trajectory', 'panda_hand_controller/gripper_cmd', 'GripperCommand',
              'panda_arm'),
    'ur5e_2f85': ('scaled_joint_trajectory_controller/follow_joint_trajectory',
                  'robotiq_gripper_controller/gripper_cmd', 'GripperCommand', 'ur_manipulator')}


@pytest.mark.parametrize('name', CONTROLLERS)
def test_a_preset_names_the_controllers_of_its_driver(name):
    executor = robot_parameters(name, simulated=False)['plan_executor']
    assert tuple(executor[k] for k in ('arm_action', 'gripper_action', 'gripper_type', 'moveit_group')
                 ) == CONTROLLERS[name]


def test_what_a_preset_sets_are_parameters_of_the_executor():
    from geo4d_ros.ros.execute.executor_parameters import ExecutorParameters

    assert set(robot_parameters('fr3', simulated=False)['plan_executor']) <= {f.name for f in
                                                                              fields(ExecutorParameters)}


def test_no_preset_and_the_default_robot_in_simulation_change_nothing():
    assert not any(robot_parameters('', simulated=False).values()) and not any(robot_parameters('panda').values())
    assert 'arm_action' not in robot_parameters('fr3')['plan_executor']


def test_an_unknown_name_lists_what_exists():
    with pytest.raises(ConfigurationError, match="unknown robot 'fr4'; pick one of fr3, panda, ur5e_2f85"):
        robot_parameters('fr4', simulated=False)


@pytest.mark.parametrize('name', ['plan_and_execute.launch.py', 'simulation.launch.py'])
def test_the_launch_files_ask_for_it_before_they_start_anything(name):
    tree = ast.parse((ROOT / 'launch' / name).read_text())
    start = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == 'start')
    assert any(isinstance(c, ast.Call) and getattr(c.func, 'id', '') == 'robot_parameters' for c in ast.walk(start))
