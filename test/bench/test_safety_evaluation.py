"""The safety evaluation: it finds what is wrong when the gates are taken out, and nothing when they are in."""

import json
from dataclasses import replace

import numpy as np
import pytest
from fakes import panda_urdf
from fakes.panda import JOINT_NAMES as PANDA_JOINTS

from geo4d_ros.bench.safety import evaluate
from geo4d_ros.bench.safety.borders import BORDERS, make_border_case
from geo4d_ros.bench.safety.cases import laid_down, make_case, plausible
from geo4d_ros.bench.safety.checks import MotionJudge
from geo4d_ros.bench.safety.sequences import Monitor, run_sequence
from geo4d_ros.cli.main import main
from geo4d_ros.geometry.transforms import from_rotvec, make_transform
from geo4d_ros.loop.events import Action, ActionKind, Event, EventKind
from geo4d_ros.loop.machine import LoopConfig
from geo4d_ros.motion.collision import Obstacle, Scene
from geo4d_ros.motion.gripper_segments import GripperSegment
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import TimedMotion, plan_trajectory
from geo4d_ros.motion.timing import MoveSegment, stop_trajectory

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


def under(case, motion, below):
    """A small plate `below` [m] under the tool point at the lowest place of the motion; the fingers reach 8 mm."""
    T = motion.T_path[int(motion.T_path[:, 2, 3].argmin())]
    return Obstacle('plate', 'box', (float(T[0, 3]), float(T[1, 3]), float(T[2, 3]) - below - 0.001), (0.2, 0.2, 0.002))


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
    (lambda c, m: (replace(c, limits=replace(c.limits, tilt=1e-3)), m), {'tilt'}),
    (lambda c, m: (replace(c, state=replace(c.state, opening=0.2)), m), {'opening_state'}),
    (lambda c, m: (replace(c, state=replace(c.state, q=c.state.q[:5])), m), {'joint_state'}),
    (lambda c, m: (replace(c, plan=replace(c.plan, opening_start=-0.05)), m), {'opening_range'}),
    (lambda c, m: (replace(c, plan=replace(c.plan, time_from_start=-c.plan.time_from_start)), m), {'times'}),
    (lambda c, m: (replace(c, plan=replace(c.plan, T_base_gripper=1.1 * c.plan.T_base_gripper)), m), {'not_rigid'}),
    (lambda c, m: (replace(c, limits=replace(c.limits, start_angle=1e-9)), m), set()),
    (lambda c, m: (replace(c, limits=replace(c.limits, step_angle=1e-3)), m), {'step_turns_too_far'}),
    (lambda c, m: (replace(c, limits=replace(c.limits, condition_slow=1.0, condition_number=1.5)), m),
     {'fast_near_singularity'}),
    (lambda c, m: (replace(c, limits=replace(c.limits, joint_margin=5.0)), m), set()),  # it was no nearer before
    (lambda c, m: (replace(c, limits=replace(c.limits, angular_acceleration=1e-3)), m), {'tool_turning_acceleration'}),
    (lambda c, m: (c, replace(m, segments=(*m.segments, GripperSegment(0.08, False, 0.5)))),
     {'gripper_again', 'gripper_without_cause'}),
    (lambda c, m: (c, replace(m, segments=(*m.segments, GripperSegment(0.02, True, 0.1)))), {'gripper_command'}),
    (lambda c, m: (c, replace(m, T_path=m.T_path @ from_rotvec(np.array([0.1, 0, 0])))), {'left_the_path'}),
    (lambda c, m: (replace(c, scene=c.scene.with_obstacles(under(c, m, 0.0111))), m), {'scene_collision'}),
    (lambda c, m: (replace(c, scene=c.scene.with_obstacles(under(c, m, 0.02))), m), set()),
    (lambda c, m: (c, moved(m, np.array([0, 1.9, 0, -0.6, 0, 2.1, 0]))), {'self_collision'}),
])
def test_the_judge_finds_what_is_wrong(judge, executed, change, expected):
    assert expected <= set(judge.judge(*change(*executed)))


def test_a_plan_that_was_once_commanded_past_a_joint_limit(robot, judge):
    """Seed 555, case 5146: joints turn fast near a singularity, and the spline swung 0.022 rad past a limit."""
    q = np.array([-0.577016, 0.534209, 2.564165, -0.436481, 2.545322, 1.188624, 0.431447])
    places = [([0.269407, -0.262981, 1.01755], [1.512576, -0.98985, 0.557496]),
              ([0.309444, -0.251498, 0.994024], [1.462269, -0.987888, 0.562806])]
    T = np.stack([make_transform(from_rotvec(np.array(turn))[:3, :3], np.array(place)) for place, turn in places])
    case = plausible(robot, HOME, np.random.default_rng(0))
    case = replace(case, k=2, limits=MotionLimits(workspace=(-1.5, -1.5, 0.0, 1.5, 1.5, 1.5)),
                   state=replace(case.state, q=q, opening=0.08),
                   plan=replace(case.plan, T_base_gripper=T, T_base_gripper_start=robot.forward(q), opening_start=0.08,
                                opening=np.full(2, 0.08), time_from_start=np.array([0.5, 1.0]), confidence=np.ones(2)))
    motion = plan_trajectory(case.plan, case.state, case.limits, case.scene, robot, case.now, case.k)
    assert isinstance(motion, TimedMotion) and judge.judge(case, motion) == []


@pytest.mark.parametrize('kind', BORDERS)
def test_nothing_that_breaks_a_rule_by_a_little_is_commanded(robot, judge, kind):
    for index in range(2):
        case = make_border_case(robot, HOME, 12, index, (kind,))
        result = plan_trajectory(case.plan, case.state, case.limits, case.scene, robot, case.now, case.k)
        assert not isinstance(result, TimedMotion) or judge.judge(case, result) == [], (kind, index)


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
