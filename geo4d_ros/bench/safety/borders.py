"""Cases that break one rule by a little: what a gate that is off or too loose lets through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pinocchio as pin

from geo4d_ros.bench.safety.cases import Attack, Case, plausible
from geo4d_ros.geometry.transforms import from_rotvec, make_transform
from geo4d_ros.motion.collision import HeldBox, Obstacle, Scene
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.robots.kinematics import RobotModel


def make_border_case(robot: RobotModel, home: np.ndarray, seed: int, index: int, kinds: tuple[str, ...] = ()) -> Case:
    """Case `index` of a series of the given kinds (all by default); the same arguments give the same case."""
    rng = np.random.default_rng([seed, index, 0xB0])
    names = kinds or tuple(BORDERS)
    kind = names[rng.integers(len(names))]
    return replace(BORDERS[kind](plausible(robot, home, rng), robot, rng), kind=kind)


def _straight(case: Case, steps: np.ndarray, turn: np.ndarray | None = None) -> Case:
    """A confident plan with steps (n, 3) [m] from the start, open hand, each turned by `turn` (3,) [rad] more."""
    n, T_start = len(steps), case.plan.T_base_gripper_start
    T = np.tile(T_start, (n, 1, 1))
    T[:, :3, 3] += np.cumsum(steps, axis=0)
    if turn is not None:
        for i in range(n):
            T[i, :3, :3] = T_start[:3, :3] @ from_rotvec((i + 1) * turn)[:3, :3]
    plan = replace(case.plan, T_base_gripper=T, opening=np.full(n, 0.08), confidence=np.ones(n),
                   time_from_start=0.5 * np.arange(1, n + 1), opening_start=0.08)
    return replace(case, plan=plan, k=n, limits=MotionLimits())


def _down(case: Case, rng: np.random.Generator, n: int = 5) -> Case:
    steps = rng.normal(0, 0.003, (n, 3))
    steps[:, 2] = -rng.uniform(0.015, 0.05)
    return _straight(case, steps)


def _sure(case: Case, rng: np.random.Generator) -> Case:
    return _straight(case, rng.normal(0, 0.012, (5, 3)))


def _closed(case: Case, opening: float) -> Case:
    """The hand has closed and holds something `opening` [m] wide."""
    plan = replace(case.plan, opening=np.full(len(case.plan.opening), opening), opening_start=opening)
    return replace(case, plan=plan, state=replace(case.state, opening=opening, gripper_closed=True))


def _opening_planned(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Openings that no gripper has, one or all."""
    case = _sure(case, rng)
    bad = float(rng.choice([-1, 1]) * rng.uniform(0.0105, 0.06))
    opening = case.plan.opening.copy()
    opening[rng.integers(len(opening)):] = 0.08 + bad if bad > 0 else bad
    if rng.random() < 0.3:
        return replace(case, plan=replace(case.plan, opening_start=0.08 + abs(bad)))
    return replace(case, plan=replace(case.plan, opening=opening))


