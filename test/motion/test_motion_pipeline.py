"""From plan to motion: what is executed, what is cut, what is refused and why."""

from dataclasses import replace

import numpy as np
import pytest

from geo4d_ros.motion.collision import Obstacle, Scene
from geo4d_ros.motion.gripper_segments import GripperSegment
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import (
    RobotState,
    TimedMotion,
    collision_checker,
    describe,
    plan_trajectory,
    speed_near_singularity,
)
from geo4d_ros.motion.timing import MoveSegment, tool_velocities
from geo4d_ros.reasons import Reason, Refusal

NOW = 1_000_000_000_000
DOWN = [(0, 0, -0.03 * (i + 1)) for i in range(8)]


@pytest.fixture
def run(robot, state, limits):
    def run(plan, k=5, scene=None, **changes):
        return plan_trajectory(plan, changes.get('state', state), changes.get('limits', limits),
                               Scene.table() if scene is None else scene, robot, changes.get('now', NOW), k)
    return run


def code(result):
    assert isinstance(result, Refusal), result
    return result.reason.code


def test_a_good_plan_becomes_a_motion_to_its_kth_pose(run, make_plan, robot, state):
    plan = make_plan(DOWN)
    motion = run(plan, k=5)
    assert isinstance(motion, TimedMotion) and motion.plan_id == 'plan' and motion.poses == 5
    (segment,) = motion.segments
    assert isinstance(segment, MoveSegment) and motion.duration == segment.duration
    assert segment.q[0] == pytest.approx(state.q) and motion.q_start == pytest.approx(state.q)
    assert robot.forward(segment.q[-1])[:3, 3] == pytest.approx(plan.T_base_gripper[4, :3, 3], abs=1e-3)
    assert motion.truncated_by is None and motion.gate_values['deviation_m'] < 0.002
    assert motion.T_path[0] == pytest.approx(robot.forward(state.q)) and len(motion.T_path) > 20
    assert run(plan, k=10).poses == 8


def test_every_pose_in_between_is_passed(run, make_plan, robot):
    plan = make_plan([(0.03, 0, -0.02), (0.03, 0.04, -0.04), (0, 0.04, -0.06), (0, 0, -0.08)])
    T = robot.forward_batch(run(plan).segments[0].q)
    for goal in plan.T_base_gripper:
        assert np.linalg.norm(T[:, :3, 3] - goal[:3, 3], axis=1).min() < 0.003


def test_the_plan_is_cut_before_what_is_not_safe(run, make_plan):
    motion = run(make_plan([*DOWN[:3], (0, 0.5, -0.1), (0, 0.5, -0.1)]))
    assert motion.poses == 3 and motion.truncated_by.reason is Reason.STEP_TOO_LARGE
    assert motion.gate_values['pose_prefix'] == 3 and motion.gate_values['plan_poses'] == 5
    assert run(make_plan([DOWN[0], (0, 0.5, -0.1), (0, 0.5, -0.1)])).poses == 1
    assert code(run(make_plan([(0, 0.5, -0.1), DOWN[1], DOWN[2]]))) == 'STEP_TOO_LARGE'


def test_a_cut_beyond_k_is_no_cut(run, make_plan):
    motion = run(make_plan([*DOWN[:5], (0, 0.5, -0.1)]), k=5)
    assert motion.poses == 5 and motion.truncated_by is None


def test_an_obstacle_cuts_the_path(run, make_plan, robot):
    x, y, z = robot.forward(robot.posture)[:3, 3]
    scene = Scene.table().with_obstacles(Obstacle('block', 'box', (x, y, z - 0.15), (0.2, 0.2, 0.06)))
    motion = run(make_plan(DOWN), scene=scene)
    assert motion.poses == 3 and motion.truncated_by.reason is Reason.COLLISION
    assert 'block' in motion.truncated_by.detail
    tight = Scene.table().with_obstacles(Obstacle('block', 'box', (x, y, z - 0.09), (0.2, 0.2, 0.06)))
    assert code(run(make_plan(DOWN), scene=tight, limits=MotionLimits(prefix=2))) == 'COLLISION'


