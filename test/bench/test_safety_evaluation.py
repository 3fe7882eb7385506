"""The safety evaluation: it finds what is wrong when the gates are taken out, and nothing when they are in."""

import json
from dataclasses import replace

import numpy as np
import pytest
from fakes import panda_urdf

from geo4d_ros.bench.safety import evaluate
from geo4d_ros.bench.safety.cases import laid_down, make_case, plausible
from geo4d_ros.bench.safety.checks import MotionJudge
from geo4d_ros.bench.safety.sequences import Monitor, run_sequence
from geo4d_ros.cli.main import main
from geo4d_ros.loop.events import Action, ActionKind, Event, EventKind
from geo4d_ros.loop.machine import LoopConfig
from geo4d_ros.motion.collision import Obstacle, Scene
from geo4d_ros.motion.planning import TimedMotion, plan_trajectory
from geo4d_ros.motion.timing import MoveSegment, stop_trajectory
from geo4d_ros.robots.kinematics import PANDA_JOINTS

HOME = np.array(panda_urdf.HOME)


@pytest.fixture(scope='module')
def judge():
    return MotionJudge(panda_urdf.urdf_text(), 'panda_hand_tcp', PANDA_JOINTS, HOME, 10.0)


@pytest.fixture(scope='module')
def executed(robot):
    """A case whose plan is executed, and its motion with at least one move."""
    for index in range(100):
        case = plausible(robot, HOME, np.random.default_rng(index))
        motion = plan_trajectory(case.plan, case.state, case.limits, case.scene, robot, case.now, case.k)
        if isinstance(motion, TimedMotion) and isinstance(motion.segments[0], MoveSegment):
            return case, motion
    raise AssertionError('no plausible plan was executed')


@pytest.mark.parametrize('chunk', range(4))
def test_nothing_unsafe_is_commanded(robot, judge, chunk):
    for index in range(25 * chunk, 25 * chunk + 25):
        case = make_case(robot, HOME, 4711, index)
        result = plan_trajectory(case.plan, case.state, case.limits, case.scene, robot, case.now, case.k)
        if isinstance(result, TimedMotion):
            assert judge.judge(case, result) == [], (index, case.kind)
        else:
            assert result.reason.code


def test_cases_can_be_made_again(robot):
    a, b = make_case(robot, HOME, 3, 5), make_case(robot, HOME, 3, 5)
    assert a.kind == b.kind and np.array_equal(a.plan.T_base_gripper, b.plan.T_base_gripper, equal_nan=True)


def test_the_judge_accepts_the_motion(judge, executed):
    assert judge.judge(*executed) == []


def faster(motion, factor):
    first = motion.segments[0]
    quick = MoveSegment(first.times / factor, first.q, first.dq * factor, first.ddq * factor**2)
    return replace(motion, segments=(quick, *motion.segments[1:]))


def moved(motion, offset):
    first = motion.segments[0]
    return replace(motion, segments=(MoveSegment(first.times, first.q + offset, first.dq, first.ddq),))


@pytest.mark.parametrize(('change', 'expected'), [
    (lambda c, m: (c, faster(m, 4.0)), {'tool_speed', 'tool_acceleration'}),
    (lambda c, m: (c, moved(m, np.array([0.4, 0, 0, 0, 0, 0, 0]))), {'segments_do_not_join', 'goal_missed'}),
    (lambda c, m: (c, moved(m, np.array([0, 0, 0, 0, 0, 0, 2.5]))), {'joint_limit'}),
    (lambda c, m: (replace(c, limits=replace(c.limits, workspace=(0.0, 0.5, 0.0, 1.0, 0.6, 1.0))), m), {'workspace'}),
    (lambda c, m: (replace(c, limits=replace(c.limits, table_height=0.9)), m), {'table'}),
    (lambda c, m: (replace(c, limits=replace(c.limits, keep_out=((-2, -2, -2, 2, 2, 2),))), m), {'keep_out'}),
    (lambda c, m: (replace(c, now=c.now + 60 * 10**9), m), {'stale_input'}),
    (lambda c, m: (replace(c, state=replace(c.state, dq=c.state.dq + 1)), m), {'started_while_moving'}),
    (lambda c, m: (replace(c, plan=replace(c.plan, confidence=None)), m), {'low_confidence'}),
    (lambda c, m: (replace(c, plan=replace(c.plan, opening=c.plan.opening * np.nan)), m), {'not_finite'}),
    (lambda c, m: (replace(c, limits=replace(c.limits, step_distance=0.001)), m), {'step_too_large'}),
    (lambda c, m: (c, replace(m, poses=c.k + 1)) if len(c.plan.opening) > c.k else (c, replace(m, poses=1)),
     {'wrong_prefix'}),
    (lambda c, m: (replace(c, limits=replace(c.limits, joint_velocity_scale=0.001)), m), {'joint_speed'}),
    (lambda c, m: (replace(c, limits=replace(c.limits, joint_acceleration_scale=0.001)), m), {'joint_acceleration'}),
    (lambda c, m: (replace(c, scene=Scene.table(0.4)), m), {'scene_collision'}),
    (lambda c, m: (c, moved(m, np.array([0, 1.9, 0, -0.6, 0, 2.1, 0]))), {'self_collision'}),
])
def test_the_judge_finds_what_is_wrong(judge, executed, change, expected):
    assert expected <= set(judge.judge(*change(*executed)))


