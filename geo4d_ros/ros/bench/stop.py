"""Times /geo4d/stop: from the call to the cancel at the controller, alone or under load."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TypedDict

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger
from tqdm import tqdm

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.ros.graph.process_group import ProcessGroup
from geo4d_ros.ros.serve.qos import SERVICE_QOS

LOAD = ('images', 'plans', 'calls')
CANCEL_SECONDS = 20.0
PAUSE = 0.1  # [s] between stops, longer than it takes to answer one
READY_SECONDS = 120.0


class StopCaller:
    """The operator: a node of its own that calls the service."""

    def __init__(self, domain_id: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = rclpy.create_node('stop_bench', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._client = self._node.create_client(Trigger, '/geo4d/stop', qos_profile=SERVICE_QOS)

    def wait(self, seconds: float) -> bool:
        """Until the service is known, and the way of its answers had a moment to be found."""
        end = time.monotonic() + seconds
        while not self._client.service_is_ready():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        self.spin(0.5)
        return True

    def spin(self, seconds: float) -> None:
        """Listen for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(left, 0.05))

    def call(self) -> float:
        """Call without waiting; the steady time [s] of the call."""
        begun = time.monotonic()
        self._client.call_async(Trigger.Request())
        return begun

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)


class LoadCounts(TypedDict, total=False):
    """Calls of all services under load, and how many were answered within 10 s."""

    calls: int
    answered: int
    slowest_answer_s: float


class StopReport(LoadCounts):
    """From a call of /geo4d/stop to the cancel at the controller; missed: stops that did not reach it."""

    stop_ms_p50: float
    stop_ms_p99: float
    stop_ms_max: float
    stops: int
    missed: int


def run_stops(environment: dict[str, str], folder: Path, stops: int, load: bool) -> StopReport:
    """Call /geo4d/stop `stops` times beside the real executor (and generator and tracker under load)."""
    cancels, counts = folder / 'cancels', folder / 'calls.json'
    module = ('-m', 'geo4d_ros.ros.bench.stop_load')
    with ProcessGroup(environment, folder / 'logs') as group, contextlib.ExitStack() as stack:
        group.start('controller', (*module, 'controller', str(cancels)))
        group.start_node('plan_executor')
        if load:
            group.start_node('prediction')
        caller = StopCaller(int(environment['ROS_DOMAIN_ID']))
        stack.callback(caller.close)
        require(caller.wait(READY_SECONDS), f'no /geo4d/stop; see {group.log_directory}', ConfigurationError)
        if load:
            for role in LOAD:
                group.start(role, (*module, role, str(counts)))
            caller.spin(8.0)  # the long path is made, the first bursts are under way
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, -10)  # what times is not part of the load
        times, missed = [], 0
        for _ in tqdm(range(stops), desc='stops', unit='stop'):
            took = _time_stop(caller, cancels)
            if took is None:
                missed += 1
            else:
                times.append(took)
            caller.spin(PAUSE)
        if load:
            _await_counts(caller, counts)
        group.check()
    require(bool(times), 'no stop reached the controller', ConfigurationError)
    p50, p99 = np.percentile(times, [50, 99])
    answers: LoadCounts = json.loads(counts.read_text()) if counts.exists() else {'calls': 0, 'answered': 0}
    return {'stop_ms_p50': float(p50), 'stop_ms_p99': float(p99), 'stop_ms_max': max(times), 'stops': stops,
            'missed': missed, **answers}


def _await_counts(caller: StopCaller, counts: Path) -> None:
    """The bursts are over when the callers write their counts for the first time."""
    end = time.monotonic() + 120.0
    while not counts.exists() and time.monotonic() < end:
        caller.spin(0.2)
    caller.spin(3.0)


def _time_stop(caller: StopCaller, cancels: Path) -> float | None:
    """[ms] from a call to the first cancel that came after it, None when none comes."""
    called = caller.call()
    while time.monotonic() < called + CANCEL_SECONDS:
        caller.spin(0.005)
        after = [at for at in _times(cancels) if at >= called]
        if after:
            return (after[0] - called) * 1e3
    return None


def _times(file: Path) -> list[float]:
    lines = file.read_text().splitlines()[-50:] if file.exists() else []
    return [float(line) for line in lines if line]