def _opening_measured(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    bad = rng.uniform(0.0105, 0.1)
    opening = float(rng.choice([-bad, 0.08 + bad]))
    return replace(case, state=replace(case.state, opening=opening)) if rng.random() < 0.5 else \
        replace(_sure(case, rng), state=replace(case.state, opening=opening))


def _start_turned(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """The plan starts where the arm stands, but turned."""
    case, axis = _sure(case, rng), rng.normal(0, 1, 3)
    turn = from_rotvec(axis / np.linalg.norm(axis) * rng.uniform(0.055, 0.3))[:3, :3]
    T, start = case.plan.T_base_gripper.copy(), case.plan.T_base_gripper_start.copy()
    T[:, :3, :3], start[:3, :3] = T[:, :3, :3] @ turn, start[:3, :3] @ turn
    return replace(case, plan=replace(case.plan, T_base_gripper=T, T_base_gripper_start=start))


def _start_off(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    case, off = _sure(case, rng), rng.normal(0, 1, 3)
    start = case.plan.T_base_gripper_start.copy()
    start[:3, 3] += off / np.linalg.norm(off) * rng.uniform(0.0105, 0.04)
    return replace(case, plan=replace(case.plan, T_base_gripper_start=start))


def _step_far(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    case, way = _sure(case, rng), rng.normal(0, 1, 3)
    T = case.plan.T_base_gripper.copy()
    T[rng.integers(len(T)):, :3, 3] += way / np.linalg.norm(way) * rng.uniform(0.085, 0.16)
    return replace(case, plan=replace(case.plan, T_base_gripper=T))


def _step_turned(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    case, axis = _sure(case, rng), np.array([0.0, 0.0, 1.0]) + rng.normal(0, 0.2, 3)
    T, first = case.plan.T_base_gripper.copy(), rng.integers(len(case.plan.T_base_gripper))
    turn = axis / np.linalg.norm(axis) * rng.choice([-1, 1]) * rng.uniform(0.45, 0.9)
    T[first:, :3, :3] = T[first:, :3, :3] @ from_rotvec(turn)[:3, :3]
    return replace(case, plan=replace(case.plan, T_base_gripper=T))


def _times(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    case = _sure(case, rng)
    times = case.plan.time_from_start.copy()
    i = rng.integers(len(times))
    times[i] = times[i - 1] if i else -0.1
    return replace(case, plan=replace(case.plan, time_from_start=times))


def _sheared(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Poses that are nearly rigid."""
    case = _sure(case, rng)
    T = case.plan.T_base_gripper.copy()
    T[rng.integers(len(T)), :3, :3] += rng.normal(0, 0.01, (3, 3))
    return replace(case, plan=replace(case.plan, T_base_gripper=T))


def _unsure_a_little(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    case = _sure(case, rng)
    confidence = case.plan.confidence.copy()
    confidence[rng.integers(len(confidence)):] = rng.uniform(0.0, 0.29)
    return replace(case, plan=replace(case.plan, confidence=None if rng.random() < 0.2 else confidence))


def _moving_a_little(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    case, dq = _sure(case, rng), case.state.dq.copy()
    dq[rng.integers(len(dq))] = rng.choice([-1, 1]) * rng.uniform(0.0105, 0.05)
    return replace(case, state=replace(case.state, dq=dq))


def _beyond_joint_limit(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """A measured joint a hair beyond its limit, which it may not be; the plan starts there."""
    q, i = case.state.q.copy(), rng.integers(len(case.state.q))
    upper = rng.random() < 0.5
    q[i] = robot.upper[i] + 0.01 if upper else robot.lower[i] - 0.01
    T_start = robot.forward(q)
    plan = replace(case.plan, T_base_gripper_start=T_start)
    state = replace(case.state, q=q)
    moved = _sure(replace(case, plan=plan, state=state), rng)
    return replace(moved, limits=replace(moved.limits, workspace=(-1.5, -1.5, 0.0, 1.5, 1.5, 1.5)))


def _near_joint_limit(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """The last joint is turned towards its limit, into the margin or past it."""
    q = case.state.q.copy()
    side = rng.choice([-1, 1])
    q[-1] = (robot.upper[-1] if side > 0 else robot.lower[-1]) - side * rng.uniform(0.05, 0.3)
    T_start = robot.forward(q)
    moved = replace(case, plan=replace(case.plan, T_base_gripper_start=T_start), state=replace(case.state, q=q))
    gap = robot.upper[-1] - q[-1] if side > 0 else q[-1] - robot.lower[-1]
    aimed = (gap - rng.uniform(0.002, 0.012)) / rng.integers(1, 5)
    turn = aimed if rng.random() < 0.7 else rng.uniform(0.05, 0.2)
    return _straight(moved, rng.normal(0, 0.002, (5, 3)), np.array([0, 0, side * min(turn, 0.3)]))


def _old(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Stamps a little too old, or in the future."""
    case = _sure(case, rng)
    how, limits = rng.integers(4), case.limits
    late = int(rng.uniform(1.05, 3.0) * (limits.plan_age if how == 0 else limits.joint_state_age) * 1e9)
    if how >= 2:
        late = -int(rng.uniform(0.006, 0.5) * 1e9)
    stamp = case.now - late
    return replace(case, plan=replace(case.plan, observation_stamp=stamp)) if how % 2 == 0 else \
        replace(case, state=replace(case.state, stamp=stamp))


def _table(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Down to a table that only the limits know of, with more or less clearance for the tool."""
    case = _down(case, rng)
    low = float(case.plan.T_base_gripper[-1, 2, 3])
    if rng.random() < 0.5:
        return replace(case, limits=replace(case.limits, table_height=low - float(rng.uniform(0.0, 0.08)),
                                            table_clearance=float(rng.uniform(0.03, 0.1))))
    return replace(case, scene=Scene(), limits=replace(case.limits, table_clearance=0.0,
                                                       table_height=low + float(rng.uniform(-0.008, 0.03))))


def _workspace(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Across one side of the workspace."""
    case = _straight(case, np.tile(_unit(rng) * rng.uniform(0.02, 0.05), (5, 1)))
    T, axis = case.plan.T_base_gripper[:, :3, 3], rng.integers(3)
    box, rising = list(case.limits.workspace), T[-1, axis] > T[0, axis]
    box[axis + 3 * bool(rising)] = float(rng.uniform(*sorted((T[0, axis], T[-1, axis]))))
    if not all(box[i] < box[i + 3] for i in range(3)):
        return case
    return replace(case, limits=replace(case.limits, workspace=tuple(box), path_tolerance=0.0005))


def _laid_at_border(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Something is let go of a little beyond the clearance above the table: the hand may get to the border only."""
    steps = np.zeros((4, 3))
    steps[:, 2] = [-0.03, -0.03, 0.0, 0.03]
    case = _closed(_straight(case, steps), 0.02)
    low = float(case.plan.T_base_gripper[1, 2, 3])
    opening = np.array([0.02, 0.08, 0.08, 0.08])
    limits = replace(case.limits, table_height=low - 0.06, table_clearance=0.06 + float(rng.uniform(0.002, 0.012)),
                     path_tolerance=0.0005)
    return replace(case, plan=replace(case.plan, opening=opening), limits=limits)


def _past_singularity(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """What once was commanded past a joint limit, or nearly that: joints turn fast while the tool hardly moves."""
    q = np.array(_ONCE_PAST[0])
    steps = np.linalg.inv(robot.forward(q)) @ np.stack(
        [make_transform(from_rotvec(np.array(turn))[:3, :3], np.array(place)) for place, turn in _ONCE_PAST[1]])
    q = q + rng.normal(0, float(rng.choice([0.0, 1e-3, 1e-2])), 7)
    T_start = robot.forward(q)
    moved = replace(case, plan=replace(case.plan, T_base_gripper_start=T_start), state=replace(case.state, q=q))
    moved = _straight(moved, np.zeros((len(steps), 3)))
    return replace(moved, plan=replace(moved.plan, T_base_gripper=T_start @ steps),
                   limits=replace(moved.limits, workspace=(-1.5, -1.5, 0.0, 1.5, 1.5, 1.5)))


_ONCE_PAST = ((-0.577016, 0.534209, 2.564165, -0.436481, 2.545322, 1.188624, 0.431447),
              (((0.269407, -0.262981, 1.01755), (1.512576, -0.98985, 0.557496)),
               ((0.309444, -0.251498, 0.994024), (1.462269, -0.987888, 0.562806))))


def _coarse(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Long turning steps of which only the ends are looked at: between them the joints' spline goes its own way."""
    steps = np.stack([_unit(rng) for _ in range(4)]) * rng.uniform(0.05, 0.078)
    case = _straight(case, steps, _unit(rng) * rng.uniform(0.2, 0.42))
    limits = replace(case.limits, workspace=(-1.5, -1.5, 0.0, 1.5, 1.5, 1.5), sample_distance=0.2, sample_angle=1.0)
    return replace(case, limits=limits)


def _pin(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """A pin in the way of a finger's tip, 1 cm thick, between two of the few places that are looked at."""
    T = case.plan.T_base_gripper_start
    side = T[:3, 1] * [1, 1, 0]
    case = _straight(case, np.tile(side * rng.choice([-1, 1]) * 0.06, (3, 1)))
    way = case.plan.T_base_gripper[-1, :3, 3] - T[:3, 3]
    x, y, z = T[:3, 3] + way * rng.uniform(0.2, 0.9) + T[:3, 0] * rng.uniform(-0.008, 0.008)
    pin_ = Obstacle('pin', 'cylinder', (float(x), float(y), float(z) - 0.098), (0.001, 0.2))
    return replace(case, scene=case.scene.with_obstacles(pin_),
                   limits=replace(case.limits, workspace=(-1.5, -1.5, 0.0, 1.5, 1.5, 1.5), sample_distance=0.2,
                                  deviation_distance=0.01, deviation_angle=0.1))


def _beside(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Down between walls, with little room for open fingers."""
    case = _straight(case, np.tile([0.0, 0.0, -0.03], (4, 1)))
    T = case.plan.T_base_gripper[-1]
    centre = T[:3, 3] + T[:3, 1] * rng.choice([-1, 1]) * rng.uniform(0.03, 0.07)
    yaw = float(np.arctan2(T[1, 1], T[0, 1]))
    wall = Obstacle('wall', 'box', tuple(map(float, centre)), (0.01, 0.15, 0.04), yaw)
    return replace(case, scene=case.scene.with_obstacles(wall))


def _tool_keep_out(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """A box so small that the open fingers pass on both sides of it, the tool point does not."""
    case = _down(case, rng)
    x, y, z = case.plan.T_base_gripper[rng.integers(1, 5), :3, 3]
    half = rng.uniform(0.004, 0.02)
    box = tuple(map(float, (x - half, y - half, z - half, x + half, y + half, z + half)))
    return replace(case, limits=replace(case.limits, keep_out=(box,)))


def _arm_keep_out(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """A box where the arm is, or comes by, far from the tool."""
    case = _sure(case, rng)
    pin.forwardKinematics(robot.model, robot.data, case.state.q)
    centre = robot.data.oMi[int(rng.integers(2, 7))].translation + rng.normal(0, 0.12, 3)
    half = rng.uniform(0.01, 0.1, 3)
    box = tuple(map(float, (*(centre - half), *(centre + half))))
    return replace(case, limits=replace(case.limits, keep_out=(box,)))


def _thin_wall(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Across a sheet thinner than a sample's way."""
    way = _unit(rng) * rng.uniform(0.03, 0.05)
    case = _straight(case, np.tile(way, (5, 1)))
    centre = case.plan.T_base_gripper_start[:3, 3] + way * rng.uniform(1, 4) + rng.normal(0, 0.03, 3)
    size = np.full(3, 0.08)
    size[int(np.argmax(np.abs(way)))] = 0.001
    sheet = Obstacle('sheet', 'box', tuple(map(float, centre)), tuple(map(float, size)))
    return replace(case, scene=case.scene.with_obstacles(sheet))


def _close_by(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Down to a block, less than the margin above it."""
    case = _straight(case, np.tile([0.0, 0.0, -0.03], (5, 1)))
    x, y, z = map(float, case.plan.T_base_gripper[-1, :3, 3])
    top = z - 0.012 + float(rng.uniform(-0.004, 0.004))  # the fingers reach some 9 mm below the tool point
    block = Obstacle('block', 'box', (x, y, top - 0.02), (0.3, 0.3, 0.04))
    return replace(case, scene=case.scene.with_obstacles(block))


def _held(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Something long hangs from the hand over a block, or over the table."""
    case = _closed(_down(case, rng), 0.03)
    length = float(rng.uniform(0.05, 0.25))
    x, y, z = map(float, case.plan.T_base_gripper[-1, :3, 3])
    top = z - length + float(rng.uniform(-0.02, 0.05))
    block = Obstacle('block', 'box', (x, y, top - 0.02), (0.06, 0.06, 0.04))
    held = HeldBox((0.0, 0.0, length / 2), (0.03, 0.03, length))
    return replace(case, state=replace(case.state, held=held), scene=Scene((block,)))


def _shaky_hand(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Openings that change by less than what counts as a command, or by as much in full motion."""
    n, closed = 5, rng.random() < 0.5
    fast = _unit(rng) * rng.uniform(0.043, 0.058) * [1, 1, 0.2]
    case = _straight(case, rng.normal(0, 0.003, (n, 3)) if rng.random() < 0.6 else np.tile(fast, (n, 1)))
    change = float(rng.uniform(0.3, 1.5)) * case.limits.opening_switch
    opening, at = np.full(n, 0.04 if closed else 0.08), int(rng.integers(n))
    opening[at:] += change if closed else -change
    if closed:
        case = _closed(case, 0.04)
    return replace(case, plan=replace(case.plan, opening=opening))


def _stretched(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """The arm is nearly stretched out, and goes farther out, or back in, slowly: near a singularity."""
    q = case.state.q.copy()
    q[3] = rng.uniform(-0.9, -0.25)
    q[1] = rng.uniform(0.2, 0.9)
    T_start = robot.forward(q)
    moved = replace(case, plan=replace(case.plan, T_base_gripper_start=T_start), state=replace(case.state, q=q))
    out = T_start[:3, 3] / np.linalg.norm(T_start[:3, 3])
    way = out * rng.choice([-0.04, -0.02, -0.01, 0.005, 0.01, 0.02])
    moved = _straight(moved, np.tile(way, (5, 1)) + rng.normal(0, 0.002, (5, 3)))
    slow = robot.condition_number(q) * float(rng.uniform(0.4, 1.1))
    return replace(moved, limits=replace(moved.limits, workspace=(-1.5, -1.5, 0.0, 1.5, 1.5, 1.5),
                                         speed=float(rng.uniform(0.02, 0.1)), condition_slow=slow,
                                         condition_number=slow * float(rng.uniform(1.2, 3.0))))


def _singular_wrist(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Joint 6 passes where the wrist is singular, so that joints turn fast while the tool hardly moves."""
    q = case.state.q.copy()
    q[5] = rng.uniform(0.02, 0.25)
    T_start = robot.forward(q)
    moved = replace(case, plan=replace(case.plan, T_base_gripper_start=T_start), state=replace(case.state, q=q))
    moved = _straight(moved, rng.normal(0, 0.02, (5, 3)), rng.normal(0, 0.08, 3))
    return replace(moved, limits=replace(moved.limits, workspace=(-1.5, -1.5, 0.0, 1.5, 1.5, 1.5)))


def _too_long(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """More poses than are asked for, and the fewest wanted."""
    case = _sure(case, rng)
    return replace(case, k=int(rng.integers(1, 5)), limits=replace(case.limits, prefix=int(rng.integers(1, 6))))


def _tilting(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    axis = rng.normal(0, 1, 3) * [1, 1, 0]
    case = _straight(case, rng.normal(0, 0.01, (5, 3)), axis / np.linalg.norm(axis) * rng.uniform(0.05, 0.2))
    return replace(case, limits=replace(case.limits, tilt=float(rng.uniform(0.2, 0.6))))


def _brisk(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Long straight steps or turns, where speeds and accelerations are what bounds the motion."""
    turn = rng.choice([0.0, 0.3]) * np.array([0.0, 0.0, rng.choice([-1, 1])])
    case = _straight(case, np.tile(_unit(rng) * rng.uniform(0.0, 0.07), (5, 1)), turn)
    scale = float(rng.choice([0.05, 0.2, 1.0]))
    return replace(case, limits=replace(case.limits, speed=float(rng.uniform(0.05, 0.16)), joint_velocity_scale=scale,
                                        joint_acceleration_scale=scale, acceleration=float(rng.uniform(0.1, 0.5)),
                                        angular_speed=float(rng.uniform(0.2, 0.5)),
                                        angular_acceleration=float(rng.uniform(0.3, 1.0))))


def _unit(rng: np.random.Generator) -> np.ndarray:
    way = rng.normal(0, 1, 3)
    return way / np.linalg.norm(way)


BORDERS: dict[str, Attack] = {
    'opening_planned': _opening_planned, 'opening_measured': _opening_measured, 'start_turned': _start_turned,
    'start_off': _start_off, 'step_far': _step_far, 'step_turned': _step_turned, 'times': _times, 'sheared': _sheared,
    'unsure_a_little': _unsure_a_little, 'moving_a_little': _moving_a_little, 'beyond_joint_limit': _beyond_joint_limit,
    'near_joint_limit': _near_joint_limit, 'old': _old, 'table': _table, 'workspace': _workspace,
    'laid_at_border': _laid_at_border, 'past_singularity': _past_singularity, 'coarse': _coarse, 'beside': _beside,
    'pin': _pin,
    'tool_keep_out': _tool_keep_out, 'arm_keep_out': _arm_keep_out,
    'thin_wall': _thin_wall, 'close_by': _close_by, 'held': _held, 'shaky_hand': _shaky_hand, 'stretched': _stretched,
    'singular_wrist': _singular_wrist, 'too_long': _too_long, 'tilting': _tilting, 'brisk': _brisk,
}
