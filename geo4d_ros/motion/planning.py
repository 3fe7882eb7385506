"""From a predicted plan to a gated, timed motion: the only way a motion comes into being."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict

import numpy as np

from geo4d_ros.geometry.transforms import interpolate, rotation_angle, translation_distance
from geo4d_ros.motion import gates
from geo4d_ros.motion.collision import CollisionChecker, HeldBox, Scene, zones
from geo4d_ros.motion.commanded import check_commanded
from geo4d_ros.motion.fingers import Fingers, let_go_early
from geo4d_ros.motion.gates import Prefix
from geo4d_ros.motion.gripper_segments import GripperSegment, Leg, grasp_missed, split_at_switches
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.path import PosePath, densify
from geo4d_ros.motion.timing import JointPath, MoveSegment, path_deviation, time_path
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.types import Plan

Segment = MoveSegment | GripperSegment
_HALVINGS = 6  # of a sample's distance, where joints turn fast

Stop = tuple[int, GripperSegment | None]  # sample of the path where the arm stands, and what the gripper does there

# Refusals of a place, near which another may do; the others say that the plan itself cannot be trusted.
_PLACES = frozenset({Reason.OUTSIDE_WORKSPACE, Reason.INSIDE_KEEP_OUT, Reason.TABLE_CLEARANCE, Reason.IK_FAILED,
                     Reason.JOINT_LIMIT, Reason.SINGULARITY, Reason.COLLISION})


@dataclass(frozen=True)
class RobotState:
    """The measured robot: q, dq (n,) [rad], [rad/s], opening [m], stamp [ns] of the joint state.

    gripper_closed: what the gripper was last told; None takes it from the measured opening. held: a box around what
    it holds; not used while the gripper is open.
    """

    q: np.ndarray
    dq: np.ndarray
    opening: float
    stamp: int
    gripper_closed: bool | None = None
    held: HeldBox | None = None


class GateValues(TypedDict, total=False):
    """What the gates measured on the way of a plan to its motion; a key is absent where its gate was not asked."""

    plan_poses: int
    pose_prefix: int  # poses that pass the gates on poses
    samples: int  # joint samples along the path
    samples_passed: int
    condition_number: float
    joint_slack_rad: float | None  # smallest distance from a joint's limit
    let_go_short_m: float  # how far before its place an object is let go
    deviation_m: float  # of the timed motion from the checked path
    deviation_rad: float


class _Segment(TypedDict):
    kind: str  # move or gripper
    duration: float  # s


class PlannedSegment(_Segment, total=False):
    """A segment as the state machine knows it; `closing` tells what a gripper's does."""

    closing: bool


class PlannedMotion(TypedDict):
    """The data of a PLANNED event."""

    plan_id: str
    segments: list[PlannedSegment]
    poses: int
    excursion: float  # m: how far the whole predicted path gets from its start
    turn: float  # rad, the same
    switches: int  # how often the gripper acts


@dataclass(frozen=True)
class TimedMotion:
    """A motion that passed every gate: segments in order, each from rest to rest.

    poses: how many plan poses it executes; q_start (n,) where the arm has to stand; T_path (N, 4, 4) the
    checked tool path in the base frame; gate_values: what each gate measured; truncated_by: why
    later poses of the plan are left out, None when only `k` did.
    """

    plan_id: str
    segments: tuple[Segment, ...]
    poses: int
    q_start: np.ndarray
    T_path: np.ndarray
    gate_values: GateValues = field(default_factory=GateValues)
    truncated_by: Refusal | None = None

    @property
    def duration(self) -> float:
        """Planned length [s], dwells included."""
        return sum(s.duration for s in self.segments)

