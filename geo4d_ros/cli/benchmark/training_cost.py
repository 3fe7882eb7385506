"""`geo4d benchmark training-cost`: what training at the paper's size needs, counted and computed."""

from __future__ import annotations

import argparse

from geo4d_ros.cli.common import add_json_argument, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Only where the report goes."""
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Count, write the report, print a line per stage."""
    from geo4d_ros.bench.speed.training_cost import table

    report = table()
    write_report('benchmark-training-cost', report, args.json)
    for stage, row in report['stages'].items():
        print(f'{stage:22s} {row["trained_parameters"] / 1e6:7.0f} M trained, '
              f'{row["states_gib_adamw"]:6.1f} GiB of states'
              + (f', {row["gpu_hours_h100_batch_1"]:6.0f} H100 hours, one {row["smallest_gpu"]}'
                 if 'gpu_hours_h100_batch_1' in row else ''))
    return 0
