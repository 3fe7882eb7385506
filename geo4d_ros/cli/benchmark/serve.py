"""`geo4d benchmark serve`: what a prediction costs when it is made elsewhere, and what the server survives."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from geo4d_ros.cli.common import add_json_argument, check_report_place, checkpoint_directory, write_report
from geo4d_ros.errors import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('--checkpoint', type=Path, metavar='P', help='model directory (default: the shipped one)')
    parser.add_argument('--without-model', action='store_true',
                        help='serve frame 0 repeated: only the wire is measured')
    parser.add_argument('--device', default='cpu', help='of the server (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=20, metavar='N', help='per compression (default: %(default)s)')
    parser.add_argument('--malformed', type=int, default=10_000, metavar='N',
                        help='malformed requests (default: %(default)s)')
    parser.add_argument('--clients', type=int, default=64, metavar='N', help='at once (default: %(default)s)')
    parser.add_argument('--task', default='apple', metavar='T', help='scene that is looked at (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=500_000, metavar='S', help='of the scene (default: %(default)s)')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Serve, ask, misuse, report."""
    from geo4d_ros.cli.common import checked_tasks

    require(args.repeats >= 1 and args.malformed >= 1 and 1 <= args.clients <= 64 and args.seed >= 0,
            '--repeats and --malformed should be at least 1, --clients in [1, 64], --seed not negative')
    checked_tasks([args.task])
    check_report_place(args.json)
    checkpoint = checkpoint_directory(args.checkpoint)
    os.environ.setdefault('MUJOCO_GL', 'egl')
    from geo4d_ros.bench.speed.serve import benchmark
    from geo4d_ros.evaluation.closed_loop.cell_rig import CellRig, episode_cameras
    from geo4d_ros.generation.manifest import checkpoint_sha256
    from geo4d_ros.simulation.cell import Cell

    start = time.monotonic()
    cell = Cell(args.task, args.seed)
    with CellRig(cell.model, episode_cameras(args.seed, 'held-out'), 'd435', args.seed) as rig:
        observation = rig.observe(cell)
    served = None if args.without_model else str(checkpoint)
    report = benchmark(observation, served, args.device, args.repeats, args.malformed, args.clients)
    digest = None if args.without_model else checkpoint_sha256(checkpoint)
    report = {'model_sha256': digest, 'seed_start': args.seed, 'task': args.task,
              'cpu_count': os.cpu_count(), 'load_average': os.getloadavg()[0], **report,
              'wall_s': round(time.monotonic() - start, 1)}
    write_report('benchmark_serve', report, args.json)
    print(f'{"compression":<12}{"request":>10}{"at 480x640":>12}{"reply":>10}{"total p50":>11}{"overhead p50":>14}')
    for name, row in report['compressions'].items():
        print(f'{name:<12}{row["request_bytes"]:>10}{row["request_bytes_at_camera_size"]:>12}{row["reply_bytes"]:>10}'
              f'{row["total_ms"]["p50"]:>8.1f} ms{row["overhead_ms"]["p50"]:>11.1f} ms')
    print(f'{args.malformed} malformed requests: {report["malformed_outcome"]}; {report["clients_answered"]} of '
          f'{args.clients} clients answered in {report["clients_wall_s"]} s beside {report["slow_clients"]} silent, '
          f'{report["half_open_clients"]} half-open and {report["unread_clients"]} that do not read; '
          f'{"alive" if report["survived"] else "DEAD"}')
    return 0 if report['survived'] else 3