def test_a_keep_out_box_between_two_poses_is_seen(run, make_plan, robot):
    x, y, z = robot.forward(robot.posture)[:3, 3]
    thin = (x - 0.1, y - 0.1, z - 0.055, x + 0.1, y + 0.1, z - 0.045)  # the fingers end 8 mm below the tool point
    result = run(make_plan(DOWN), limits=MotionLimits(keep_out=(thin,), prefix=2))
    assert code(result) == 'INSIDE_KEEP_OUT' and result.values['poses'] == 1


@pytest.mark.parametrize(('changes', 'expected'), [
    ({'confidence': None}, 'CONFIDENCE_MISSING'), ({'confidence': np.full(8, 0.1)}, 'CONFIDENCE_LOW'),
    ({'observation_stamp': NOW - 60 * 10**9}, 'PLAN_STALE'), ({'observation_stamp': NOW + 10**9}, 'CLOCK_JUMP'),
    ({'opening_start': 0.5}, 'OPENING_OUT_OF_RANGE'), ({'time_from_start': np.zeros(8)}, 'PLAN_INVALID'),
    ({'T_base_gripper_start': np.eye(4)}, 'START_MISMATCH'),
])
def test_bad_plans_are_refused(run, make_plan, changes, expected):
    assert code(run(make_plan(DOWN, **changes))) == expected


@pytest.mark.parametrize(('changes', 'expected'), [
    ({'q': np.full(7, np.nan)}, 'ROBOT_STATE_INVALID'), ({'q': np.zeros(6)}, 'ROBOT_STATE_INVALID'),
    ({'dq': np.full(7, 0.1)}, 'ROBOT_MOVING'), ({'stamp': NOW - 10**9}, 'JOINT_STATES_STALE'),
    ({'opening': np.nan}, 'ROBOT_STATE_INVALID'), ({'q': np.full(7, 9.0)}, 'ROBOT_STATE_INVALID'),
])
def test_bad_robot_states_are_refused(run, make_plan, state, changes, expected):
    assert code(run(make_plan(DOWN), state=replace(state, **changes))) == expected


@pytest.mark.parametrize(('offsets', 'limits', 'expected'), [
    ([(0, 0, 0.05 * i) for i in range(1, 12)], MotionLimits(workspace=(-2, -2, -2, 2, 2, 2)), None),
    ([(0.06 * i, 0, 0) for i in range(1, 12)], MotionLimits(workspace=(-2, -2, -2, 2, 2, 2)), ('SINGULARITY',)),
    ([(0.06 * i, 0, 0) for i in range(1, 12)], MotionLimits(workspace=(0.1, -1, 0, 0.6, 1, 1)), ('OUTSIDE_WORKSPACE',)),
    ([(0, 0, -0.06 * i) for i in range(1, 12)], MotionLimits(), ('TABLE_CLEARANCE', 'OUTSIDE_WORKSPACE')),
])
def test_paths_out_of_reach_are_cut(run, make_plan, offsets, limits, expected):
    motion = run(make_plan(offsets), k=11, limits=limits)
    assert isinstance(motion, TimedMotion) and motion.poses < 11
    assert expected is None or motion.truncated_by.reason.code in expected, motion.truncated_by


def test_an_arm_near_a_joint_limit_may_come_back(run, make_plan, robot, state):
    q = robot.posture.copy()
    q[6] = robot.upper[6] - 0.005
    T_start = robot.forward(q)
    T = np.tile(T_start, (3, 1, 1))
    T[:, 2, 3] += 0.02 * np.arange(1, 4)
    plan = make_plan(DOWN[:3], T_base_gripper=T, T_base_gripper_start=T_start)
    result = run(plan, state=replace(state, q=q))
    assert isinstance(result, TimedMotion) or result.reason is Reason.JOINT_LIMIT
    assert not isinstance(result, TimedMotion) or (result.segments[0].q[:, 6] <= q[6] + 1e-6).all()


def test_closing_happens_at_a_standstill_at_the_lower_pose(run, make_plan, robot):
    opening = [0.08, 0.08, 0.03, 0.03, 0.03, 0.03, 0.03, 0.03]
    motion = run(make_plan(DOWN, opening), k=5)
    move, grip, rest = motion.segments
    assert grip == GripperSegment(0.0, True, 0.5)
    # The opening switches between poses 2 and 3; pose 3 (index 2) is the lower one.
    assert robot.forward(move.q[-1])[2, 3] == pytest.approx(robot.forward(robot.posture)[2, 3] - 0.09, abs=1e-3)
    assert not move.dq[-1].any() and not rest.dq[0].any() and rest.q[0] == pytest.approx(move.q[-1], abs=1e-9)
    assert motion.duration == pytest.approx(move.duration + 0.5 + rest.duration)


