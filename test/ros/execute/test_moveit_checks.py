"""What comes back from MoveIt is checked as if it came from an enemy."""

import numpy as np
import pytest

pytest.importorskip('moveit_msgs')
from fakes.moveit import cartesian_path, distort
from fakes.panda import HOME, urdf_text
from moveit_msgs.msg import MoveItErrorCodes
from moveit_msgs.srv import GetCartesianPath

from geo4d_ros.motion.collision import Obstacle, Scene
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.path import densify
from geo4d_ros.motion.timing import JointPath, MoveSegment, limit_excess, time_path
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.ros.execute.moveit import check_response, collision_object, waypoints
from geo4d_ros.ros.wire.conversions import read_pose
from geo4d_ros.ros.wire.trajectory_messages import to_message

LIMITS = MotionLimits()
SCENE = Scene.table()


@pytest.fixture(scope='module')
def robot():
    return RobotModel.from_urdf(urdf_text())


@pytest.fixture(scope='module')
def segment(robot):
    """A checked 10 cm slide, as the motion core would hand it over."""
    T = robot.forward(HOME)
    end = T.copy()
    end[1, 3] += 0.1
    path = densify(T, end[None], LIMITS)
    q = cartesian_path(robot, HOME, list(path.T[1:]))
    timed = time_path(JointPath(q, path.T), robot, LIMITS)
    assert isinstance(timed, MoveSegment)
    return timed


def answer(robot, segment, fault='none', pace=0.05, code=MoveItErrorCodes.SUCCESS):
    poses = [read_pose(pose) for pose in waypoints(robot.forward_batch(segment.q))]
    path, fraction = distort(cartesian_path(robot, segment.q[0], poses), fault)
    response = GetCartesianPath.Response(fraction=fraction)
    response.error_code.val = code
    response.solution.joint_trajectory = to_message(robot.joint_names, pace * np.arange(len(path)), path)
    return response


def check(robot, segment, response, q_now=HOME, scene=SCENE, limits=LIMITS):
    return check_response(response, segment, np.asarray(q_now), limits, scene, robot)


def test_waypoints_are_close_together_and_end_at_the_end(robot, segment):
    poses = np.stack([read_pose(pose) for pose in waypoints(robot.forward_batch(segment.q))])
    assert np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).max() < 0.02
    np.testing.assert_allclose(poses[-1], robot.forward(segment.q[-1]), atol=1e-9)


@pytest.mark.parametrize('pace', [0.002, 0.05, 1.0])
def test_a_good_path_is_timed_by_our_limits_whatever_its_own_speed(robot, segment, pace):
    timed = check(robot, segment, answer(robot, segment, pace=pace))
    assert isinstance(timed, MoveSegment), timed
    assert limit_excess(timed, robot, LIMITS) <= 1.0
    np.testing.assert_allclose(robot.forward(timed.q[-1]), robot.forward(segment.q[-1]), atol=0.002)


@pytest.mark.parametrize(('fault', 'reason'), [
    ('partial', Reason.PATH_INCOMPLETE), ('empty', Reason.PATH_INCOMPLETE), ('stray', Reason.PATH_INCOMPLETE),
    ('jump', Reason.PATH_INCOMPLETE)])
def test_success_is_not_believed(robot, segment, fault, reason):
    refusal = check(robot, segment, answer(robot, segment, fault))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason


def test_full_fraction_of_half_the_points_is_refused(robot, segment):
    response = answer(robot, segment, 'partial')
    response.fraction = 1.0
    refusal = check(robot, segment, response)
    assert refusal.reason is Reason.PATH_INCOMPLETE
    assert 'from the last waypoint' in refusal.detail


def test_a_jump_that_returns_is_found(robot, segment):
    response = answer(robot, segment)
    points = response.solution.joint_trajectory.points
    points[len(points) // 2].positions[6] += 0.5
    assert check(robot, segment, response).reason is Reason.JOINT_JUMP


def test_an_excursion_within_the_jump_limit_is_found(robot, segment):
    response = answer(robot, segment)
    points = response.solution.joint_trajectory.points
    for i, point in enumerate(points):
        point.positions[0] += 0.08 * np.sin(np.pi * i / (len(points) - 1))
    assert check(robot, segment, response).reason is Reason.TIMED_DEVIATION


def test_nan_unknown_joints_and_errors_are_refused(robot, segment):
    broken = answer(robot, segment)
    broken.solution.joint_trajectory.points[1].positions[2] = float('nan')
    strange = answer(robot, segment)
    strange.solution.joint_trajectory.joint_names[0] = 'elbow'
    failed = answer(robot, segment, code=MoveItErrorCodes.PLANNING_FAILED)
    nowhere = answer(robot, segment)
    nowhere.fraction = float('nan')
    for response in (broken, strange, failed, nowhere):
        assert check(robot, segment, response).reason is Reason.PATH_INCOMPLETE


def test_a_path_from_elsewhere_is_refused(robot, segment):
    assert check(robot, segment, answer(robot, segment), q_now=HOME + 0.05).reason is Reason.START_MOVED


def test_our_own_scene_and_workspace_still_count(robot, segment):
    x, y, z = robot.forward(segment.q[-1])[:3, 3]
    blocked = SCENE.with_obstacles(Obstacle('post', 'box', (x, y, z), (0.05, 0.05, 0.05)))
    assert check(robot, segment, answer(robot, segment), scene=blocked).reason is Reason.COLLISION
    narrow = MotionLimits(workspace=(0.15, -0.6, 0.0, 0.9, y - 0.02, 0.9))
    assert check(robot, segment, answer(robot, segment), limits=narrow).reason is Reason.OUTSIDE_WORKSPACE


def test_collision_objects_keep_pose_and_size():
    box = collision_object(Obstacle('shelf', 'box', (0.5, 0.1, 0.2), (0.1, 0.2, 0.3), yaw=np.pi / 2), 'panda_link0')
    assert list(box.primitives[0].dimensions) == [0.1, 0.2, 0.3]
    assert box.primitive_poses[0].position.y == 0.1
    np.testing.assert_allclose(box.primitive_poses[0].orientation.z, np.sqrt(0.5))
    post = collision_object(Obstacle('post', 'cylinder', (0, 0, 0), (0.05, 0.4)), 'panda_link0')
    assert list(post.primitives[0].dimensions) == [0.4, 0.05]  # MoveIt wants the height first
