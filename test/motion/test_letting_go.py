"""Where a held object is let go: the fingers' way is checked there, and a place a little too low is no dead end."""

from dataclasses import replace

import numpy as np
import pytest

from geo4d_ros.geometry.transforms import translation_distance
from geo4d_ros.motion.collision import Obstacle, Scene
from geo4d_ros.motion.gripper_segments import GripperSegment
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import TimedMotion, collision_checker, plan_trajectory
from geo4d_ros.motion.timing import MoveSegment
from geo4d_ros.reasons import Reason, Refusal

NOW = 1_000_000_000_000
HELD = 0.01
OPENING = [HELD, HELD, 0.08, 0.08, 0.08]
HEIGHTS = [-0.02, -0.04, -0.06, -0.03, 0.0]  # let go at pose 3, the lowest


@pytest.fixture
def laid_down(robot, state, make_plan):
    """The motion for something thin carried down beside walls, which the opened fingers touch below `top` [m]."""
    def run(top=None, limits=None, opening=OPENING, offsets=HEIGHTS, width=0.03, k=5, **changes):
        limits = limits or MotionLimits()
        x, y, z = robot.forward(state.q)[:3, 3]
        scene = Scene.table()
        if top is not None:  # finger tips reach a few millimetres below the tool centre
            for side in (-1, 1):
                centre = (x, y + side * (width + 0.01), z + top - 0.1)
                scene = scene.with_obstacles(Obstacle(f'wall {side}', 'box', centre, (0.2, 0.02, 0.2)))
        plan = make_plan([(0, 0, o) for o in offsets], opening, opening_start=HELD, **changes)
        held = replace(state, opening=HELD, gripper_closed=True)
        return plan, plan_trajectory(plan, held, limits, scene, robot, NOW, k), scene, limits
    return run


def test_with_room_it_lets_go_at_its_place_and_goes_on(laid_down, robot):
    plan, motion, _, _ = laid_down()
    down, release, up = motion.segments
    assert release == GripperSegment(0.08, False, 0.5) and motion.poses == 5 and motion.truncated_by is None
    assert robot.forward(down.q[-1])[:3, 3] == pytest.approx(plan.T_base_gripper[2, :3, 3], abs=1e-3)
    assert down.opened == pytest.approx(HELD / 0.08) and up.opened == 1.0
    assert 'let_go_short_m' not in motion.gate_values


def test_a_place_a_little_too_low_is_let_go_of_above_it(laid_down, robot):
    plan, motion, scene, limits = laid_down(top=-0.06)
    down, release = motion.segments
    assert isinstance(down, MoveSegment) and release == GripperSegment(0.08, False, 0.5)
    short = float(translation_distance(robot.forward(down.q[-1]), plan.T_base_gripper[2]))
    assert 0.001 < short <= 0.0155 and motion.gate_values['let_go_short_m'] == pytest.approx(short, abs=1e-3)
    assert motion.truncated_by.reason is Reason.COLLISION and motion.poses == 3
    assert robot.forward(down.q[-1])[:3, 3] == pytest.approx(motion.T_path[-1, :3, 3], abs=1e-3)
    checker = collision_checker(robot, scene, limits)
    assert checker.first_collision(down.q, down.opened) is None  # on its way down, as it holds
    assert all(checker.first_collision(down.q[-1:], share) is None for share in np.linspace(HELD / 0.08, 1, 9))
    assert checker.first_collision(robot.inverse(plan.T_base_gripper[2], down.q[-1]).q[None], 1.0) is not None


def test_a_place_far_too_low_is_not_let_go_of(laid_down, robot):
    _, motion, _, _ = laid_down(top=-0.04)
    assert [type(s) for s in motion.segments] == [MoveSegment] and motion.poses == 2
    _, generous, _, _ = laid_down(top=-0.04, limits=MotionLimits(release_reach=0.04))
    assert isinstance(generous.segments[-1], GripperSegment)


