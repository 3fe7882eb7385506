"""The launch files describe themselves and start what they say; needs ROS's launch, which PyPI does not have."""

from pathlib import Path

import pytest

# A machine without ROS skips this file; there the launch files are covered by the syntax check below only.
pytest.importorskip('launch.actions', reason='the launch package comes with ROS')
pytest.importorskip('launch_ros.actions', reason='the launch_ros package comes with ROS')

from launch import LaunchContext
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
    ResetLaunchConfigurations,
)
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch_ros.actions import Node
from launch_ros.utilities import evaluate_parameters

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.resources import resource

FILES = sorted(Path(resource('launch')).glob('*.launch.py'))


def described(path):
    return get_launch_description_from_python_launch_file(str(path)).entities


def started(path, **values):
    """The actions that a launch file comes to with these arguments."""
    context = LaunchContext()
    entities = described(path)
    for argument in entities:
        if isinstance(argument, DeclareLaunchArgument) and argument.default_value is not None:
            context.launch_configurations[argument.name] = ''.join(
                s.perform(context) for s in argument.default_value)
    context.launch_configurations.update(values)
    return [action for entity in entities if isinstance(entity, OpaqueFunction) for action in entity.execute(context)]


@pytest.mark.parametrize('path', FILES, ids=lambda p: p.name)
def test_every_argument_is_described(path):
    arguments = [e for e in described(path) if isinstance(e, DeclareLaunchArgument)]
    assert arguments and all(len(a.description) > 10 and a.description != 'no description given' for a in arguments)


@pytest.mark.parametrize('values, executables', [
    ({}, ['prediction', 'plan_executor']),
    ({'one_process': 'false'}, ['video_generator', 'gripper_tracker', 'plan_executor']),
    ({'rviz': 'true'}, ['rviz2', 'prediction', 'plan_executor']),
])
def test_the_loop_starts_its_nodes(values, executables):
    nodes = [a for a in started(resource('launch', 'plan_and_execute.launch.py'), **values) if isinstance(a, Node)]
    assert [node.node_executable for node in nodes] == executables


def test_all_topics_are_recorded_when_asked():
    path = resource('launch', 'plan_and_execute.launch.py')
    recorders = {folder: [a for a in started(path, record=folder)
                          if isinstance(a, ExecuteProcess) and not isinstance(a, Node)] for folder in ('', 'bags/now')}
    assert not recorders['']
    command = [part[0].text for part in recorders['bags/now'][0].cmd]
    assert command == ['ros2', 'bag', 'record', '--all', '--storage', 'mcap', '--output', 'bags/now']


def flattened(actions, context):
    """Actions with those inside groups, without running what an included file holds."""
    for action in actions:
        yield action
        if isinstance(action, GroupAction):
            yield from flattened(action.get_sub_entities(), context)


def test_a_namespace_reaches_every_node_and_the_simulation():
    context = LaunchContext()
    actions = started(resource('launch', 'plan_and_execute.launch.py'), namespace='cell2', rviz='true')
    for node in [a for a in actions if isinstance(a, Node)]:
        node._perform_substitutions(context)
        assert node.expanded_node_namespace == '/cell2'
        assert ('/tf', 'tf') in node.expanded_remapping_rules and ('/clock', 'clock') in node.expanded_remapping_rules
    includes = [a for a in flattened(actions, context) if isinstance(a, IncludeLaunchDescription)]
    assert [dict(include.launch_arguments)['namespace'] for include in includes] == ['cell2']


def given(node):
    """The parameters that a launch file gives to a node, but for those of the file."""
    context, values = LaunchContext(), {}
    for one in node._Node__parameters:
        if isinstance(one, dict):
            values.update(evaluate_parameters(context, [one])[0])
    return values


def test_a_preset_reaches_every_node():
    path = resource('launch', 'plan_and_execute.launch.py')
    actions = started(path, robot='fr3', sim='false', motion='moveit', one_process='false')
    generator, tracker, executor = (given(a) for a in actions if isinstance(a, Node))
    assert generator['robot'] == tracker['robot'] == executor['robot'] == 'fr3'
    assert generator['tool_frame'] == 'fr3_hand_tcp' and tracker['base_frame'] == 'fr3_link0'
    assert executor['arm_action'] == 'fr3_arm_controller/follow_joint_trajectory' and executor['motion'] == 'moveit'
    assert executor['gripper_action'] == 'franka_gripper/gripper_action'
    plain = [given(a) for a in started(path) if isinstance(a, Node)]
    assert all(values['autostart'] for values in plain)
    assert not any(given(a)['autostart'] for a in started(path, autostart='false') if isinstance(a, Node))
    assert not any('robot' in values or 'arm_action' in values for values in plain)


def test_a_simulated_preset_keeps_the_simulated_controllers():
    actions = started(resource('launch', 'plan_and_execute.launch.py'), robot='ur5e_2f85')
    executor = [given(a) for a in actions if isinstance(a, Node)][-1]
    assert executor['base_frame'] == 'base_link' and 'arm_action' not in executor
    includes = [a for a in flattened(actions, LaunchContext()) if isinstance(a, IncludeLaunchDescription)]
    assert [dict(include.launch_arguments)['robot'] for include in includes] == ['ur5e_2f85']
    cell = next(a for a in started(resource('launch', 'simulation.launch.py'), robot='fr3') if isinstance(a, Node))
    assert given(cell)['robot'] == 'fr3'


@pytest.mark.parametrize('name', ['plan_and_execute.launch.py', 'simulation.launch.py'])
def test_an_unknown_robot_lists_what_exists(name):
    with pytest.raises(ConfigurationError, match=r'unknown robot .fr4.; pick one of fr3, panda, ur5e_2f85'):
        started(resource('launch', name), robot='fr4')


def test_nothing_leaks_into_the_drivers_of_two_namespaced_cameras():
    actions = started(resource('launch', 'cameras.launch.py'), namespace='cell2', reference_serial='_1',
                      second_serial='_2')
    assert all(isinstance(action, GroupAction) for action in actions)
    groups = [action.get_sub_entities() for action in actions]
    assert all(any(isinstance(e, ResetLaunchConfigurations) for e in group) for group in groups)
    drivers = [dict(e.launch_arguments) for group in groups for e in group if isinstance(e, IncludeLaunchDescription)]
    assert [d['camera_namespace'] for d in drivers] == ['/cell2/camera1', '/cell2/camera2']
    assert [d['camera_name'] for d in drivers] == ['camera1', 'camera2']
