"""`geo4d collect`: expert demonstrations of the simulated cell, recorded as zarr episodes."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from geo4d_ros.cli.common import (
    add_json_argument,
    add_robot_argument,
    add_worker_arguments,
    checked_tasks,
    write_report,
)
from geo4d_ros.errors import InvalidInputError, require


def image_size(text: str) -> tuple[int, int]:
    """'96x128' to (96, 128): height, width."""
    parts = text.lower().split('x')
    if len(parts) != 2 or not all(p.isdigit() for p in parts):
        raise argparse.ArgumentTypeError(f'{text!r} is not HEIGHTxWIDTH, as in 96x128')
    return int(parts[0]), int(parts[1])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--task', action='append', metavar='NAME',
                        help='cereal, spatula or apple; repeat for several (default: all three, taking turns)')
    parser.add_argument('--demos', type=int, default=20, metavar='N', help='seeds per task (default 20)')
    parser.add_argument('--cameras', type=int, default=3, metavar='C', help='cameras per episode (default 3)')
    parser.add_argument('--seed-start', type=int, default=0, metavar='S', help='first scene seed (default 0)')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='directory of the episodes')
    parser.add_argument('--split', choices=('train', 'held-out'), default='train', help='camera region')
    parser.add_argument('--perturb', type=float, default=0.0, metavar='P',
                        help='share of episodes in which the expert is disturbed and recovers (default 0)')
    parser.add_argument('--scenes', choices=('single', 'mixed', 'idle', 'varied'), default='single',
                        help="single: one task's things; mixed: two or three tasks', the instruction decides; idle: "
                             'nothing to do; varied: all of them (default single)')
    parser.add_argument('--observations', type=int, default=0, metavar='N',
                        help='instead of episodes, N two-view pictures of each run and its states: far cheaper')
    parser.add_argument('--noise', choices=('none', 'd435'), default='none', help='depth sensor noise')
    parser.add_argument('--size', type=image_size, default=(96, 128), metavar='HxW', help='default 96x128')
    parser.add_argument('--keep-failures', action='store_true', help='also keep demonstrations that failed')
    add_worker_arguments(parser)
    add_robot_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Record what is missing; existing good episodes are left alone."""
    from tqdm import tqdm

    from geo4d_ros.data import collect
    from geo4d_ros.robots.registry import load_robot

    tasks = checked_tasks(args.task)
    require(args.demos >= 1 and args.jobs >= 1 and args.seed_start >= 0,
            f'--demos and --jobs should be positive and --seed-start not negative but got '
            f'{args.demos}, {args.jobs}, {args.seed_start}', InvalidInputError)
    recording = collect.Recording(str(args.out), args.cameras, args.split, *args.size, args.perturb, args.noise,
                                     args.keep_failures, args.scenes, args.observations, args.robot)
    load_robot(args.robot).prepare()  # its meshes are made once, before the processes start
    jobs = collect.interleave(tasks, args.seed_start, args.demos)
    started, outcomes = time.monotonic(), []
    source = collect.collect(recording, jobs, args.jobs, args.ray)
    with collect.sole_writer(args.out, recording, jobs), tqdm(source, total=len(jobs), unit='demo') as bar:
        for outcome in bar:
            outcomes.append(outcome)
            if outcome.result == 'failed':
                bar.write(f'{outcome.task} seed {outcome.seed}: not kept, {outcome.message}')
    summary = collect.summarise(outcomes, time.monotonic() - started)
    write_report('collect', {'recording': vars(recording), 'seed_start': args.seed_start, **summary}, args.json)
    for task, counts in summary['tasks'].items():
        print(f'{task:<10} kept {counts["kept"]}  existing {counts["existing"]}  failed {counts["failed"]}')
    print(f'{summary["rgbd_frames"]} RGB-D frames, {summary["rgbd_frames_per_s"]:.0f} per second')
    return 0
