"""What the tests need of the default robot, under short names."""

from geo4d_ros.robots.registry import load_robot

ROBOT = load_robot('panda')
HOME, JOINT_NAMES, ARM_FRAMES = ROBOT.home, ROBOT.joints, ROBOT.arm_frames
BASE_FRAME, TOOL_FRAME, MAX_OPENING = ROBOT.base_frame, ROBOT.tool_frame, ROBOT.gripper.stroke
MAX_VELOCITY, MAX_ACCELERATION = ROBOT.velocity_limits, ROBOT.acceleration


def urdf_text() -> str:
    """The URDF with its meshes' paths."""
    return ROBOT.urdf_text


def joint_limits():
    """Lower and upper (7,), (7,) [rad]."""
    return ROBOT.joint_limits