def plan_trajectory(plan: Plan, state: RobotState, limits: MotionLimits, scene: Scene, robot: RobotModel,
                    now: int, k: int = 5) -> TimedMotion | Refusal:
    """Gate a plan and time its first `k` poses, or the longest safe prefix of them.

    now [ns]: the clock that plan and joint states are stamped by. Returns the first refusal that
    leaves fewer than `limits.prefix` poses. Malformed input of any kind is a refusal, never an error.
    """
    refusal = check_inputs(plan, state, limits, robot, now)
    if refusal:
        return refusal
    n, trusted, cut_by, values = _pose_prefix(plan, limits, k)
    T_start = robot.forward(state.q)
    legs = split_at_switches(plan, state.opening, state.gripper_closed, trusted, T_start, limits)
    opening = _first_opening(legs)
    blocked = opening is not None and opening.end_pose == n and cut_by is not None and cut_by.reason in _PLACES
    path = densify(T_start, plan.T_base_gripper[:n + blocked], limits)
    path, q, followed_cut = _follow(path, state.q, limits, robot)
    fingers = _fingers(state, opening, path, limits)
    checker = collision_checker(robot, scene, limits, _held(state, limits))
    q, condition, joint_cut = _safe_samples(q, fingers, checker, limits, robot, values)
    path_cut = joint_cut or followed_cut
    n, cut_by = min(n, path.poses_within(len(q))), path_cut or cut_by
    stops = _stops(legs, path, n)
    if opening is not None and opening.end_pose >= n and cut_by is not None and cut_by.reason in _PLACES:
        early = let_go_early(path.T[:len(q)], plan.T_base_gripper[opening.end_pose], limits,
                             lambda sample: fingers.sweep_is_free(checker, q[sample]))
        if early is not None:
            n, stops = opening.end_pose + 1, [(early[0], opening.gripper)]
            values['let_go_short_m'] = early[1]
    refusal = gates.check_prefix_length(n, cut_by, limits)
    if refusal:
        return refusal
    return _time_stops(plan, stops, path.T, (q, condition), (fingers, checker), robot, limits, (n, cut_by), values)


def describe(plan: Plan, motion: TimedMotion) -> PlannedMotion:
    """What the state machine needs to know of a motion."""
    T, start = plan.T_base_gripper, plan.T_base_gripper_start
    segments: list[PlannedSegment] = []
    for s in motion.segments:
        if isinstance(s, GripperSegment):
            segments.append({'kind': 'gripper', 'duration': s.duration, 'closing': s.closing})
        else:
            segments.append({'kind': 'move', 'duration': s.duration})
    return {'plan_id': plan.id, 'segments': segments, 'poses': motion.poses,
            'excursion': float(translation_distance(start, T).max()), 'turn': float(rotation_angle(start, T).max()),
            'switches': sum(isinstance(s, GripperSegment) for s in motion.segments)}


def check_inputs(plan: Plan, state: RobotState, limits: MotionLimits, robot: RobotModel,
                 now: int) -> Refusal | None:
    """The gates on what comes in: robot state, ages, the plan's form and where it starts."""
    q, dq = np.asarray(state.q, dtype=np.float64), np.asarray(state.dq, dtype=np.float64)
    return (
        gates.check_joint_state(q, dq, robot.lower, robot.upper)
        or gates.check_opening_state(state.opening, limits)
        or gates.check_age(state.stamp, now, limits.joint_state_age, limits.future_tolerance, Reason.JOINT_STATES_STALE)
        or gates.check_at_rest(dq, limits)
        or gates.check_plan_finite(plan)
        or gates.check_age(plan.observation_stamp, now, limits.plan_age, limits.future_tolerance, Reason.PLAN_STALE)
        or gates.check_openings(plan, limits)
        or gates.check_start(robot.forward(q), plan.T_base_gripper_start, limits)
    )


def _pose_prefix(plan: Plan, limits: MotionLimits, k: int) -> tuple[int, int, Refusal | None, GateValues]:
    """How many of the first k poses pass the gates on poses, how many can be trusted, what cut the rest, gate values.

    A pose that can be trusted may still be where the tool must not go.
    """
    T = plan.T_base_gripper
    trust = (gates.confident_prefix(plan.confidence, limits), gates.step_prefix(plan.T_base_gripper_start, T, limits))
    places: tuple[Prefix, ...] = (
        gates.workspace_prefix(T, limits),
        gates.keep_out_prefix(T, limits),
        gates.table_prefix(T, limits),
        gates.tilt_prefix(T, limits),
    )
    n, cut_by = min((*trust, *places), key=lambda prefix: prefix[0])
    trusted, asked = min(trust, key=lambda prefix: prefix[0])[0], min(k, len(T))
    values: GateValues = {'plan_poses': len(T), 'pose_prefix': n}
    return min(n, asked), min(trusted, asked), cut_by if n < asked else None, values


