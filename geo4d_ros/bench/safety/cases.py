"""Plans and robot states to attack the motion core with: plausible, broken and hostile ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geo4d_ros.geometry.transforms import from_rotvec, make_transform
from geo4d_ros.motion.collision import Obstacle, Scene
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import RobotState
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.types import Plan

NOW = 1_000_000_000_000  # ns


@dataclass(frozen=True)
class Case:
    """One question to `plan_trajectory`."""

    kind: str
    plan: Plan
    state: RobotState
    limits: MotionLimits
    scene: Scene
    now: int = NOW
    k: int = 5


def make_case(robot: RobotModel, home: np.ndarray, seed: int, index: int) -> Case:
    """Case `index` of a series; the same arguments give the same case."""
    rng = np.random.default_rng([seed, index])
    case = plausible(robot, home, rng)
    kinds = sorted(ATTACKS)
    kind = kinds[rng.integers(len(kinds))]
    return replace(ATTACKS[kind](case, robot, rng), kind=kind)


def attack(kind: str, robot: RobotModel, home: np.ndarray, rng: np.random.Generator) -> Case:
    """One case of a kind in ATTACKS."""
    return replace(ATTACKS[kind](plausible(robot, home, rng), robot, rng), kind=kind)


def plausible(robot: RobotModel, home: np.ndarray, rng: np.random.Generator) -> Case:
    """A plan as a good tracker would give it: a smooth walk from where the arm stands, one grasp perhaps."""
    q = np.clip(home + rng.normal(0, 0.15, robot.dof), robot.lower + 0.05, robot.upper - 0.05)
    T_start = robot.forward(q)
    n = int(rng.integers(3, 12))
    direction = rng.normal(0, 1, 3)
    velocity = 0.045 * direction / np.linalg.norm(direction)
    spin = rng.normal(0, 0.04, 3)
    T, poses = T_start, []
    for _ in range(n):
        velocity = velocity + rng.normal(0, 0.006, 3)
        spin = spin + rng.normal(0, 0.01, 3)
        T = make_transform(T[:3, :3] @ from_rotvec(spin)[:3, :3], T[:3, 3] + velocity)
        poses.append(T)
    opening = np.full(n, 0.08)
    if rng.random() < 0.5:
        opening[rng.integers(n):] = rng.uniform(0.0, 0.05)
    plan = Plan(f'case-{rng.integers(1 << 30)}', np.array(poses), opening, 0.5 * np.arange(1, n + 1),
                NOW - int(rng.uniform(0.1, 3) * 1e9), T_start.copy(), 0.08, rng.uniform(0.4, 1.0, n))
    state = RobotState(q, rng.normal(0, 0.001, robot.dof), 0.08, NOW - int(rng.uniform(0, 0.05) * 1e9))
    limits = MotionLimits()
    if rng.random() < 0.5:
        limits = replace(limits, speed=rng.uniform(0.02, 0.25), acceleration=rng.uniform(0.1, 1.0),
                         angular_speed=rng.uniform(0.1, 1.0), joint_velocity_scale=rng.uniform(0.05, 0.4),
                         joint_acceleration_scale=rng.uniform(0.05, 0.5))
    return Case('plausible', plan, state, limits, Scene.table(), k=int(rng.integers(1, 11)))


def _plan(case: Case, **changes: Any) -> Case:
    return replace(case, plan=replace(case.plan, **changes))


def _state(case: Case, **changes: Any) -> Case:
    return replace(case, state=replace(case.state, **changes))


def _moved(case: Case, offset: np.ndarray) -> Case:
    """Offsets (n, 3) added to the positions."""
    T = case.plan.T_base_gripper.copy()
    T[:, :3, 3] += offset
    return _plan(case, T_base_gripper=T)


def _ramp(case: Case) -> np.ndarray:
    n = len(case.plan.T_base_gripper)
    return (np.arange(1, n + 1) / n)[:, None]


def _unchanged(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    return case


def _teleport(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    n = len(case.plan.T_base_gripper)
    offset = np.zeros((n, 3))
    offset[rng.integers(n):] = rng.normal(0, 0.3, 3)
    return _moved(case, offset)


def _broken_number(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    bad = rng.choice([np.nan, np.inf, -np.inf, 1e300, 1e9, -1e-320])
    field = rng.choice(['T_base_gripper', 'opening', 'time_from_start', 'T_base_gripper_start', 'confidence'])
    array = getattr(case.plan, field).copy()
    array.flat[rng.integers(array.size)] = bad
    return _plan(case, **{field: array})


def _broken_state(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    bad = rng.choice([np.nan, np.inf, -np.inf, 1e9, 7.0])
    field = rng.choice(['q', 'dq', 'opening'])
    if field == 'opening':
        return _state(case, opening=float(bad))
    array = getattr(case.state, field).copy()
    array[rng.integers(len(array))] = bad
    return _state(case, **{field: array})


def _wrong_joint_count(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    n = int(rng.integers(0, 10))
    return _state(case, q=np.zeros(n), dq=np.zeros(n))


def _bad_rotation(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    T = case.plan.T_base_gripper.copy()
    i = rng.integers(len(T))
    how = rng.integers(4)
    if how == 0:
        T[i, :3, :3] *= rng.uniform(0.5, 1.5)
    elif how == 1:
        T[i, :3, 0] *= -1  # a reflection
    elif how == 2:
        T[i, :3, :3] = 0
    else:
        T[i, 3] = rng.normal(0, 1, 4)
    return _plan(case, T_base_gripper=T)


def _spiral_out(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    n = len(case.plan.T_base_gripper)
    angle = np.arange(1, n + 1) * rng.uniform(0.3, 1.5)
    radius = 0.06 * np.arange(1, n + 1)
    return _moved(case, np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], axis=1))


def _fast(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    direction = rng.normal(0, 1, 3)
    return _moved(case, _ramp(case) * direction / np.linalg.norm(direction) * rng.uniform(0.3, 1.5))


def _into_table(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    drop = case.plan.T_base_gripper_start[2, 3] + rng.uniform(-0.05, 0.1)
    return _moved(case, _ramp(case) * np.array([0, 0, -drop]))


def _into_base(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Towards the robot's own base and shoulder."""
    goal = np.array([rng.uniform(-0.1, 0.3), rng.uniform(-0.1, 0.1), rng.uniform(0.05, 0.5)])
    start = case.plan.T_base_gripper_start[:3, 3]
    return replace(_moved(case, _ramp(case) * (goal - start)),
                   limits=replace(case.limits, workspace=(-0.9, -0.9, 0.0, 0.9, 0.9, 1.2)))


