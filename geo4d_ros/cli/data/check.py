"""`geo4d data check DIR`: counts, rates, depth, calibration, duplicates and leaks of a directory of episodes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from geo4d_ros.cli.common import add_json_argument, reported_path, write_report

_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('data', type=Path, metavar='DIR', help='directory of episodes')
    parser.add_argument('--against', type=Path, metavar='DIR', help='validation or test episodes: none may be in both')
    parser.add_argument('--html', type=Path, default=Path('outputs/data_check.html'), metavar='F',
                        help='the page with films (outputs/data_check.html)')
    parser.add_argument('--films', type=int, default=6, metavar='N', help='films on the page (6); 0 for none')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """0 when nothing looks wrong, 2 with one line per problem."""
    from tqdm import tqdm

    from geo4d_ros.data.check import check_directory
    from geo4d_ros.errors import require
    from geo4d_ros.reports.data import write_data_page

    require(args.films >= 0, f'--films should not be negative but got {args.films}')
    report = check_directory(args.data, args.against, lambda paths: tqdm(paths, unit='episode', disable=None))
    problems = report.problems()
    write_data_page(args.html, args.data, report, args.films)
    write_report('data_check', {
        'data': reported_path(args.data), 'episodes': len(report.episodes), 'problems': problems,
        'damaged': report.damaged, 'duplicates': report.duplicates, 'leaks': report.leaks,
        'missing': report.missing, 'trainable': report.trainable,
        'checks': [{**vars(e), 'path': e.path.name} for e in report.episodes]}, args.json)
    for problem in problems[:_SHOWN]:
        print(problem, file=sys.stderr)
    if len(problems) > _SHOWN:
        print(f'... and {len(problems) - _SHOWN} more, see {args.html}', file=sys.stderr)
    print(f'{args.data}: {len(report.episodes)} episodes, {sum(e.frames for e in report.episodes)} moments, '
          f'{len(problems)} problems; {args.html}')
    for name, lacking in report.trainable.items():
        print(f'trainable: {name}' if not lacking else f'not trainable without {", ".join(lacking)}: {name}')
    return 2 if problems else 0
