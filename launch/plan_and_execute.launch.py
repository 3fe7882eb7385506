"""The closed loop: look, predict, track, check, execute. Starts in dry run: nothing moves unless told otherwise."""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node

from geo4d_ros.resources import resource
from geo4d_ros.ros.graph.launch_arguments import (
    camera_list,
    cell_remappings,
    check_cameras,
    check_checkpoint,
    check_namespace,
    recorded,
)
from geo4d_ros.ros.graph.robot_parameters import robot_parameters
from geo4d_ros.ros.serve.environment import simulation_environment, transport_environment
from geo4d_ros.simulation.tasks import TASKS

FROM_FILE = ' Empty: as in params_file.'
BOOLEAN = ['true', 'false']

ARGUMENTS = [
    DeclareLaunchArgument('namespace', default_value='',
                          description='Namespace of everything that starts here, such as cell2; empty: none.'),
    DeclareLaunchArgument('sim', default_value='true', choices=BOOLEAN,
                          description='Start the simulated cell; false: your cameras, robot and controllers.'),
    DeclareLaunchArgument('task', default_value='apple', choices=list(TASKS),
                          description='Task of the simulated cell.'),
    DeclareLaunchArgument('seed', default_value='500000', description='Seed of the simulated cell.'),
    DeclareLaunchArgument('robot', default_value='',
                          description='Preset of an arm with its gripper: fr3, panda, ur5e_2f85, one of another '
                          'package, or a YAML file; sets frames, joints, and without sim the names of its driver\'s '
                          'controllers.' + FROM_FILE),
    DeclareLaunchArgument('rviz', default_value='false', choices=BOOLEAN, description='Start RViz.'),
    DeclareLaunchArgument('realsense', default_value='false', choices=BOOLEAN,
                          description='Start two RealSense drivers (see cameras.launch.py for their arguments).'),
    DeclareLaunchArgument('reference_serial', default_value='',
                          description='With realsense: serial number of the reference camera, as _012345678901.'),
    DeclareLaunchArgument('second_serial', default_value='', description='The same for the second camera.'),
    DeclareLaunchArgument('reference_camera', default_value='camera1/camera1',
                          description='Namespace of the camera whose frame all points are in.'),
    DeclareLaunchArgument('second_camera', default_value='camera2/camera2',
                          description='Namespace of the second camera.'),
    DeclareLaunchArgument('cameras', default_value='',
                          description='Without sim: namespaces of all cameras, the reference first, separated by '
                          'commas; in place of the two above.'),
    DeclareLaunchArgument('image_transport', default_value='', choices=['', 'raw', 'compressed'],
                          description='Without sim: what is heard of the cameras.' + FROM_FILE),
    DeclareLaunchArgument('checkpoint', default_value='',
                          description='Directory of the weights, or the name of a shipped model.' + FROM_FILE),
    DeclareLaunchArgument('generator', default_value='',
                          description='remote://host:port of a `geo4d serve`, in place of the checkpoint.' + FROM_FILE),
    DeclareLaunchArgument('device', default_value='', description='cpu, cuda, cuda:1, ...' + FROM_FILE),
    DeclareLaunchArgument('tracker', default_value='', choices=['', 'model', 'foundationpose', 'isaac'],
                          description='Tracking backend.' + FROM_FILE),
    DeclareLaunchArgument('readout', default_value='', choices=['', 'fused', 'video', 'state'],
                          description='What the path is read from.' + FROM_FILE),
    DeclareLaunchArgument('motion', default_value='', choices=['', 'trajectory', 'moveit'],
                          description='Who executes: a FollowJointTrajectory action or MoveIt.' + FROM_FILE),
    DeclareLaunchArgument('dry_run', default_value='true', choices=BOOLEAN,
                          description='Check and show plans, never move.'),
    DeclareLaunchArgument('auto', default_value='false', choices=BOOLEAN,
                          description='Execute plans that pass the gates without /geo4d/approve.'),
    DeclareLaunchArgument('recover', default_value='false', choices=BOOLEAN,
                          description='Go a little back by itself after a refused plan or a motion that was held up.'),
    DeclareLaunchArgument('autostart', default_value='true', choices=BOOLEAN,
                          description='Configure and activate the nodes; false: by `ros2 lifecycle set`.'),
    DeclareLaunchArgument('one_process', default_value='true', choices=BOOLEAN,
                          description='Generator and tracker in one process; false passes images through topics.'),
    DeclareLaunchArgument('params_file', default_value=str(resource('config', 'geo4d.yaml')),
                          description='YAML with parameters of the nodes; launch arguments win.'),
    DeclareLaunchArgument('record', default_value='',
                          description='New folder for an MCAP recording of all topics of the namespace (ros2 bag). '
                          'Empty: none.'),
    DeclareLaunchArgument('use_sim_time', default_value='', choices=['', *BOOLEAN],
                          description='Take the time from /clock. Empty: as `sim`.'),
    DeclareLaunchArgument('loopback', default_value='true', choices=BOOLEAN,
                          description='With sim: keep everything on this host.'),
    DeclareLaunchArgument('log_level', default_value='info', choices=['debug', 'info', 'warn', 'error'],
                          description='Least severe messages that are logged.'),
]


