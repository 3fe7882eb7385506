"""Timed paths keep every limit; stops come to rest."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.geometry.transforms import from_rotvec, make_transform
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.path import densify
from geo4d_ros.motion.timing import JointPath, MoveSegment, limit_excess, path_deviation, stop_trajectory, time_path
from geo4d_ros.reasons import Reason, Refusal


def joint_path(robot, T_goals, limits):
    path = densify(robot.forward(robot.posture), T_goals, limits)
    q = [robot.posture]
    for T in path.T[1:]:
        q.append(robot.inverse(T, q[-1]).q)
    return JointPath(np.array(q), path.T)


def goals(robot, *moves):
    """Poses after one another, each by (translation, rotation vector) in the tool frame."""
    T, out = robot.forward(robot.posture), []
    for t, r in moves:
        T = T @ make_transform(from_rotvec(np.array(r, float))[:3, :3], t)
        out.append(T)
    return np.array(out)


@pytest.mark.parametrize('moves', [
    [((0, 0, 0.05), (0, 0, 0))] * 3,
    [((0.05, 0, 0), (0, 0, 0.2)), ((0, 0.05, 0), (0, 0, -0.2)), ((-0.05, 0, 0), (0, 0.1, 0))],
    [((0, 0, 0), (0, 0, 0.3))] * 2,  # turning on the spot
    [((0.002, 0, 0), (0, 0, 0))],
])
def test_the_limits_are_kept_and_used(robot, limits, moves):
    path = joint_path(robot, goals(robot, *moves), limits)
    segment = time_path(path, robot, limits)
    assert isinstance(segment, MoveSegment)
    assert 0.3 < limit_excess(segment, robot, limits) <= 1.0
    assert segment.q[0] == pytest.approx(path.q[0], abs=1e-9) and segment.q[-1] == pytest.approx(path.q[-1], abs=1e-9)
    assert not segment.dq[0].any() and not segment.dq[-1].any() and (np.diff(segment.times) > 0).all()
    distance, angle = path_deviation(path.T, robot.forward_batch(segment.q), limits)
    assert distance < limits.deviation_distance and angle < limits.deviation_angle


def test_a_straight_line_runs_at_the_speed_limit(robot):
    limits = MotionLimits(speed=0.05)
    path = joint_path(robot, goals(robot, *[((0, 0, 0.05), (0, 0, 0))] * 4), limits)
    segment = time_path(path, robot, limits)
    assert 0.2 / 0.05 < segment.duration < 1.4 * 0.2 / 0.05


@settings(max_examples=12, deadline=None, derandomize=True)
@given(speed=st.floats(0.02, 0.25), acceleration=st.floats(0.1, 2.0), scale=st.floats(0.05, 1.0),
       seed=st.integers(0, 10**6))
def test_random_paths_under_random_limits(robot_model, speed, acceleration, scale, seed):
    limits = MotionLimits(speed=speed, acceleration=acceleration, joint_velocity_scale=scale)
    rng = np.random.default_rng(seed)
    moves = [(rng.uniform(-0.03, 0.03, 3), rng.uniform(-0.1, 0.1, 3)) for _ in range(3)]
    segment = time_path(joint_path(robot_model, goals(robot_model, *moves), limits), robot_model, limits)
    if isinstance(segment, MoveSegment):
        assert limit_excess(segment, robot_model, limits) <= 1.0
        assert (np.abs(segment.dq) <= scale * robot_model.velocity_limits + 1e-9).all()


@pytest.fixture(scope='module')
def robot_model(robot):
    return robot


def test_a_motion_that_cannot_be_slowed_enough_is_refused(robot, limits, monkeypatch):
    monkeypatch.setattr('geo4d_ros.motion.timing.limit_excess', lambda *args: 2.0)
    refusal = time_path(joint_path(robot, goals(robot, ((0, 0, 0.05), (0, 0, 0))), limits), robot, limits)
    assert isinstance(refusal, Refusal) and refusal.reason is Reason.LIMITS_EXCEEDED
    assert refusal.values == {'excess': 2.0}


def test_no_timing_is_a_refusal(robot, limits, monkeypatch):
    monkeypatch.setattr('geo4d_ros.motion.timing._toppra', lambda *args: None)
    refusal = time_path(joint_path(robot, goals(robot, ((0, 0, 0.05), (0, 0, 0))), limits), robot, limits)
    assert isinstance(refusal, Refusal) and refusal.reason is Reason.TIMING_FAILED


def test_excess_says_how_much_too_fast(robot, limits):
    times = np.linspace(0, 2, 101)
    slope = 0.2 * robot.velocity_limits[0]
    q = np.tile(robot.posture, (101, 1))
    q[:, 0] += 0.05 * slope * times
    dq = np.zeros_like(q)
    dq[:, 0] = 3 * slope  # the claimed velocity counts as well
    assert limit_excess(MoveSegment(times, q, dq, 0 * q), robot, limits) == pytest.approx(3.0)
    assert limit_excess(MoveSegment(times, q, np.full_like(q, np.nan), 0 * q), robot, limits) == np.inf


def test_deviation_finds_a_detour_and_a_turn(robot, limits):
    T = goals(robot, *[((0, 0, 0.004), (0, 0, 0))] * 20)
    assert path_deviation(T, T[[0, 5, 19]], limits) == pytest.approx((0, 0), abs=1e-6)
    off = T[10:11].copy()
    off[0, 0, 3] += 0.01
    assert path_deviation(T, off, limits)[0] == pytest.approx(0.01, abs=1e-3)
    turned = T[10:11] @ from_rotvec(np.array([0.1, 0, 0]))
    assert path_deviation(T, turned, limits)[1] == pytest.approx(0.1, abs=1e-3)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.floats(-1, 1), min_size=7, max_size=7), st.lists(st.floats(-30, 30), min_size=7, max_size=7))
def test_a_stop_ends_at_rest_within_its_braking(robot_model, share, ddq):
    limits = MotionLimits()
    dq = np.array(share) * robot_model.velocity_limits
    stop = stop_trajectory(robot_model.posture, dq, np.array(ddq), robot_model, limits)
    brake = 2.5 * limits.joint_acceleration_scale * robot_model.acceleration_limits
    assert np.abs(stop.dq[-1]).max() < 1e-6 and stop.q[0] == pytest.approx(robot_model.posture)
    assert (np.abs(stop.ddq) <= brake + 1e-6).all()
    assert stop.duration <= np.abs(dq).max() / brake.min() + 0.2


def test_a_stop_from_rest_stays(robot, limits):
    stop = stop_trajectory(robot.posture, np.zeros(7), np.zeros(7), robot, limits)
    assert stop.duration == 0 and (stop.q == robot.posture).all()


def test_braking_never_exceeds_the_robot(robot):
    limits = replace(MotionLimits(), joint_acceleration_scale=0.9)
    stop = stop_trajectory(robot.posture, robot.velocity_limits, np.zeros(7), robot, limits)
    assert (np.abs(stop.ddq) <= robot.acceleration_limits + 1e-6).all()


def test_a_segment_holds_its_ends(robot, limits):
    segment = time_path(joint_path(robot, goals(robot, ((0, 0, 0.05), (0, 0, 0))), limits), robot, limits)
    assert (segment.at(-1.0) == segment.q[0]).all() and (segment.at(1e3) == segment.q[-1]).all()


def test_the_speed_limit_holds_between_the_samples_too(robot, limits):
    """A controller's cubic between two samples runs a little faster than their difference says."""
    times = np.array([0.0, 0.1, 0.2])
    q = np.tile(robot.posture, (3, 1))
    dq = np.zeros((3, robot.dof))
    q[1, 0], q[2, 0], dq[1, 0] = 0.01, 0.02, 0.2
    segment = MoveSegment(times, q, dq, np.zeros_like(q))
    radius = float(np.linalg.norm(robot.forward(robot.posture)[:2, 3]))
    loose = replace(limits, acceleration=1e3, angular_acceleration=1e3, joint_acceleration_scale=1.0, speed=0.02)
    # The cubic that is at rest at 0, and at 0.2 rad/s and 0.01 rad after 0.1 s, gains 0.0075 rad in its second half.
    assert limit_excess(segment, robot, loose) == pytest.approx(radius * 0.0075 / 0.05 / 0.02, rel=0.01)
