"""The ways out: where they lead, in which order they are tried, and that they pass the same gates."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.geometry.transforms import rotation_angle, translation_distance
from geo4d_ros.loop.machine import Recovery
from geo4d_ros.loop.recovery import Trail, plan_recovery, recovery_plans, straight_up
from geo4d_ros.motion.collision import Scene
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import TimedMotion
from geo4d_ros.motion.timing import MoveSegment
from geo4d_ros.reasons import Reason, Refusal

NOW = 1_000_000_000_000
LIMITS = MotionLimits()


def line(start, end, n=41):
    """Tool poses along a straight line (n, 4, 4)."""
    T = np.tile(np.eye(4), (n, 1, 1))
    T[:, :3, 3] = np.linspace(start, end, n)
    return T


def at(*position):
    T = np.eye(4)
    T[:3, 3] = position
    return T


@settings(deadline=None)
@given(distance=st.floats(0.01, 0.3), where=st.floats(0, 0.4), aside=st.floats(0, 0.03))
def test_the_way_back_follows_the_trail_in_small_steps(distance, where, aside):
    trail = Trail()
    trail.follow(line((0, 0, 0), (0.4, 0, 0)))
    now = at(where, aside, 0)
    way = trail.back(now, distance)
    x = way[:, 0, 3]
    assert (np.diff(np.concatenate([[where + 0.006], x])) < 0).all() and (way[:, 1, 3] == 0).all()
    steps = translation_distance(np.concatenate([now[None], way[:-1]]), way)
    assert steps.max(initial=0) <= 0.05 + aside
    if where > distance + 0.06:
        assert distance - 1e-9 <= steps.sum() <= distance + 0.05


def test_what_lies_ahead_of_a_motion_that_was_held_up_is_no_way_back():
    trail = Trail()
    trail.follow(line((0, 0, 0), (0.4, 0, 0)))
    assert trail.back(at(0.1, 0.01, 0), 0.05)[-1, 0, 3] == pytest.approx(0.05, abs=0.011)
    trail.follow(line((0.05, 0, 0), (0.05, 0.2, 0)))
    assert (trail.back(at(0.05, 0.2, 0), 0.5)[:, 0, 3] <= 0.1 + 1e-9).all()


def test_the_way_back_turns_in_small_steps_too():
    trail, T = Trail(), np.tile(np.eye(4), (41, 1, 1))
    angle = np.linspace(0, 0.8, 41)
    T[:, 0, 0] = T[:, 1, 1] = np.cos(angle)
    T[:, 1, 0], T[:, 0, 1] = np.sin(angle), -np.sin(angle)
    T[:, 0, 3] = 0.05 * angle
    trail.follow(T)
    way = trail.back(T[-1], 0.03)
    assert len(way) >= 4 and rotation_angle(way[:-1], way[1:]).max() <= 0.2


@pytest.mark.parametrize('now', [at(0.6, 0, 0), at(0.2, 0.06, 0), at(np.nan, 0, 0)])
def test_an_arm_that_was_moved_elsewhere_has_no_way_back(now):
    trail = Trail()
    trail.follow(line((0, 0, 0), (0.4, 0, 0)))
    assert len(trail.back(now, 0.05)) == 0
    assert len(trail.back(at(0.2, 0, 0), 0.05)) == 0  # and the trail is forgotten


def test_a_fresh_loop_has_no_way_back_and_a_motion_counts_once():
    trail = Trail()
    assert len(trail.back(np.eye(4), 0.05)) == 0
    path = line((0, 0, 0), (0.1, 0, 0))
    trail.follow(path)
    trail.follow(path)
    assert trail.back(path[-1], 0.3)[:, 0, 3].sum() < 0.2  # there and back only once


def test_a_trail_with_a_gap_begins_after_it():
    trail = Trail()
    trail.follow(line((0, 0, 0), (0.1, 0, 0)))
    trail.follow(line((0.1, 0, 0.06), (0.2, 0, 0.06)))
    assert (trail.back(at(0.2, 0, 0.06), 0.5)[:, 2, 3] == 0.06).all()
    trail.follow(line((0.14, 0, 0.06), (0.2, 0, 0)))
    assert 0.14 <= trail.back(at(0.2, 0, 0), 0.5)[-1, 0, 3] < 0.16


def test_a_trail_does_not_grow_for_ever():
    trail = Trail()
    for i in range(60):
        trail.follow(line((0, 0, 0.01 * i), (0, 0, 0.01 * i + 0.01)))
    assert len(trail.back(at(0, 0, 0.6), 9.0)) < 20  # some 10 cm: what 400 poses hold here


def test_the_order_of_the_ways_out():
    trail = Trail()
    trail.follow(line((0.4, 0, 0.4), (0.4, 0, 0.3)))
    names = [p.id for p in recovery_plans(Recovery.OPEN, 'r', at(0.4, 0, 0.3), 0.02, 5, trail, LIMITS)]
    assert names == ['r-up', 'r-back', 'r-here']
    back, up = recovery_plans(Recovery.RETREAT, 'r', at(0.4, 0, 0.3), 0.02, 5, trail, LIMITS)
    assert (back.id, up.id) == ('r-back', 'r-up')
    assert (back.opening == 0.02).all() and up.T_base_gripper[-1, 2, 3] == pytest.approx(0.35)
    assert up.observation_stamp == 5 and up.opening_start == 0.02 and (up.confidence == 1).all()
    (only,) = recovery_plans(Recovery.RETREAT, 'r', at(0.4, 0, 0.3), -0.001, 5, Trail(), LIMITS)
    assert only.id == 'r-up' and (only.opening == 0).all()


@pytest.mark.parametrize(('again', 'distance'), [(0, 0.05), (1, 0.05), (2, 0.1), (3, 0.15), (9, 0.15)])
def test_the_way_back_gets_longer_but_not_without_end(again, distance):
    (up,) = recovery_plans(Recovery.RETREAT, 'r', at(0.4, 0, 0.3), 0.02, 5, Trail(), LIMITS, again)
    assert up.T_base_gripper[-1, 2, 3] == pytest.approx(0.3 + distance)


@pytest.mark.parametrize(('again', 'distance'), [(1, 0.1), (2, 0.2), (7, 0.2)])
def test_so_does_the_way_up_after_a_missed_grasp(again, distance):
    up = recovery_plans(Recovery.OPEN, 'r', at(0.4, 0, 0.3), 0.0, 5, Trail(), LIMITS, again)[0]
    assert up.T_base_gripper[-1, 2, 3] == pytest.approx(0.3 + distance)


@pytest.mark.parametrize('changes', [{}, {'retreat': 0.3}, {'retreat': 0.01}, {'step_distance': 0.02}])
def test_straight_up_keeps_the_step_limit(changes):
    limits = MotionLimits(**changes)
    z = np.concatenate([[0.0], straight_up(np.eye(4), limits.retreat, limits)[:, 2, 3]])
    assert np.diff(z).max() <= limits.step_distance and z[-1] == pytest.approx(limits.retreat)


@pytest.mark.parametrize('opening', [0.0, 0.03, 0.075])
def test_opening_comes_first_whatever_the_gripper_measures(robot, state, opening):
    T = robot.forward(state.q)
    plans = recovery_plans(Recovery.OPEN, 'r', T, opening, NOW, Trail(), LIMITS)
    plan, _, motion = plan_recovery(plans, Recovery.OPEN, replace(state, opening=opening), LIMITS, Scene.table(), robot,
                                    NOW)
    grip, move = motion.segments
    assert plan.id == 'r-up' and grip.target == LIMITS.stroke and not grip.closing
    assert robot.forward(move.q[-1])[2, 3] == pytest.approx(T[2, 3] + LIMITS.retreat, abs=1e-3)


def test_a_way_that_is_shut_leaves_the_next_one(robot, state):
    T = robot.forward(state.q)
    low = replace(LIMITS, workspace=(0.15, -0.6, 0.0, 0.9, 0.6, T[2, 3] + 0.05))  # 5 of the 10 cm are left above
    trail = Trail()
    trail.follow(line(T[:3, 3] - [0, 0.15, 0], T[:3, 3]) @ np.block([[T[:3, :3], np.zeros((3, 1))], [0, 0, 0, 1]]))
    shut = replace(state, opening=0.0)
    for trails, name, truncated in ((trail, 'r-back', False), (Trail(), 'r-here', False)):
        plans = recovery_plans(Recovery.OPEN, 'r', T, 0.0, NOW, trails, low)
        plan, _, motion = plan_recovery(plans, Recovery.OPEN, shut, low, Scene.table(), robot, NOW)
        assert plan.id == name and (motion.truncated_by is not None) == truncated
        assert not motion.segments[0].closing
    assert not any(isinstance(s, MoveSegment) for s in motion.segments)
    (up,) = recovery_plans(Recovery.RETREAT, 'r', T, 0.08, NOW, Trail(), replace(low, back_off=0.08))
    _, _, motion = plan_recovery([up], Recovery.RETREAT, state, low, Scene.table(), robot, NOW)
    assert isinstance(motion, TimedMotion) and motion.truncated_by.reason is Reason.OUTSIDE_WORKSPACE


def test_no_way_out_is_a_refusal(robot, state):
    T = robot.forward(state.q)
    plans = recovery_plans(Recovery.RETREAT, 'r', T, 0.08, NOW, Trail(), LIMITS)
    shut = replace(LIMITS, workspace=(0.15, -0.6, 0.0, 0.9, 0.6, T[2, 3] + 0.001))
    plan, judged, result = plan_recovery(plans, Recovery.RETREAT, state, shut, Scene.table(), robot, NOW)
    assert isinstance(result, Refusal) and result.reason is Reason.OUTSIDE_WORKSPACE and judged is state
    assert plan is plans[-1]
