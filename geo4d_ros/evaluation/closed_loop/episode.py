"""One closed-loop episode in a simulated cell: the loop's driver over the simulation's port, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geo4d_ros.errors import require
from geo4d_ros.evaluation.closed_loop.cell_rig import CellRig
from geo4d_ros.generation.protocol import VideoGenerator
from geo4d_ros.loop.driver import Driver
from geo4d_ros.loop.events import ActionData, ActionKind, EventKind
from geo4d_ros.loop.machine import RESTING, LoopConfig, Recovery
from geo4d_ros.loop.port import CycleSummary, Watcher
from geo4d_ros.motion import planning
from geo4d_ros.motion.collision import Scene
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.reasons import Kind, Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.simulation.port import SimulatedPort
from geo4d_ros.tracking.protocol import Tracker
from geo4d_ros.types import Plan, Video4D

STAGES = {'observe': 'observe', 'predict': 'predict', 'track': 'track', 'gates': 'plan'}  # the driver's, the report's
FILM_PERIOD = 0.25  # [s] of simulated time between two pictures of a film


@dataclass(frozen=True)
class LoopSetup:
    """What runs in the loop: models, limits, how many predicted poses are executed, and the loop's own limits."""

    generator: VideoGenerator
    tracker: Tracker
    robot: RobotModel
    limits: MotionLimits = field(default_factory=MotionLimits)
    config: LoopConfig = field(default_factory=lambda: LoopConfig(dry_run=False, auto=True, recover=True,
                                                                  max_cycles=16))
    executed_poses: int = 5
    seed: int = 0
    instruction: str | None = None
    until_success: bool = True  # end as soon as the simulator calls it a success; else when the loop rests


@dataclass
class Cycle:
    """One cycle as it happened; `before` is the simulator's state when the cameras looked."""

    before: Any
    video: Video4D | None = None
    plan: Plan | None = None
    motion: planning.TimedMotion | None = None
    reason: str = ''
    closed: bool = False
    missed: bool = False
    retreated: bool = False


@dataclass
class EpisodeResult:
    """What came of an episode. `reason`: why the loop ended; film: (rgb views, Cycle index, progress 0..1)."""

    success: bool
    reason: str
    cycles: list[Cycle]
    stages: dict[str, list[float]]
    simulated_s: float
    film: list[tuple[np.ndarray, int, float]]


class _Bookkeeper(Watcher):
    """Keeps what happened, cycle by cycle; `success` is the simulator's word at the beginning of a cycle."""

    def __init__(self, cell: Any, last_video: Callable[[], Video4D | None], until_success: bool) -> None:
        self._cell, self._last_video, self._until_success = cell, last_video, until_success
        self.cycles: list[Cycle] = []
        self.stages: dict[str, list[float]] = {}
        self.success = False
        self._kept: Video4D | None = None
        self.motion: planning.TimedMotion | None = None
        self.motion_start = 0.0
        self._recovers = False

    def acted(self, kind: str, data: ActionData) -> None:
        """Begin a cycle, or note what it does."""
        if kind in (ActionKind.OBSERVE.value, ActionKind.REPORT.value):
            self._keep_video()  # a verdict may have ended the cycle before its plan
        if kind == ActionKind.OBSERVE.value:
            self.success = bool(self.cycles) and self._cell.succeeded()
            if not (self.success and self._until_success):
                self.cycles.append(Cycle(self._cell.save_state()))
        elif kind == ActionKind.PLAN.value:
            self._keep_video()
        elif kind == ActionKind.PLAN_RECOVERY.value:
            self.cycles[-1].missed |= data['recovery'] == Recovery.OPEN.value
            self.cycles[-1].retreated |= data['recovery'] == Recovery.RETREAT.value
        elif kind == ActionKind.EXECUTE.value:
            self.cycles[-1].closed |= data['segment'].get('closing', False)
        self._recovers = kind == ActionKind.PLAN_RECOVERY.value

    def _keep_video(self) -> None:
        """The newest video belongs to the cycle in which it came."""
        video = self._last_video()
        if self.cycles and video is not self._kept:
            self.cycles[-1].video = self._kept = video

    def judged(self, plan: Plan, result: Any) -> None:
        """Keep the plan of the prediction and the motion that comes of it."""
        if not self._recovers:
            self.cycles[-1].plan = plan
        if isinstance(result, planning.TimedMotion):
            self.cycles[-1].motion = self.motion = result
            self.motion_start = self._cell.time

    def refused(self, refusal: Refusal) -> None:
        """The first reason of a cycle is its reason."""
        self.cycles[-1].reason = self.cycles[-1].reason or refusal.reason.code

    def said(self, refusal: Refusal) -> None:
        """Faults of the loop itself (too many refusals, no progress) belong to the last cycle's record."""
        if refusal.reason.kind is Kind.FAULT:
            self.refused(refusal)

    def erred(self, text: str) -> None:
        """An error of our own code ends the evaluation: it is no failure of the models."""
        raise RuntimeError(text)

    def cycle(self, summary: CycleSummary) -> None:
        """Wall time of the stages [s]."""
        for stage, milliseconds in summary['stages_ms'].items():
            if stage in STAGES:
                self.stages.setdefault(STAGES[stage], []).append(milliseconds * 1e-3)

    @property
    def progress(self) -> float:
        """How much of the motion is over, 0 to 1."""
        duration = self.motion.duration if self.motion is not None else 1.0
        return min(1.0, (self._cell.time - self.motion_start) / max(duration, 1e-6))


def run_loop(cell: Any, rig: CellRig, setup: LoopSetup, scene: Scene | None = None,
             film: bool = False) -> EpisodeResult:
    """Run the loop's driver in a cell until it rests or the task is done; success is the simulator's word."""
    book, pictures = _Bookkeeper(cell, lambda: port.video, setup.until_success), []

    def take_picture(now: Any) -> None:
        pictures.append((rig.snapshot(now)['rgb'], len(book.cycles) - 1, book.progress))

    port = SimulatedPort(cell, rig, setup.generator, setup.tracker, setup.robot, scene, setup.seed,
                         take_picture if film else None, FILM_PERIOD, setup.instruction)
    driver = Driver(port, book)
    driver.configure(setup.config, setup.limits, setup.executed_poses)
    start = cell.time
    refusal = driver.begin(EventKind.START)
    require(refusal is None, f'the loop does not begin: {refusal and refusal.message}')
    while driver.phase not in RESTING and not (book.success and setup.until_success):
        port.advance()
        driver.tick()
    success = book.success or cell.succeeded()
    ended = driver.state.reason.code if driver.state.reason else ''
    return EpisodeResult(success, 'TASK_DONE' if success and setup.until_success else ended, book.cycles,
                         book.stages, cell.time - start, pictures)
