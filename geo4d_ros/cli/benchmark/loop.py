"""`geo4d benchmark loop`: how fast the running nodes are, from the cameras to the motion."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from geo4d_ros.cli.common import add_json_argument, checked_tasks, weights_sha256, write_report
from geo4d_ros.errors import InvalidInputError, require
from geo4d_ros.resources import find_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--cycles', type=int, default=20, help='cycles of the loop (default 20)')
    parser.add_argument('--task', default='apple', help='cereal, spatula or apple (default apple)')
    parser.add_argument('--seed', type=int, default=500_000, help='scene and cameras (default 500000)')
    parser.add_argument('--checkpoint', default='geo4d-sim-small',
                        help='model directory or the name of a shipped one (default geo4d-sim-small)')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """0 when the loop ran its cycles or finished the task, 3 when it ended in a fault."""
    require(args.cycles >= 1, f'--cycles should be at least 1 but got {args.cycles}', InvalidInputError)
    checked_tasks([args.task])
    checkpoint = find_checkpoint(args.checkpoint)
    from geo4d_ros.ros.serve.environment import loopback_environment

    environment = loopback_environment() | {'MUJOCO_GL': 'egl'}
    os.environ.update(environment)  # before rclpy is imported
    from geo4d_ros.ros.bench.loop import dump, run_loop
    from geo4d_ros.ros.graph.process_group import end_on_signals

    end_on_signals()

    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = run_loop(environment, Path(folder), str(checkpoint), args.task, args.seed, args.cycles)
    report = {'model_sha256': weights_sha256(checkpoint), 'task': args.task, 'seed_start': args.seed,
              'cpu_count': os.cpu_count(), 'load_average': os.getloadavg()[0], **report,
              'wall_s': time.monotonic() - start}
    write_report('benchmark_loop', report, args.json)
    print(dump(report))
    return 3 if report['end']['state'] == 'FAULT' else 0