def _first_opening(legs: Sequence[Leg]) -> Leg | None:
    """The leg at whose end a gripper opens that is closed until then; None when it closes first, or does nothing."""
    return legs[0] if legs and legs[0].gripper is not None and not legs[0].gripper.closing else None


def _held(state: RobotState, limits: MotionLimits) -> HeldBox | None:
    """What the gripper holds: as it was seen, or as large as the limits say; nothing when it is open or shut."""
    if not state.gripper_closed or grasp_missed(state.opening, limits):
        return None
    box = limits.held_box
    return state.held or (HeldBox(box[:3], box[3:]) if box else None)


def _fingers(state: RobotState, opening: Leg | None, path: PosePath, limits: MotionLimits) -> Fingers:
    """The fingers along the path; those that may close on the way count as apart as they were."""
    if not state.gripper_closed:  # or not known
        return Fingers(1.0, 0)
    at = len(path.T)
    if opening is not None and opening.end_pose + 1 < len(path.pose_samples):
        at = path.sample_of_pose(opening.end_pose)
    return Fingers(min(max(state.opening / limits.stroke, 0.0), 1.0), at)


def _follow(path: PosePath, q_start: np.ndarray, limits: MotionLimits,
            robot: RobotModel) -> tuple[PosePath, np.ndarray, Refusal | None]:
    """The path as far as the tool may go and the arm can follow, joint samples (N, n) along it, what cut the rest.

    The path comes back with samples added where joints turn fast: one at its limit hands over to the others.
    """
    tolerance = limits.path_tolerance
    n, cut_by = _first(len(path.T), [
        lambda m: gates.workspace_prefix(path.T[:m], limits, tolerance),
        lambda m: gates.keep_out_prefix(path.T[:m], limits),
        lambda m: gates.table_prefix(path.T[:m], limits, tolerance),
    ])
    T, q, where = [path.T[0]], [q_start], [0]
    for pose in path.T[1:n]:
        refusal = _reach(pose, T, q, limits, robot, _HALVINGS)
        if refusal:
            cut_by = refusal
            break
        where.append(len(q) - 1)
    samples = np.append(where, np.full(len(path.T) - len(where), len(q)))  # what is not reached lies beyond the end
    return PosePath(np.array(T), samples[path.pose_samples]), np.array(q)[:len(q) if n else 0], cut_by


def _reach(pose: np.ndarray, T: list[np.ndarray], q: list[np.ndarray], limits: MotionLimits, robot: RobotModel,
           halvings: int) -> Refusal | None:
    """Append `pose` (4, 4) and its joints, seeded by the last; first the pose half way when they turn too far."""
    result = robot.inverse(pose, q[-1], margin=limits.joint_margin)
    if halvings and np.abs(result.q - q[-1]).max() > limits.joint_jump / 2:
        middle = interpolate(T[-1], pose, np.array([0.5]))[0]
        return (_reach(middle, T, q, limits, robot, halvings - 1)
                or _reach(pose, T, q, limits, robot, halvings - 1))
    refusal = gates.check_ik(result.distance, result.angle, limits)
    if refusal is None:
        T.append(pose)
        q.append(result.q)
    return refusal


def _safe_samples(q: np.ndarray, fingers: Fingers, checker: CollisionChecker, limits: MotionLimits, robot: RobotModel,
                  values: GateValues) -> tuple[np.ndarray, np.ndarray, Refusal | None]:
    """The joint samples (N, n) before the first that is not safe, their condition numbers (N,), what cut the rest."""
    condition = robot.condition_numbers(q) if len(q) else np.zeros(0)
    n, cut_by = _first(len(q), [
        lambda m: gates.joint_limit_prefix(q[:m], robot.lower, robot.upper, limits),
        lambda m: gates.joint_jump_prefix(q[:m], limits),
        lambda m: gates.singularity_prefix(condition[:m], limits),
        lambda m: fingers.prefix(checker, q[:m]),
    ])
    slack = float(np.minimum(q[:n] - robot.lower, robot.upper - q[:n]).min()) if n else None
    values.update({'samples': len(q), 'samples_passed': n, 'joint_slack_rad': slack,
                   'condition_number': float(condition[:max(n, 1)].max(initial=0.0))})
    return q[:n], condition[:n], cut_by


