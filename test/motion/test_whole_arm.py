"""Keep-out boxes, the table and obstacles against the whole arm and what it holds, between the samples too."""

from dataclasses import replace

import numpy as np
import pytest

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.motion.collision import CollisionChecker, HeldBox, Obstacle, Scene, zones
from geo4d_ros.motion.commanded import check_commanded, control_points
from geo4d_ros.motion.held import held_box
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import TimedMotion, collision_checker, plan_trajectory
from geo4d_ros.motion.timing import MoveSegment
from geo4d_ros.reasons import Reason, Refusal

NOW = 1_000_000_000_000
WIDE = MotionLimits(workspace=(-1.5, -1.5, 0.0, 1.5, 1.5, 1.5))
DOWN = [(0, 0, -0.03 * (i + 1)) for i in range(5)]


def straight(q0, q1, seconds=1.0):
    """A motion from q0 to q1 in one piece, at rest at both ends."""
    zero = np.zeros((2, len(q0)))
    return MoveSegment(np.array([0.0, seconds]), np.stack([q0, q1]), zero, zero)


def plan(make_plan, state, robot, limits=None, scene=None, offsets=DOWN, **changes):
    return plan_trajectory(make_plan(offsets), replace(state, **changes), limits or MotionLimits(),
                           Scene.table() if scene is None else scene, robot, NOW, len(offsets))


def test_the_control_points_bound_what_a_controller_makes_of_the_samples(robot, make_plan, state):
    from scipy.interpolate import BPoly

    motion = plan(make_plan, state, robot)
    s = motion.segments[0]
    curve = BPoly.from_derivatives(s.times, np.stack([s.q, s.dq, s.ddq], axis=1))
    control = control_points(s)
    for i in range(0, len(control), 7):
        q = curve(np.linspace(s.times[i], s.times[i + 1], 9))
        assert (q >= control[i].min(axis=0) - 1e-9).all() and (q <= control[i].max(axis=0) + 1e-9).all()


def test_a_thin_wall_between_two_free_samples_is_found(robot):
    tip = robot.forward(robot.posture)[:3, 3]
    q0, q1 = robot.posture.copy(), robot.posture.copy()
    q0[0], q1[0] = -0.4, 0.4
    wall = Obstacle('wall', 'box', (float(tip[0]), 0.0, float(tip[2])), (0.1, 0.002, 0.1))
    checker = CollisionChecker(robot, Scene((wall,)), 0.003)
    assert checker.first_collision(np.stack([q0, q1])) is None
    hit = checker.first_contact_on_the_way(control_points(straight(q0, q1)))
    assert hit is not None and 'wall' in hit.pair and hit.reason is Reason.COLLISION
    aside = CollisionChecker(robot, Scene((replace(wall, centre=(1.2, 0.0, 0.3)),)), 0.003)
    assert aside.first_contact_on_the_way(control_points(straight(q0, q1))) is None


def test_no_contact_on_the_way_means_none_at_any_moment(robot):
    """Against dense sampling of random motions beside random posts: never a contact missed, seldom one too many."""
    rng = np.random.default_rng(3)
    early = 0
    for _ in range(40):
        q0 = robot.posture + rng.normal(0, 0.2, 7)
        q1 = q0 + rng.normal(0, 0.15, 7)
        posts = [Obstacle(f'post {i}', 'box', tuple(map(float, rng.uniform([0.2, -0.5, 0.0], [0.8, 0.5, 0.8]))),
                          (0.03, 0.03, 0.2)) for i in range(3)]
        checker = CollisionChecker(robot, Scene(tuple(posts)), 0.0)
        found = checker.first_contact_on_the_way(control_points(straight(q0, q1)))
        t = np.linspace(0, 1, 400)[:, None]
        touched = checker.first_collision(q0 + (10 * t**3 - 15 * t**4 + 6 * t**5) * (q1 - q0))
        assert found is not None or touched is None
        early += found is not None and touched is None
    assert early <= 3


