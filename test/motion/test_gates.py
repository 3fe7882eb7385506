"""Every gate: passes up to its border, refuses beyond it and on NaN, with its code and its numbers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.geometry.transforms import from_rotvec, make_transform
from geo4d_ros.motion import gates
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.types import Plan

LIMITS = MotionLimits()
NS = 1_000_000_000
NOW = 1000 * NS
NAN = float('nan')
LOWER, UPPER = np.full(3, -1.0), np.full(3, 2.0)


def poses(*positions: tuple[float, float, float]) -> np.ndarray:
    """Poses pointing down at the positions."""
    return np.stack([make_transform(np.diag([1.0, -1.0, -1.0]), p) for p in positions])


def line(n: int, step: float = 0.03) -> np.ndarray:
    """n poses going forward from x = 0.4."""
    return poses(*((0.4 + step * (i + 1), 0.0, 0.3) for i in range(n)))


def plan(n: int = 4, **changes) -> Plan:
    times = 0.5 * np.arange(1, n + 1)
    good = Plan('p', line(n), np.full(n, 0.05), times, NOW, poses((0.4, 0, 0.3))[0], 0.06, np.ones(n))
    return replace(good, **changes)


def code(refusal: Refusal | None) -> str | None:
    """The code, after looking that a refusal also has words and numbers in its message."""
    if refusal is None:
        return None
    assert refusal.message.startswith(refusal.reason.code) and refusal.reason.sentence in refusal.message
    return refusal.reason.code


def cut(prefix: gates.Prefix) -> tuple[int, str | None]:
    return prefix[0], code(prefix[1])


# --- ages ---

@pytest.mark.parametrize(('age', 'expected'), [
    (0.0, None), (0.4999, None), (0.5, None), (0.501, 'PLAN_STALE'), (-0.001, None), (-0.005, None),
    (-0.006, 'CLOCK_JUMP'), (-60.0, 'CLOCK_JUMP'), (1e6, 'PLAN_STALE'),
])
def test_age(age, expected):
    stamp = NOW - round(age * NS)
    assert code(gates.check_age(stamp, NOW, 0.5, 0.005, Reason.PLAN_STALE)) == expected


def test_age_names_the_numbers():
    stale = gates.check_age(NOW - 2 * NS, NOW, 0.5, 0.005, Reason.JOINT_STATES_STALE)
    assert stale.reason is Reason.JOINT_STATES_STALE
    assert stale.values == {'age_s': 2.0, 'limit_s': 0.5}
    jump = gates.check_age(NOW + 2 * NS, NOW, 0.5, 0.005, Reason.PLAN_STALE)
    assert jump.values == {'age_s': -2.0, 'limit_s': 0.5} and '2.000' in jump.detail


@pytest.mark.parametrize(('age', 'limit', 'tolerance'), [(0, NAN, 0.1), (0, 1.0, NAN)])
def test_an_unknown_limit_refuses(age, limit, tolerance):
    assert gates.check_age(NOW - age, NOW, limit, tolerance, Reason.PLAN_STALE) is not None


@pytest.mark.parametrize(('ages', 'expected'), [
    ((0.1, 0.1), None), ((0.1, 0.134), None), ((0.1, 0.135), 'OBSERVATION_SKEWED'),
    ((0.135, 0.1), 'OBSERVATION_SKEWED'),
    ((0.5, 0.48), None), ((0.52, 0.5), 'OBSERVATION_STALE'), ((0.5, 0.52), 'OBSERVATION_STALE'),
    ((0.0, -0.02), 'CLOCK_JUMP'), ((-0.02, -0.02), 'CLOCK_JUMP'), ((), 'OBSERVATION_INVALID'), ((0.2,), None),
])
def test_pair(ages, expected):
    stamps = [NOW - round(age * NS) for age in ages]
    assert code(gates.check_pair(stamps, NOW, LIMITS)) == expected


def test_pair_skew_in_numbers():
    refusal = gates.check_pair([NOW, NOW - NS // 10], NOW, LIMITS)
    assert refusal.values == {'skew_s': 0.1, 'limit_s': LIMITS.pair_skew}


# --- robot state ---

@pytest.mark.parametrize(('q', 'expected'), [
    ([0, 0, 0], None), ([-1.0, 2.0, 0], None), ([-1.001, 0, 0], 'ROBOT_STATE_INVALID'),
    ([0, 2.001, 0], 'ROBOT_STATE_INVALID'), ([0, 0, NAN], 'ROBOT_STATE_INVALID'),
    ([0, 0, np.inf], 'ROBOT_STATE_INVALID'), ([0, 0], 'ROBOT_STATE_INVALID'), ([], 'ROBOT_STATE_INVALID'),
])
def test_joint_positions(q, expected):
    assert code(gates.check_joint_state(np.array(q, float), np.zeros(3), LOWER, UPPER)) == expected


@pytest.mark.parametrize('dq', [[0, NAN, 0], [0, 0], [0, 0, -np.inf]])
def test_joint_velocities_have_to_be_complete_and_finite(dq):
    assert code(gates.check_joint_state(np.zeros(3), np.array(dq, float), LOWER, UPPER)) == 'ROBOT_STATE_INVALID'


def test_joint_state_names_the_joint():
    refusal = gates.check_joint_state(np.array([0, 0, 2.5]), np.zeros(3), LOWER, UPPER)
    assert refusal.values == {'joint': 2, 'q': 2.5} and 'joint 3' in refusal.detail


@pytest.mark.parametrize(('opening', 'expected'), [
    (0.0, None), (0.08, None), (-0.01, None), (0.09, None), (-0.0101, 'ROBOT_STATE_INVALID'),
    (0.0901, 'ROBOT_STATE_INVALID'), (NAN, 'ROBOT_STATE_INVALID'),
])
def test_opening_state(opening, expected):
    refusal = gates.check_opening_state(opening, LIMITS)
    assert code(refusal) == expected
    assert refusal is None or np.array_equal(refusal.values['opening_m'], opening, equal_nan=True)


@pytest.mark.parametrize(('dq', 'expected'), [
    ([0.01, 0, -0.01], None), ([0.0101, 0, 0], 'ROBOT_MOVING'), ([0, 0, -0.0101], 'ROBOT_MOVING'),
    ([0, NAN, 0], 'ROBOT_MOVING'),
])
def test_at_rest(dq, expected):
    refusal = gates.check_at_rest(np.array(dq), LIMITS)
    assert code(refusal) == expected
    assert refusal is None or refusal.values['limit'] == LIMITS.rest_velocity


# --- form of the plan ---

def test_good_plan_passes():
    assert gates.check_plan_finite(plan()) is None


def test_empty_plan():
    empty = plan(T_base_gripper=np.zeros((0, 4, 4)), opening=np.zeros(0), time_from_start=np.zeros(0),
                 confidence=np.zeros(0))
    assert code(gates.check_plan_finite(empty)) == 'PLAN_EMPTY'


@pytest.mark.parametrize('bad', [NAN, np.inf, -np.inf, 1e300, 100.1, -100.1])
@pytest.mark.parametrize('where', [(0, 0, 0), (3, 2, 3), (1, 3, 3)])
def test_bad_numbers_in_a_pose(bad, where):
    T = line(4)
    T[where] = bad
    assert code(gates.check_plan_finite(plan(T_base_gripper=T))) == 'PLAN_INVALID'


def test_bad_numbers_in_the_start():
    T = plan().T_base_gripper_start.copy()
    T[1, 3] = NAN
    assert code(gates.check_plan_finite(plan(T_base_gripper_start=T))) == 'PLAN_INVALID'


@pytest.mark.parametrize('R', [np.zeros((3, 3)), 1.01 * np.eye(3), np.diag([1.0, 1.0, -1.0]),
                               np.diag([1.0, 1.0, 1.0002])])
def test_a_rotation_has_to_be_one(R):
    T = line(4)
    T[2, :3, :3] = R
    refusal = gates.check_plan_finite(plan(T_base_gripper=T))
    assert code(refusal) == 'PLAN_INVALID' and 'rigid' in refusal.detail
    assert refusal.values['error'] >= 0


def test_a_nearly_exact_rotation_passes():
    T = line(4)
    T[2, :3, :3] *= 1 + 4e-5  # what float32 and interpolation leave
    assert gates.check_plan_finite(plan(T_base_gripper=T)) is None


@pytest.mark.parametrize('row', [[0, 0, 0, 1.001], [0.001, 0, 0, 1], [0, 0, 0, 0]])
def test_the_last_row_has_to_be_0001(row):
    T = line(4)
    T[0, 3] = row
    assert code(gates.check_plan_finite(plan(T_base_gripper=T))) == 'PLAN_INVALID'


@pytest.mark.parametrize('changes', [
    {'opening': np.array([0.05, NAN, 0.05, 0.05])}, {'opening_start': NAN}, {'opening_start': np.inf},
    {'time_from_start': np.array([0.5, 1.0, NAN, 2.0])}, {'time_from_start': np.array([0.5, 1.0, 0.9, 2.0])},
    {'time_from_start': np.array([0.0, 1.0, 1.5, 2.0])}, {'time_from_start': np.array([-0.5, 1.0, 1.5, 2.0])},
    {'time_from_start': np.array([0.5, 0.5, 1.5, 2.0])}, {'time_from_start': np.array([0.5, 1.0, 1.5, np.inf])},
])
def test_openings_and_times_have_to_be_sound(changes):
    assert code(gates.check_plan_finite(plan(**changes))) == 'PLAN_INVALID'


@pytest.mark.parametrize(('opening', 'start', 'expected'), [
    (0.09, 0.0, None), (-0.01, 0.0, None), (0.0901, 0.0, 'OPENING_OUT_OF_RANGE'),
    (-0.0101, 0.0, 'OPENING_OUT_OF_RANGE'),
    (0.05, 0.0901, 'OPENING_OUT_OF_RANGE'), (0.05, -0.0101, 'OPENING_OUT_OF_RANGE'), (NAN, 0.0, 'OPENING_OUT_OF_RANGE'),
])
def test_openings_stay_within_the_stroke(opening, start, expected):
    openings = np.array([0.05, opening, 0.05, 0.05])
    assert code(gates.check_openings(plan(opening=openings, opening_start=start), LIMITS)) == expected


def test_openings_name_the_range():
    refusal = gates.check_openings(plan(opening=np.array([0.2, 0.1, 0.0, 0.05])), LIMITS)
    assert refusal.values == {'low_m': 0.0, 'high_m': 0.2}


@pytest.mark.parametrize(('distance', 'degrees', 'expected'), [
    (0.0, 0.0, None), (0.00999, 2.99, None), (0.0101, 0.0, 'START_MISMATCH'), (0.0, 3.01, 'START_MISMATCH'),
    (NAN, 0.0, 'START_MISMATCH'),
])
def test_start(distance, degrees, expected):
    T = make_transform(np.eye(3), [0.4, 0, 0.3])
    T_plan = from_rotvec(np.array([0, np.radians(degrees), 0]), np.array([0.4, distance, 0.3]))
    refusal = gates.check_start(T, T_plan, LIMITS)
    assert code(refusal) == expected
    if refusal and np.isfinite(distance):
        assert refusal.values['distance_m'] == pytest.approx(distance)
        assert refusal.values['angle_rad'] == pytest.approx(np.radians(degrees), abs=1e-7)
        assert f'{degrees:.1f} deg' in refusal.detail and f'{distance * 1e3:.1f} mm' in refusal.detail


# --- prefixes of poses ---

@pytest.mark.parametrize(('confidence', 'expected'), [
    ([1, 1, 1], (3, None)), ([0.3, 0.3, 0.3], (3, None)), ([0.9, 0.29, 0.9], (1, 'CONFIDENCE_LOW')),
    ([NAN, 1, 1], (0, 'CONFIDENCE_LOW')), ([1, 1, 0], (2, 'CONFIDENCE_LOW')),
])
def test_confidence(confidence, expected):
    assert cut(gates.confident_prefix(np.array(confidence, float), LIMITS)) == expected


def test_confidence_has_to_be_there_and_is_named():
    assert cut(gates.confident_prefix(None, LIMITS)) == (0, 'CONFIDENCE_MISSING')
    refusal = gates.confident_prefix(np.array([1, 0.25]), LIMITS)[1]
    assert refusal.values == {'confidence': 0.25} and 'pose 2' in refusal.detail


def test_steps_up_to_the_limit_pass():
    T_start = poses((0.4, 0, 0.3))[0]
    assert cut(gates.step_prefix(T_start, line(4, 0.0799), LIMITS)) == (4, None)
    assert cut(gates.step_prefix(T_start, line(4, 0.0801), LIMITS)) == (0, 'STEP_TOO_LARGE')


def test_a_jump_in_the_middle_leaves_what_is_before():
    T = line(4)
    T[2:, 1, 3] += 0.2
    n, refusal = gates.step_prefix(poses((0.4, 0, 0.3))[0], T, LIMITS)
    assert (n, code(refusal)) == (2, 'STEP_TOO_LARGE')
    assert refusal.values['distance_m'] == pytest.approx(np.hypot(0.2, 0.03))
    assert refusal.values['angle_rad'] == pytest.approx(0, abs=1e-6)
    assert 'pose 3' in refusal.detail and f'{np.hypot(20, 3):.1f} cm' in refusal.detail


@pytest.mark.parametrize(('degrees', 'expected'), [(24.9, (2, None)), (25.1, (0, 'STEP_TOO_LARGE'))])
def test_turns_have_their_own_limit(degrees, expected):
    T_start = poses((0.4, 0, 0.3))[0]
    turn = from_rotvec(np.radians([0, 0, degrees]))
    assert cut(gates.step_prefix(T_start, np.stack([T_start @ turn, T_start @ turn @ turn]), LIMITS)) == expected


def test_a_step_to_nan_is_no_step():
    T = line(3)
    T[1, 0, 3] = NAN
    assert gates.step_prefix(poses((0.4, 0, 0.3))[0], T, LIMITS)[0] == 1


@pytest.mark.parametrize('axis', [0, 1, 2])
@pytest.mark.parametrize('side', [0, 3])
def test_workspace_borders(axis, side):
    centre = np.array([0.5, 0.0, 0.4])
    border = LIMITS.workspace[axis + side]
    outward = 1 if side else -1
    for offset, expected in ((0.0, (2, None)), (1e-6, (1, 'OUTSIDE_WORKSPACE'))):
        p = centre.copy()
        p[axis] = border + outward * offset
        assert cut(gates.workspace_prefix(poses(centre, p), LIMITS)) == expected
    assert gates.workspace_prefix(poses(centre, p), LIMITS, 1e-5)[0] == 2
    p[axis] = border + outward * 2e-5
    assert gates.workspace_prefix(poses(centre, p), LIMITS, 1e-5)[0] == 1


def test_nan_is_outside_the_workspace_and_not_beside_a_keep_out_box():
    T = poses((0.5, 0, 0.4), (0.5, NAN, 0.4))
    assert cut(gates.workspace_prefix(T, LIMITS)) == (1, 'OUTSIDE_WORKSPACE')
    assert cut(gates.keep_out_prefix(T, LIMITS)) == (1, 'INSIDE_KEEP_OUT')


def test_workspace_refusal_names_pose_and_place():
    refusal = gates.workspace_prefix(poses((0.5, 0, 0.4), (2.0, 0, 0.4)), LIMITS)[1]
    assert refusal.values == {'position_m': [2.0, 0.0, 0.4]} and 'pose 2' in refusal.detail


@pytest.mark.parametrize(('x', 'expected'), [
    (0.39, (2, None)), (0.4, (1, 'INSIDE_KEEP_OUT')), (0.45, (1, 'INSIDE_KEEP_OUT')), (0.51, (2, None)),
    (0.65, (1, 'INSIDE_KEEP_OUT')),
])
def test_keep_out(x, expected):
    limits = replace(LIMITS, keep_out=((0.4, -0.1, 0.1, 0.5, 0.1, 0.5), (0.6, -0.1, 0.1, 0.7, 0.1, 0.5)))
    assert cut(gates.keep_out_prefix(poses((0.3, 0, 0.3), (x, 0, 0.3)), limits)) == expected


@pytest.mark.parametrize(('z', 'tolerance', 'expected'), [
    (0.111, 0.0, None), (0.109, 0.0, 'TABLE_CLEARANCE'), (0.109, 0.002, None), (0.107, 0.002, 'TABLE_CLEARANCE'),
    (NAN, 0.0, 'TABLE_CLEARANCE'),
])
def test_table(z, tolerance, expected):
    limits = replace(LIMITS, table_height=0.1)
    n, refusal = gates.table_prefix(poses((0.5, 0, 0.3), (0.5, 0, z)), limits, tolerance)
    assert (n, code(refusal)) == (1 if expected else 2, expected)
    if refusal and np.isfinite(z):
        assert refusal.values['height_m'] == pytest.approx(z - 0.1)
        assert f'{(z - 0.1) * 1e3:.1f} mm at pose 2' in refusal.detail and '10.0 mm' in refusal.detail


@pytest.mark.parametrize(('degrees', 'expected'), [(0, (1, None)), (29.9, (1, None)), (30.1, (0, 'TILT_TOO_LARGE'))])
def test_tilt(degrees, expected):
    limits = replace(LIMITS, tilt=np.radians(30))
    T = poses((0.5, 0, 0.3)) @ from_rotvec(np.radians([degrees, 0, 0]))
    n, refusal = gates.tilt_prefix(T, limits)
    assert (n, code(refusal)) == expected
    assert gates.tilt_prefix(T, LIMITS) == (1, None)  # off by default
    if refusal:
        assert refusal.values['tilt_rad'] == pytest.approx(np.radians(degrees)) and 'pose 1' in refusal.detail


def test_upside_down_is_tilted_by_180():
    refusal = gates.tilt_prefix(np.eye(4)[None], replace(LIMITS, tilt=0.5))[1]
    assert refusal.values['tilt_rad'] == pytest.approx(np.pi)


# --- kinematics ---

@pytest.mark.parametrize(('distance', 'degrees', 'expected'), [
    (0.00099, 0.49, None), (0.00101, 0.0, 'IK_FAILED'), (0.0, 0.51, 'IK_FAILED'), (NAN, 0, 'IK_FAILED'),
    (0, NAN, 'IK_FAILED'),
])
def test_ik_residual(distance, degrees, expected):
    refusal = gates.check_ik(distance, np.radians(degrees), LIMITS)
    assert code(refusal) == expected
    if expected and distance > 0.001:
        assert refusal.values == {'distance_m': distance, 'angle_rad': 0.0} and '1.0 mm' in refusal.detail


@pytest.mark.parametrize(('last', 'expected'), [
    ([0, 0, 1.98], (3, None)), ([0, 0, 1.981], (2, 'JOINT_LIMIT')), ([-0.981, 0, 0], (2, 'JOINT_LIMIT')),
    ([0, NAN, 0], (2, 'JOINT_LIMIT')),
])
def test_joint_margin(last, expected):
    q = np.array([[0, 0, 0], [0, 0, 1.0], last])
    assert cut(gates.joint_limit_prefix(q, LOWER, UPPER, LIMITS)) == expected


def test_joint_margin_names_the_joint():
    refusal = gates.joint_limit_prefix(np.array([[0, 0, 0], [0, 1.99, 0]]), LOWER, UPPER, LIMITS)[1]
    assert refusal.values['slack_rad'] == pytest.approx(0.01) and 'joint 2' in refusal.detail


def test_a_joint_that_starts_in_the_margin_may_leave_it_but_not_go_deeper():
    outward = np.array([[0, 0, 1.99], [0, 0, 1.985], [0, 0, 1.9]])
    deeper = np.array([[0, 0, 1.99], [0, 0, 1.991]])
    assert gates.joint_limit_prefix(outward, LOWER, UPPER, LIMITS) == (3, None)
    assert cut(gates.joint_limit_prefix(deeper, LOWER, UPPER, LIMITS)) == (1, 'JOINT_LIMIT')
    assert cut(gates.joint_limit_prefix(np.array([[0, 0, 2.1]]), LOWER, UPPER, LIMITS)) == (0, 'JOINT_LIMIT')
    assert gates.joint_limit_prefix(np.zeros((0, 3)), LOWER, UPPER, LIMITS) == (0, None)


@pytest.mark.parametrize(('jump', 'expected'), [
    (0.2, (3, None)), (0.201, (2, 'JOINT_JUMP')), (-0.201, (2, 'JOINT_JUMP')), (NAN, (2, 'JOINT_JUMP'))])
def test_joint_jump(jump, expected):
    q = np.array([[0, 0, 0], [0, 0.1, 0], [0, 0.1, jump]], float)
    n, refusal = gates.joint_jump_prefix(q, LIMITS)
    assert (n, code(refusal)) == expected
    if refusal and np.isfinite(jump):
        assert refusal.values['jump_rad'] == pytest.approx(0.201)


@pytest.mark.parametrize(('condition', 'expected'), [
    ([5, 60, 60], (3, None)), ([5, 60.1, 5], (1, 'SINGULARITY')), ([5, NAN, 5], (1, 'SINGULARITY')),
    ([80, 70, 65, 50, 55], (5, None)), ([80, 70, 71], (2, 'SINGULARITY')), ([np.inf, 5], (0, 'SINGULARITY')),
    ([NAN, 5], (0, 'SINGULARITY')), ([], (0, None)), ([80, 50, 61], (2, 'SINGULARITY')),
])
def test_singularity(condition, expected):
    limits = replace(LIMITS, condition_number=60.0)
    assert cut(gates.singularity_prefix(np.array(condition, float), limits)) == expected


def test_singularity_in_numbers():
    refusal = gates.singularity_prefix(np.array([5.0, 199.0]), LIMITS)[1]
    assert refusal.values == {'condition_number': 199.0}


@pytest.mark.parametrize(('n', 'expected'), [(0, 'PLAN_TOO_SHORT'), (1, 'PLAN_TOO_SHORT'), (2, None), (9, None)])
def test_prefix_length(n, expected):
    refusal = gates.check_prefix_length(n, None, MotionLimits(prefix=2))
    assert code(refusal) == expected
    assert refusal is None or refusal.values == {'poses': n}


def test_the_gate_that_cut_the_prefix_names_the_reason():
    cut_by = Refusal(Reason.TABLE_CLEARANCE, 'too low', {'height_m': 0.0})
    refusal = gates.check_prefix_length(1, cut_by, MotionLimits(prefix=2))
    assert refusal.reason is Reason.TABLE_CLEARANCE
    assert refusal.values == {'height_m': 0.0, 'poses': 1} and 'too low' in refusal.detail
    assert gates.check_prefix_length(2, cut_by, LIMITS) is None


@pytest.mark.parametrize(('distance', 'degrees', 'expected'), [
    (0.002, 0.99, None), (0.0021, 0, 'TIMED_DEVIATION'), (0, 1.01, 'TIMED_DEVIATION'), (NAN, 0, 'TIMED_DEVIATION'),
    (0, NAN, 'TIMED_DEVIATION'),
])
def test_deviation(distance, degrees, expected):
    refusal = gates.check_deviation(distance, np.radians(degrees), LIMITS)
    assert code(refusal) == expected
    if expected and distance == 0.0021:
        assert refusal.values == {'distance_m': 0.0021, 'angle_rad': 0.0} and '2.10 mm' in refusal.detail


@pytest.mark.parametrize(('moved', 'expected'), [(0.0099, None), (-0.0099, None), (0.0101, 'START_MOVED'),
                                                 (-0.0101, 'START_MOVED'), (NAN, 'START_MOVED')])
def test_unmoved(moved, expected):
    q = np.array([0.1, 0.2, 0.3])
    refusal = gates.check_unmoved(q, q + np.array([0, moved, 0]), LIMITS.start_joint_tolerance)
    assert code(refusal) == expected
    if refusal and np.isfinite(moved):
        assert refusal.values['moved_rad'] == pytest.approx(abs(moved))


def test_unmoved_needs_all_joints():
    assert code(gates.check_unmoved(np.zeros(7), np.zeros(6), 0.01)) == 'ROBOT_STATE_INVALID'


# --- properties ---

coordinate = st.one_of(st.floats(-2, 2), st.sampled_from([NAN, np.inf, -np.inf]))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(coordinate, coordinate, coordinate), min_size=1, max_size=8))
def test_whatever_passes_the_place_gates_is_in_its_place(positions):
    T = poses(*positions)
    n = min(gates.workspace_prefix(T, LIMITS)[0], gates.table_prefix(T, LIMITS)[0])
    for x, y, z in positions[:n]:
        assert 0.15 <= x <= 0.9 and -0.6 <= y <= 0.6 and 0.01 <= z <= 0.9
    if n < len(positions):
        x, y, z = positions[n]
        assert not (0.15 <= x <= 0.9 and -0.6 <= y <= 0.6 and 0.01 <= z <= 0.9)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(allow_nan=True), min_size=1, max_size=8), st.floats(0.01, 1.0))
def test_a_prefix_is_the_longest_one(confidence, limit):
    n, refusal = gates.confident_prefix(np.array(confidence), replace(LIMITS, confidence=limit))
    assert all(c >= limit for c in confidence[:n])
    assert (refusal is None) == (n == len(confidence))
    assert n == len(confidence) or not confidence[n] >= limit


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(-10**12, 10**12), st.floats(0, 100))
def test_only_fresh_stamps_pass(age, limit):
    passed = gates.check_age(NOW - age, NOW, limit, 0.005, Reason.PLAN_STALE) is None
    assert passed == (-0.005 <= age * 1e-9 <= limit)


# --- what is sent may pass what its path was checked for by a stated tolerance ---

def tilted(*degrees):
    return np.stack([poses((0.5, 0, 0.3))[0] @ from_rotvec(np.radians([d, 0, 0])) for d in degrees])


@pytest.mark.parametrize(('degrees', 'tolerance', 'leaving', 'expected'), [
    ((30.9,), 1.0, False, (1, None)), ((31.1,), 1.0, False, (0, 'TILT_TOO_LARGE')),
    ((50, 45, 20, 29), 0.0, True, (4, None)), ((50, 45, 46), 0.0, True, (2, 'TILT_TOO_LARGE')),
    ((50, 45, 46), 2.0, True, (3, None)), ((50, 45), 0.0, False, (0, 'TILT_TOO_LARGE')),
    ((50, 20, 31), 0.0, True, (2, 'TILT_TOO_LARGE'))])
def test_an_arm_that_tilts_too_far_may_come_back(degrees, tolerance, leaving, expected):
    limits = replace(LIMITS, tilt=np.radians(30))
    assert cut(gates.tilt_prefix(tilted(*degrees), limits, np.radians(tolerance), leaving)) == expected
    assert gates.tilt_prefix(np.zeros((0, 4, 4)), limits) == (0, None)


@pytest.mark.parametrize(('last', 'expected'), [
    (1.984, (2, None)), (1.986, (1, 'JOINT_LIMIT')), (2.0001, (1, 'JOINT_LIMIT'))])
def test_the_joint_margin_may_be_passed_by_the_tolerance(last, expected):
    q = np.array([[0, 0, 0], [0, 0, last]])
    assert cut(gates.joint_limit_prefix(q, LOWER, UPPER, LIMITS, 0.005)) == expected
    wide = cut(gates.joint_limit_prefix(q, LOWER, UPPER, LIMITS, 1.0))
    assert wide == ((2, None) if last <= 2 else (1, 'JOINT_LIMIT'))  # never the limit itself


@pytest.mark.parametrize(('condition', 'expected'), [
    ([50, 104], (2, None)), ([50, 106], (1, 'SINGULARITY')), ([200, 190, 198], (3, None)),
    ([200, 190, 202], (2, 'SINGULARITY'))])
def test_the_condition_number_may_be_passed_by_a_share(condition, expected):
    limits = replace(LIMITS, condition_number=100.0)
    assert cut(gates.singularity_prefix(np.array(condition, float), limits, 0.05)) == expected


def test_the_newer_of_two_stale_stamps_is_named_stale():
    limits = replace(LIMITS, pair_skew=100.0, pair_age=1.0)
    assert code(gates.check_pair([NOW - 3 * NS, NOW], NOW, limits)) == 'OBSERVATION_STALE'
    assert code(gates.check_pair([NOW, NOW + NS], NOW, limits)) == 'CLOCK_JUMP'