def _stops(legs: Sequence[Leg], path: PosePath, n: int) -> list[Stop]:
    """Where the arm stands on its way to the n-th pose, the last included."""
    reached = [leg for leg in legs if leg.end_pose < n and leg.gripper is not None]
    if not reached or reached[-1].end_pose < n - 1:
        reached.append(Leg(n - 1, None))
    return [(path.sample_of_pose(leg.end_pose), leg.gripper) for leg in reached]


def _first(n: int, prefix_gates: list[Callable[[int], Prefix]]) -> Prefix:
    """Run prefix gates one after the other, each on what the ones before left."""
    cut_by: Refusal | None = None
    for gate in prefix_gates:
        passed, refusal = gate(n)
        if refusal:
            n, cut_by = passed, refusal
    return n, cut_by


_checkers: dict[tuple[Hashable, ...], tuple[RobotModel, CollisionChecker]] = {}


def collision_checker(robot: RobotModel, scene: Scene, limits: MotionLimits,
                      held: HeldBox | None = None) -> CollisionChecker:
    """The checker for a robot and what it holds in a scene and within the borders of its limits.

    Building one takes about 20 ms, so the last few are kept.
    """
    borders = zones(limits, scene)
    key = (id(robot), scene, limits.collision_margin, borders, held)
    if key not in _checkers or _checkers[key][0] is not robot:
        while len(_checkers) >= 4:
            _checkers.pop(next(iter(_checkers)))
        _checkers[key] = (robot, CollisionChecker(robot, scene, limits.collision_margin, borders, held))
    return _checkers[key][1]


def forget_checkers() -> None:
    """Build every checker anew when it is next asked for."""
    _checkers.clear()


def speed_near_singularity(condition: float, limits: MotionLimits) -> float:
    """Share of the speed limits that the tool may use: 1 up to `condition_slow`, 0.2 at `condition_number`."""
    beyond = condition - limits.condition_slow
    if not beyond > 0:
        return 1.0
    return max(0.2, 1 - 0.8 * beyond / max(limits.condition_number - limits.condition_slow, 1e-9))


def _time_stops(plan: Plan, stops: list[Stop], T_path: np.ndarray, checked: tuple[np.ndarray, np.ndarray],
                room: tuple[Fingers, CollisionChecker], robot: RobotModel, limits: MotionLimits,
                reached: tuple[int, Refusal | None], values: GateValues) -> TimedMotion | Refusal:
    """Time every move of the arm between two stops; `checked`: joint samples and condition numbers of T_path."""
    (q, condition), (fingers, checker) = checked, room
    segments: list[Segment] = []
    worst = np.zeros(2)
    start = 0
    for end, gripper in stops:
        if end > start:
            share = speed_near_singularity(float(condition[start:end + 1].max()), limits)
            slower = replace(limits, speed=share * limits.speed, angular_speed=share * limits.angular_speed)
            segment = time_path(JointPath(q[start:end + 1], T_path[start:end + 1]), robot, slower)
            if isinstance(segment, Refusal):
                return segment
            deviation = path_deviation(T_path[start:end + 1], robot.forward_batch(segment.q), limits)
            worst = np.maximum(worst, deviation)
            segment = replace(segment, opened=fingers.share(start))
            refusal = check_commanded(segment, robot, limits, fingers.checker(checker, start))
            if refusal:
                return refusal
            segments.append(segment)
            start = end
        if gripper is not None:
            segments.append(gripper)
    refusal = gates.check_deviation(float(worst[0]), float(worst[1]), limits)
    if refusal:
        return refusal
    values.update({'deviation_m': float(worst[0]), 'deviation_rad': float(worst[1])})
    n, cut_by = reached
    return TimedMotion(plan.id, tuple(segments), n, q[0], T_path[:stops[-1][0] + 1], values, cut_by)
