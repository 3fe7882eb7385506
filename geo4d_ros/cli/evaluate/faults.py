"""`geo4d evaluate faults`: break the running nodes in every listed way and measure what they do about it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from geo4d_ros.bench.faults import Run, quantiles, select, summarise
from geo4d_ros.cli.common import add_json_argument, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--runs', type=int, default=5, help='injections per fault (default 5)')
    parser.add_argument('--only', default='', metavar='NAME,...', help='only these faults')
    parser.add_argument('--stops', type=int, default=0,
                        help='also time so many operator stops per backend, from the service to the controller')
    parser.add_argument('--seed', type=int, default=0, help='seed of the moments of injection')
    parser.add_argument('--patient', action='store_true',
                        help='watchdogs with long deadlines, for a machine that is busy with other work')
    parser.add_argument('--logs', type=Path, default=None, help="folder for the nodes' logs (default: a temporary one)")
    add_json_argument(parser)


PATIENT = {'camera_silence': 5.0, 'joint_state_silence': 2.0, 'execution_slack': 10.0, 'pair_age': 3.0,
           'joint_state_age': 0.5, 'future_tolerance': 0.2, 'feedback_silence': 4.0, 'answer_seconds': 4.0,
           'peer_silence': 4.0}


def run(args: argparse.Namespace) -> int:
    """0 when every run of every fault was handled, 3 otherwise."""
    faults = select(args.only)
    from geo4d_ros.ros.serve.environment import loopback_environment

    environment = loopback_environment() | {'MUJOCO_GL': 'egl'}
    os.environ.update(environment)  # before rclpy is imported
    from geo4d_ros.ros.bench.faults import FaultBench
    from geo4d_ros.ros.graph.process_group import end_on_signals

    end_on_signals()

    start = time.monotonic()
    results: dict[str, list[Run]] = {fault.name: [] for fault in faults}
    stops: dict[str, dict[str, float] | None] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for motion in ('trajectory', 'moveit'):
            chosen = [fault for fault in faults if fault.motion == motion]
            if not chosen:
                continue
            logs = (args.logs or Path(temporary)) / motion
            with FaultBench(environment, logs, motion, PATIENT if args.patient else {}, args.seed) as bench:
                for fault in chosen:
                    for number in range(args.runs):
                        result = bench.run(fault)
                        results[fault.name].append(result)
                        _progress(fault.name, number + 1, args.runs, result)
                stops[motion] = quantiles(bench.stop_latencies(args.stops))
    summary = summarise(results)
    report = {'seed_start': args.seed, 'runs': args.runs, 'patient': args.patient, **summary,
              'stop_service_to_controller_ms': stops,
              'wall_s': time.monotonic() - start}
    write_report('faults', report, args.json)
    print(f'{summary["ok"]} of {summary["n"]} faults handled in every one of {args.runs} runs; '
          f'detection to stop command p99 {summary["detection_to_stop_ms_p99"]} ms')
    return 0 if summary['ok'] == summary['n'] else 3


def _progress(name: str, number: int, runs: int, result: Run) -> None:
    def show(value: float | None) -> str:
        return '-' if value is None else f'{value:.0f}'

    print(f'{name} {number}/{runs}: {"ok" if result.ok else "NOT OK"} {result.code or "no code"}, detected after '
          f'{show(result.detection_ms)} ms, stop {show(result.stop_command_ms)} ms, rest '
          f'{show(result.standstill_ms)} ms{"" if result.ok else " " + repr(result)}', file=sys.stderr, flush=True)
