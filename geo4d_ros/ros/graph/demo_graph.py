"""The graph of `geo4d demo`: cell, prediction and executor as processes, an operator that watches them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from geo4d_ros.errors import Geo4dError
from geo4d_ros.robots.registry import DEFAULT
from geo4d_ros.ros.execute.status import LoopStatus
from geo4d_ros.ros.graph.probe import LoopProbe
from geo4d_ros.ros.graph.process_group import ProcessGroup
from geo4d_ros.ros.graph.robot_parameters import robot_parameters
from geo4d_ros.ros.graph.run_recorder import FilmPicture, PredictedClip, RunRecorder

ENDED = ('DONE', 'FAULT', 'IDLE')
# Cell, cameras and network share the cores of one computer here: the watchdogs of a real cell, whose robot and
# cameras have processors of their own, would bark at the scheduler.
PATIENT = {'camera_silence': 20.0, 'joint_state_silence': 5.0, 'execution_slack': 20.0, 'pair_age': 5.0,
           'joint_state_age': 1.0, 'future_tolerance': 0.2, 'feedback_silence': 10.0, 'answer_seconds': 10.0,
           'predict_seconds': 120.0, 'plan_seconds': 60.0, 'peer_silence': 10.0}
# As in the evaluation of the loop: 1.5 cm below the table top, since the fingers are checked fully open.
TABLE = (0.0, 0.0, -0.065, 3.0, 3.0, 0.1)
PATIENT_PREDICTION = {'max_age': 5.0, 'observation_timeout': 20.0}


class DemoFault(Geo4dError):
    """The graph did not come up; nothing the user asked for was wrong."""


@dataclass(frozen=True)
class DemoOptions:
    """What to run; generator: a checkpoint's directory or remote://host:port; folder: where logs and the run's record
    go; cameras: their namespaces, the reference first."""

    task: str
    seed: int
    generator: str
    readout: str
    max_cycles: int
    max_seconds: float
    folder: Path
    cameras: tuple[str, str]
    robot: str = DEFAULT


@dataclass
class DemoOutcome:
    """What came of it. fault: code or None; spans: (begin, end, phase) on the steady clock; seconds: of the loop;
    reasons: cycle -> code of its last refusal, fault or end.
    """

    success: bool
    cycles: int
    fault: str | None
    reason: str
    stages_ms: dict[str, dict[str, float]]
    processes: dict[str, int]
    seconds: float
    pictures: list[FilmPicture] = field(repr=False, default_factory=list)
    predictions: list[PredictedClip] = field(repr=False, default_factory=list)
    spans: list[tuple[float, float, str]] = field(repr=False, default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)


class DemoGraph:
    """Use as a context manager: on any way out the processes are told to end, and killed if they do not."""

    def __init__(self, options: DemoOptions, say: Callable[[str], None]) -> None:
        self._options, self._say = options, say
        self._group = ProcessGroup({'MUJOCO_GL': 'egl'}, options.folder / 'logs')
        self._probe: LoopProbe | None = None
        self._pids: dict[str, int] = {}
        self._success = False
        self._begun = 0.0

    def __enter__(self) -> DemoGraph:
        return self

    def __exit__(self, *exc: object) -> None:
        self._group.close()
        if self._probe is not None:
            self._probe.close()
        close = getattr(self._say, 'close', None)
        if close is not None:
            close()

    def start(self, seconds: float) -> None:
        """Bring the nodes up, reset the cell and start the loop; DemoFault when that takes too long."""
        o, robot = self._options, robot_parameters(self._options.robot)
        cameras = {'reference_camera': o.cameras[0], 'second_camera': o.cameras[1]}
        clock = {'use_sim_time': True}
        self._group.start_node('simulated_cell', {'task': o.task, 'seed': o.seed, 'cameras': 'held-out',
                                                  'camera_seed': o.seed, 'camera_rate': 4.0, **cameras,
                                                  **robot['simulated_cell']})
        self._group.start_node('prediction', {'generator': o.generator, 'readout': o.readout, **PATIENT_PREDICTION,
                                              **cameras, **clock, **robot['gripper_tracker'],
                                              **robot['video_generator']})
        self._group.start_node('plan_executor', {
            'dry_run': False, 'auto': True, 'recover': True,
            'max_cycles': o.max_cycles, 'max_seconds': o.max_seconds, 'seed': o.seed,
            'record_directory': str(o.folder.resolve()), 'collision_boxes': TABLE,
            **cameras, **clock, **PATIENT, **robot['plan_executor']})
        self._pids = self._group.pids
        self._probe = LoopProbe()
        self._recorder = RunRecorder(self._probe.node, o.cameras)
        end = time.monotonic() + seconds
        self._say('nodes are starting')
        self._call('geo4d/cell/reset', end)
        self._say('cell reset, waiting for cameras and weights')
        self._call('geo4d/predict', end)  # answers once the weights are loaded and both cameras seen
        self._say('first prediction is there, starting the loop')
        self._call('geo4d/start', end)
        self._begun = time.monotonic()

    @property
    def _watcher(self) -> LoopProbe:
        if self._probe is None:
            raise DemoFault('the graph was not started')
        return self._probe

    def _call(self, name: str, end: float) -> None:
        """Ask again until the service accepts."""
        answer: object = None
        while time.monotonic() < end:
            self._group.check()
            left = max(1.0, end - time.monotonic())
            accepted, answer = (self._watcher.predict(left) if name == 'geo4d/predict'
                                else self._watcher.call(name, left))
            if accepted:
                return
            self._watcher.spin(0.3)
        raise DemoFault(f'{name} was not accepted in time ({answer or "no answer"}); '
                                 f'see the logs in {self._group.log_directory}')

    def follow(self) -> None:
        """Watch until the loop rests; a task that succeeded at a cycle's end stops it."""
        seen_cycle, end = 0, self._begun + self._options.max_seconds + 30.0
        while time.monotonic() < end:
            self._group.check()
            state = self._watcher.state
            self._say(f'{state.get("state", "?"):<12} cycle {state.get("cycles", 0)}')
            if state.get('state') in ENDED and self._has_begun():
                return
            if state.get('cycles', 0) > max(seen_cycle, 1):
                seen_cycle = state['cycles']
                if self._succeeded():
                    self._watcher.call('geo4d/stop', 5.0)
                    self._watcher.wait_for_phase(*ENDED, seconds=10.0)
                    return
            self._watcher.spin(0.2)
        self._watcher.call('geo4d/stop', 5.0)
        self._watcher.wait_for_phase(*ENDED, seconds=10.0)

    def _has_begun(self) -> bool:
        return any(values.get('state') not in ENDED for _, values in self._watcher.states)

    def _succeeded(self) -> bool:
        """The simulator's word, never the prediction's."""
        answered, status = self._watcher.call('geo4d/cell/status', 5.0)
        self._success = bool(answered and status.get('success'))
        return self._success

    def outcome(self, seconds: float) -> DemoOutcome:
        """The verdict, after the scene had a moment to settle (at most `seconds` for all questions)."""
        self._watcher.spin(min(1.0, seconds))
        success = self._succeeded()
        state = self._watcher.state
        fault = state.get('reason') or 'UNKNOWN' if state.get('state') == 'FAULT' else None
        reason = 'TASK_DONE' if success else state.get('reason') or ''
        spans = phase_spans(self._watcher.states, time.monotonic())
        cycles = max((values.get('cycles', 0) for _, values in self._watcher.states), default=0)
        return DemoOutcome(success, cycles, fault, reason, stage_times(spans), self._pids,
                           time.monotonic() - self._begun, self._recorder.pictures, self._recorder.predictions, spans,
                           reasons_by_cycle(self._watcher.states))


