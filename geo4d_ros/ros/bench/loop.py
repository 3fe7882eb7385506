"""Times the closed loop of real node processes: latencies, processor time per node, image rates received."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import psutil
from sensor_msgs.msg import Image

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.loop.port import CycleSummary
from geo4d_ros.loop.record import read_record
from geo4d_ros.ros.graph.probe import MOVING, LoopProbe
from geo4d_ros.ros.graph.process_group import ProcessGroup
from geo4d_ros.ros.serve.qos import IMAGE_QOS

CAMERAS = ('/camera1/camera1', '/camera2/camera2')
ENDED = ('DONE', 'FAULT')
# Everything shares one computer here: the watchdogs of a real cell would bark at the scheduler.
PATIENT = {'camera_silence': 20.0, 'joint_state_silence': 5.0, 'execution_slack': 20.0, 'pair_age': 5.0,
           'joint_state_age': 1.0, 'future_tolerance': 0.2, 'feedback_silence': 10.0, 'answer_seconds': 10.0,
           'peer_silence': 10.0}


class Spread(TypedDict):
    """Of n values."""

    p50: float
    p95: float
    n: int


class LoopFigures(TypedDict):
    """Latencies [ms] in a record.

    camera_to_plan_ms: exposure of the pair to a gated, timed motion; plan_to_motion_ms: from there to the first
    measured motion; overhead_ms: what a cycle takes besides generator, motion and gripper.
    """

    cycles: int
    camera_to_plan_ms: Spread | None
    plan_to_motion_ms: Spread | None
    overhead_ms: Spread | None
    overhead_without_tracker_ms: Spread | None
    stages_ms: dict[str, Spread | None]


class LoopEnd(TypedDict):
    """How the run ended."""

    state: str | None
    reason: str | None


class LoopReport(LoopFigures):
    """What was measured of the running graph, too."""

    end: LoopEnd
    loop_s: float
    cpu_percent: dict[str, float]  # by node
    image_rate_hz: dict[str, float]  # by topic


def run_loop(environment: dict[str, str], folder: Path, checkpoint: str, task: str, seed: int,
             cycles: int) -> LoopReport:
    """Run the loop for `cycles` cycles (or to its end) and return the figures."""
    clock = {'use_sim_time': True}
    with ProcessGroup(environment, folder / 'logs') as group:
        group.start_node('simulated_cell', {'task': task, 'seed': seed, 'cameras': 'held-out', 'camera_seed': seed})
        group.start_node('prediction', {'checkpoint': checkpoint, 'max_age': 5.0, 'observation_timeout': 20.0, **clock})
        group.start_node('plan_executor', {'dry_run': False, 'auto': True, 'recover': True,
                                           'max_cycles': cycles, 'max_refusals': cycles,
                                           'record_directory': str(folder.resolve()), **PATIENT, **clock})
        with LoopProbe(int(environment['ROS_DOMAIN_ID'])) as probe:
            images, starts = Counter(), MotionStarts(probe)
            for name in CAMERAS:
                for topic in ('color/image_raw', 'aligned_depth_to_color/image_raw'):
                    probe.node.create_subscription(Image, f'{name}/{topic}', lambda _, t=f'{name}/{topic}':
                                                   images.update([t]), IMAGE_QOS)
            require(probe.wait_for(lambda: probe.predict(30.0)[0], 180.0),
                    f'no prediction; see the logs in {group.log_directory}', ConfigurationError)
            probe.begin(seconds=60.0)
            images.clear()
            before, begun = _processor_seconds(group), time.monotonic()
            probe.wait_for(lambda: probe.state.get('state') in ENDED, 60.0 * cycles)
            seconds = time.monotonic() - begun
            used = _processor_seconds(group)
            final = probe.state
        group.check()
    record = read_record(max(folder.glob('run-*.jsonl')))
    return {
        **figures(record, starts.times),
        'end': {'state': final.get('state'), 'reason': final.get('reason')},
        'loop_s': seconds,
        'cpu_percent': {name: 100 * (used[name] - before[name]) / seconds for name in before if name in used},
        'image_rate_hz': {topic: count / seconds for topic, count in sorted(images.items())},
    }


class MotionStarts:
    """The moments (steady clock) at which the arm began to move."""

    def __init__(self, probe: LoopProbe) -> None:
        self.times: list[float] = []
        self._moving = False
        probe.joint_listeners.append(lambda: self._hear(probe.speed > MOVING))

    def _hear(self, moving: bool) -> None:
        if moving and not self._moving:
            self.times.append(time.monotonic())
        self._moving = moving


def figures(record: list[dict[str, Any]], motion_starts: list[float]) -> LoopFigures:
    """p50 and p95 [ms] of the latencies and stages in the lines of a record."""
    cycles = [cast(CycleSummary, line) for line in record if line['type'] == 'cycle']
    planned = [line['event']['time'] for line in record
               if line['type'] == 'event' and line['event']['kind'] == 'PLANNED' and line['phase'] == 'EXECUTING']
    delays = [1e3 * min(later) for at in planned if (later := [t - at for t in motion_starts if 0 <= t - at < 2.0])]
    stages: dict[str, list[float]] = {}
    for cycle in cycles:
        for name, value in cycle.get('stages_ms', {}).items():
            stages.setdefault(name, []).append(value)
        for name, value in _timings(cycle).items():
            stages.setdefault(f'prediction.{name}', []).append(value)
    return {
        'cycles': len(cycles),
        'camera_to_plan_ms': spread([1e3 * c['observation_age_s'] for c in cycles if 'observation_age_s' in c]),
        'plan_to_motion_ms': spread(delays),
        'overhead_ms': spread(_overheads(cycles, ('generate',))),
        'overhead_without_tracker_ms': spread(_overheads(cycles, ('generate', 'track'))),
        'stages_ms': {name: spread(values) for name, values in stages.items()},
    }


def _timings(cycle: CycleSummary) -> dict[str, float]:
    reply = cycle.get('reply')
    return reply.get('timings_ms', {}) if reply else {}


def _overheads(cycles: list[CycleSummary], without: tuple[str, ...]) -> list[float]:
    """Per cycle, looking to planning less the named parts of the prediction [ms]; motion and settling not counted."""
    out = []
    for cycle in cycles:
        stages, timings = cycle.get('stages_ms', {}), _timings(cycle)
        if 'gates' in stages and all(name in timings for name in without):
            looked = sum(stages.get(name, 0.0) for name in ('observe', 'predict', 'track', 'gates'))
            out.append(looked - sum(timings[name] for name in without))
    return out


def spread(values: list[float]) -> Spread | None:
    """{'p50', 'p95', 'n'} of the values, None without any."""
    if not values:
        return None
    p50, p95 = np.percentile(values, [50, 95])
    return {'p50': round(float(p50), 1), 'p95': round(float(p95), 1), 'n': len(values)}


def _processor_seconds(group: ProcessGroup) -> dict[str, float]:
    """User and system time of every process, its children included [s]."""
    out = {}
    for name, pid in group.pids.items():
        root = psutil.Process(pid)
        out[name] = sum(sum(p.cpu_times()[:2]) for p in [root, *root.children(recursive=True)])
    return out


def dump(report: LoopFigures) -> str:
    """One line for the terminal."""
    keys = ('camera_to_plan_ms', 'plan_to_motion_ms', 'overhead_ms', 'overhead_without_tracker_ms')
    return json.dumps({key: value for key, value in report.items() if key in keys})
