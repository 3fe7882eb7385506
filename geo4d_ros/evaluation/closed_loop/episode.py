"""The whole loop in a simulated cell without ROS: look, predict, track, gate, execute, look again.

The decisions are those of the nodes: the same state machine, pipeline, limits and controllers. Only the wires
between them are function calls, and simulated time stands still while the generator and tracker compute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geo4d_ros.errors import InvalidInputError
from geo4d_ros.evaluation.closed_loop.cell_arm import CellArm
from geo4d_ros.evaluation.closed_loop.cell_rig import CellRig
from geo4d_ros.generation.protocol import VideoGenerator
from geo4d_ros.loop.events import Action, ActionKind, Event, EventKind
from geo4d_ros.loop.machine import RESTING, LoopConfig, LoopState, Recovery, step
from geo4d_ros.loop.recovery import Trail, plan_recovery, recovery_plans
from geo4d_ros.motion import planning
from geo4d_ros.motion.collision import Scene
from geo4d_ros.motion.gripper_segments import GripperSegment
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.reasons import Kind, Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.tracking.protocol import Tracker
from geo4d_ros.types import GripperTrack, Observation, Plan, Video4D

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


def plan_of_track(track: GripperTrack, T_base_ref: np.ndarray, stamps: np.ndarray, plan_id: str) -> Plan:
    """The trusted frames of a track as a plan in the base frame; T_base_ref (4, 4), stamps (T+1,) [ns]."""
    n = track.trusted
    T = T_base_ref @ track.T_ref_gripper
    return Plan(plan_id, T[1:n].copy(), track.opening[1:n].copy(), (stamps[1:n] - stamps[0]) * 1e-9, int(stamps[0]),
                T[0].copy(), float(track.opening[0]), track.confidence[1:n].copy())


class CellLoop:
    """Interprets the state machine's actions against one cell until the loop rests or the task is done."""

    def __init__(self, cell: Any, rig: CellRig, setup: LoopSetup, scene: Scene | None = None,
                 film: bool = False, on_cycle: Callable[[LoopState], None] | None = None) -> None:
        self._cell, self._rig, self._setup = cell, rig, setup
        self._scene = scene or Scene.table()
        self._T_base_ref = rig.cameras[0].T_base_camera
        self._arm = CellArm(cell, self._take_picture if film else None, FILM_PERIOD)
        self._on_cycle = on_cycle
        self._observation: Observation | None = None
        self._trail = Trail()
        self._state = LoopState()
        self._motion: planning.TimedMotion | None = None
        self._motion_start = 0.0
        self._cycles: list[Cycle] = []
        self._film: list[tuple[np.ndarray, int, float]] = []
        self._stages: dict[str, list[float]] = {}

    def run(self) -> EpisodeResult:
        """Start the loop and see it through; success is the simulator's word, at the end of any cycle."""
        state, success = LoopState(), False
        pending = [Event(EventKind.START, self._cell.time)]
        start = self._cell.time
        while pending and not success:
            state, actions = step(state, pending.pop(0), self._setup.config)
            self._state = state
            for action in actions:
                if action.kind is ActionKind.OBSERVE:
                    success = bool(self._cycles) and self._cell.succeeded()
                    if self._on_cycle is not None:
                        self._on_cycle(state)
                    if success:
                        break
                answer = self._perform(action)
                if answer is not None:
                    pending.append(answer)
        success = success or (state.phase in RESTING and self._cell.succeeded())
        reason = 'TASK_DONE' if success else state.reason.code if state.reason else ''
        return EpisodeResult(success, reason, self._cycles, self._stages, self._cell.time - start, self._film)

    # -- one handler per action --------------------------------------------------------------------

    def _perform(self, action: Action) -> Event | None:
        handler = {
            ActionKind.OBSERVE: self._observe, ActionKind.PREDICT: self._predict, ActionKind.PLAN: self._plan_cycle,
            ActionKind.PLAN_RECOVERY: self._plan_recovery, ActionKind.EXECUTE: self._execute,
            ActionKind.AWAIT_STANDSTILL: self._await_standstill, ActionKind.STOP: self._await_standstill,
            ActionKind.REPORT: self._note_report,
        }.get(action.kind)
        if handler is None:
            raise InvalidInputError(f'the evaluation loop cannot {action.kind.value}: run it with auto approval')
        return handler(action.data)

    def _observe(self, data: dict[str, Any]) -> Event:
        self._cycles.append(Cycle(self._cell.save_state()))
        with self._timed('observe'):
            self._observation = self._rig.observe(self._cell)
        position = self._cell.T_base_gripper[:3, 3].tolist()
        return self._event(EventKind.OBSERVED, cycle=data['cycle'], position=position, opening=self._cell.opening)

    def _predict(self, data: dict[str, Any]) -> Event:
        try:
            with self._timed('predict'):
                video = self._setup.generator.predict(self._observation, seed=self._setup.seed)
        except InvalidInputError as error:
            return self._refused(data, Reason.PREDICTION_INVALID, str(error))
        self._cycles[-1].video = video
        return self._event(EventKind.PREDICTED, cycle=data['cycle'])

    def _plan_cycle(self, data: dict[str, Any]) -> Event:
        cycle = self._cycles[-1]
        with self._timed('track'):
            track = self._setup.tracker.track(cycle.video, self._observation)
        if track.trusted <= 1:
            return self._refused(data, Reason.TRACK_LOST, '')
        plan = plan_of_track(track, self._T_base_ref, cycle.video.stamps, f'{self._cell.seed}-{len(self._cycles)}')
        cycle.plan = plan
        return self._gate(plan, data, self._setup.executed_poses)

    def _plan_recovery(self, data: dict[str, Any]) -> Event:
        recovery, arm, setup = Recovery(data['recovery']), self._arm, self._setup
        self._cycles[-1].missed |= recovery is Recovery.OPEN
        self._cycles[-1].retreated |= recovery is Recovery.RETREAT
        plans = recovery_plans(recovery, f'{self._cell.seed}-{data["cycle"]}-recovery', self._cell.T_base_gripper,
                               self._cell.opening, arm.stamp, self._trail, setup.limits, data['again'])
        with self._timed('plan'):
            plan, _, motion = plan_recovery(plans, recovery, arm.state(), setup.limits, self._scene, setup.robot,
                                            arm.stamp)
        return self._verdict(plan, motion, data)

    def _gate(self, plan: Plan, data: dict[str, Any], k: int) -> Event:
        with self._timed('plan'):
            motion = planning.plan_trajectory(plan, self._arm.state(), self._setup.limits, self._scene,
                                              self._setup.robot, self._arm.stamp, k)
        return self._verdict(plan, motion, data)

    def _verdict(self, plan: Plan, motion: planning.TimedMotion | Refusal, data: dict[str, Any]) -> Event:
        if isinstance(motion, Refusal):
            return self._refused(data, motion.reason, motion.detail)
        self._motion, self._motion_start = motion, self._cell.time
        self._cycles[-1].motion = motion
        return self._event(EventKind.PLANNED, cycle=data['cycle'], **planning.describe(plan, motion))

    def _execute(self, data: dict[str, Any]) -> Event:
        motion, index, arm = self._motion, data['index'], self._arm
        segment = motion.segments[index]
        moved = planning.check_before_execution(motion, index, arm.state(), self._setup.limits, arm.stamp)
        if moved is not None:
            return self._refused({'cycle': self._state.cycle}, moved.reason, moved.detail)
        if isinstance(segment, GripperSegment):
            self._cycles[-1].closed |= segment.closing
            failed = arm.grip(segment)
        else:
            if self._state.recovery is None:
                self._trail.follow(motion.T_path)
            failed = arm.move(segment)
        if failed is not None:
            return self._refused({'cycle': self._state.cycle}, failed.reason, failed.detail)
        return self._event(EventKind.SEGMENT_DONE, plan_id=data['plan_id'], index=index,
                           opening=self._cell.opening)

    def _await_standstill(self, data: dict[str, Any]) -> Event:
        failed = self._arm.settle()
        if failed is not None:
            return self._event(EventKind.FAULT, reason=failed.reason.code, detail=failed.detail)
        return self._event(EventKind.STANDSTILL)

    def _note_report(self, data: dict[str, Any]) -> None:
        """Faults of the loop itself (too many refusals, no progress) belong to the last cycle's record."""
        reason = Reason[data['reason']]
        if self._cycles and reason.kind is Kind.FAULT and not self._cycles[-1].reason:
            self._cycles[-1].reason = reason.code

    # -- helpers -----------------------------------------------------------------------------------

    def _event(self, kind: EventKind, **data: Any) -> Event:
        return Event(kind, self._cell.time, data)

    def _refused(self, data: dict[str, Any], reason: Reason, detail: str) -> Event:
        self._cycles[-1].reason = self._cycles[-1].reason or reason.code
        return self._event(EventKind.REFUSED, cycle=data['cycle'], reason=reason.code, detail=detail)

    @contextmanager
    def _timed(self, stage: str) -> Any:
        start = time.perf_counter()
        yield
        self._stages.setdefault(stage, []).append(time.perf_counter() - start)

    def _take_picture(self, cell: Any) -> None:
        duration = self._motion.duration if self._motion is not None else 1.0
        progress = min(1.0, (cell.time - self._motion_start) / max(duration, 1e-6))
        self._film.append((self._rig.snapshot(cell)['rgb'], len(self._cycles) - 1, progress))
