"""Where one joint comes to its limit the others take over, with samples enough that none of them jumps."""

from dataclasses import replace

import numpy as np
import pytest

from geo4d_ros.geometry.transforms import from_rotvec, make_transform
from geo4d_ros.motion.collision import Scene
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.path import densify
from geo4d_ros.motion.planning import TimedMotion, _follow, plan_trajectory
from geo4d_ros.reasons import Reason

NOW = 1_000_000_000_000
# From a run in the simulated cell: the hand comes near the base, where the elbow (joint 4) is folded to its limit.
Q = np.array([-0.018, -0.5326, -0.3249, -2.9245, 0.0721, 2.6915, 0.3661])
POSES = [((0.3314, -0.1234, 0.2227), (-2.9562, -0.1254, -0.6947)),
         ((0.315, -0.1456, 0.2033), (-2.8417, -0.2691, -0.9265)),
         ((0.337, -0.142, 0.1717), (-2.8002, -0.3013, -0.9928)),
         ((0.3651, -0.1296, 0.1318), (-2.8412, -0.2729, -0.9348)),
         ((0.379, -0.1255, 0.1163), (-2.8347, -0.1983, -0.9527))]
T_FOLDED = np.stack([make_transform(from_rotvec(np.array(turn))[:3, :3], np.array(place)) for place, turn in POSES])


def test_a_folded_elbow_swings_aside_instead_of_ending_the_path(robot, state, make_plan):
    plan = make_plan(np.zeros((5, 3)), T_base_gripper=T_FOLDED, T_base_gripper_start=robot.forward(Q))
    motion = plan_trajectory(plan, replace(state, q=Q), MotionLimits(), Scene.table(), robot, NOW, 5)
    assert isinstance(motion, TimedMotion) and motion.poses == 5 and motion.truncated_by is None
    q = motion.segments[0].q
    assert np.minimum(q - robot.lower, robot.upper - q).min() >= MotionLimits.joint_margin - 0.005
    assert np.abs(np.diff(q, axis=0)).max() < 0.2
    assert motion.gate_values['deviation_m'] < 0.002 and motion.gate_values['joint_slack_rad'] > 0.019
    places = robot.forward_batch(q)[:, :3, 3]
    assert max(np.linalg.norm(places - T[:3, 3], axis=1).min() for T in T_FOLDED) < 0.003


def test_samples_are_added_only_where_joints_turn_fast(robot, limits):
    path = densify(robot.forward(Q), T_FOLDED, limits)
    fine, q, cut = _follow(path, Q, limits, robot)
    assert cut is None and len(fine.T) == len(q) > len(path.T)
    assert np.abs(np.diff(q, axis=0)).max() <= limits.joint_jump / 2 + 1e-9
    for i in range(5):
        assert fine.T[fine.sample_of_pose(i)] == pytest.approx(path.T[path.sample_of_pose(i)])
    assert fine.poses_within(len(fine.T)) == 5 and fine.poses_within(fine.sample_of_pose(2)) == 2
    lower = robot.forward(robot.posture)
    lower[2, 3] -= 0.05
    straight = densify(robot.forward(robot.posture), lower[None], limits)
    same, q, cut = _follow(straight, robot.posture, limits, robot)
    assert cut is None and len(same.T) == len(q) == len(straight.T)
    assert (same.pose_samples == straight.pose_samples).all()


def test_poses_beyond_what_is_reached_lie_beyond_the_end(robot):
    limits = MotionLimits(workspace=(0.15, -0.6, 0.0, 0.9, 0.6, 0.9))
    T = np.tile(robot.forward(robot.posture), (11, 1, 1))
    T[:, 0, 3] += 0.06 * np.arange(1, 12)
    path, q, cut = _follow(densify(robot.forward(robot.posture), T, limits), robot.posture, limits, robot)
    assert cut.reason in (Reason.OUTSIDE_WORKSPACE, Reason.IK_FAILED) and len(path.T) == len(q)
    assert path.poses_within(len(q)) < 11 and (path.pose_samples[1 + path.poses_within(len(q)):] == len(q)).all()


def test_a_path_whose_start_is_not_allowed_has_no_samples(robot):
    limits = MotionLimits(workspace=(0.6, -0.6, 0.0, 0.9, 0.6, 0.9))
    path = densify(robot.forward(robot.posture), robot.forward(robot.posture)[None], limits)
    path, q, cut = _follow(path, robot.posture, limits, robot)
    assert q.shape == (0, 7) and cut.reason is Reason.OUTSIDE_WORKSPACE and path.poses_within(len(q)) == 0


@pytest.mark.parametrize('margin', [0.0, 0.02, 0.1])
def test_inverse_kinematics_keeps_a_margin_and_comes_no_nearer_when_it_is_inside(robot, margin):
    q = robot.posture.copy()
    for _ in range(40):
        T = robot.forward(q)
        T[:3, :3] = T[:3, :3] @ from_rotvec(np.array([0, 0, -0.1]))[:3, :3]  # joint 7 to its upper limit
        q = robot.inverse(T, q, margin=margin).q
        assert (q <= robot.upper - margin + 1e-9).all() and (q >= robot.lower + margin - 1e-9).all()
    inside = robot.posture.copy()
    inside[6] = robot.upper[6] - 0.01
    T = robot.forward(inside)
    T[:3, :3] = T[:3, :3] @ from_rotvec(np.array([0, 0, -0.05]))[:3, :3]
    assert robot.inverse(T, inside, margin=0.05).q[6] <= inside[6] + 1e-9
