"""What the nodes have to be told to work with another robot than the default one."""

from __future__ import annotations

from geo4d_ros.robots.registry import DEFAULT, load_robot
from geo4d_ros.ros.graph.process_group import ParameterValue


def robot_parameters(name: str, simulated: bool = True) -> dict[str, dict[str, ParameterValue]]:
    """Parameters per node for a robot by name or YAML file; {} each for '' and for the default one in simulation.

    simulated: with the simulated cell's controllers, whatever the robot's own are called.
    Raises ConfigurationError: an unknown name lists what exists.
    """
    nodes = ('simulated_cell', 'video_generator', 'gripper_tracker', 'plan_executor')
    robot = load_robot(name)
    if not name or (simulated and robot is load_robot(DEFAULT)):
        return {node: {} for node in nodes}
    executor: dict[str, ParameterValue] = {
        'robot': name, 'arm_joints': list(robot.joints), 'base_frame': robot.base_frame,
        'tool_frame': robot.tool_frame, 'joint_acceleration': robot.planned_acceleration,
        'gripper_joint': robot.gripper.joints[0], 'stroke': robot.gripper.stroke}
    if not simulated:
        c = robot.controllers
        executor |= {'arm_action': c.arm_action, 'gripper_action': c.gripper_action, 'gripper_type': c.gripper_type,
                     'moveit_group': c.moveit_group}
    return {'simulated_cell': {'robot': name},
            'video_generator': {'robot': name, 'tool_frame': robot.tool_frame, 'arm_frames': list(robot.arm_frames)},
            'gripper_tracker': {'robot': name, 'base_frame': robot.base_frame}, 'plan_executor': executor}