def included(name, value, arguments):
    """Another launch file of this package with some of our arguments; no other one reaches it, none leaks from it."""
    include = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(resource('launch', name))),
                                       launch_arguments={key: value[key] for key in arguments}.items())
    return GroupAction([include], scoped=True, forwarding=False)


def parameters(value, names, preset=None, **more):
    """The file, then the robot's preset, then whatever else was given on the command line."""
    given = {name: value[name] for name in names if value[name] != ''}
    simulated = value['use_sim_time'] or value['sim']
    return [value['params_file'], {**(preset or {}), **given, **more, 'use_sim_time': simulated == 'true'}]


def start(context):
    """Everything, once the arguments are known."""
    value = context.launch_configurations
    simulated = value['sim'] == 'true'
    check_checkpoint(value['checkpoint'])
    check_namespace(value['namespace'])
    robot = robot_parameters(value['robot'], simulated)
    if not simulated and value['realsense'] == 'true':
        check_cameras(value)
    environment = simulation_environment(value['loopback'] == 'true') if simulated else transport_environment()
    cameras = ('reference_camera', 'second_camera')
    place = {'namespace': value['namespace'], 'remappings': cell_remappings(value['namespace'], simulated)}
    views = {'cameras': camera_list(value['cameras'], simulated)} if value['cameras'] else {}
    autostart = {'autostart': value['autostart'] == 'true'}
    common = {'package': 'geo4d_ros', 'output': 'screen', **place,
              'arguments': ['--ros-args', '--log-level', value['log_level']]}
    generator = parameters(value, ('checkpoint', 'generator', 'device', 'image_transport', *cameras),
                           robot['video_generator'], **autostart, **views)
    tracker = parameters(value, ('tracker', 'readout'), robot['gripper_tracker'], **autostart)
    if value['one_process'] == 'true':
        prediction = [Node(executable='prediction', parameters=[generator[0], {**generator[1], **tracker[1]}],
                           **common)]
    else:
        prediction = [Node(executable='video_generator', parameters=generator, **common),
                      Node(executable='gripper_tracker', parameters=tracker, **common)]
    modes = {name: value[name] == 'true' for name in ('dry_run', 'auto', 'recover', 'autostart')}
    executor = Node(executable='plan_executor', **common,
                    parameters=parameters(value, ('motion', *cameras), robot['plan_executor'], **modes, **views))
    actions = [SetEnvironmentVariable(*item) for item in environment.items()]
    if simulated:
        actions.append(included('simulation.launch.py', value, (
            'namespace', 'task', 'seed', 'robot', *cameras, 'params_file', 'loopback', 'log_level')))
    elif value['realsense'] == 'true':
        actions.append(included('cameras.launch.py', value,
                                ('namespace', *cameras, 'reference_serial', 'second_serial')))
    if value['rviz'] == 'true':
        actions.append(Node(package='rviz2', executable='rviz2', output='log', **place,
                            arguments=['-d', str(resource('config', 'plan_and_execute.rviz'))],
                            parameters=parameters(value, ())[1:]))
    if value['record']:
        command = ['ros2', 'bag', 'record', *recorded(value['namespace']), '--storage', 'mcap', '--output']
        actions.append(ExecuteProcess(cmd=[*command, value['record']], output='screen'))
    return [*actions, *prediction, executor]


def generate_launch_description():
    """Arguments and everything that runs."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
