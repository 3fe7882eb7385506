"""`evaluate safety --mutate`: rules switched off or loosened one by one, to see whether the independent checks notice.

A mutant switches off a rule: every gate that enforces it, where two of them would do. What the checks are shown is
the case as it was; only the planner (or the state machine) has lost the rule. Each mutant is tried on the kinds of
cases that aim at it, until a check finds something or the cases are used up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np

from geo4d_ros.bench.safety.borders import BORDERS, make_border_case
from geo4d_ros.bench.safety.cases import Case, attack
from geo4d_ros.bench.safety.sequences import run_sequence
from geo4d_ros.loop.machine import LoopConfig
from geo4d_ros.motion import collision, gates, gripper_segments, planning, timing
from geo4d_ros.motion.limits import SPEED_CAP, MotionLimits
from geo4d_ros.reasons import Reason

_PASSED = (10**6, None)
_LONG = 400  # events of a sequence
Patches = tuple[tuple[object, str, Callable[..., Any]], ...]
Changes = Mapping[str, float | tuple[float, ...]]  # of limits, by name


@dataclass(frozen=True)
class Mutant:
    """One rule less: functions replaced, limits or the case changed for the planner alone, or the loop's settings."""

    name: str
    kinds: tuple[str, ...] = ()
    patches: Patches = ()
    limits: Callable[[MotionLimits], Changes] | None = None
    case: Callable[[Case], Case] | None = None
    config: Callable[[LoopConfig], LoopConfig] | None = None

    def for_planner(self, case: Case) -> Case:
        """The case as the planner gets it."""
        if self.limits is not None:
            changes = self.limits(case.limits)
            case = replace(case, limits=replace(case.limits, **changes))  # type: ignore[arg-type]
        return case if self.case is None else self.case(case)


def _off(*names: str) -> Patches:
    """Gates that always pass."""
    return tuple((gates, n, (lambda *a, **k: _PASSED) if n.endswith('_prefix') else (lambda *a, **k: None))
                 for n in names)


def _zones_without(reason: Reason) -> Patches:
    return ((planning, 'zones', lambda limits, scene: tuple(z for z in collision.zones(limits, scene)
                                                            if z[1] is not reason)),)


def _times(name: str, factor: float, most: float = np.inf) -> Callable[[MotionLimits], Changes]:
    return lambda limits: {name: min(getattr(limits, name) * factor, most)}


_CHECKER = collision.CollisionChecker
_NO_SAMPLES: Patches = ((_CHECKER, 'first_collision', lambda *a, **k: None),)
_NO_SWEEP: Patches = ((_CHECKER, 'first_contact_on_the_way', lambda *a, **k: None),)
_NO_FINGERS: Patches = ((_CHECKER, 'fingers_are_free', lambda *a, **k: True),)
_SINGULAR = ('stretched', 'singular_wrist', 'start_anywhere')
_SHAKY = ('shaky_hand',)

_spread = _CHECKER._spread


def _time_of_the_tool(path: timing.JointPath, robot: Any, limits: MotionLimits) -> np.ndarray:
    """The parameter of the spline as it once was: the joints' ways count nothing."""
    step = np.linalg.norm(np.diff(path.T[:, :3, 3], axis=0), axis=1) / limits.speed
    return np.concatenate([[0.0], np.cumsum(np.maximum(step, 1e-4))])


