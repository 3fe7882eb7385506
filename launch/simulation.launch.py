"""The simulated cell alone: cameras, robot and controllers on the topics of a real cell."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import Node

from geo4d_ros.resources import resource
from geo4d_ros.ros.graph.launch_arguments import cell_remappings, check_namespace
from geo4d_ros.ros.graph.robot_parameters import robot_parameters
from geo4d_ros.ros.serve.environment import simulation_environment
from geo4d_ros.simulation.tasks import TASKS

ARGUMENTS = [
    DeclareLaunchArgument('namespace', default_value='',
                          description='Namespace of the simulated cell, such as cell2; empty: none.'),
    DeclareLaunchArgument('task', default_value='apple', choices=list(TASKS),
                          description='What the cell is set up for.'),
    DeclareLaunchArgument('robot', default_value='',
                          description='Arm with its gripper: fr3, panda, ur5e_2f85, one of another package, or a YAML '
                          'file. Empty: as in params_file.'),
    DeclareLaunchArgument('seed', default_value='500000', description='Seed of objects, colours and lights.'),
    DeclareLaunchArgument('cameras', default_value='held-out', choices=['train', 'held-out'],
                          description='Region from which the two camera poses are drawn.'),
    DeclareLaunchArgument('camera_seed', default_value='0', description='Seed of the two camera poses.'),
    DeclareLaunchArgument('camera_rate', default_value='6.0', description='Image rate of both cameras [Hz].'),
    DeclareLaunchArgument('noise', default_value='none', choices=['none', 'd435'],
                          description='Depth noise model; none switches it off.'),
    DeclareLaunchArgument('reference_camera', default_value='camera1/camera1',
                          description='Namespace of the camera whose frame all points are in.'),
    DeclareLaunchArgument('second_camera', default_value='camera2/camera2',
                          description='Namespace of the second camera.'),
    DeclareLaunchArgument('params_file', default_value=str(resource('config', 'geo4d.yaml')),
                          description='YAML with parameters of the nodes; launch arguments win.'),
    DeclareLaunchArgument('loopback', default_value='true', choices=['true', 'false'],
                          description='Keep the simulated cell on this host; false lets other hosts see it.'),
    DeclareLaunchArgument('log_level', default_value='info', choices=['debug', 'info', 'warn', 'error'],
                          description='Least severe messages that are logged.'),
]


def start(context):
    """The node, once the arguments are known."""
    value = context.launch_configurations
    check_namespace(value['namespace'])
    environment = simulation_environment(value['loopback'] == 'true')
    cell = Node(
        package='geo4d_ros', executable='simulated_cell', output='screen', namespace=value['namespace'],
        remappings=cell_remappings(value['namespace'], simulated=True),
        parameters=[value['params_file'], robot_parameters(value['robot'])['simulated_cell'], {
            'task': value['task'], 'seed': int(value['seed']), 'cameras': value['cameras'],
            'camera_seed': int(value['camera_seed']), 'camera_rate': float(value['camera_rate']),
            'noise': value['noise'], 'reference_camera': value['reference_camera'],
            'second_camera': value['second_camera']}],
        arguments=['--ros-args', '--log-level', value['log_level']])
    return [*[SetEnvironmentVariable(*item) for item in environment.items()], cell]


def generate_launch_description():
    """Arguments and the node."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
