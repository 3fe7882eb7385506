"""Executes the expert in the physics: inverse kinematics, position servos, a fresh look after every segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from geo4d_ros.geometry.transforms import from_rotvec
from geo4d_ros.robots.inverse_kinematics import shared_kinematics
from geo4d_ros.simulation.cell import Cell
from geo4d_ros.simulation.expert import PERIOD, Scene, Segment, next_segment, segment_samples
from geo4d_ros.simulation.tasks import task_class

_SUBSTEPS = 5  # servo targets per PERIOD
_REST_PULL = 0.005  # elbow drift towards home per iteration: slow enough for the servos
_MAX_TRACKING_ERROR = 0.02  # plan pose without a joint solution [m]
PERTURBATIONS = ('displace', 'close', 'drop')


@dataclass(frozen=True)
class Perturbation:
    """Something going wrong during a segment of that name, at a fraction of it.

    kind: 'displace' pushes the gripper off its path by T_offset (4, 4, in the gripper frame);
    'close' shuts the fingers too early (a missed grasp); 'drop' opens them on the way.
    """

    kind: str
    segment: str
    fraction: float
    T_offset: np.ndarray = field(default_factory=lambda: np.eye(4))


@dataclass
class RolloutResult:
    """What came of it. segments: names in the order executed; failure: a word when not successful.

    disturbances: (start, end) [s] of everything that no expert would do, so that nobody learns it.
    """

    success: bool
    duration: float
    segments: list[str]
    failure: str | None = None
    disturbances: list[tuple[float, float]] = field(default_factory=list)


Observer = Callable[[Cell], None]


def random_perturbations(rng: np.random.Generator, task: str, count: int = 1) -> list[Perturbation]:
    """Perturbations for recovery demonstrations: up to 10 cm and 25 degrees, early closing, drops."""
    kinds = ['displace', 'close'] + (['drop'] if task_class(task).may_be_dropped else [])
    out = []
    for _ in range(count):
        kind = str(rng.choice(kinds, p=[0.55, 0.45] if len(kinds) == 2 else [0.5, 0.3, 0.2]))
        segment = {'close': 'approach', 'drop': 'carry'}.get(kind) or str(rng.choice(['reach', 'approach', 'carry']))
        out.append(Perturbation(kind, segment, float(rng.uniform(0.2, 0.95)), _random_offset(rng)))
    return out


def _random_offset(rng: np.random.Generator) -> np.ndarray:
    direction = rng.standard_normal(3)
    direction[2] = -abs(direction[2])  # backwards along the approach: never into the table
    axis = rng.standard_normal(3)
    turn = axis / np.linalg.norm(axis) * np.deg2rad(25) * np.sqrt(rng.uniform())
    return from_rotvec(turn, direction / np.linalg.norm(direction) * rng.uniform(0.02, 0.10))


def rollout(cell: Cell, max_seconds: float = 40.0, perturb: Sequence[Perturbation] = (),
            observe: Observer | None = None, observe_period: float = 0.5, rest: float = 0.5) -> RolloutResult:
    """Run the expert until it rests (or max_seconds of simulated time pass) and judge the result.

    `observe(cell)` is called at time 0 and then every `observe_period` [s] of simulated time.
    Each perturbation happens once, in the first matching segment. `rest`: time waited at the end [s].
    """
    runner = _Runner(cell, list(perturb), observe, observe_period)
    start = cell.time
    while cell.time - start < max_seconds:
        scene = Scene.of(cell)
        segment = next_segment(cell.spec, scene)
        if segment is None:
            runner.wait(rest)
            if next_segment(cell.spec, Scene.of(cell)) is None:
                break
            continue
        if not runner.execute(scene, segment):
            return RolloutResult(False, cell.time - start, runner.names, 'unreachable', runner.disturbances)
    success = cell.succeeded()
    failure = None if success else ('timeout' if cell.time - start >= max_seconds else 'not at goal')
    return RolloutResult(success, cell.time - start, runner.names, failure, runner.disturbances)


class _Runner:
    """Streams servo targets; keeps the observer's clock and the perturbations still to come."""

    def __init__(self, cell: Cell, perturb: list[Perturbation], observe: Observer | None, period: float) -> None:
        self.cell, self.perturb, self.observe, self.period = cell, perturb, observe, period
        self.names: list[str] = []
        self.disturbances: list[tuple[float, float]] = []
        self._next_look = cell.time
        self._look()

    def execute(self, scene: Scene, segment: Segment) -> bool:
        """One segment, or its start and a perturbation; False when the arm cannot follow."""
        self.names.append(segment.name)
        poses, _, commands = segment_samples(scene, segment)
        happening = next((p for p in self.perturb if p.segment == segment.name), None)
        if happening is None:
            return self._follow(poses, commands)
        self.perturb.remove(happening)
        n = max(1, int(happening.fraction * len(poses)))
        return self._follow(poses[:n], commands[:n]) and self._disturb(happening)

    def _disturb(self, happening: Perturbation) -> bool:
        self.names.append(happening.kind)
        scene = Scene.of(self.cell)
        T, opening, seconds = scene.T_gripper, self.cell.opening_command, 0.8
        if happening.kind == 'displace':
            T = T @ happening.T_offset
            seconds = max(0.4, float(np.linalg.norm(happening.T_offset[:3, 3])) / 0.15)
        else:
            opening = 0.0 if happening.kind == 'close' else self.cell.stroke
        segment = Segment(happening.kind, T, scene.opening, seconds, 1.0)
        poses, _, commands = segment_samples(scene, segment)
        start = self.cell.time
        self._follow(poses, np.full(len(commands), opening))  # where it cannot be pushed it stays
        self.disturbances.append((start, self.cell.time))
        return True

    def wait(self, seconds: float) -> None:
        """Hold still."""
        for _ in range(round(seconds / PERIOD)):
            self._advance(round(PERIOD / self.cell.dt))

    def _follow(self, poses: np.ndarray, commands: np.ndarray) -> bool:
        kinematics = shared_kinematics(self.cell.robot)
        q = self.cell.joint_positions
        for T, command in zip(poses, commands, strict=True):
            solution = kinematics.solve(T, q, iterations=20, rest=_REST_PULL)
            if solution.position_error > _MAX_TRACKING_ERROR:
                return False
            velocity = (solution.q - q) / PERIOD
            self.cell.set_opening_target(command)
            for k in range(1, _SUBSTEPS + 1):
                self.cell.set_joint_target(q + (solution.q - q) * k / _SUBSTEPS, velocity)
                self._advance(round(PERIOD / self.cell.dt) // _SUBSTEPS)
            q = solution.q
        self.cell.set_joint_target(q)
        return True

    def _advance(self, steps: int) -> None:
        self.cell.step(steps)
        self._look()

    def _look(self) -> None:
        if self.observe is not None and self.cell.time >= self._next_look - 1e-9:
            self._next_look += self.period
            self.observe(self.cell)
