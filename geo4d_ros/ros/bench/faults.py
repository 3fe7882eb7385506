"""Runs the loop with real node processes around injectable fakes, breaks it, and measures what happens.

The fakes live in the source tree's test/fakes and are never installed: a normal start has nothing to inject with.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TypedDict

from std_msgs.msg import String

from geo4d_ros.bench.faults import Fault, Run
from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.resources import share_directory
from geo4d_ros.ros.graph.probe import MOVING, LoopProbe
from geo4d_ros.ros.graph.process_group import ParameterValue, ProcessGroup

RESTING = ('IDLE', 'DONE', 'FAULT')
SIM = {'use_sim_time': True}
DETECTION_SECONDS, END_SECONDS, READY_SECONDS = 30.0, 40.0, 60.0
EXECUTOR = {'dry_run': False, 'auto': True, 'speed': 0.05, 'predict_seconds': 8.0}


def fakes_directory() -> Path:
    """test/fakes of the source tree; ConfigurationError where only the package is installed."""
    path = share_directory() / 'test' / 'fakes'
    require(path.is_dir(), f'{path} is missing: faults can only be injected in a source checkout', ConfigurationError)
    return path


class LogEntry(TypedDict):
    """What the faulty cell tells: a goal, a cancel or an injected fault, and when [s, steady clock]."""

    event: str
    time: float


class FaultBench:
    """The graph of one motion backend, and the operator's probe in it. Use as a context manager.

    patience: parameters of the executor that differ from its defaults.
    """

    def __init__(self, environment: dict[str, str], log_directory: Path, motion: str,
                 patience: Mapping[str, ParameterValue], seed: int) -> None:
        self._fakes, self._motion, self._patience = fakes_directory(), motion, patience
        self._random = random.Random(seed)
        self.group = ProcessGroup(environment, log_directory)
        self._start_all()
        self.probe = LoopProbe(int(environment['ROS_DOMAIN_ID']), '/faulty_cell/joint_states')
        self.log: list[LogEntry] = []
        self.probe.node.create_subscription(String, '/faulty_cell/log',
                                            lambda m: self.log.append(json.loads(m.data)), 50)

    def __enter__(self) -> FaultBench:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.probe.close()
        self.group.close()

    # --- the graph ---

    def _start_all(self) -> None:
        self._start('cell')
        self._start('prediction')
        if self._motion == 'moveit':
            self._start('move_group')
        self._start('plan_executor')

    def _start(self, name: str) -> None:
        scripts = {'cell': 'faulty_cell.py', 'prediction': 'prediction.py', 'move_group': 'moveit.py'}
        if name == 'plan_executor':
            self.group.start_node(name, {**SIM, **EXECUTOR, 'motion': self._motion, **self._patience})
        else:
            parameters = {'camera_rate': 6.0} if name == 'cell' else SIM
            self.group.start_node(name, parameters, command=[str(self._fakes / scripts[name])])

    # --- one run ---

    def run(self, fault: Fault) -> Run:
        """Bring the arm into motion, inject, watch, repair, and see whether the loop works again."""
        trouble = self._bring_into_motion(fault.recover)
        if trouble:
            return Run('', None, None, None, 0, False, True, False, trouble)
        self.probe.spin(self._random.uniform(0.0, 0.4))
        seen, heard = len(self.probe.states), len(self.probe.errors)
        injected = self._inject(fault)
        code, detected = self._await_code(fault, seen, injected)
        ended = self.probe.wait_for(
            lambda: self._loop_ended(fault) and (fault.value == 'cell' or not self.probe.speed > MOVING), END_SECONDS)
        self.probe.spin(1.2)  # diagnostics come at 1 Hz; and nothing may start to move again
        alive = self._alive(fault)
        goals = sum(entry['event'] == 'goal' and entry['time'] > detected + 0.005 for entry in self.log)
        if fault.name == 'cancel_ignored':
            goals -= 2  # the escalated stop is a goal, the order to stand, and is repeated once
        goals -= 2 if fault.recover else 0
        diagnosed = fault.where == 'service' or fault.value == 'deaf' or len(self.probe.errors) > heard
        note = '' if ended else f'did not come to rest: {self.probe.state.get("state")}'
        times = self._times(fault, injected, detected) if code else (None, None, None)
        recovered = self._recover(fault)
        return Run(code, *times, max(goals, 0), diagnosed, alive, recovered and ended, note)

    def stop_latencies(self, n: int) -> list[float]:
        """From the call of /geo4d/stop in the middle of a motion to the cancel at the controller, n times [ms]."""
        out = []
        for _ in range(n):
            if self._bring_into_motion():
                continue
            self.probe.spin(self._random.uniform(0.0, 0.4))
            self.log.clear()
            called = time.monotonic()
            self.probe.call('/geo4d/stop')
            self.probe.wait_for(lambda: any(entry['event'] == 'cancel' for entry in self.log), DETECTION_SECONDS)
            out += [(entry['time'] - called) * 1e3 for entry in self.log if entry['event'] == 'cancel'][:1]
        return out

    def _bring_into_motion(self, recover: bool = False) -> str:
        """Empty when the arm moves under the closed loop, else what went wrong."""
        self._clear()
        if self.probe.state.get('state') not in RESTING:
            self.probe.call('/geo4d/stop')
        self.probe.wait_for_phase(*RESTING, seconds=END_SECONDS)
        if self.probe.state.get('state') == 'FAULT':
            self.probe.call('/geo4d/reset')
        self.probe.set_parameter('/plan_executor', 'recover', recover)
        try:
            self.probe.begin(seconds=READY_SECONDS)
        except TimeoutError as error:
            return str(error)
        moves = self.probe.wait_for(
            lambda: self.probe.state.get('state') == 'EXECUTING' and self.probe.speed > 2 * MOVING, END_SECONDS)
        return '' if moves else f'no motion: {self.probe.state}'

    def _inject(self, fault: Fault) -> float:
        self.log.clear()
        if fault.name == 'gripper_fails':
            self.probe.set_parameter('/gripper_tracker', 'fault', 'grip')
        before = time.monotonic()
        if fault.where == 'kill':
            self.group.kill(fault.value)
        elif fault.where == 'service':
            self.probe.call(fault.value)
        else:
            node = {'cell': '/simulated_cell'}.get(fault.where, f'/{fault.where}')
            require(self.probe.set_parameter(node, 'fault', fault.value), f'{node} took no fault', ConfigurationError)
        if fault.value == 'deaf':
            before = time.monotonic()
            self.probe.call('/geo4d/stop')
            return before
        return next((entry['time'] for entry in self.log if entry['event'] == 'fault'), before)

    def _await_code(self, fault: Fault, seen: int, injected: float) -> tuple[str, float]:
        """The first expected code after the injection and when it was given, on the steady clock."""
        found: list[tuple[str, float]] = []

        def heard() -> bool:
            for arrival, values in self.probe.states[seen:]:
                report = values.get('report') or {}
                codes = [c for c in (values.get('reason'), report.get('reason')) if c in fault.codes]
                time_said = values.get('time', arrival)
                if codes and time_said >= injected:
                    found.append((codes[0], time_said))
                    return True
            return False

        self.probe.wait_for(heard, DETECTION_SECONDS)
        return found[0] if found else ('', float('inf'))

    def _loop_ended(self, fault: Fault) -> bool:
        return fault.value == 'plan_executor' or self.probe.state.get('state') in RESTING

    def _times(self, fault: Fault, injected: float, detected: float) -> tuple[float | None, ...]:
        cancels = [entry['time'] for entry in self.log if entry['event'] == 'cancel' and entry['time'] >= injected]
        stopping = fault.moving and fault.value != 'plan_executor'
        command = (cancels[0] - detected) * 1e3 if stopping and cancels else None
        standstill = max(0.0, self.probe.last_motion - detected) * 1e3 if fault.value != 'cell' else None
        return (detected - injected) * 1e3, command and max(command, 0.0), standstill

    def _alive(self, fault: Fault) -> bool:
        expected = {'cell', 'prediction', 'plan_executor'} - {fault.value if fault.where == 'kill' else ''}
        return expected <= set(self.group.pids)

    def _clear(self) -> None:
        for node in ('/simulated_cell', '/video_generator', '/gripper_tracker'):
            self.probe.set_parameter(node, 'fault', 'none')
        if self._motion == 'moveit':
            self.probe.set_parameter('/move_group', 'fault', 'none')

    def _recover(self, fault: Fault) -> bool:
        """The fault ends, the operator resets, and one cycle is completed within five tries."""
        if fault.where == 'kill':
            self._start(fault.value)
            self.probe.spin(2.0)
        self._clear()
        self.probe.call('/geo4d/stop')
        self.probe.wait_for_phase(*RESTING, seconds=END_SECONDS)
        self.probe.call('/geo4d/reset')
        for _ in range(5):
            try:
                self.probe.begin('/geo4d/step', READY_SECONDS)
            except TimeoutError:
                return False
            self.probe.wait_for_phase('DONE', 'FAULT', seconds=END_SECONDS)
            if self.probe.state.get('reason') in ('STEP_DONE', 'TASK_DONE'):
                return True
            self.probe.call('/geo4d/reset')
            self.probe.spin(0.5)  # clocks and transforms of a busy machine come in late, all at once
        return False
