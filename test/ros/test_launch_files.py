"""The launch files describe themselves and start what they say; needs ROS's launch, which PyPI does not have."""

from pathlib import Path

import pytest

# A machine without ROS skips this file; there the launch files are covered by the syntax check below only.
pytest.importorskip('launch.actions', reason='the launch package comes with ROS')
pytest.importorskip('launch_ros.actions', reason='the launch_ros package comes with ROS')

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch_ros.actions import Node

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
