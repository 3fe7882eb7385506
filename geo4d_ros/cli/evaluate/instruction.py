"""`geo4d evaluate instruction`: several tasks' things on the table, told what to do; and scenes with nothing to do."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from geo4d_ros.cli.common import (
    add_json_argument,
    add_worker_arguments,
    check_report_place,
    checked_tasks,
    checkpoint_directory,
    gpus_of,
    reported_path,
    weights_sha256,
    wilson_interval,
    write_report,
)
from geo4d_ros.errors import InvalidInputError, SimulationError, require

if TYPE_CHECKING:
    from geo4d_ros.evaluation.closed_loop.instruction import InstructionReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--generator', choices=('model', 'oracle'), default='model',
                        help="the checkpoint, or the expert's true future, rendered (default model)")
    parser.add_argument('--checkpoint', type=Path, metavar='P', help='model directory (default: the shipped one)')
    parser.add_argument('--readout', choices=('fused', 'video', 'state'), help='default fused; video with the oracle')
    parser.add_argument('--episodes', type=int, default=20, metavar='N',
                        help='seeds per task with work to do (default 20)')
    parser.add_argument('--idle', type=int, metavar='N',
                        help='seeds per task with nothing to do (default: as many as --episodes; 0 for none)')
    parser.add_argument('--task', action='append', metavar='T', help='repeat for several (default: all three)')
    parser.add_argument('--seed-start', type=int, default=700_000, metavar='S', help='default 700000')
    parser.add_argument('--cameras', choices=('train', 'held-out'), default='held-out', help='default held-out')
    parser.add_argument('--max-cycles', type=int, default=16, metavar='C', help='default 16')
    parser.add_argument('--device', default='cpu', help='torch device of the generator (default cpu)')
    add_worker_arguments(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the episodes, print the table, write the report."""
    from geo4d_ros.evaluation.closed_loop.runs import EpisodeOptions

    tasks = checked_tasks(args.task)
    idle = args.episodes if args.idle is None else args.idle
    require(min(args.episodes, args.jobs, args.max_cycles) >= 1 and idle >= 0 and args.seed_start >= 0,
            '--episodes, --jobs and --max-cycles should be positive, --idle and --seed-start not negative',
            InvalidInputError)
    oracle = args.generator == 'oracle'
    require(not (oracle and (args.checkpoint or args.readout in ('fused', 'state'))),
            'the oracle takes no --checkpoint and has only the read-out video', InvalidInputError)
    checkpoint = None if oracle else checkpoint_directory(args.checkpoint)
    digest = None if oracle else weights_sha256(checkpoint, args.device)
    check_report_place(args.json)
    options = EpisodeOptions(checkpoint and str(checkpoint), args.readout or ('video' if oracle else 'fused'),
                             cameras=args.cameras, max_cycles=args.max_cycles, device=args.device)
    started = time.monotonic()
    jobs = [(options, task, args.seed_start + i, scenes) for scenes, count in (('mixed', args.episodes), ('idle', idle))
            for i in range(count) for task in tasks]
    reports, skipped = run_jobs(jobs, args)
    require(any(r.scenes == 'mixed' for r in reports), f'no scene could be made; first reason: {skipped[:1]}',
            SimulationError)
    summary = summarise(reports, tasks)
    out = {'generator': args.generator, 'readout': options.readout, 'checkpoint': reported_path(options.checkpoint),
           'model_sha256': digest, 'cameras': args.cameras, 'seed_start': args.seed_start, 'episodes': args.episodes,
           'idle_episodes': idle, 'skipped': skipped, **summary,
           'wall_s': round(time.monotonic() - started, 1)}
    write_report(f'instruction-{args.generator}-{options.readout}-{args.cameras}', out, args.json)
    print_table(summary)
    return 0


def run_jobs(jobs: list[Any], args: argparse.Namespace) -> tuple[list[InstructionReport], list[str]]:
    """Reports of the episodes, and why seeds have no scene."""
    from tqdm import tqdm

    from geo4d_ros.evaluation.closed_loop.instruction import run_instructed
    from geo4d_ros.workers import pool

    reports, skipped = [], []
    source = pool.run_jobs(run_instructed, jobs, args.jobs, args.ray, gpus_of(args.device))
    with tqdm(source, total=len(jobs), unit='episode') as bar:
        for report in bar:
            if isinstance(report, str):
                skipped.append(report)
                bar.write(f'skipped: {report}')
                continue
            reports.append(report)
            bar.set_postfix(success=f'{sum(r.success for r in reports)}/{len(reports)}')
    return reports, skipped


