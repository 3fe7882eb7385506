"""`evaluate safety`: thousands of random and hostile cases, judged by checkers written apart from the gates."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypedDict

import numpy as np
from tqdm import tqdm

from geo4d_ros.bench.safety.borders import make_border_case
from geo4d_ros.bench.safety.cases import Case, make_case
from geo4d_ros.bench.safety.checks import MotionJudge
from geo4d_ros.bench.safety.mutants import MUTANTS, MutationReport, Trial, report, try_mutant
from geo4d_ros.bench.safety.sequences import run_sequence
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import TimedMotion, plan_trajectory
from geo4d_ros.motion.timing import MoveSegment, stop_trajectory
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.workers.parent import end_with_parent

ACCELERATION_LIMIT = 10.0  # rad/s^2, every joint, before the limits' scale
_CHUNK = 50
_EXAMPLES = 20


class SafetyReport(TypedDict):
    """The keys of DESIGN section 9 for `evaluate safety`, and where violations were found."""

    cases: int
    seed: int
    violations: int
    violations_by_check: dict[str, int]
    violation_examples: list[str]
    refusals: dict[str, int]  # code -> count
    refusals_without_code: int
    motions: int
    motions_by_kind: dict[str, int]
    cases_by_kind: dict[str, int]


class SeededMutationReport(MutationReport):
    """With the seed that makes it again."""

    seed: int


def evaluate(cases: int, seed: int, jobs: int) -> SafetyReport:
    """Run `cases` cases: 80 % plans (a quarter of them right at a border), 15 % event sequences, 5 % stops.

    The report of DESIGN section 9.
    """
    chunks = [(seed, start, min(start + _CHUNK, cases)) for start in range(0, cases, _CHUNK)]
    totals: dict[str, Counter[str]] = {}
    examples: list[str] = []
    with ProcessPoolExecutor(jobs, mp_context=get_context('spawn'), initializer=_single_threaded) as pool:
        for counters, found in tqdm(pool.map(_run_chunk, chunks), total=len(chunks), desc='safety', leave=False):
            for name, counter in counters.items():
                totals.setdefault(name, Counter()).update(counter)
            examples += found[:_EXAMPLES - len(examples)]
    violations = totals.get('violations', Counter())
    return {
        'cases': cases, 'seed': seed, 'violations': sum(violations.values()), 'violations_by_check': dict(violations),
        'violation_examples': examples,
        'refusals': dict(sorted(totals.get('refusals', Counter()).items())),
        'refusals_without_code': sum(totals.get('without_code', Counter()).values()),
        'motions': sum(totals.get('motions', Counter()).values()),
        'motions_by_kind': dict(sorted(totals.get('motions', Counter()).items())),
        'cases_by_kind': dict(sorted(totals.get('kinds', Counter()).items())),
    }


def _single_threaded() -> None:
    os.environ['OMP_NUM_THREADS'] = '1'
    end_with_parent()


def _run_chunk(chunk: tuple[int, int, int]) -> tuple[dict[str, Counter[str]], list[str]]:
    seed, start, end = chunk
    bench = _bench()
    counters: dict[str, Counter[str]] = {n: Counter() for n in ('violations', 'refusals', 'without_code', 'motions',
                                                                'kinds')}
    examples = []
    for index in range(start, end):
        kind, wrong = _run_case(bench, seed, index, counters)
        counters['kinds'][kind] += 1
        counters['violations'].update(wrong)
        examples += [f'seed {seed} case {index} ({kind}): {name}' for name in wrong]
    return counters, examples


def _run_case(bench: _Bench, seed: int, index: int, counters: dict[str, Counter[str]]) -> tuple[str, list[str]]:
    if index % 20 == 19:
        return 'stop', stop_violations(bench.robot, np.random.default_rng([seed, index]))
    if index % 20 >= 16:
        wrong, codes = run_sequence(seed, index)
        counters['refusals'].update(codes)
        return 'event_sequence', wrong
    make = make_border_case if index % 20 >= 12 else make_case
    case = make(bench.robot, bench.home, seed, index)
    return case.kind, _run_plan(bench, case, counters)


def evaluate_mutants(cases: int, seed: int, jobs: int) -> SeededMutationReport:
    """Every rule switched off or loosened, each on at most `cases` cases: `mutants.report`."""
    tasks = [(m.name, cases, seed) for m in MUTANTS]
    with ProcessPoolExecutor(jobs, mp_context=get_context('spawn'), initializer=_single_threaded) as pool:
        results = dict(tqdm(pool.map(_run_mutant, tasks), total=len(tasks), desc='mutants', leave=False))
    return {**report(results), 'seed': seed}


def _run_mutant(task: tuple[str, int, int]) -> tuple[str, Trial]:
    name, cases, seed = task
    mutant = next(m for m in MUTANTS if m.name == name)
    return name, try_mutant(mutant, _bench(), _judged, cases, seed)


def _judged(bench: _Bench, case: Case, seen: Case) -> list[str]:
    """What is wrong with the motion that the planner makes of the case as it sees it."""
    counters: dict[str, Counter[str]] = {n: Counter() for n in ('refusals', 'without_code', 'motions')}
    return _run_plan(bench, case, counters, seen)


def _run_plan(bench: _Bench, case: Case, counters: dict[str, Counter[str]], seen: Case | None = None) -> list[str]:
    p = seen or case
    try:
        result = plan_trajectory(p.plan, p.state, p.limits, p.scene, bench.robot, p.now, p.k)
    except Exception as error:  # malformed input has to be refused: an exception of any kind is a finding
        return [f'exception_{type(error).__name__}']
    if isinstance(result, Refusal):
        known = isinstance(result.reason, Reason) and bool(result.reason.code)
        counters['refusals' if known else 'without_code'][result.reason.code if known else 'none'] += 1
        return []
    if not isinstance(result, TimedMotion):
        return ['neither_motion_nor_refusal']
    counters['motions'][case.kind] += 1
    return bench.judge.judge(case, result)


def stop_violations(robot: RobotModel, rng: np.random.Generator) -> list[str]:
    """A stop from a random state: to rest, without turning back, within the braking limit and time."""
    limits = MotionLimits()
    q = rng.uniform(robot.lower, robot.upper)
    dq = rng.uniform(-1, 1, robot.dof) * robot.velocity_limits * rng.choice([0.0, 0.1, 1.0])
    ddq = rng.uniform(-1, 1, robot.dof) * rng.choice([0.0, 2.0, 30.0])
    stop = stop_trajectory(q, dq, ddq, robot, limits)
    return _stop_faults(stop, q, dq, limits)


def _stop_faults(stop: MoveSegment, q: np.ndarray, dq: np.ndarray, limits: MotionLimits) -> list[str]:
    brake = min(2.5 * limits.joint_acceleration_scale, 1.0) * ACCELERATION_LIMIT
    ramp = brake / 500.0  # s, the time the brake needs to come on
    wrong = []
    if not (np.isfinite(stop.q).all() and np.abs(stop.dq[-1]).max() < 1e-6 and np.abs(stop.q[0] - q).max() < 1e-9):
        wrong.append('stop_not_at_rest')
    if stop.duration == 0.0:
        return wrong
    velocity = np.diff(stop.q, axis=0) / np.diff(stop.times)[:, None]
    acceleration = np.diff(velocity, axis=0) / np.diff(stop.times)[1:, None]
    if np.any(np.abs(acceleration) > brake * 1.02):
        wrong.append('stop_too_hard')
    fastest = np.abs(dq).max() + brake * ramp  # an acceleration still on when the stop begins adds speed
    if stop.duration > fastest / brake + 4 * ramp + 0.05:
        wrong.append('stop_too_slow')
    return wrong


class _Bench:
    """What every case needs, built once per process."""

    def __init__(self) -> None:
        from geo4d_ros.robots.registry import load_robot

        described = load_robot()
        text, self.home = described.urdf_text, described.home
        self.robot = RobotModel.from_urdf(text, acceleration_limits=ACCELERATION_LIMIT)
        self.judge = MotionJudge(text, described.tool_frame, described.joints, self.home, ACCELERATION_LIMIT)


_BENCH: list[_Bench] = []


def _bench() -> _Bench:
    if not _BENCH:
        _BENCH.append(_Bench())
    return _BENCH[0]