def test_the_elbow_stays_out_of_a_keep_out_box(robot, make_plan, state):
    elbow = (-0.1, -0.15, 0.55, 0.25, 0.15, 0.9)  # around link 3 and 4, far from the tool
    limits = replace(WIDE, keep_out=(elbow,))
    assert plan(make_plan, state, robot, limits).reason is Reason.INSIDE_KEEP_OUT
    assert isinstance(plan(make_plan, state, robot, replace(WIDE, keep_out=((-0.9, -0.15, 0.5, -0.6, 0.15, 0.9),))),
                      TimedMotion)


def test_the_table_is_there_for_the_whole_arm_without_an_obstacle(robot, make_plan, state):
    z = float(robot.forward(state.q)[2, 3])
    high = replace(MotionLimits(), table_height=z - 0.06, table_clearance=0.0)
    motion = plan(make_plan, state, robot, high, scene=Scene())
    assert motion.truncated_by.reason is Reason.TABLE_CLEARANCE and 'table top' in motion.truncated_by.detail
    assert motion.poses == 1  # the second pose is on the table, its fingers are in it


@pytest.mark.parametrize(('scene', 'names'), [
    (Scene.table(), []), (Scene(), ['table top']), (Scene.table(-0.1), ['table top']),
    (Scene((Obstacle('slab', 'box', (0.5, 0.0, -0.05), (2.0, 2.0, 0.1)),)), []),
    (Scene((Obstacle('slab', 'box', (0.5, 0.0, -0.05), (0.2, 0.2, 0.1)),)), ['table top']),
    (Scene((Obstacle('post', 'cylinder', (0.5, 0.0, -0.05), (2.0, 0.1)),)), ['table top'])])
def test_the_table_is_added_once(scene, names):
    assert [o.name for o, _ in zones(MotionLimits(), scene)] == names


def test_a_table_higher_than_the_base_lies_under_the_workspace(robot):
    (low, _), = zones(MotionLimits(), Scene())
    (high, _), = zones(replace(MotionLimits(), table_height=0.2), Scene())
    assert low.size[0] >= 3.0 and high.size[:2] == pytest.approx((0.75, 1.2)) and high.centre[2] == pytest.approx(0.15)


def test_a_large_margin_drops_no_pair(robot):
    small, large = (CollisionChecker(robot, Scene(), margin) for margin in (0.0, 0.15))
    assert len(small._geometry.collisionPairs) == len(large._geometry.collisionPairs)
    assert not small.nearer_by_design and large.nearer_by_design
    assert all(0 < kept < 0.15 for kept in large.nearer_by_design.values())
    assert large.first_collision(robot.posture[None]) is None
    folded = np.array([0.0, 1.2, 0.0, -3.0, 0.0, 3.7, 0.0])
    assert large.first_collision(folded[None]) is not None


def test_a_held_object_needs_room_until_it_is_let_go(robot, make_plan, state):
    """A 20 cm long thing in the hand hits a post that the empty hand passes."""
    x, y, z = map(float, robot.forward(state.q)[:3, 3])
    post = Scene.table().with_obstacles(Obstacle('post', 'box', (x, y, z - 0.2), (0.05, 0.05, 0.1)))
    held = HeldBox((0.0, 0.0, 0.1), (0.02, 0.02, 0.2))
    closed = {'opening': 0.02, 'gripper_closed': True}
    free = plan(make_plan, state, robot, scene=post, offsets=DOWN[:2], **closed)
    assert isinstance(free, TimedMotion) and free.poses == 2
    stuck = plan(make_plan, state, robot, scene=post, offsets=DOWN[:2], held=held, **closed)
    assert isinstance(stuck, Refusal) and stuck.reason is Reason.COLLISION and 'held object' in stuck.detail
    open_hand = plan(make_plan, state, robot, scene=post, offsets=DOWN[:2], held=held)
    assert isinstance(open_hand, TimedMotion) and open_hand.poses == 2


def test_a_box_may_stand_for_whatever_is_held(robot, make_plan, state):
    x, y, z = map(float, robot.forward(state.q)[:3, 3])
    post = Scene.table().with_obstacles(Obstacle('post', 'box', (x, y, z - 0.2), (0.05, 0.05, 0.1)))
    limits = replace(MotionLimits(), held_box=(0.0, 0.0, 0.1, 0.02, 0.02, 0.2))
    for changes, poses in (({'opening': 0.02, 'gripper_closed': True}, 0),
                           ({'opening': 0.001, 'gripper_closed': True}, 2),  # shut fingers hold nothing
                           ({}, 2)):  # nor do open ones
        result = plan(make_plan, state, robot, limits, post, DOWN[:2], **changes)
        assert (result.poses if isinstance(result, TimedMotion) else 0) == poses
    with pytest.raises(ConfigurationError, match='held_box'):
        MotionLimits(held_box=(0.0, 0.0, 0.1, 0.02, 0.02, -0.2))


