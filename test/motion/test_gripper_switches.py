"""When the predicted opening means a command, and where the arm waits for it."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.motion.gripper_segments import grasp_missed, is_closed, let_go, opening_switches, split_at_switches
from geo4d_ros.motion.limits import MotionLimits

LIMITS = MotionLimits()


def switches(opening, now=0.08, closed=False):
    return opening_switches(np.array(opening, float), now, closed, LIMITS)


@pytest.mark.parametrize(('opening', 'now', 'closed', 'expected'), [
    ([0.08, 0.08, 0.08], 0.08, False, []),
    ([0.08, 0.03, 0.03], 0.08, False, [(1, True)]),
    ([0.03, 0.03, 0.03], 0.08, False, [(0, True)]),
    ([0.08, 0.06, 0.06], 0.08, False, [(1, True)]),  # a wide object: 6 cm apart and closed
    ([0.075, 0.071, 0.07], 0.08, False, []),  # the tracker's noise
    ([0.06, 0.06, 0.08], 0.06, True, [(2, False)]),  # holding something wide, then opening
    ([0.03, 0.02, 0.0], 0.03, True, []),
    ([0.0, 0.08, 0.08, 0.0], 0.0, True, [(1, False), (3, True)]),
    ([0.08, 0.07, 0.06, 0.05], 0.08, False, [(2, True)]),  # slowly, still one switch
])
def test_switches(opening, now, closed, expected):
    assert switches(opening, now, closed) == expected


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 0.08), min_size=1, max_size=12), st.floats(0, 0.08), st.booleans())
def test_switches_alternate_and_need_a_change(opening, now, closed):
    found = switches(opening, now, closed)
    states = [closed, *(closing for _, closing in found)]
    assert all(a != b for a, b in pairwise(states))
    span = max([*opening, now]) - min([*opening, now])
    assert not found or span > LIMITS.opening_switch


def plan_through(make_plan, heights, opening, **changes):
    return make_plan([(0, 0, z) for z in heights], opening, **changes)


def test_the_lower_neighbour_is_the_one_before_when_the_path_goes_up(make_plan, robot):
    plan = plan_through(make_plan, [-0.03, -0.06, -0.03, 0.0], [0.08, 0.08, 0.03, 0.03])
    legs = split_at_switches(plan, 0.08, None, 4, robot.forward(robot.posture), LIMITS)
    assert [leg.end_pose for leg in legs] == [1, 3]
    assert legs[0].gripper.closing and legs[0].gripper.target == 0.0 and legs[1].gripper is None


def test_a_switch_at_the_first_pose_may_happen_at_the_start(make_plan, robot):
    T_start = robot.forward(robot.posture)
    up = plan_through(make_plan, [0.03, 0.06], [0.03, 0.03])
    assert [leg.end_pose for leg in split_at_switches(up, 0.08, None, 2, T_start, LIMITS)] == [-1, 1]
    down = plan_through(make_plan, [-0.03, -0.06], [0.03, 0.03])
    assert [leg.end_pose for leg in split_at_switches(down, 0.08, None, 2, T_start, LIMITS)] == [0, 1]


def test_a_switch_at_the_last_pose_ends_the_motion(make_plan, robot):
    plan = plan_through(make_plan, [-0.03, -0.06], [0.08, 0.03])
    legs = split_at_switches(plan, 0.08, None, 2, robot.forward(robot.posture), LIMITS)
    assert [(leg.end_pose, leg.gripper is not None) for leg in legs] == [(1, True)]


def test_a_switch_beyond_the_prefix_waits_for_the_next_plan(make_plan, robot):
    plan = plan_through(make_plan, [-0.03, -0.06, -0.09], [0.08, 0.08, 0.03])
    legs = split_at_switches(plan, 0.08, None, 2, robot.forward(robot.posture), LIMITS)
    assert [(leg.end_pose, leg.gripper) for leg in legs] == [(1, None)]


def test_what_the_gripper_was_told_counts_more_than_what_it_measures(make_plan, robot):
    """A closed gripper that holds something almost as wide as its stroke opens when the plan says so."""
    plan = plan_through(make_plan, [0.0, 0.0], [0.07, 0.08])
    T = robot.forward(robot.posture)
    assert split_at_switches(plan, 0.062, True, 2, T, LIMITS)[0].gripper.target == LIMITS.stroke
    assert split_at_switches(plan, 0.062, False, 2, T, LIMITS)[0].gripper is None


@pytest.mark.parametrize(('opening', 'closed'), [(0.08, False), (0.0681, False), (0.0679, True), (0.0, True),
                                                 (float('nan'), True)])
def test_a_gripper_well_below_its_stroke_was_told_to_close(opening, closed):
    assert is_closed(opening, LIMITS) == closed


@pytest.mark.parametrize(('opening', 'missed'), [(0.0, True), (0.003, True), (0.0031, False), (float('nan'), True)])
def test_missed(opening, missed):
    assert grasp_missed(opening, LIMITS) == missed


@pytest.mark.parametrize(('before', 'after', 'expected'), [
    (0.05, 0.08, True), (0.05, 0.0621, True), (0.05, 0.0619, False), (0.05, 0.05, False), (0.0, float('nan'), False)])
def test_fingers_that_opened_far_enough_let_go(before, after, expected):
    assert let_go(before, after, LIMITS) == expected


def test_a_reading_narrower_than_what_is_held_is_no_reference():
    """What is held keeps the fingers apart: readings that fall and come back do not open the gripper."""
    readings = np.array([0.013, 0.011, 0.015, 0.02, 0.024])
    assert opening_switches(readings, 0.022, True, LIMITS) == []
    assert opening_switches(np.append(readings, 0.035), 0.022, True, LIMITS) == [(5, False)]


CLOSING, FULL, SLOW = np.array([0.08, 0.01, 0.01, 0.01, 0.01]), 0.045, 0.005


def plan_with_steps(make_plan, *steps, opening=CLOSING):
    return make_plan([(0, 0, -z) for z in np.cumsum(steps)], opening)


@pytest.mark.parametrize(('steps', 'pose'), [
    ((FULL, FULL, FULL, SLOW, FULL), 2), ((FULL, SLOW, FULL, FULL, FULL), 1), ((SLOW,) * 5, 1),
    ((FULL,) * 5, None), ((SLOW, FULL, FULL, FULL, FULL), None),
    ((FULL, FULL, FULL, FULL, 0.0299), 3), ((FULL, FULL, FULL, FULL, 0.0301), None)])
def test_a_gripper_does_not_close_in_full_motion(make_plan, robot, steps, pose):
    plan = plan_with_steps(make_plan, *steps)
    legs = split_at_switches(plan, 0.08, False, 5, robot.forward(robot.posture), LIMITS)
    closing = [leg.end_pose for leg in legs if leg.gripper is not None]
    assert closing == ([] if pose is None else [pose])  # the path goes down: the lower neighbour is the pose itself


def test_a_hand_that_carries_does_not_let_go_in_full_motion_but_an_empty_one_may_open(make_plan, robot):
    opening = np.array([0.02, 0.06, 0.08, 0.08, 0.08])
    plan = plan_with_steps(make_plan, FULL, FULL, FULL, FULL, FULL, opening=opening)
    start = robot.forward(robot.posture)
    assert [leg.gripper for leg in split_at_switches(plan, 0.02, True, 5, start, LIMITS)] == [None]
    assert split_at_switches(plan, 0.002, True, 5, start, LIMITS)[0].gripper is not None
