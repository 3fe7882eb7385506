"""Every decision on disk, one JSON object a line, and the proof that they can be reproduced.

A file starts with a `header` (configuration, limits, scene, robot, seed). `event` lines hold an event of
the state machine and what followed from it, `plan` lines a plan with the robot state and the verdict
of the gates, `cycle` lines the summary of one cycle (stamps, ages, gate values, decision, timings).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from geo4d_ros.errors import ConfigurationError, InvalidInputError, require
from geo4d_ros.loop.events import Action, ActionRecord, Event, EventKind
from geo4d_ros.loop.machine import LoopConfig, LoopState, Phase, Recovery, step
from geo4d_ros.motion.collision import Obstacle, Scene
from geo4d_ros.motion.gripper_segments import GripperRecord
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import GateValues, RobotState, TimedMotion, plan_trajectory
from geo4d_ros.motion.timing import MoveSegment
from geo4d_ros.reasons import Measured, Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.types import Plan

if TYPE_CHECKING:
    from typing import Unpack

    from geo4d_ros.loop.port import CycleSummary

VERSION = 2
_TOLERANCE = 1e-6  # s, rad: what another CPU may round differently


class PlanRecord(TypedDict):
    """A `types.Plan` in a record, its arrays as lists."""

    id: str
    T_base_gripper: list[list[list[float]]]
    opening: list[float]
    time_from_start: list[float]
    observation_stamp: int
    T_base_gripper_start: list[list[float]]
    opening_start: float
    confidence: list[float] | None


class RobotStateRecord(TypedDict):
    """What a replay needs of a `RobotState`."""

    q: list[float]
    dq: list[float]
    opening: float
    stamp: int
    gripper_closed: bool | None


class Decision(TypedDict):
    """What followed from an event."""

    phase: str
    reason: str | None  # code
    actions: list[ActionRecord]


class MoveVerdict(TypedDict):
    """A motion of the arm without its samples: length [s], joints at its end (j,) [rad]."""

    duration: float
    end: list[float]


class MotionVerdict(TypedDict):
    """A motion that the gates let through."""

    poses: int
    segments: list[MoveVerdict | GripperRecord]
    gate_values: GateValues
    truncated_by: str | None  # code


class RefusalVerdict(TypedDict):
    """What the gates did not let through, and why."""

    refused: str  # code
    detail: str
    values: Measured


class Recorder:
    """Writes one run to a new JSONL file. Use as a context manager.

    Every line is handed to the system at once, so a killed process loses none; plans and cycles are also
    synced to the disk. Events are not, since a stop must not wait for a disk.
    """

    def __init__(self, path: Path) -> None:
        self._started = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, 'x', encoding='utf-8')  # noqa: SIM115 - closed by close()
        except OSError as error:
            if path.exists():
                raise ConfigurationError(f'the record {path} exists; choose a new name for every run') from error
            raise ConfigurationError(f'cannot write the record {path}: {error.strerror}; choose a writable place') \
                from error

    def write(self, kind: str, values: Mapping[str, Any], sync: bool = True) -> None:
        """Append one line. Raises OSError when the disk is full: a run must not go on unrecorded."""
        self._file.write(json.dumps({'type': kind, **values}, default=_plain) + '\n')
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def header(self, config: LoopConfig, limits: MotionLimits, scene: Scene, robot: RobotModel,
               seed: int | None = None, **extra: Any) -> None:
        """What the run was started with; the first line."""
        self.write('header', {'version': VERSION, 'config': asdict(config), 'limits': asdict(limits),
                              'scene': [asdict(o) for o in scene.obstacles], 'robot': robot.spec, 'seed': seed,
                              **extra})

    def event(self, event: Event, before: LoopState, state: LoopState, actions: tuple[Action, ...]) -> None:
        """An event and what followed. The first line tells the whole state before it, later ones its time [s]:

        a loop may have run before this record began, and ticks that change nothing else are left out.
        """
        start = {} if self._started else {'state': before.to_json()}
        self._started = True
        values = {'event': event.to_json(), 'before': before.now, **start, **_decision(state, actions)}
        self.write('event', values, sync=False)

    def plan(self, plan: Plan, state: RobotState, now: int, k: int, result: TimedMotion | Refusal) -> None:
        """A plan and the verdict of the gates on it."""
        self.write('plan', {'plan': asdict(plan), 'state': asdict(state), 'now': now, 'k': k,
                            'result': _verdict(result)})

    def cycle(self, **values: Unpack[CycleSummary]) -> None:
        """The summary of one cycle: stamps, ages, gate values, decision, timings, seed."""
        self.write('cycle', values)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


class Loop:
    """The state machine with its state, recorded. Not thread-safe: hold a lock around `handle`."""

    def __init__(self, config: LoopConfig, recorder: Recorder | None = None) -> None:
        self.config = config
        self.state = LoopState()
        self._recorder = recorder

    def handle(self, event: Event) -> tuple[Action, ...]:
        """Advance by one event and return what to do. Ticks that change nothing are not recorded."""
        before = self.state
        self.state, actions = step(before, event, self.config)
        idle_tick = event.kind is EventKind.TICK and not actions and self.state.phase is before.phase
        if self._recorder is not None and not idle_tick:
            self._recorder.event(event, before, self.state, actions)
        return actions


def replay(path: Path) -> list[str]:
    """Feed a record through the same code again; one line for every decision that differs.

    Raises InvalidInputError when the file is no record. A truncated last line (power cut) is left out.
    """
    lines = read_record(path)
    header = lines[0]
    config = LoopConfig(**header['config'])
    limits = MotionLimits.from_dict(header['limits'])
    scene = Scene(tuple(Obstacle(**{**o, 'centre': tuple(o['centre']), 'size': tuple(o['size'])})
                        for o in header['scene']))
    robot = RobotModel.from_urdf(**header['robot']) if any(line['type'] == 'plan' for line in lines) else None
    state = LoopState()
    differences = []
    for number, line in enumerate(lines, start=1):
        if line['type'] == 'event':
            state = _loop_state(line['state']) if 'state' in line else replace(state, now=line['before'])
            state, actions = step(state, Event.from_json(line['event']), config)
            differences += _compare(number, {k: line[k] for k in _decision(state, ())}, _decision(state, actions))
        elif line['type'] == 'plan' and robot is not None:
            result = plan_trajectory(plan_from_json(line['plan']), _state_from_json(line['state']), limits, scene,
                                     robot, line['now'], line['k'])
            differences += _compare(number, line['result'], _verdict(result))
    return differences


def read_record(path: Path) -> list[dict[str, Any]]:
    """The lines of a record; raises InvalidInputError when it is none."""
    try:
        texts = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f'cannot read the record {path}: {error}') from error
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            if number == len(texts) and number > 1:
                break
            raise InvalidInputError(f'{path} line {number} is not JSON: {error.msg}') from error
        require(isinstance(line, dict) and 'type' in line, f'{path} line {number} is no record line')
        lines.append(line)
    good = bool(lines) and lines[0]['type'] == 'header' and lines[0].get('version') == VERSION
    require(good, f'{path} is no record of version {VERSION}: its first line should be a header')
    return lines


def plan_from_json(values: PlanRecord) -> Plan:
    """The plan a record holds."""
    opening, times, T_start = (np.array(v, dtype=np.float64) for v in
                               (values['opening'], values['time_from_start'], values['T_base_gripper_start']))
    confidence = values['confidence']
    return Plan(values['id'], np.array(values['T_base_gripper'], dtype=np.float64).reshape(-1, 4, 4), opening, times,
                values['observation_stamp'], T_start, values['opening_start'],
                None if confidence is None else np.array(confidence, dtype=np.float64))


def _loop_state(values: dict[str, Any]) -> LoopState:
    """The state of the loop that a record begins with."""
    plain = dict(values)
    plain['phase'] = Phase(values['phase'])
    plain['reason'] = Reason[values['reason']] if values['reason'] else None
    plain['recovery'] = Recovery(values['recovery']) if values['recovery'] else None
    plain['positions'] = tuple(tuple(p) for p in values['positions'])
    plain['segments'], plain['used_plans'] = tuple(values['segments']), tuple(values['used_plans'])
    return LoopState(**plain)


def _state_from_json(values: RobotStateRecord) -> RobotState:
    return RobotState(np.array(values['q'], dtype=np.float64), np.array(values['dq'], dtype=np.float64),
                      values['opening'], values['stamp'], values['gripper_closed'])


def _decision(state: LoopState, actions: tuple[Action, ...]) -> Decision:
    return {'phase': state.phase.value, 'reason': state.reason and state.reason.code,
            'actions': [action.to_json() for action in actions]}


def _verdict(result: TimedMotion | Refusal) -> MotionVerdict | RefusalVerdict:
    """What a replay compares: the refusal, or the motion without its samples."""
    if isinstance(result, Refusal):
        return {'refused': result.reason.code, 'detail': result.detail, 'values': result.values}
    segments: list[MoveVerdict | GripperRecord] = []
    for s in result.segments:
        segments.append({'duration': s.duration, 'end': s.q[-1].tolist()} if isinstance(s, MoveSegment)
                        else s.to_json())
    cut = result.truncated_by
    return {'poses': result.poses, 'segments': segments, 'gate_values': result.gate_values,
            'truncated_by': cut.reason.code if cut else None}


def _compare(number: int, recorded: Any, again: Any, where: str = '') -> list[str]:
    """Differences of two plain trees, numbers up to the tolerance."""
    again = json.loads(json.dumps(again, default=_plain))
    if isinstance(recorded, dict) and isinstance(again, dict) and recorded.keys() == again.keys():
        return [d for key in recorded for d in _compare(number, recorded[key], again[key], f'{where}.{key}')]
    if isinstance(recorded, list) and isinstance(again, list) and len(recorded) == len(again):
        return [d for i, pair in enumerate(zip(recorded, again, strict=True))
                for d in _compare(number, *pair, f'{where}[{i}]')]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (recorded, again))
    same = recorded == again or (numbers and (abs(recorded - again) <= _TOLERANCE * max(1.0, abs(recorded))
                                              or (recorded != recorded and again != again)))
    return [] if same else [f'line {number}{where}: recorded {recorded!r}, now {again!r}']


def _plain(value: Any) -> Any:
    if hasattr(value, 'tolist'):
        return value.tolist()
    raise TypeError(f'{type(value).__name__} is not JSON')