def test_a_held_object_may_stand_on_the_table(robot, make_plan, state):
    z = float(robot.forward(state.q)[2, 3])
    held = HeldBox((0.0, 0.0, z / 2 - 0.001), (0.04, 0.04, z + 0.002))  # 2 mm into the table, as far as one can see
    up = [(0, 0, 0.03 * (i + 1)) for i in range(3)]
    motion = plan(make_plan, state, robot, offsets=up, held=held, opening=0.04, gripper_closed=True)
    assert isinstance(motion, TimedMotion) and motion.poses == 3
    down = plan(make_plan, state, robot, offsets=DOWN[:2], held=held, opening=0.04, gripper_closed=True)
    assert down.reason is Reason.COLLISION and 'held object' in down.detail


def test_a_motion_that_overshoots_between_its_samples_is_refused(robot, limits):
    """Ends within the joint limits, the curve between them beyond: what a spline near a singularity did once."""
    q = np.stack([robot.posture, robot.posture])
    q[:, 6] = robot.upper[6] - 0.03
    swing = np.zeros((2, 7))
    swing[:, 6] = 2.0, -2.0
    motion = MoveSegment(np.array([0.0, 0.2]), q, swing, np.zeros((2, 7)))
    checker = collision_checker(robot, Scene.table(), limits)
    assert check_commanded(motion, robot, limits, checker).reason is Reason.JOINT_LIMIT
    assert check_commanded(replace(motion, dq=0 * swing), robot, limits, checker) is None


@pytest.mark.parametrize(('changes', 'expected'), [
    ({'joint_jump': 0.1}, 'JOINT_JUMP'), ({'condition_number': 1.1, 'condition_slow': 1.0}, 'SINGULARITY'),
    ({'workspace': (0.0, 0.2, 0.0, 1.0, 1.0, 1.0)}, 'OUTSIDE_WORKSPACE'), ({'table_height': 1.4}, 'TABLE_CLEARANCE'),
    ({'tilt': 0.05, 'workspace': (-9, -9, -9, 9, 9, 9)}, 'TILT_TOO_LARGE')])
def test_every_gate_is_asked_about_what_is_sent(robot, changes, expected):
    turned = robot.posture + np.array([0.3, 0, 0, 1.2, 0, 0.4, 0])
    q0, q1 = sorted((robot.posture, turned), key=robot.condition_number)  # away from a singularity is allowed
    motion = straight(q0, q1)
    checker = collision_checker(robot, Scene(), WIDE)
    assert check_commanded(motion, robot, replace(WIDE, joint_jump=2.0), checker) is None
    refusal = check_commanded(motion, robot, replace(WIDE, **{'joint_jump': 2.0, **changes}), checker)
    assert refusal.reason.code == expected


def test_the_box_of_what_is_held_is_read_off_the_points():
    rng = np.random.default_rng(0)
    thing = rng.uniform([-0.02, -0.015, -0.01], [0.02, 0.015, 0.12], (4000, 3))
    far = rng.uniform([0.1, -0.2, 0.0], [0.2, 0.2, 0.2], (2000, 3))
    far[:5] = np.nan
    box = held_box(np.concatenate([thing, far]), 0.03)
    assert np.array(box.centre) == pytest.approx([0, 0, 0.055], abs=0.004)
    assert np.array(box.size) == pytest.approx([0.04, 0.03, 0.13], abs=0.006)
    assert held_box(far, 0.03) is None and held_box(np.zeros((0, 3)), 0.03) is None


@pytest.mark.parametrize('size', [(0.0, 1.0, 1.0), (float('nan'), 1.0, 1.0), (1.0, 1.0)])
def test_a_held_box_without_a_size_is_refused(size):
    with pytest.raises(ConfigurationError, match='held box'):
        HeldBox((0.0, 0.0, 0.0), size)