def _reach_out(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """To the edge of what the arm can reach, where it is singular."""
    start = case.plan.T_base_gripper_start[:3, 3]
    goal = start * rng.uniform(1.5, 2.5)
    return replace(_moved(case, _ramp(case) * (goal - start)),
                   limits=replace(case.limits, workspace=(-1.5, -1.5, 0.0, 1.5, 1.5, 1.5), step_distance=0.2))


def _start_anywhere(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """An arm in any posture, near limits, singular or in collision, asked to move a little."""
    q = rng.uniform(robot.lower, robot.upper)
    joint = rng.integers(robot.dof)
    if rng.random() < 0.5:
        q[joint] = (robot.lower, robot.upper)[rng.integers(2)][joint] + rng.normal(0, 0.01)
    T_start = robot.forward(q)
    shift = T_start @ np.linalg.inv(case.plan.T_base_gripper_start)
    moved = _plan(_state(case, q=q), T_base_gripper=shift @ case.plan.T_base_gripper, T_base_gripper_start=T_start)
    return replace(moved, limits=replace(case.limits, workspace=(-1.5, -1.5, 0.0, 1.5, 1.5, 1.5)))


def _wrist_flip(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    T = case.plan.T_base_gripper.copy()
    axis = rng.normal(0, 1, 3)
    axis /= np.linalg.norm(axis)
    total = rng.uniform(0.5, np.pi)
    for i, share in enumerate(_ramp(case)[:, 0]):
        T[i, :3, :3] = T[i, :3, :3] @ from_rotvec(share * total * axis)[:3, :3]
    return replace(_plan(case, T_base_gripper=T), limits=replace(case.limits, step_angle=1.0))


def _wrong_start(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    T = case.plan.T_base_gripper_start.copy()
    T[:3, 3] += rng.normal(0, 0.02, 3)
    return _plan(case, T_base_gripper_start=T @ from_rotvec(rng.normal(0, 0.05, 3)))


def _stale(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    shift = int(rng.choice([-1, 1]) * rng.uniform(0.0, 60.0) * 1e9)
    if rng.random() < 0.5:
        return _plan(case, observation_stamp=case.plan.observation_stamp - shift)
    return _state(case, stamp=case.state.stamp - int(shift * rng.choice([1.0, 0.003])))


def _moving(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    return _state(case, dq=rng.normal(0, rng.choice([0.005, 0.05, 1.0]), robot.dof))


def _unsure(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    n = len(case.plan.T_base_gripper)
    confidence = rng.choice([None, 'low', 'falling', 'wild'])
    values = {'low': rng.uniform(0, 0.35, n), 'falling': np.linspace(0.9, 0.0, n), 'wild': rng.normal(0, 5, n)}
    return _plan(case, confidence=values.get(confidence))


def _obstacles(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Boxes and cylinders in and around the path, and keep-out boxes."""
    start = case.plan.T_base_gripper_start[:3, 3]
    obstacles = []
    for i in range(int(rng.integers(1, 5))):
        centre = tuple(start + rng.normal(0, 0.25, 3))
        if rng.random() < 0.5:
            obstacles.append(Obstacle(f'box {i}', 'box', centre, tuple(rng.uniform(0.02, 0.3, 3)), rng.uniform(-3, 3)))
        else:
            obstacles.append(Obstacle(f'post {i}', 'cylinder', centre, (rng.uniform(0.01, 0.1), rng.uniform(0.1, 0.6))))
    corner = start + rng.normal(0, 0.15, 3)
    keep_out = (*corner, *(corner + rng.uniform(0.03, 0.3, 3)))
    return replace(case, scene=case.scene.with_obstacles(*obstacles),
                   limits=replace(case.limits, keep_out=(tuple(map(float, keep_out)),)))


def _gripper_chatter(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    n = len(case.plan.opening)
    opening = rng.uniform(-0.02, 0.1, n) if rng.random() < 0.5 else rng.choice([0.0, 0.08], n)
    closed = [None, True, False][rng.integers(3)]
    return _state(_plan(case, opening=opening), gripper_closed=closed, opening=float(rng.uniform(-0.02, 0.1)))


def laid_down(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Something thin is carried down, the hand tilting, and let go of about where the opened fingers meet the table."""
    n = len(case.plan.T_base_gripper)
    at = int(rng.integers(n))
    down = np.minimum(np.arange(1, n + 1), 2 * (at + 1) - np.arange(1, n + 1))  # steps: there, and up again
    axis = rng.normal(0, 1, 3)
    axis *= rng.uniform(0.0, 0.2) / np.linalg.norm(axis)
    T = np.stack([case.plan.T_base_gripper_start @ from_rotvec(i * axis) for i in np.minimum(down, at + 1)])
    T[:, :3, 3] = case.plan.T_base_gripper_start[:3, 3] - down[:, None] * [0, 0, rng.uniform(0.005, 0.05)]
    x, y, z = map(float, T[at, :3, 3])
    block = Obstacle('block', 'box', (x, y, z - 0.05 - rng.uniform(-0.01, 0.06)), (0.3, 0.3, 0.1))
    held = float(rng.uniform(0.004, 0.05))
    case = _plan(case, T_base_gripper=T, opening=np.where(np.arange(n) < at, held, 0.08), opening_start=held)
    return replace(_state(case, gripper_closed=True, opening=held), scene=case.scene.with_obstacles(block))


def _dwell(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """The same pose again and again, with hardly any motion."""
    n = len(case.plan.T_base_gripper)
    T = np.tile(case.plan.T_base_gripper_start, (n, 1, 1))
    T[:, :3, 3] += rng.normal(0, rng.choice([0.0, 1e-6, 1e-3, 3e-3]), (n, 3))
    return _plan(case, T_base_gripper=T)


def _zigzag(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Sharp corners: back and forth at every pose."""
    n = len(case.plan.T_base_gripper)
    return _moved(case, rng.choice([-1.0, 1.0], (n, 3)) * rng.uniform(0.0, 0.04))


def _empty(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    n = int(rng.integers(0, 2))
    p = case.plan
    return _plan(case, T_base_gripper=p.T_base_gripper[:n], opening=p.opening[:n], confidence=p.confidence[:n],
                 time_from_start=p.time_from_start[:n])


def _on_the_edge(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    """Poses right at a border of the workspace, just inside and just outside."""
    T = case.plan.T_base_gripper
    i = rng.integers(len(T))
    axis = rng.integers(3)
    hair = rng.choice([-1e-3, -1e-9, 0.0, 1e-9, 1e-3])
    border = float(T[i, axis, 3] + hair)
    box = list(case.limits.workspace)
    if axis == 2 and rng.random() < 0.5:
        return replace(case, limits=replace(case.limits, table_height=border - case.limits.table_clearance))
    low = rng.random() < 0.5
    box[axis if low else axis + 3] = border
    if not all(box[j] < box[j + 3] for j in range(3)):
        return case
    return replace(case, limits=replace(case.limits, workspace=tuple(box)))


def _tilted(case: Case, robot: RobotModel, rng: np.random.Generator) -> Case:
    return replace(case, limits=replace(case.limits, tilt=rng.uniform(0.01, 0.6)))


Attack = Callable[[Case, RobotModel, np.random.Generator], Case]
ATTACKS: dict[str, Attack] = {
    'plausible': _unchanged, 'plausible_2': _unchanged, 'plausible_3': _unchanged, 'teleport': _teleport,
    'broken_number': _broken_number, 'broken_state': _broken_state, 'wrong_joint_count': _wrong_joint_count,
    'bad_rotation': _bad_rotation, 'spiral_out': _spiral_out, 'fast': _fast, 'into_table': _into_table,
    'into_base': _into_base, 'reach_out': _reach_out, 'start_anywhere': _start_anywhere, 'wrist_flip': _wrist_flip,
    'wrong_start': _wrong_start, 'stale': _stale, 'moving': _moving, 'unsure': _unsure, 'obstacles': _obstacles,
    'gripper_chatter': _gripper_chatter, 'dwell': _dwell, 'zigzag': _zigzag, 'empty': _empty,
    'on_the_edge': _on_the_edge, 'tilted': _tilted, 'laid_down': laid_down,
}
