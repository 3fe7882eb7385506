"""The parameters of `plan_executor`, and the limits, scene and loop settings they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from geo4d_ros.errors import require
from geo4d_ros.loop.machine import LoopConfig
from geo4d_ros.motion.collision import Obstacle, Scene
from geo4d_ros.motion.limits import SPEED_CAP, MotionLimits
from geo4d_ros.robots.finger_motion import FingerMotion, linear
from geo4d_ros.robots.kinematics import RobotModel, finger_stations
from geo4d_ros.robots.registry import load_robot
from geo4d_ros.ros.observe.camera_names import CameraParameters
from geo4d_ros.ros.serve.lifecycle import LifecycleParameters
from geo4d_ros.ros.serve.liveness import LEASE
from geo4d_ros.ros.serve.parameters import parameter

LIMIT, LOOP, ROBOT = MotionLimits(), LoopConfig(), load_robot()


@dataclass(frozen=True)
class ExecutorParameters(LifecycleParameters, CameraParameters):
    """Read-only ones need a restart; the others take effect on the next /geo4d/start or /geo4d/step."""

    # How the loop runs
    dry_run: bool = parameter(True, 'Check and show plans, never move.')
    auto: bool = parameter(False, 'Execute plans that pass the gates without /geo4d/approve.')
    recover: bool = parameter(False, 'After a refused plan, a lost track or a motion that was held up go a little back '
                              'through the same gates, a few times, before giving up; else no motion follows one.')
    poses: int = parameter(5, 'Poses of a plan that are executed before looking again.', minimum=1, maximum=50)
    max_cycles: int = parameter(LOOP.max_cycles, 'Cycles after which the loop ends.', minimum=1, maximum=100000)
    max_seconds: float = parameter(LOOP.max_seconds, 'Time after which the loop ends [s].', minimum=1.0, maximum=1e6)
    max_refusals: int = parameter(LOOP.max_refusals, 'Refused plans in a row that latch a fault.', minimum=1,
                                  maximum=100)
    approval_seconds: float = parameter(LOOP.approval_seconds, 'How long a plan waits for approval [s].',
                                        minimum=0.5, maximum=600.0)
    predict_seconds: float = parameter(LOOP.predict_seconds, 'Longest prediction [s].', minimum=0.1, maximum=600.0)
    plan_seconds: float = parameter(LOOP.plan_seconds, 'Longest tracking and planning [s].', minimum=0.1,
                                    maximum=600.0)
    execution_factor: float = parameter(1.5, 'A motion may take so many times its planned length ...', minimum=1.0,
                                        maximum=10.0)
    execution_slack: float = parameter(2.0, '... and so much more [s].', minimum=0.1, maximum=60.0)
    # The robot
    motion: str = parameter('trajectory', 'Who executes motions.', choices=('trajectory', 'moveit'), read_only=True)
    robot: str = parameter('', 'Name of a described robot, or its YAML file: its fingers in place of gripper_scale, '
                           'gripper_offset and those of the URDF that slide; empty: as those say.', read_only=True)
    arm_joints: tuple[str, ...] = parameter(ROBOT.joints, 'Joints of the arm, base to tool.', read_only=True)
    base_frame: str = parameter(ROBOT.base_frame, 'Frame plans are in.', read_only=True)
    tool_frame: str = parameter(ROBOT.tool_frame, 'Tool centre point in the robot description.', read_only=True)
    joint_acceleration: float = parameter(10.0, 'Acceleration limit of the joints [rad/s^2]; URDF has none.',
                                          minimum=0.1, maximum=100.0, read_only=True)
    arm_action: str = parameter('joint_trajectory_controller/follow_joint_trajectory',
                                "The controller's FollowJointTrajectory action.", read_only=True)
    tracking_error: float = parameter(0.05, 'Joint error that stops a motion [rad].', minimum=0.001, maximum=1.0,
                                      read_only=True)
    gripper_action: str = parameter('gripper_controller/gripper_cmd', "The gripper's action.", read_only=True)
    gripper_type: str = parameter('ParallelGripperCommand', 'Type of that action.',
                                  choices=('ParallelGripperCommand', 'GripperCommand'), read_only=True)
    gripper_joint: str = parameter(ROBOT.gripper.joints[0], 'Joint the gripper is measured and commanded by.',
                                   read_only=True)
    gripper_scale: float = parameter(2.0, 'Opening [m] per unit of that joint.', minimum=-10.0, maximum=10.0,
                                     read_only=True)
    gripper_offset: float = parameter(0.0, 'Opening [m] where that joint is 0.', minimum=-1.0, maximum=1.0,
                                      read_only=True)
    gripper_effort: float = parameter(0.0, 'Effort passed on with a command [N]; 0 = left to the gripper.',
                                      minimum=0.0, maximum=500.0, read_only=True)
    moveit_group: str = parameter(ROBOT.controllers.moveit_group, "MoveIt's planning group.", read_only=True)
    # Who is watched
    peers: tuple[str, ...] = parameter(('video_generator', 'gripper_tracker'),
                                       'Nodes whose death stops the arm (those that announce themselves).',
                                       read_only=True)
    peer_silence: float = parameter(LEASE, 'Silence of such a node that counts as its death [s].', minimum=LEASE,
                                    maximum=60.0, read_only=True)
    camera_silence: float = parameter(1.5, 'Silence of a camera that stops the arm [s].', minimum=0.1, maximum=30.0,
                                      read_only=True)
    joint_state_silence: float = parameter(0.5, 'Silence of the joint states that stops the arm [s].', minimum=0.05,
                                           maximum=10.0, read_only=True)
    feedback_silence: float = parameter(1.0, 'Silence of a controller that runs a motion that stops the arm [s].',
                                        minimum=0.1, maximum=60.0, read_only=True)
    answer_seconds: float = parameter(2.0, 'How long a controller may take to accept a goal [s].', minimum=0.1,
                                      maximum=60.0, read_only=True)
    record_directory: str = parameter('', 'Folder for one JSONL record per start; empty = none.')
    seed: int = parameter(0, 'Written into the record.', minimum=0, maximum=2**31 - 1)
    # Limits of every motion
    speed: float = parameter(LIMIT.speed, 'Speed of the tool [m/s].', minimum=0.005, maximum=SPEED_CAP)
    acceleration: float = parameter(LIMIT.acceleration, 'Acceleration of the tool [m/s^2].', minimum=0.01, maximum=5.0)
    angular_speed: float = parameter(LIMIT.angular_speed, 'Angular speed of the tool [rad/s].', minimum=0.01,
                                     maximum=2.0)
    joint_velocity_scale: float = parameter(LIMIT.joint_velocity_scale, "Share of the joints' speed.", minimum=0.01,
                                            maximum=1.0)
    joint_acceleration_scale: float = parameter(LIMIT.joint_acceleration_scale, "Share of the joints' acceleration.",
                                                minimum=0.01, maximum=1.0)
    workspace: tuple[float, ...] = parameter(LIMIT.workspace, 'Box the tool stays in: x, y, z min, x, y, z max [m].',
                                             minimum=-10.0, maximum=10.0, length=6)
    # An empty list has no type in rclpy: where nothing is to be kept out of, the box is far away.
    keep_out: tuple[float, ...] = parameter((9.0, 9.0, 9.0, 9.1, 9.1, 9.1),
                                            'Boxes the whole arm stays out of, six numbers each as for workspace.',
                                            minimum=-10.0, maximum=10.0)
    collision_boxes: tuple[float, ...] = parameter((0.0, 0.0, -0.05, 3.0, 3.0, 0.1),
                                                   'Boxes no link may touch: centre x, y, z, size x, y, z [m] each.',
                                                   minimum=-10.0, maximum=10.0)
    held_box: tuple[float, ...] = parameter((0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
                                            'Box around whatever is held, in the tool frame: centre x, y, z, size x, '
                                            'y, z [m]; size 0 = only the fingers are checked.', minimum=-1.0,
                                            maximum=1.0, length=6)
    table_height: float = parameter(LIMIT.table_height, 'Height of the table top [m].', minimum=-2.0, maximum=2.0)
    table_clearance: float = parameter(LIMIT.table_clearance, 'The tool stays so far above it [m].', minimum=0.0,
                                       maximum=0.5)
    tilt: float = parameter(0.0, 'Largest tilt of the approach axis from straight down [rad]; 0 = any.', minimum=0.0,
                            maximum=3.2)
    step_distance: float = parameter(LIMIT.step_distance, 'Longest step between poses [m].', minimum=0.005, maximum=0.5)
    step_angle: float = parameter(LIMIT.step_angle, 'Largest turn between poses [rad].', minimum=0.01, maximum=3.2)
    start_distance: float = parameter(LIMIT.start_distance, 'Plan start to measured gripper [m].', minimum=0.001,
                                      maximum=0.1)
    start_angle: float = parameter(LIMIT.start_angle, 'The same as an angle [rad].', minimum=0.005, maximum=1.0)
    confidence: float = parameter(LIMIT.confidence, 'Lowest confidence of a pose.', minimum=0.0, maximum=1.0)
    prefix: int = parameter(LIMIT.prefix, 'Fewest poses worth executing.', minimum=1, maximum=50)
    condition_number: float = parameter(LIMIT.condition_number, 'Largest condition number of the Jacobian.',
                                        minimum=1.0, maximum=1000.0)
    condition_slow: float = parameter(LIMIT.condition_slow, 'The same from which on the tool is slowed down.',
                                      minimum=1.0, maximum=1000.0)
    collision_margin: float = parameter(LIMIT.collision_margin, 'Distance kept from obstacles and itself [m].',
                                        minimum=0.0, maximum=0.2)
    joint_state_age: float = parameter(LIMIT.joint_state_age, 'Oldest joint state planned from [s].', minimum=0.01,
                                       maximum=2.0)
    pair_age: float = parameter(LIMIT.pair_age, 'Oldest camera pair a prediction starts from [s].', minimum=0.01,
                                maximum=10.0)
    pair_skew: float = parameter(LIMIT.pair_skew, 'Time between the two exposures [s].', minimum=0.0001, maximum=1.0)
    plan_age: float = parameter(LIMIT.plan_age, 'Oldest observation that is still acted on [s].', minimum=0.1,
                                maximum=600.0)
    future_tolerance: float = parameter(0.02, 'How far a stamp may lie ahead of the clock [s].', minimum=0.0,
                                        maximum=0.5)
    stroke: float = parameter(LIMIT.stroke, 'Widest opening of the gripper [m].', minimum=0.01, maximum=0.5)
    opening_switch: float = parameter(LIMIT.opening_switch, 'Change of opening that is a command [m].', minimum=0.001,
                                      maximum=0.2)
    back_off: float = parameter(LIMIT.back_off, 'Way back after a plan that cannot be executed [m].', minimum=0.01,
                                maximum=0.5)
    missed_opening: float = parameter(LIMIT.missed_opening, 'Closed narrower than this holds nothing [m].',
                                      minimum=0.0, maximum=0.05)
    release_reach: float = parameter(LIMIT.release_reach, 'So far short of its place an object is let go, where the '
                                     'opening fingers have no room there [m].', minimum=0.0001, maximum=0.1)
    dwell: float = parameter(LIMIT.dwell, 'Wait after a gripper command [s].', minimum=0.0, maximum=10.0)
    retreat: float = parameter(LIMIT.retreat, 'Way up after a missed grasp [m].', minimum=0.01, maximum=0.5)


def loop_config(p: ExecutorParameters) -> LoopConfig:
    """The state machine's settings."""
    return LoopConfig(**_shared(p, LoopConfig))