def test_the_way_of_the_fingers_is_free_all_along(laid_down, robot, state):
    """Posts between shut and wide: neither end touches them, the way does."""
    plan, free, _, limits = laid_down()
    low = free.segments[0].q[-1]
    x, y, z = robot.forward(low)[:3, 3]
    R = robot.forward(low)[:3, :3]
    posts = Scene.table()
    for side in (-1, 1):
        centre = np.array([x, y, z]) + side * 0.032 * R[:, 1]
        posts = posts.with_obstacles(Obstacle(f'post {side}', 'box', tuple(centre - [0, 0, 0.03]), (0.03, 0.004, 0.06)))
    checker = collision_checker(robot, posts, limits)
    assert checker.first_collision(low[None], HELD / 0.08) is None
    held = replace(state, opening=HELD, gripper_closed=True)
    result = plan_trajectory(plan, held, limits, posts, robot, NOW, 5)
    assert isinstance(result, TimedMotion) and result.truncated_by.reason is Reason.COLLISION
    if isinstance(result.segments[-1], GripperSegment):
        end = result.segments[0].q[-1:]
        assert all(checker.first_collision(end, share) is None for share in np.linspace(HELD / 0.08, 1, 9))


@pytest.mark.parametrize(('changes', 'lets_go'), [
    ({}, True), ({'confidence': np.array([1, 1, 0.1, 1, 1])}, False),
    ({'confidence': np.array([1, 1, 1, 0.1, 1])}, True)])
def test_only_a_pose_that_can_be_trusted_is_let_go_near(laid_down, changes, lets_go):
    _, motion, _, _ = laid_down(top=-0.06, **changes)
    assert isinstance(motion.segments[-1], GripperSegment) == lets_go


def test_a_step_too_far_after_it_does_not_matter_but_one_to_it_does(laid_down):
    for offsets, lets_go in (([-0.02, -0.04, -0.06, -0.3, 0.0], True), ([-0.02, -0.04, -0.16, -0.03, 0.0], False)):
        motion = laid_down(top=-0.06, offsets=offsets)[1]
        assert isinstance(motion.segments[-1], GripperSegment) == lets_go


def test_below_the_table_clearance_it_lets_go_at_the_border(laid_down, robot, state):
    border = robot.forward(state.q)[2, 3] - 0.055
    _, motion, _, _ = laid_down(limits=MotionLimits(table_height=border - 0.01))
    assert isinstance(motion.segments[-1], GripperSegment) and motion.truncated_by.reason is Reason.TABLE_CLEARANCE
    assert motion.gate_values['let_go_short_m'] <= 0.015
    assert robot.forward(motion.segments[0].q[-1])[2, 3] >= border - 0.0035


def test_it_may_let_go_where_it_stands(laid_down, state):
    _, motion, _, _ = laid_down(top=-0.012, opening=[0.08] * 5, offsets=[-0.014, -0.01, 0.0, 0.02, 0.04])
    assert motion.segments[-1] == GripperSegment(0.08, False, 0.5) and motion.poses == 1
    assert motion.gate_values['let_go_short_m'] <= 0.015


def test_closing_never_happens_short_of_its_place(robot, state, make_plan):
    x, y, z = robot.forward(state.q)[:3, 3]
    block = Scene.table().with_obstacles(Obstacle('block', 'box', (x, y, z - 0.06 - 0.05), (0.2, 0.2, 0.1)))
    plan = make_plan([(0, 0, o) for o in HEIGHTS], [0.08, 0.08, 0.01, 0.01, 0.01])
    motion = plan_trajectory(plan, state, MotionLimits(), block, robot, NOW, 5)
    assert [type(s) for s in motion.segments] == [MoveSegment] and motion.truncated_by.reason is Reason.COLLISION


def test_too_short_a_prefix_stays_refused(laid_down):
    _, refused, _, _ = laid_down(top=-0.012, opening=[0.08] * 5, offsets=[-0.014, -0.01, 0.0, 0.02, 0.04],
                                 limits=MotionLimits(prefix=2))
    assert isinstance(refused, Refusal) and refused.reason is Reason.COLLISION