def test_the_monitor_finds_motion_that_nobody_allowed():
    monitor = Monitor(LoopConfig(dry_run=False))
    execute = Action(ActionKind.EXECUTE, {'plan_id': 'x', 'index': 0, 'segment': {}})
    monitor.see(Event(EventKind.STOP, 1.0), (Action(ActionKind.STOP, {'escalate': False}),))
    monitor.see(Event(EventKind.TICK, 2.0), (execute,))
    monitor.see(Event(EventKind.TICK, 3.0), (execute, Action(ActionKind.REPORT, {'reason': '?'})))
    monitor.see(Event(EventKind.STOP, 4.0), ())
    assert {'execute_after_stop', 'motion_not_planned', 'motion_not_approved', 'two_motions', 'report_without_code',
            'stop_not_sent'} <= set(monitor.wrong)
    dry = Monitor(LoopConfig())
    dry.see(Event(EventKind.TICK, 2.0), (execute,))
    assert 'motion_in_dry_run' in dry.wrong


def test_sequences_reach_motion_and_faults():
    codes = [code for index in range(40) for code in run_sequence(5, index)[1]]
    assert {'OPERATOR_STOP', 'GRASP_MISSED', 'TOO_MANY_REFUSALS', 'CLOCK_JUMP'} <= set(codes)


def test_bad_stops_are_found(robot, limits):
    dq = 0.5 * robot.velocity_limits
    stop = stop_trajectory(robot.posture, dq, np.zeros(7), robot, limits)
    assert evaluate._stop_faults(stop, robot.posture, dq, limits) == []
    hard = MoveSegment(stop.times / 3, stop.q, stop.dq, stop.ddq)
    slow = MoveSegment(stop.times * 3, stop.q, stop.dq, stop.ddq)
    assert 'stop_too_hard' in evaluate._stop_faults(hard, robot.posture, dq, limits)
    assert 'stop_too_slow' in evaluate._stop_faults(slow, robot.posture, dq, limits)
    assert 'stop_not_at_rest' in evaluate._stop_faults(replace(stop, dq=stop.dq + 1), robot.posture, dq, limits)


def test_the_command_writes_its_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['evaluate', 'safety', '--cases', '40', '--jobs', '1', '--json', 'r.json']) == 0
    report = json.loads((tmp_path / 'r.json').read_text())
    assert report['cases'] == 40 and report['violations'] == 0 and report['refusals_without_code'] == 0
    assert sum(report['cases_by_kind'].values()) == 40 and report['refusals'] and report['wall_s'] > 0
    assert '40 cases' in capsys.readouterr().out


def test_bad_arguments_are_bad_input(capsys):
    assert main(['evaluate', 'safety', '--cases', '0']) == 2
    assert '--cases' in capsys.readouterr().err


def test_the_judge_sees_an_opening_without_room_and_one_far_from_its_place(judge, robot):
    """Cases of things laid down, found by hand: what the gates made of them is safe, and other ends are not."""
    early = None
    for index in range(200):
        rng = np.random.default_rng([77, index])
        case = laid_down(plausible(robot, HOME, rng), robot, rng)
        motion = plan_trajectory(case.plan, case.state, case.limits, case.scene, robot, case.now, case.k)
        if isinstance(motion, TimedMotion):
            assert judge.judge(case, motion) == []
            if 'let_go_short_m' in motion.gate_values and isinstance(motion.segments[0], MoveSegment):
                early = early or (case, motion)
        if early is not None and index > 20:
            break
    case, motion = early
    x, y, z = robot.forward(motion.segments[0].q[-1])[:3, 3]
    up = replace(case, scene=case.scene.with_obstacles(Obstacle('higher', 'box', (x, y, z - 0.03), (0.3, 0.3, 0.06))))
    assert 'scene_collision' in judge.judge(up, motion)
    short = replace(motion, segments=(replace(motion.segments[0], q=motion.segments[0].q[:1].repeat(
        len(motion.segments[0].q), axis=0)), motion.segments[1]))
    far = replace(case, plan=replace(case.plan, T_base_gripper=case.plan.T_base_gripper + 0.0))
    far.plan.T_base_gripper[motion.poses - 1, 2, 3] -= 0.03
    assert 'let_go_far_off' in judge.judge(far, short)