def motion_limits(p: ExecutorParameters) -> MotionLimits:
    """The limits of every motion; ConfigurationError where two of them contradict each other."""
    values = _shared(p, MotionLimits)
    values['tilt'] = p.tilt or None
    values['keep_out'] = _boxes('keep_out', p.keep_out)
    values['held_box'] = p.held_box if any(p.held_box[3:]) else None
    return MotionLimits(**values)


def scene(p: ExecutorParameters) -> Scene:
    """The obstacles known beforehand."""
    boxes = _boxes('collision_boxes', p.collision_boxes)
    return Scene(tuple(Obstacle(f'box{i + 1}', 'box', box[:3], box[3:]) for i, box in enumerate(boxes)))


def _shared(p: ExecutorParameters, schema: type) -> dict[str, object]:
    names = {f.name for f in fields(ExecutorParameters)}
    return {f.name: getattr(p, f.name) for f in fields(schema) if f.name in names}


def _boxes(name: str, values: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    require(len(values) % 6 == 0, f'{name} should hold six numbers per box but has {len(values)}')
    return tuple(tuple(values[i:i + 6]) for i in range(0, len(values), 6))


def finger_motion(p: ExecutorParameters) -> FingerMotion:
    """How the opening follows from the gripper's joint."""
    return load_robot(p.robot).gripper.motion if p.robot else linear(p.gripper_scale, p.gripper_offset, p.stroke)


def robot_model(p: ExecutorParameters, urdf: str, package_dirs: Sequence[str]) -> RobotModel:
    """The model of the robot description that is published. Raises ConfigurationError."""
    described = load_robot(p.robot) if p.robot else None
    return RobotModel.from_urdf(urdf, p.tool_frame, p.arm_joints, p.base_frame, described and described.posture,
                                acceleration_limits=p.joint_acceleration, package_dirs=package_dirs,
                                fingers=described and finger_stations(described),
                                never_touch=described.never_touch if described else ())