SWITCHED_OFF = (
    Mutant('ages', ('old',), _off('check_age')),
    Mutant('joint state', ('beyond_joint_limit',), _off('check_joint_state', 'joint_limit_prefix')),
    Mutant('opening state', ('opening_measured',), _off('check_opening_state')),
    Mutant('at rest', ('moving_a_little',), _off('check_at_rest')),
    Mutant('plan is well formed', ('times', 'sheared'), _off('check_plan_finite')),
    Mutant('openings', ('opening_planned',), _off('check_openings')),
    Mutant('start', ('start_off', 'start_turned'), _off('check_start')),
    Mutant('confidence', ('unsure_a_little',), _off('confident_prefix')),
    Mutant('steps', ('step_far', 'step_turned'), _off('step_prefix')),
    Mutant('workspace', ('workspace',), _off('workspace_prefix')),
    Mutant('keep-out of the tool', ('tool_keep_out',), _off('keep_out_prefix')),
    Mutant('keep-out of the arm', ('arm_keep_out',), _zones_without(Reason.INSIDE_KEEP_OUT)),
    Mutant('table of the tool', ('table',), _off('table_prefix')),
    Mutant('table of the arm', ('table',), _zones_without(Reason.TABLE_CLEARANCE)),
    Mutant('tilt', ('tilting',), _off('tilt_prefix')),
    Mutant('path is followed', ('near_joint_limit', 'reach_out'), _off('check_ik', 'check_deviation')),
    Mutant('timed path on the checked one', ('coarse', 'singular_wrist'), _off('check_deviation')),
    Mutant('joint limits', ('near_joint_limit', 'start_anywhere'), _off('joint_limit_prefix')),
    Mutant('joint jumps', _SINGULAR, _off('joint_jump_prefix')),
    Mutant('singularity', _SINGULAR, _off('singularity_prefix')),
    Mutant('slower near singularities', ('stretched',),
           ((planning, 'speed_near_singularity', lambda *a: 1.0),)),
    Mutant('fewest poses', ('too_long',), _off('check_prefix_length')),
    Mutant('collision', ('close_by', 'obstacles', 'thin_wall'), _NO_SAMPLES + _NO_SWEEP + _NO_FINGERS),
    Mutant('collision between samples', ('pin',), _NO_SWEEP),
    Mutant('self-collision', ('singular_wrist', 'into_base', 'start_anywhere'),
           ((collision, '_links_apart', lambda robot: ([], [])),)),
    Mutant('held object', ('held',), ((planning, '_held', lambda *a: None),)),
    Mutant('room for opening fingers', ('laid_down',), _NO_FINGERS),
    Mutant('room for open fingers', ('beside',), ((_CHECKER, '_spread', lambda self, opened: _spread(self, 0.0)),)),
    Mutant('limits after timing', ('brisk', 'singular_wrist'), ((timing, 'limit_excess', lambda *a: 0.0),)),
    Mutant('gates on what is sent', ('pin',), ((planning, 'check_commanded', lambda *a: None),)),
    Mutant('splines that keep to their samples', ('past_singularity',),
           ((planning, 'check_commanded', lambda *a: None), (timing, '_nominal_time', _time_of_the_tool))),
    Mutant('poses asked for', ('too_long',), case=lambda case: replace(case, k=case.k + 3)),
    Mutant('grippers act at a standstill', _SHAKY,
           ((gripper_segments, 'stands', lambda T_start, T, limits: np.ones(len(T), bool)),)),
)
LOOSENED = (
    Mutant('speed x 1.3', ('brisk',), limits=_times('speed', 1.3, SPEED_CAP)),
    Mutant('acceleration x 1.5', ('brisk',), limits=_times('acceleration', 1.5)),
    Mutant('angular speed x 1.3', ('brisk',), limits=_times('angular_speed', 1.3)),
    Mutant('angular acceleration x 1.5', ('brisk',), limits=_times('angular_acceleration', 1.5)),
    Mutant('joint speed x 1.5', ('brisk', 'singular_wrist'), limits=_times('joint_velocity_scale', 1.5, 1.0)),
    Mutant('joint acceleration x 1.5', ('brisk', 'singular_wrist'),
           limits=_times('joint_acceleration_scale', 1.5, 1.0)),
    Mutant('workspace 3 cm wider', ('workspace',), limits=lambda limits: {'workspace': tuple(
        v + (-0.03 if i < 3 else 0.03) for i, v in enumerate(limits.workspace))}),
    Mutant('no table clearance', ('table',), limits=lambda limits: {'table_clearance': 0.0}),
    Mutant('table 3 cm lower', ('table',), limits=lambda limits: {'table_height': limits.table_height - 0.03}),
    Mutant('tilt 0.1 rad more', ('tilting',), limits=lambda limits: {'tilt': limits.tilt + 0.1}),
    Mutant('no keep-out boxes', ('tool_keep_out', 'arm_keep_out'), limits=lambda limits: {'keep_out': ()}),
    Mutant('step distance x 1.5', ('step_far',), limits=_times('step_distance', 1.5)),
    Mutant('step angle x 1.5', ('step_turned',), limits=_times('step_angle', 1.5)),
    Mutant('confidence x 0.5', ('unsure_a_little',), limits=_times('confidence', 0.5)),
    Mutant('start distance x 2', ('start_off',), limits=_times('start_distance', 2.0)),
    Mutant('start angle x 2', ('start_turned',), limits=_times('start_angle', 2.0)),
    Mutant('no joint margin', ('near_joint_limit',), limits=lambda limits: {'joint_margin': 0.0}),
    Mutant('condition number x 2', _SINGULAR, limits=_times('condition_number', 2.0)),
    Mutant('slower only from twice the condition number', ('stretched',),
           limits=lambda limits: {'condition_slow': 2 * limits.condition_slow,
                                  'condition_number': max(2 * limits.condition_slow, limits.condition_number)}),
    Mutant('no collision margin', ('close_by',), limits=lambda limits: {'collision_margin': 0.0}),
    Mutant('deviation x 5', ('coarse', 'singular_wrist'), limits=lambda limits: {
        'deviation_distance': 5 * limits.deviation_distance, 'deviation_angle': 5 * limits.deviation_angle}),
    Mutant('rest velocity x 3', ('moving_a_little',), limits=_times('rest_velocity', 3.0)),
    Mutant('joint state age x 2', ('old',), limits=_times('joint_state_age', 2.0)),
    Mutant('plan age x 2', ('old',), limits=_times('plan_age', 2.0)),
    Mutant('stamps 0.1 s ahead', ('old',), limits=lambda limits: {'future_tolerance': 0.1}),
    Mutant('opening tolerance x 3', ('opening_planned', 'opening_measured'), limits=_times('opening_tolerance', 3.0)),
    Mutant('opening switch x 0.5', _SHAKY, limits=_times('opening_switch', 0.5)),
    Mutant('standing step x 2', _SHAKY, limits=_times('standing_step', 2.0)),
    Mutant('dwell x 0.2', _SHAKY, limits=_times('dwell', 0.2)),
    Mutant('release reach x 3', ('laid_down',), limits=_times('release_reach', 3.0)),
    Mutant('prefix of one', ('too_long',), limits=lambda limits: {'prefix': 1}),
)
LOOP = (
    Mutant('dry run', config=lambda config: replace(config, dry_run=False)),
    Mutant('approval', config=lambda config: replace(config, auto=True)),
    Mutant('most cycles', config=lambda config: replace(config, max_cycles=10**6)),
)
MUTANTS = SWITCHED_OFF + LOOSENED + LOOP


