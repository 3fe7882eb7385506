"""`geo4d benchmark stop`: how long the operator's stop takes to reach the controller."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from geo4d_ros.cli.common import add_json_argument, write_report
from geo4d_ros.errors import InvalidInputError, require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--stops', type=int, default=200, help='stops that are timed (default 200)')
    parser.add_argument('--load', action='store_true', help='beside paths of 100 000 poses, 4 images at 30 Hz, bursts '
                        'of 200 calls of every service and 50 open calls, with generator and tracker running')
    parser.add_argument('--logs', type=Path, default=None, help="folder for the nodes' logs (default: a temporary one)")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """0 when every stop reached the controller and every call was answered, 3 otherwise."""
    require(args.stops >= 1, f'--stops should be at least 1 but got {args.stops}', InvalidInputError)
    from geo4d_ros.ros.serve.environment import loopback_environment

    environment = loopback_environment()
    os.environ.update(environment)  # before rclpy is imported
    from geo4d_ros.ros.bench.stop import run_stops
    from geo4d_ros.ros.graph.process_group import end_on_signals

    end_on_signals()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.logs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        figures = run_stops(environment, folder, args.stops, args.load)
    report = {'load': args.load, 'cpu_count': os.cpu_count(), 'load_average': os.getloadavg()[0], **figures,
              'wall_s': time.monotonic() - start}
    write_report('benchmark_stop', report, args.json)
    print(f'call of /geo4d/stop to cancel: p50 {report["stop_ms_p50"]:.1f} ms, p99 {report["stop_ms_p99"]:.1f} ms, '
          f'{report["missed"]} of {args.stops} missed; {report["answered"]} of {report["calls"]} calls answered')
    return 0 if not report['missed'] and report['answered'] == report['calls'] else 3
