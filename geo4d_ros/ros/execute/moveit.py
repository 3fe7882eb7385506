"""A thin MoveIt client that trusts nothing it gets back.

MoveIt on Jazzy reports success for any fraction of a Cartesian path, ignores jump thresholds and Cartesian
speed limits, may blend corners when timing, and accepts the cancel of an execution without stopping the arm
(moveit2 #2404, #2808, #2874, #3658; read in its source at 4d84106). So the path it returns goes through the
same gates as our own, is timed again by our own limits, and a stop goes to the controller too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from action_msgs.msg import GoalStatus
from geometry_msgs.msg import Pose
from moveit_msgs.action import ExecuteTrajectory
from moveit_msgs.msg import CollisionObject, MoveItErrorCodes, RobotTrajectory
from moveit_msgs.srv import GetCartesianPath
from rclpy.node import Node
from sensor_msgs.msg import JointState
from shape_msgs.msg import SolidPrimitive
from std_msgs.msg import String

from geo4d_ros.errors import InvalidInputError
from geo4d_ros.geometry.transforms import rotation_angle, translation_distance
from geo4d_ros.motion import gates
from geo4d_ros.motion.collision import Scene
from geo4d_ros.motion.commanded import check_commanded
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import collision_checker
from geo4d_ros.motion.timing import JointPath, MoveSegment, path_deviation, time_path
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.ros.execute.actions import ActionPeer, Done, TrajectoryClient
from geo4d_ros.ros.observe.robot_monitor import RobotMonitor
from geo4d_ros.ros.wire.conversions import pose_message
from geo4d_ros.ros.wire.trajectory_messages import from_message, to_message

STOP_TOPIC = 'trajectory_execution_event'
COMPUTE_SECONDS = 5.0
FRACTION = 0.98  # of the path that MoveIt has to reach
STEPS = (0.005, 0.002)  # [m] max_step of the first try and of the retry
WAYPOINT_DISTANCE, WAYPOINT_ANGLE = 0.01, 0.1  # [m], [rad] between the waypoints that we send
END_DISTANCE, END_ANGLE = 0.002, 0.02  # [m], [rad] of the last pose: MoveIt's own precision is 1 mm, 0.01 rad
STRAY_DISTANCE, STRAY_ANGLE = 0.005, 0.04  # [m], [rad] of the path from the one we checked
_REASONS = {MoveItErrorCodes.TIMED_OUT: Reason.EXECUTION_TIMEOUT}


class MoveItClient:
    """Executes checked segments through `compute_cartesian_path` and `execute_trajectory`.

    controller: the arm's own FollowJointTrajectory action, used to stop it. limits() gives the current ones.
    The obstacles are sent to the planning scene once MoveIt listens.
    """

    def __init__(self, node: Node, controller: TrajectoryClient, robot: RobotMonitor, group: str, link: str,
                 base_frame: str, limits: Callable[[], MotionLimits], scene: Scene) -> None:
        self._node, self._controller, self._robot = node, controller, robot
        self._group, self._link, self._base_frame = group, link, base_frame
        self._limits, self._scene = limits, scene
        self._compute = node.create_client(GetCartesianPath, 'compute_cartesian_path')
        self._execute = ActionPeer(node, ExecuteTrajectory, 'execute_trajectory', controller.patience)
        self._event = node.create_publisher(String, STOP_TOPIC, 1)
        self._objects = node.create_publisher(CollisionObject, 'collision_object', 10)
        self._listeners = 0
        self._request: tuple[Any, float, Done] | None = None  # the open service call, its deadline, whom to tell
        self._running: tuple[MoveSegment, Done] | None = None

    @property
    def actions(self) -> list[str]:
        """Actions whose goals have to be cancelled for the arm to stop."""
        return [*self._controller.actions, self._execute.name]

    @property
    def ready(self) -> bool:
        """Whether MoveIt and the controller are known."""
        return self._compute.service_is_ready() and self._execute.ready and self._controller.ready

    def move(self, segment: MoveSegment, done: Done) -> None:
        """Have MoveIt follow the tool path of a checked segment; done(None) at its end, else the reason."""
        self._ask(segment, done, 0)

    def hold(self, q: np.ndarray) -> None:
        """Take the controller over with the order to stand at q (j,)."""
        self._controller.hold(q)

    def stop(self) -> None:
        """MoveIt's stop event, the cancel of its action, and the cancel of the controller's goals."""
        self._event.publish(String(data='stop'))
        self._controller.stop()
        self._execute.cancel_all()
        self._request = self._running = None

    def poll(self) -> None:
        """Watch the open call and the running motion; call ten times a second or more."""
        self._execute.poll()
        self._send_scene()
        if self._request is not None and time.monotonic() > self._request[1]:
            future, _, done = self._request
            self._compute.remove_pending_request(future)
            self._request = None
            done(Refusal(Reason.BACKEND_UNAVAILABLE, 'compute_cartesian_path did not answer'))
        if self._running is not None:
            segment, done = self._running
            state = self._robot.state(None)
            error = float(np.abs(segment.q - state.q).max(axis=1).min()) if state else float('nan')
            if not error <= self._controller.tracking_error:
                self._running = None
                done(Refusal(Reason.TRACKING_ERROR, f'{error:.3f} rad from the path'))

    def _send_scene(self) -> None:
        """The obstacles, again whenever a planning scene appears: it does not keep what came before it."""
        listeners = self._objects.get_subscription_count()
        if listeners > self._listeners:
            for obstacle in self._scene.obstacles:
                self._objects.publish(collision_object(obstacle, self._base_frame))
        self._listeners = listeners

    def _ask(self, segment: MoveSegment, done: Done, attempt: int) -> None:
        state = self._robot.state(None)
        if not self.ready or state is None:
            done(Refusal(Reason.BACKEND_UNAVAILABLE, 'MoveIt or its controller is not running, or no joint states'))
            return
        model = self._robot.require_model()
        request = GetCartesianPath.Request(
            group_name=self._group, link_name=self._link, waypoints=waypoints(model.forward_batch(segment.q)),
            max_step=STEPS[attempt], avoid_collisions=True)
        limits = self._limits()
        request.max_velocity_scaling_factor = limits.joint_velocity_scale
        request.max_acceleration_scaling_factor = limits.joint_acceleration_scale
        request.cartesian_speed_limited_link, request.max_cartesian_speed = self._link, limits.speed
        request.header.frame_id, request.start_state.is_diff = self._base_frame, True
        request.start_state.joint_state = JointState(
            name=list(model.joint_names), position=state.q.tolist())
        future = self._compute.call_async(request)
        self._request = future, time.monotonic() + COMPUTE_SECONDS, done

        def answered(future: Any) -> None:
            if self._request is not None and self._request[0] is future:
                self._request = None
                self._judge(future.result(), segment, done, attempt)

        future.add_done_callback(answered)

    def _judge(self, response: GetCartesianPath.Response, segment: MoveSegment, done: Done, attempt: int) -> None:
        state = self._robot.state(None)
        if state is None:
            done(Refusal(Reason.JOINT_STATES_STALLED, 'while MoveIt planned'))
            return
        checked = check_response(response, segment, state.q, self._limits(), self._scene, self._robot.require_model())
        if isinstance(checked, MoveSegment):
            self._send(checked, done)
        elif attempt + 1 < len(STEPS) and checked.reason is Reason.PATH_INCOMPLETE:
            self._ask(segment, done, attempt + 1)
        else:
            done(checked)

    def _send(self, segment: MoveSegment, done: Done) -> None:
        message = to_message(self._robot.require_model().joint_names, segment.times, segment.q, segment.dq, segment.ddq)
        goal = ExecuteTrajectory.Goal(trajectory=RobotTrajectory(joint_trajectory=message))
        self._running = segment, done

        def ended(status: int | None, result: Any) -> None:
            self._running = None
            done(self._outcome(status, result, segment))

        self._execute.send(goal, ended)

    def _outcome(self, status: int | None, result: Any, segment: MoveSegment) -> Refusal | None:
        if status is None:
            return result
        code = result.error_code.val
        if status != GoalStatus.STATUS_SUCCEEDED or code != MoveItErrorCodes.SUCCESS:
            return Refusal(_REASONS.get(code, Reason.EXECUTION_ABORTED), f'status {status}, MoveIt error {code}')
        state = self._robot.state(None)
        error = float(np.abs(state.q - segment.q[-1]).max()) if state else float('nan')
        if not error <= self._controller.tracking_error:
            return Refusal(Reason.TRACKING_ERROR, f'reported as done {error:.3f} rad before the end')
        return None


def waypoints(T: np.ndarray) -> list[Pose]:
    """Poses for MoveIt out of a fine path (N, 4, 4): about 1 cm or 0.1 rad apart, the last one always."""
    kept = [T[0]]
    for pose in T[1:-1]:
        distance, angle = translation_distance(kept[-1], pose), rotation_angle(kept[-1], pose)
        if distance >= WAYPOINT_DISTANCE or angle >= WAYPOINT_ANGLE:
            kept.append(pose)
    return [pose_message(pose) for pose in [*kept[1:], T[-1]]]


def check_response(response: GetCartesianPath.Response, segment: MoveSegment, q_now: np.ndarray,
                   limits: MotionLimits, scene: Scene, robot: RobotModel) -> MoveSegment | Refusal:
    """The returned path timed by our limits, or why it is not executed. `segment` is what was asked for."""
    code = response.error_code.val
    if code != MoveItErrorCodes.SUCCESS:
        return Refusal(Reason.PATH_INCOMPLETE, f'MoveIt error {code}', {'error': code})
    if not response.fraction >= FRACTION:
        return Refusal(Reason.PATH_INCOMPLETE, f'fraction {response.fraction:.3f}, at least {FRACTION}',
                       {'fraction': response.fraction})
    try:
        _, q, _, _ = from_message(response.solution.joint_trajectory, robot.joint_names)
    except InvalidInputError as error:
        return Refusal(Reason.PATH_INCOMPLETE, str(error))
    if len(q) < 2 or not np.isfinite(q).all():
        return Refusal(Reason.PATH_INCOMPLETE, f'{len(q)} points, or points that are not finite')
    return _check_path(q, segment, q_now, limits, scene, robot)


def _check_path(q: np.ndarray, segment: MoveSegment, q_now: np.ndarray, limits: MotionLimits, scene: Scene,
                robot: RobotModel) -> MoveSegment | Refusal:
    moved = gates.check_unmoved(q[0], q_now, limits.start_joint_tolerance)
    if moved is not None:
        return moved
    q = np.concatenate([q_now[None], q[1:]])
    T, T_asked = robot.forward_batch(q), robot.forward_batch(segment.q)
    distance, angle = float(translation_distance(T[-1], T_asked[-1])), float(rotation_angle(T[-1], T_asked[-1]))
    if not (distance <= END_DISTANCE and angle <= END_ANGLE):
        return Refusal(Reason.PATH_INCOMPLETE, f'ends {distance * 1e3:.1f} mm, {angle:.3f} rad from the last waypoint',
                       {'distance_m': distance, 'angle_rad': angle})
    for _, refusal in (gates.joint_limit_prefix(q, robot.lower, robot.upper, limits),
                       gates.joint_jump_prefix(q, limits),
                       gates.singularity_prefix(robot.condition_numbers(q), limits),
                       gates.workspace_prefix(T, limits, limits.path_tolerance), gates.keep_out_prefix(T, limits),
                       gates.table_prefix(T, limits, limits.path_tolerance)):
        if refusal is not None:
            return refusal
    timed = time_path(JointPath(q, T), robot, limits)
    if isinstance(timed, Refusal):
        return timed
    stray = path_deviation(T_asked, robot.forward_batch(timed.q), limits)
    if not (stray[0] <= STRAY_DISTANCE and stray[1] <= STRAY_ANGLE):
        return Refusal(Reason.TIMED_DEVIATION, f'{stray[0] * 1e3:.1f} mm, {stray[1]:.3f} rad from the checked path',
                       {'distance_m': stray[0], 'angle_rad': stray[1]})
    timed = replace(timed, opened=segment.opened)
    return check_commanded(timed, robot, limits, collision_checker(robot, scene, limits)) or timed


def collision_object(obstacle: Any, frame: str) -> CollisionObject:
    """A box or cylinder of the scene for MoveIt's planning scene."""
    box = obstacle.shape == 'box'
    dimensions = list(obstacle.size) if box else [obstacle.size[1], obstacle.size[0]]  # height, then radius
    primitive = SolidPrimitive(type=SolidPrimitive.BOX if box else SolidPrimitive.CYLINDER, dimensions=dimensions)
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = map(float, obstacle.centre)
    pose.orientation.z, pose.orientation.w = float(np.sin(obstacle.yaw / 2)), float(np.cos(obstacle.yaw / 2))
    message = CollisionObject(id=obstacle.name, primitives=[primitive], primitive_poses=[pose],
                              operation=CollisionObject.ADD)
    message.header.frame_id = frame
    message.pose.orientation.w = 1.0
    return message
