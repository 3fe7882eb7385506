"""Two RealSense cameras as this package wants them: aligned depth, colour and depth in step, no placeholder TF.

realsense2_camera's own multi-camera launch file publishes an identity transform between the cameras; a lying
calibration is worse than none, so its single-camera file is included twice instead.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from geo4d_ros.ros.graph.launch_arguments import check_cameras

POSE = 'Pose of its colour optical frame in base_frame, "x y z qx qy qz qw"; empty when a calibration publishes it.'

ARGUMENTS = [
    DeclareLaunchArgument('reference_camera', default_value='/camera1/camera1',
                          description='Namespace and name of the camera whose frame all points are in.'),
    DeclareLaunchArgument('second_camera', default_value='/camera2/camera2',
                          description='Namespace and name of the second camera.'),
    DeclareLaunchArgument('reference_serial', default_value='',
                          description='Needed: the serial number, with a leading underscore as the driver wants it.'),
    DeclareLaunchArgument('second_serial', default_value='', description='The same for the second camera.'),
    DeclareLaunchArgument('profile', default_value='640x480x30', description='Width, height and rate of the images.'),
    DeclareLaunchArgument('base_frame', default_value='panda_link0', description='Frame of the poses below.'),
    DeclareLaunchArgument('reference_pose', default_value='', description=POSE),
    DeclareLaunchArgument('second_pose', default_value='', description=POSE),
]


def camera(value, which):
    """The driver of one camera, and its transform where one is given."""
    namespace, name = value[f'{which}_camera'].strip('/').split('/')
    pose = value[f'{which}_pose'].split()
    driver = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution(
            [FindPackageShare('realsense2_camera'), 'launch', 'rs_launch.py'])),
        launch_arguments={
            'camera_namespace': namespace, 'camera_name': name, 'serial_no': value[f'{which}_serial'],
            'align_depth.enable': 'true', 'enable_sync': 'true', 'rgb_camera.color_profile': value['profile'],
            'depth_module.depth_profile': value['profile'],
            # A frame has one parent: with a calibrated optical frame the driver's own tree must stay away.
            'publish_tf': 'false' if pose else 'true'}.items())
    if not pose:
        return [driver]
    flags = ['--x', '--y', '--z', '--qx', '--qy', '--qz', '--qw']
    if len(pose) != len(flags):
        raise ValueError(f'{which}_pose should be 7 numbers "x y z qx qy qz qw" but has {len(pose)}')
    return [driver, Node(
        package='tf2_ros', executable='static_transform_publisher', name=f'{name}_calibration',
        arguments=[word for pair in zip(flags, pose, strict=True) for word in pair]
        + ['--frame-id', value['base_frame'], '--child-frame-id', f'{name}_color_optical_frame'])]


def start(context):
    """Both cameras, once the arguments are known."""
    value = context.launch_configurations
    check_cameras(value)
    return [*camera(value, 'reference'), *camera(value, 'second')]


def generate_launch_description():
    """Arguments and drivers."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