def reasons_by_cycle(states: list[tuple[float, LoopStatus]]) -> dict[int, str]:
    """cycle -> the last reason code that /geo4d/state gave in it."""
    return {int(values['cycles']): str(values['reason']) for _, values in states
            if values.get('reason') and values.get('cycles')}


def phase_spans(states: list[tuple[float, LoopStatus]], now: float) -> list[tuple[float, float, str]]:
    """(begin, end, phase) of every stay in a phase, from the messages of /geo4d/state."""
    changes: list[tuple[float, str]] = []
    for at, values in states:
        if not changes or changes[-1][1] != values.get('state', ''):
            changes.append((at, values.get('state', '')))
    ends = [at for at, _ in changes[1:]] + [now]
    return [(at, end, phase) for (at, phase), end in zip(changes, ends, strict=True)]


def stage_times(spans: list[tuple[float, float, str]]) -> dict[str, dict[str, float]]:
    """p50 and p95 [ms] of every phase that is a stage of a cycle."""
    names = {'OBSERVING': 'observe', 'PREDICTING': 'predict', 'PLANNING': 'plan', 'EXECUTING': 'execute',
             'SETTLING': 'settle'}
    out = {}
    for phase, stage in names.items():
        seconds = [end - begin for begin, end, name in spans if name == phase]
        if seconds:
            p50, p95 = np.percentile(np.array(seconds) * 1e3, [50, 95])
            out[stage] = {'p50': round(float(p50), 1), 'p95': round(float(p95), 1)}
    return out
