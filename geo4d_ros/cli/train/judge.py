"""`geo4d train judge`: fit the figures of a verdict (done, unfamiliar) beside a trained two-view generator."""

from __future__ import annotations

import argparse
from pathlib import Path

from geo4d_ros.cli.common import checkpoint_directory
from geo4d_ros.errors import InvalidInputError, require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--data', type=Path, required=True, metavar='DIR', help='episodes of `geo4d collect`')
    parser.add_argument('--checkpoint', type=Path, metavar='P', help='model directory (default: the shipped one)')
    parser.add_argument('--frames', type=int, default=3, metavar='N',
                        help='moments before and after the work, of every episode (default 3)')
    parser.add_argument('--limit', type=int, metavar='N', help='use at most N episodes, spread evenly')


def run(args: argparse.Namespace) -> int:
    """Fit and write judge.safetensors and the manifest; the other weights stay as they are."""
    from geo4d_ros.generation.loading import load_generator
    from geo4d_ros.generation.manifest import write_manifest
    from geo4d_ros.generation.two_view.predictor import TwoViewPredictor
    from geo4d_ros.training.two_view.judge_fit import fit_judge

    require(args.frames >= 1 and (args.limit is None or args.limit >= 1), '--frames and --limit should be positive',
            InvalidInputError)
    directory = checkpoint_directory(args.checkpoint)
    generator = load_generator(str(directory), 'cpu')
    require(isinstance(generator, TwoViewPredictor), f'{directory} is no two-view generator', InvalidInputError)
    judge = fit_judge(generator.network, args.data, args.frames, args.limit)
    judge.save(directory)
    write_manifest(directory)
    print(f'{directory / "judge.safetensors"}: left-out training moments stay within {judge.quantile[0]:.1f}')
    return 0
