"""Two RealSense cameras as this package wants them: aligned depth, colour and depth in step, no placeholder TF.

realsense2_camera's own multi-camera launch file publishes an identity transform between the cameras; a lying
calibration is worse than none, so its single-camera file is included twice instead, each time in a scope of its own.
"""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import Node, SetRemap
from launch_ros.substitutions import FindPackageShare

from geo4d_ros.ros.graph.launch_arguments import (
    calibrated_pose,
    cell_remappings,
    check_cameras,
    check_namespace,
    in_namespace,
)
from geo4d_ros.ros.serve.environment import transport_environment

POSE = 'Pose of its colour optical frame in base_frame, "x y z qx qy qz qw"; empty when a calibration publishes it.'

ARGUMENTS = [
    DeclareLaunchArgument('namespace', default_value='',
                          description='Namespace of both cameras, such as cell2; empty: none.'),
    DeclareLaunchArgument('reference_camera', default_value='camera1/camera1',
                          description='Namespace and name of the camera whose frame all points are in.'),
    DeclareLaunchArgument('second_camera', default_value='camera2/camera2',
                          description='Namespace and name of the second camera.'),
    DeclareLaunchArgument('reference_serial', default_value='',
                          description='Needed: the serial number, with a leading underscore as the driver wants it.'),
    DeclareLaunchArgument('second_serial', default_value='', description='The same for the second camera.'),
    DeclareLaunchArgument('profile', default_value='640x480x30', description='Width, height and rate of the images.'),
    DeclareLaunchArgument('base_frame', default_value='panda_link0', description='Frame of the poses below.'),
    DeclareLaunchArgument('calibration', default_value='',
                          description='File of `geo4d calibrate` with the cameras; poses below go before it.'),
    DeclareLaunchArgument('reference_pose', default_value='', description=POSE),
    DeclareLaunchArgument('second_pose', default_value='', description=POSE),
]


def camera(value, which):
    """The driver of one camera, and its transform where one is given."""
    # In full: the driver's own launch file knows no namespace but the one it is given.
    namespace, name = in_namespace(value['namespace'], value[f'{which}_camera']).rsplit('/', 1)
    pose = value[f'{which}_pose'].split()
    if value['calibration'] and not pose:
        pose = calibrated_pose(value['calibration'], value[f'{which}_camera']).split()
    driver = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution(
            [FindPackageShare('realsense2_camera'), 'launch', 'rs_launch.py'])),
        launch_arguments={
            'camera_namespace': namespace, 'camera_name': name, 'serial_no': value[f'{which}_serial'],
            'align_depth.enable': 'true', 'enable_sync': 'true', 'rgb_camera.color_profile': value['profile'],
            'depth_module.depth_profile': value['profile'],
            # A frame has one parent: with a calibrated optical frame the driver's own tree must stay away.
            'publish_tf': 'false' if pose else 'true'}.items())
    remappings = cell_remappings(value['namespace'], simulated=False)
    # Only its own arguments reach the driver, none of ours, and none of the other camera's; nor does the environment.
    driver = GroupAction([*[SetEnvironmentVariable(*item) for item in transport_environment().items()],
                          *[SetRemap(*pair) for pair in remappings], driver], scoped=True, forwarding=False)
    if not pose:
        return [driver]
    flags = ['--x', '--y', '--z', '--qx', '--qy', '--qz', '--qw']
    if len(pose) != len(flags):
        raise ValueError(f'{which}_pose should be 7 numbers "x y z qx qy qz qw" but has {len(pose)}')
    return [driver, Node(
        package='tf2_ros', executable='static_transform_publisher', name=f'{name}_calibration',
        namespace=value['namespace'], remappings=remappings,
        arguments=[word for pair in zip(flags, pose, strict=True) for word in pair]
        + ['--frame-id', value['base_frame'], '--child-frame-id', f'{name}_color_optical_frame'])]


def start(context):
    """Both cameras, once the arguments are known."""
    value = context.launch_configurations
    check_cameras(value)
    check_namespace(value['namespace'])
    return [*camera(value, 'reference'), *camera(value, 'second')]


def generate_launch_description():
    """Arguments and drivers."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
