"""`geo4d replay FILE`: feed a recorded run through the same code and compare the decisions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from geo4d_ros.cli.common import add_json_argument, write_report

_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('file', type=Path, metavar='FILE', help='record of a run (.jsonl)')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """0 when every decision is the same, 3 when one differs; raises Geo4dError when the file is no record."""
    from geo4d_ros.loop.record import read_record, replay

    lines = read_record(args.file)
    differences = replay(args.file)
    counts = {kind: sum(line['type'] == kind for line in lines) for kind in ('event', 'plan', 'cycle')}
    for difference in differences[:_SHOWN]:
        print(difference, file=sys.stderr)
    if len(differences) > _SHOWN:
        print(f'... and {len(differences) - _SHOWN} more', file=sys.stderr)
    print(f'{counts["event"]} events, {counts["plan"]} plans, {counts["cycle"]} cycles: {len(differences)} differences')
    write_report('replay', {**counts, 'differences': differences}, args.json)
    return 3 if differences else 0