def test_holding_still_is_an_empty_motion(run, make_plan):
    motion = run(make_plan([(0, 0, 0)] * 4))
    assert motion.segments == () and motion.duration == 0 and motion.poses == 4


def test_the_gripper_may_act_without_the_arm(run, make_plan):
    motion = run(make_plan([(0, 0, 0)] * 4, [0.08, 0.02, 0.02, 0.02]))
    assert motion.segments == (GripperSegment(0.0, True, 0.5),)


def test_what_the_state_machine_gets_to_know(run, make_plan):
    plan = make_plan(DOWN, [0.08, 0.08, 0.03, 0.03, 0.03, 0.03, 0.03, 0.03])
    data = describe(plan, run(plan))
    assert data['plan_id'] == 'plan' and data['poses'] == 5 and data['switches'] == 1
    assert [s['kind'] for s in data['segments']] == ['move', 'gripper', 'move']
    assert data['segments'][1]['closing'] is True and data['segments'][0]['duration'] > 0.5
    assert data['excursion'] == pytest.approx(0.24) and data['turn'] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(('opening', 'closed', 'opens', 'poses'), [
    (0.01, True, False, 4), (0.01, None, False, 0), (0.01, False, False, 0), (0.08, True, False, 0),
    (0.01, True, True, 3)])
def test_fingers_that_hold_something_thin_need_little_room(run, make_plan, robot, state, opening, closed, opens, poses):
    x, y, z = robot.forward(state.q)[:3, 3]
    wall = Scene.table().with_obstacles(Obstacle('wall', 'box', (x, y + 0.04, z - 0.07), (0.2, 0.01, 0.1)))
    readings = opening + 0.07 * np.array([0, 0, 0, float(opens)])
    plan = make_plan([(0, 0, -0.01 * (i + 1)) for i in range(4)], np.minimum(readings, 0.08))
    result = run(plan, scene=wall, state=replace(state, opening=opening, gripper_closed=closed))
    assert (result.poses if isinstance(result, TimedMotion) else 0) == poses


def test_near_a_singularity_the_tool_is_slower(limits):
    assert [speed_near_singularity(c, limits) for c in (1.0, 60.0, 105.0, 150.0, 1e9)] == pytest.approx(
        [1.0, 1.0, 0.6, 0.2, 0.2])
    assert speed_near_singularity(float('nan'), limits) == 1.0  # refused by its gate before any timing
    assert speed_near_singularity(61.0, replace(limits, condition_slow=60.0, condition_number=60.0)) == 0.2


def test_a_motion_near_a_singularity_keeps_the_lower_speed(run, make_plan, robot, limits):
    fast = run(make_plan(DOWN))
    slow = run(make_plan(DOWN), limits=replace(limits, condition_slow=1.0, condition_number=12.0))
    assert fast.gate_values['condition_number'] == slow.gate_values['condition_number'] < 12
    share = speed_near_singularity(slow.gate_values['condition_number'], slow_limits := replace(
        limits, condition_slow=1.0, condition_number=12.0))
    (segment,) = slow.segments
    speed = np.linalg.norm(tool_velocities(segment, robot)[0], axis=1).max()
    assert speed <= 1.001 * share * slow_limits.speed < 0.5 * limits.speed


def test_the_same_question_has_the_same_answer(run, make_plan):
    a, b = run(make_plan(DOWN)), run(make_plan(DOWN))
    assert (a.segments[0].q == b.segments[0].q).all() and a.gate_values == b.gate_values


def test_checkers_are_kept_and_not_for_ever(robot):
    scenes = [Scene.table(0.01 * i) for i in range(5)]
    first = collision_checker(robot, scenes[0], MotionLimits(collision_margin=0.0))
    assert collision_checker(robot, scenes[0], MotionLimits(collision_margin=0.0)) is first
    for scene in scenes[1:]:
        collision_checker(robot, scene, MotionLimits(collision_margin=0.0))
    assert collision_checker(robot, scenes[0], MotionLimits(collision_margin=0.0)) is not first


def test_states_default_to_the_measured_gripper(state):
    assert RobotState(state.q, state.dq, 0.0, 0).gripper_closed is None
