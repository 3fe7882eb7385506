"""Which faults are injected, what has to come of each, and the statistics over the runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from geo4d_ros.errors import InvalidInputError


@dataclass(frozen=True)
class Fault:
    """One fault.

    where: 'cell' (parameter of the faulty cell), 'video_generator', 'gripper_tracker' (parameter of the fake
    node), 'kill' (signal 9 to the process `value`), 'service' (the operator calls `value`).
    codes: reason codes of which one has to be given. moving: injected in the middle of a motion, which it has
    to stop; others are injected there too but only have to prevent the next motion. motion: the backend.
    recover: with the executor's parameter of that name: the loop goes back a little, twice, before it gives up;
    else no motion may follow the detection.
    """

    name: str
    where: str
    value: str
    codes: tuple[str, ...]
    moving: bool = False
    motion: str = 'trajectory'
    recover: bool = False


# Whichever notices first: the watchdog, the gate before a prediction, or the generator.
_CAMERA = ('CAMERA_SILENT', 'OBSERVATION_SKEWED', 'OBSERVATION_TIMEOUT')
_ABORTED = ('MOTION_BLOCKED', 'TRACKING_ERROR', 'EXECUTION_ABORTED')
# A message that cannot be used is no message: first it is refused by name, then its sender counts as silent.
_INFO = ('OBSERVATION_INVALID', 'CAMERA_SILENT')
_JOINTS = ('ROBOT_STATE_INVALID', 'JOINT_STATES_STALLED')
_BACKEND = ('BACKEND_UNAVAILABLE', 'EXECUTION_TIMEOUT')

FAULTS: tuple[Fault, ...] = (
    Fault('camera_a_dead', 'cell', 'camera_a_dead', _CAMERA, True),
    Fault('camera_b_dead', 'cell', 'camera_b_dead', _CAMERA, True),
    Fault('cameras_swapped', 'cell', 'swapped', ('CAMERAS_SWAPPED',)),
    Fault('frame_stuck', 'cell', 'frozen', ('OBSERVATION_FROZEN',)),
    Fault('depth_zero', 'cell', 'zero_depth', ('OBSERVATION_INVALID',)),
    Fault('depth_nan', 'cell', 'nan_depth', ('OBSERVATION_INVALID',)),
    Fault('late_by_1_s', 'cell', 'late', ('OBSERVATION_STALE', 'OBSERVATION_TIMEOUT')),
    Fault('clock_back', 'cell', 'clock_back', ('CLOCK_JUMP',), True),
    Fault('wrong_encoding', 'cell', 'wrong_encoding', ('OBSERVATION_INVALID',)),
    Fault('no_intrinsics', 'cell', 'no_intrinsics', _INFO),
    Fault('lens_unknown', 'cell', 'lens_unknown', _INFO),
    Fault('binning', 'cell', 'binning', _INFO),
    Fault('region_of_interest', 'cell', 'region_of_interest', _INFO),
    Fault('depth_not_aligned', 'cell', 'depth_not_aligned', ('OBSERVATION_INVALID',)),
    Fault('depth_unit', 'cell', 'depth_unit', ('OBSERVATION_INVALID',)),
    Fault('image_cut', 'cell', 'image_cut', ('OBSERVATION_INVALID',)),
    Fault('images_of_the_future', 'cell', 'future', ('CLOCK_JUMP',)),
    Fault('transform_of_the_future', 'cell', 'transform_future', ('TRANSFORM_MISSING',)),
    Fault('transform_missing', 'cell', 'transform_missing', ('TRANSFORM_MISSING',)),
    Fault('transform_identity', 'cell', 'transform_identity', ('TRANSFORM_IDENTITY',)),
    Fault('generator_raises', 'video_generator', 'raise', ('PREDICTION_FAILED',)),
    Fault('generator_hangs', 'video_generator', 'hang', ('PREDICTION_TIMEOUT',)),
    Fault('prediction_nan', 'video_generator', 'nan', ('PREDICTION_INVALID', 'PREDICTION_FAILED')),
    Fault('tracker_lost', 'gripper_tracker', 'lost', ('TRACK_LOST',)),
    Fault('tracker_lost_recovering', 'gripper_tracker', 'lost', ('TRACK_LOST',), recover=True),
    Fault('joint_states_stall', 'cell', 'joints_stall', ('JOINT_STATES_STALLED',), True),
    Fault('joints_without_positions', 'cell', 'joints_no_positions', _JOINTS, True),
    Fault('joints_nan', 'cell', 'joints_nan', _JOINTS, True),
    Fault('joints_velocity_nan', 'cell', 'joints_velocity_nan', _JOINTS, True),
    Fault('joints_named_twice', 'cell', 'joints_doubled', _JOINTS, True),
    Fault('joints_of_two_sources', 'cell', 'joints_two_sources', _JOINTS, True),
    Fault('gripper_joint_silent', 'cell', 'gripper_joint_silent', _JOINTS, True),
    Fault('description_changed', 'cell', 'description_changed', ('MODEL_CHANGED',)),
    Fault('feedback_nan', 'cell', 'feedback_nan', ('TRACKING_ERROR', 'MOTION_BLOCKED')),
    Fault('feedback_empty', 'cell', 'feedback_empty', ('TRACKING_ERROR', 'MOTION_BLOCKED')),
    Fault('goal_rejected', 'cell', 'goal_rejected', ('GOAL_REJECTED',)),
    Fault('execution_aborted', 'cell', 'execution_aborted', _ABORTED, True),
    Fault('execution_aborted_recovering', 'cell', 'execution_aborted', _ABORTED, True, recover=True),
    Fault('execution_hangs', 'cell', 'execution_hangs', _BACKEND),
    Fault('execution_endless', 'cell', 'execution_endless', ('EXECUTION_TIMEOUT',)),
    Fault('gripper_fails', 'cell', 'gripper_fails', ('GRIPPER_FAILED',)),
    Fault('operator_stop', 'service', '/geo4d/stop', ('OPERATOR_STOP',), True),
    Fault('cancel_ignored', 'cell', 'deaf', ('OPERATOR_STOP', 'STOP_NOT_CONFIRMED'), True),
    Fault('prediction_killed', 'kill', 'prediction', ('PEER_DEAD',), True),
    Fault('executor_killed', 'kill', 'plan_executor', ('PEER_DEAD',), True),
    Fault('cell_killed', 'kill', 'cell',
          ('BACKEND_UNAVAILABLE', 'JOINT_STATES_STALLED', 'CAMERA_SILENT', 'STOP_NOT_CONFIRMED')),
    Fault('moveit_absent', 'kill', 'move_group', ('BACKEND_UNAVAILABLE',), False, 'moveit'),
    Fault('moveit_partial_path', 'move_group', 'partial', ('PATH_INCOMPLETE',), False, 'moveit'),
    Fault('moveit_rejects', 'move_group', 'reject', ('GOAL_REJECTED',), False, 'moveit'),
    Fault('moveit_aborts', 'move_group', 'abort', ('EXECUTION_ABORTED', 'TRACKING_ERROR'), False, 'moveit'),
    Fault('moveit_hangs', 'move_group', 'hang', ('EXECUTION_TIMEOUT', 'BACKEND_UNAVAILABLE'), False, 'moveit'),
    Fault('moveit_operator_stop', 'service', '/geo4d/stop', ('OPERATOR_STOP',), True, 'moveit'),
)


@dataclass(frozen=True)
class Run:
    """One injection. Times in [ms], None where there is nothing to measure.

    code: the first expected code that was heard, '' when none was; detection_ms: from the injection to it;
    stop_command_ms: from there to the cancel at the controller; standstill_ms: from detection to rest;
    goals_after: motion goals sent after detection; diagnosed: /diagnostics said so; alive: no process died.
    """

    code: str
    detection_ms: float | None
    stop_command_ms: float | None
    standstill_ms: float | None
    goals_after: int
    diagnosed: bool
    alive: bool
    recovered: bool
    note: str = ''

    @property
    def ok(self) -> bool:
        """Detected under the right code, reported, no motion begun afterwards, and the loop works again."""
        return bool(self.code) and self.goals_after == 0 and self.diagnosed and self.alive and self.recovered


def select(names: str) -> tuple[Fault, ...]:
    """Faults by comma-separated names, all for ''; raises InvalidInputError for a name that is none."""
    wanted = [name.strip() for name in names.split(',') if name.strip()]
    known = {fault.name: fault for fault in FAULTS}
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise InvalidInputError(f'unknown faults {unknown}; known are {", ".join(known)}')
    return tuple(known[name] for name in wanted) or FAULTS


class FaultRow(TypedDict):
    """All runs of one fault; code: every code that was heard first."""

    ok: bool
    runs: int
    runs_ok: int
    code: list[str]
    detection_ms: dict[str, float] | None  # p50 and max, as the next two
    standstill_ms: dict[str, float] | None
    stop_command_ms: dict[str, float] | None
    goals_after_detection: int
    recovered: bool
    notes: list[str]


class FaultReport(TypedDict):
    """All faults; ok: how many of the n were handled in every run."""

    faults: dict[str, FaultRow]
    detection_to_stop_ms_p99: float | None
    detection_to_stop_n: int
    detection_to_stop_ms: list[float]
    ok: int
    n: int


def summarise(runs: dict[str, list[Run]]) -> FaultReport:
    """The report: per fault ok, code and times (p50, max), and how long from detection to the stop command."""
    faults = {name: _summary(of_fault) for name, of_fault in runs.items()}
    commands = _known(run.stop_command_ms for of_fault in runs.values() for run in of_fault)
    return {
        'faults': faults,
        'detection_to_stop_ms_p99': float(np.percentile(commands, 99)) if commands else None,
        'detection_to_stop_n': len(commands),
        'detection_to_stop_ms': sorted(round(value, 2) for value in commands),
        'ok': sum(fault['ok'] for fault in faults.values()),
        'n': len(faults),
    }


def quantiles(values: list[float]) -> dict[str, float] | None:
    """{'p50', 'p99', 'max', 'n'} of the values, None without any."""
    if not values:
        return None
    p50, p99 = np.percentile(values, [50, 99])
    return {'p50': float(p50), 'p99': float(p99), 'max': max(values), 'n': len(values)}


def _summary(runs: list[Run]) -> FaultRow:
    return {
        'ok': all(run.ok for run in runs),
        'runs': len(runs),
        'runs_ok': sum(run.ok for run in runs),
        'code': sorted({run.code for run in runs}),
        'detection_ms': _spread(run.detection_ms for run in runs),
        'standstill_ms': _spread(run.standstill_ms for run in runs),
        'stop_command_ms': _spread(run.stop_command_ms for run in runs),
        'goals_after_detection': sum(run.goals_after for run in runs),
        'recovered': all(run.recovered for run in runs),
        'notes': sorted({run.note for run in runs if run.note}),
    }


def _spread(values: Iterable[float | None]) -> dict[str, float] | None:
    known = _known(values)
    return {'p50': float(np.median(known)), 'max': max(known)} if known else None


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