@contextmanager
def applied(patches: Patches) -> Iterator[None]:
    """The functions replaced, in every module of `motion` that imported them by name; checkers are built anew."""
    planning.forget_checkers()
    undo: list[tuple[object, str, Any]] = []
    try:
        for place, name, new in patches:
            old = getattr(place, name)
            for user in (place, planning, gripper_segments, timing):
                if vars(user).get(name) is old:
                    undo.append((user, name, old))
                    setattr(user, name, new)
        yield
    finally:
        for user, name, old in reversed(undo):
            setattr(user, name, old)
        planning.forget_checkers()


def make_case_of(robot: Any, home: np.ndarray, seed: int, index: int, kinds: tuple[str, ...]) -> Case:
    """Case `index` of the kinds, in turn; both plain attacks and cases right at a border."""
    kind = kinds[index % len(kinds)]
    if kind in BORDERS:
        return make_border_case(robot, home, seed, index, (kind,))
    return attack(kind, robot, home, np.random.default_rng([seed, index]))


class Trial(TypedDict):
    """What became of a mutant: the checks that noticed it at which case, of how many tried; those that are wrong of
    the unchanged rule, too."""

    found: list[str]
    case: int | None
    tried: int
    false_alarm: list[str]


class MutationReport(TypedDict):
    """The keys of DESIGN section 9, and by which checks each mutant was noticed."""

    mutants: int
    noticed: int
    ratio: float
    missed: list[str]
    false_alarms: dict[str, list[str]]
    cases: int
    noticed_by: dict[str, list[str]]
    checks: dict[str, int]


def try_mutant(mutant: Mutant, bench: Any, run_plan: Callable[..., list[str]], cases: int, seed: int) -> Trial:
    """What the checks found."""
    for index in range(cases):
        if mutant.config is not None:
            wrong, false = run_sequence(seed, index, mutant.config, _LONG)[0], []
        else:
            case = make_case_of(bench.robot, bench.home, seed, index, mutant.kinds)
            with applied(mutant.patches):
                wrong = [w for w in run_plan(bench, case, mutant.for_planner(case)) if not w.startswith('exception')]
            false = run_plan(bench, case, case) if wrong else []
        if wrong:
            return {'found': sorted(set(wrong)), 'case': index, 'tried': index + 1, 'false_alarm': false}
    return {'found': [], 'case': None, 'tried': cases, 'false_alarm': []}


def report(results: dict[str, Trial]) -> MutationReport:
    """All trials together."""
    missed = [name for name, r in results.items() if not r['found']]
    checks = Counter(check for r in results.values() for check in r['found'])
    return {'mutants': len(results), 'noticed': len(results) - len(missed),
            'ratio': (len(results) - len(missed)) / len(results), 'missed': missed,
            'false_alarms': {n: r['false_alarm'] for n, r in results.items() if r['false_alarm']},
            'cases': sum(r['tried'] for r in results.values()),
            'noticed_by': {n: r['found'] for n, r in results.items() if r['found']}, 'checks': dict(checks)}


__all__ = ['LOOP', 'LOOSENED', 'MUTANTS', 'SWITCHED_OFF', 'Mutant', 'applied', 'report', 'try_mutant']