class TaskRow(TypedDict):
    """The episodes of one task in scenes of several; failures: reason of the end -> count."""

    success_rate: float | None
    success_rate_ci95: list[float] | None
    n: int
    wrong_object_rate: float | None
    failures: dict[str, int]


class NothingToDo(TypedDict):
    """Whether scenes without work are told from those with it."""

    recall: float | None
    recall_ci95: list[float] | None
    false_alarm_rate: float | None
    false_alarm_rate_ci95: list[float] | None
    n: int
    n_with_work: int
    recall_absent: float | None
    recall_done: float | None


class Summary(TypedDict):
    """The keys of the report that the episodes give."""

    success_rate: float | None
    success_rate_ci95: list[float] | None
    wrong_object_rate: float | None
    wrong_object_rate_ci95: list[float] | None
    nothing_to_do: NothingToDo
    tasks: dict[str, TaskRow]
    verdict_auroc: dict[str, float | None]  # figure of the first prediction -> AUROC
    n: int
    runs: list[InstructionReport]


def summarise(reports: list[InstructionReport], tasks: list[str]) -> Summary:
    """The keys of DESIGN section 9 for `evaluate instruction`, with counts and Wilson intervals."""
    from geo4d_ros.evaluation.closed_loop.instruction import NO_WORK

    mixed = [r for r in reports if r.scenes == 'mixed']
    idle = [r for r in reports if r.scenes == 'idle']
    gave_up = [r.ended in NO_WORK and not r.success for r in mixed]
    right, wrong = [r.success for r in mixed], [r.wrong for r in mixed]
    noticed = [r.success for r in idle]
    absent, done = ([r.success for r in idle if r.target == target] for target in ('absent', 'done'))
    return {
        'success_rate': _rate(right), 'success_rate_ci95': _interval(right),
        'wrong_object_rate': _rate(wrong), 'wrong_object_rate_ci95': _interval(wrong),
        'nothing_to_do': {'recall': _rate(noticed), 'recall_ci95': _interval(noticed),
                          'false_alarm_rate': _rate(gave_up), 'false_alarm_rate_ci95': _interval(gave_up),
                          'n': len(idle), 'n_with_work': len(mixed),
                          'recall_absent': _rate(absent), 'recall_done': _rate(done)},
        'tasks': {task: _of_task([r for r in mixed if r.task == task]) for task in tasks},
        'verdict_auroc': _auroc(reports), 'n': len(mixed),
        'runs': sorted(reports, key=lambda r: (r.scenes, r.task, r.seed)),
    }


def _rate(hits: list[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def _interval(hits: list[bool]) -> list[float] | None:
    return [round(v, 4) for v in wilson_interval(sum(hits), len(hits))] if hits else None


def _of_task(reports: list[InstructionReport]) -> TaskRow:
    failed = [r.ended or 'none' for r in reports if not r.success]
    right = [r.success for r in reports]
    return {'success_rate': _rate(right), 'success_rate_ci95': _interval(right), 'n': len(reports),
            'wrong_object_rate': _rate([r.wrong for r in reports]),
            'failures': {reason: failed.count(reason) for reason in sorted(set(failed))}}


def _auroc(reports: list[InstructionReport]) -> dict[str, float | None]:
    """How well each figure of the first prediction tells scenes with nothing to do from the others; few pixels and a
    short way speak for nothing to do."""
    import numpy as np

    from geo4d_ros.evaluation.metrics.tracker import auroc

    out: dict[str, float | None] = {}
    for name in sorted({name for r in reports for name in r.figures}):
        known = [r for r in reports if name in r.figures]
        out[name] = auroc(-np.array([r.figures[name] for r in known]), np.array([r.scenes == 'idle' for r in known]))
    return out


def print_table(out: Summary) -> None:
    """The result in a few lines."""
    print(f'{"task":<10} {"success":>8} {"95 %":>14} {"wrong":>7} {"n":>4}  failures')
    for name, row in out['tasks'].items():
        if not row['n']:
            continue
        causes = ', '.join(f'{cause} {count}' for cause, count in row['failures'].items()) or '-'
        low, high = row['success_rate_ci95'] or (0.0, 1.0)
        print(f'{name:<10} {row["success_rate"]:>8.2f} {f"{low:.2f}..{high:.2f}":>14} '
              f'{row["wrong_object_rate"]:>7.2f} {row["n"]:>4}  {causes}')
    nothing = out['nothing_to_do']
    print(f'success {out["success_rate"]:.2f}, wrong object {out["wrong_object_rate"]:.2f} of {out["n"]}')
    if nothing['n']:
        print(f'nothing to do recognised {nothing["recall"]:.2f} of {nothing["n"]}, '
              f'false alarms {nothing["false_alarm_rate"]:.2f} of {nothing["n_with_work"]}')
