"""`geo4d benchmark scaling`: collecting and evaluating on one worker and on several, by processes and by Ray."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from geo4d_ros.cli.common import add_json_argument, checked_tasks, checkpoint_directory, weights_sha256, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many of each, on how many workers."""
    parser.add_argument('--task', default='apple', metavar='T', help='default apple')
    parser.add_argument('--demos', type=int, default=12, metavar='N', help='demonstrations recorded (default 12)')
    parser.add_argument('--episodes', type=int, default=6, metavar='N', help='closed-loop episodes (default 6)')
    parser.add_argument('--workers', type=int, nargs='+', default=[1, 2], metavar='W', help='default 1 2')
    parser.add_argument('--checkpoint', type=Path, metavar='P', help='model directory (default: the shipped one)')
    parser.add_argument('--no-ray', action='store_true', help='processes only')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, write the report, print the table."""
    from geo4d_ros.workers.pool import set_worker_environment

    set_worker_environment()  # before NumPy and the simulator come
    from geo4d_ros.bench.speed.scaling import measure
    from geo4d_ros.workers.ray_cluster import require_ray

    checked_tasks([args.task])
    if not args.no_ray:
        require_ray()
    checkpoint = checkpoint_directory(args.checkpoint)
    started = time.monotonic()
    report = measure(args.task, args.demos, args.episodes, args.workers, str(checkpoint), not args.no_ray)
    write_report('benchmark-scaling', {'model_sha256': weights_sha256(checkpoint), 'cores': os.cpu_count(),
                                       'load_average': os.getloadavg()[2], **report,
                                       'wall_s': round(time.monotonic() - started, 1)}, args.json)
    print(f'{"":<12} {"workers":<14} {"per second":>10} {"ratio":>6} {"start [s]":>10}')
    for what in ('collect', 'closed_loop'):
        for name, row in report[what].get('rows', {}).items():
            print(f'{what:<12} {name:<14} {row["per_s"]:>10.3f} {row["ratio"]:>6.2f} {row["start_s"]:>10.1f}')
        if report[what]:
            print(f'{what:<12} results {"identical" if report[what]["identical"] else "DIFFER"}')
    return 0 if all(report[what].get('identical', True) for what in ('collect', 'closed_loop')) else 3
