"""`geo4d train opening`: train the network that reads the gripper's opening off pictures of the fingers."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from geo4d_ros.cli.common import INTERRUPTED, add_json_argument, checkpoint_directory, write_report
from geo4d_ros.errors import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--data', type=Path, required=True, metavar='DIR', help='folder of episodes to learn from')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder for config.json and the weights')
    parser.add_argument('--test-data', type=Path, metavar='DIR', help='episodes to measure on')
    parser.add_argument('--gripper', type=Path, metavar='FILE', help='YAML description of the gripper (default: the '
                        "default robot's)")
    parser.add_argument('--minutes', type=float, default=20.0, help='budget of processor time (default 20)')
    parser.add_argument('--windows', type=int, default=5, help='windows per episode (default 5)')
    parser.add_argument('--episodes', type=int, metavar='N', help='use at most N episodes, spread evenly (default all)')
    parser.add_argument('--generator', type=Path, metavar='DIR', help='learn from its frames too, painted along '
                        'the true paths (default: the shipped one; none: true frames only)')
    parser.add_argument('--predictions', type=int, default=400, metavar='N', help='how many of its predictions '
                        '(default 400)')
    parser.add_argument('--learning-rate', type=float, default=2e-3, help='highest (default 2e-3)')
    parser.add_argument('--threads', type=int, default=1, help='threads of torch (default 1)')
    parser.add_argument('--seed', type=int, default=0)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Train, measure when test data is given, write the report."""
    from geo4d_ros.robots.gripper import gripper_of, read_gripper
    from geo4d_ros.training.opening import OpeningTraining, evaluate_opening, load_windows, train_opening

    require(min(args.minutes, args.windows, args.threads) > 0 and args.predictions >= 0,
            '--minutes, --windows and --threads should be positive, --predictions not negative')
    from geo4d_ros.training.budget import interruptible

    started = time.monotonic()
    gripper = gripper_of() if args.gripper is None else read_gripper(args.gripper)
    generator = _generator(args)
    samples = load_windows(args.data, args.windows, args.seed, args.episodes, generator, args.predictions)
    config = OpeningTraining(minutes=args.minutes, windows=args.windows, threads=args.threads, seed=args.seed,
                             learning_rate=args.learning_rate)
    with interruptible() as asked:
        report = train_opening(samples, gripper, args.out, config, {'predictions': int(samples.painted.sum())})
    if args.test_data is not None and not asked.is_set():
        test = load_windows(args.test_data, args.windows, args.seed + 1, args.episodes)
        report |= {'test': evaluate_opening(test, gripper, args.out),
                   'test_damaged': evaluate_opening(test, gripper, args.out, damaged=True)}
        print(f'open/closed {report["test"]["open_closed_accuracy"]:.3f}, on damaged windows '
              f'{report["test_damaged"]["open_closed_accuracy"]:.3f}')
    write_report('train-opening', report | {'wall_s': time.monotonic() - started}, args.json)
    if asked.is_set():
        print(f'interrupted: what was learnt so far is in {args.out}; the same command trains anew')
        return INTERRUPTED
    return 0


def _generator(args: argparse.Namespace) -> Any:
    if args.generator == Path('none') or args.predictions == 0:
        return None
    from geo4d_ros.generation.loading import load_generator

    return load_generator(checkpoint_directory(args.generator))
