"""`geo4d evaluate fidelity`: how far each convention is from the released model's, deviation by deviation."""

from __future__ import annotations

import argparse

from geo4d_ros.cli.common import add_json_argument, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Seed and report."""
    parser.add_argument('--seed', type=int, default=0, help='of the random scene and weights')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, write the report, print the table."""
    from geo4d_ros.bench.fidelity import measure

    report = measure(args.seed)
    write_report('evaluate-fidelity', report, args.json)
    print(f'{"deviation":22s} {"released":>10s} {"corrected":>10s}   relative difference to the released convention')
    for name, row in report['deviations'].items():
        print(f'{name:22s} {row["released"]:10.1e} {row["corrected"]:10.1e}   {row["what"]}')
    return 0
