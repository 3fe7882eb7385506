"""`geo4d evaluate safety`: random and hostile plans, states and event sequences against the motion core."""

from __future__ import annotations

import argparse
import os
import time

from geo4d_ros.cli.common import add_json_argument, write_report
from geo4d_ros.errors import require

NOTICED = 0.95  # share of the mutants that the independent checks have to notice


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('--cases', type=int, help='how many (default 10000; with --mutate 120 of each mutant at most)')
    parser.add_argument('--mutate', action='store_true',
                        help='judge the judge: switch rules off or loosen them one by one; 95 %% have to be noticed')
    parser.add_argument('--seed', type=int, default=0, help='of the cases (default 0)')
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1, help='processes (default: the cores)')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """0 when nothing unsafe was commanded (with --mutate: when enough mutants were noticed), 3 otherwise."""
    if args.cases is None:
        args.cases = 120 if args.mutate else 10000
    require(args.cases >= 1 and args.jobs >= 1 and args.seed >= 0,
            f'--cases {args.cases} and --jobs {args.jobs} should be at least 1, --seed {args.seed} at least 0')
    if args.mutate:
        return _mutate(args)
    from geo4d_ros.bench.safety.evaluate import evaluate

    start = time.perf_counter()
    report = evaluate(args.cases, args.seed, args.jobs)
    report['wall_s'] = round(time.perf_counter() - start, 1)
    write_report('safety', report, args.json)
    print(f'{report["cases"]} cases, {report["motions"]} motions commanded, {report["violations"]} violations, '
          f'{sum(report["refusals"].values())} refusals, {report["refusals_without_code"]} without a code')
    for example in report['violation_examples']:
        print(f'  {example}')
    return 3 if report['violations'] or report['refusals_without_code'] else 0


def _mutate(args: argparse.Namespace) -> int:
    from geo4d_ros.bench.safety.evaluate import evaluate_mutants

    start = time.perf_counter()
    report = evaluate_mutants(args.cases, args.seed, args.jobs)
    report['wall_s'] = round(time.perf_counter() - start, 1)
    write_report('safety_mutants', report, args.json)
    print(f'{report["mutants"]} mutants, {report["noticed"]} noticed ({report["ratio"]:.3f})'
          + ''.join(f'\n  missed: {name}' for name in report['missed'])
          + ''.join(f'\n  false alarm: {name} {found}' for name, found in report['false_alarms'].items()))
    return 0 if report['ratio'] >= NOTICED and not report['false_alarms'] else 3
