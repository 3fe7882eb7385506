"""A recorded cell through the generator and the tracker: the bag plays, nothing is executed.

Record with `ros2 bag record -s mcap /camera1/camera1/color/image_raw ...` (the README lists the topics), then ask
for predictions with `ros2 service call /geo4d/predict geo4d_interfaces/srv/Predict '{}'` while the bag plays.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import Node

from geo4d_ros.resources import resource
from geo4d_ros.ros.graph.launch_arguments import cell_remappings, check_checkpoint, check_namespace, in_namespace
from geo4d_ros.ros.serve.environment import transport_environment

ARGUMENTS = [
    DeclareLaunchArgument('namespace', default_value='',
                          description='Namespace of the nodes, such as cell2; empty: none.'),
    DeclareLaunchArgument('bag', description='The recorded bag: a folder or an .mcap file.'),
    DeclareLaunchArgument('rate', default_value='1.0', description='Speed of the replay.'),
    DeclareLaunchArgument('loop', default_value='false', choices=['true', 'false'],
                          description='Begin again at the end.'),
    DeclareLaunchArgument('reference_camera', default_value='camera1/camera1',
                          description='Namespace of the camera whose frame all points are in.'),
    DeclareLaunchArgument('second_camera', default_value='camera2/camera2',
                          description='Namespace of the second camera.'),
    DeclareLaunchArgument('checkpoint', default_value='geo4d-sim-small',
                          description='Directory of the weights, or the name of a shipped model.'),
    DeclareLaunchArgument('params_file', default_value=str(resource('config', 'geo4d.yaml')),
                          description='YAML with parameters of the nodes; launch arguments win.'),
    DeclareLaunchArgument('rviz', default_value='false', choices=['true', 'false'], description='Start RViz.'),
]


def start(context):
    """The player and the nodes, once the arguments are known."""
    value = context.launch_configurations
    check_checkpoint(value['checkpoint'])
    check_namespace(value['namespace'])
    place = {'namespace': value['namespace'], 'remappings': cell_remappings(value['namespace'], simulated=True)}
    play = ['ros2', 'bag', 'play', value['bag'], '--clock', '100', '--rate', value['rate']]
    if value['namespace']:  # the recorded topics are in it; the player's own clock is put there
        play += ['--remap', f'/clock:={in_namespace(value["namespace"], "clock")}']
    names = ('reference_camera', 'second_camera', 'checkpoint')
    # Nothing waits for us while a bag plays: the newest pair is taken as it is.
    overrides = {**{name: value[name] for name in names}, 'fresh': False, 'use_sim_time': True}
    actions = [SetEnvironmentVariable(*item) for item in transport_environment().items()]
    actions.append(ExecuteProcess(cmd=play + (['--loop'] if value['loop'] == 'true' else []), output='screen'))
    actions.append(Node(package='geo4d_ros', executable='prediction', output='screen', **place,
                        parameters=[value['params_file'], overrides]))
    if value['rviz'] == 'true':
        actions.append(Node(package='rviz2', executable='rviz2', output='log', **place,
                            parameters=[{'use_sim_time': True}],
                            arguments=['-d', str(resource('config', 'plan_and_execute.rviz'))]))
    return actions


def generate_launch_description():
    """Arguments and everything that runs."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
