"""`geo4d evaluate closed-loop`: success of the whole loop in the simulated cell, over unseen scenes."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from geo4d_ros.cli.common import (
    add_json_argument,
    add_robot_argument,
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
from geo4d_ros.errors import InvalidInputError, require

if TYPE_CHECKING:
    from geo4d_ros.evaluation.closed_loop.failure_causes import CycleRow
    from geo4d_ros.evaluation.closed_loop.runs import EpisodeReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--generator', default='model', metavar='G',
                        help="model: the checkpoint; oracle: the expert's true future, rendered; remote://host:port: "
                             'a `geo4d serve` (default model)')
    parser.add_argument('--checkpoint', type=Path, metavar='P',
                        help='model directory (default: the shipped one of the robot)')
    parser.add_argument('--baselines', type=Path, metavar='DIR',
                        help='folder of trained baselines, each in a directory of its name: one more row each, read '
                             'out by --readout where the baseline has it, else by its own first one')
    parser.add_argument('--readout', choices=('fused', 'video', 'state'),
                        help='default fused; video with the oracle, whose videos have no state stream')
    parser.add_argument('--episodes', type=int, default=20, metavar='N', help='seeds per task (default 20)')
    parser.add_argument('--task', action='append', metavar='T', help='repeat for several (default: all three)')
    parser.add_argument('--seed-start', type=int, default=500_000, metavar='S', help='default 500000')
    parser.add_argument('--cameras', choices=('train', 'held-out'), default='held-out', help='default held-out')
    parser.add_argument('--noise', choices=('none', 'd435'), default='none', help='depth sensor noise')
    parser.add_argument('--tracker', default='model', metavar='T', help='name of a tracker (default model)')
    parser.add_argument('--horizon-executed', type=int, default=5, metavar='K',
                        help='predicted poses executed before looking again (default 5)')
    parser.add_argument('--max-cycles', type=int, default=16, metavar='C', help='default 16')
    parser.add_argument('--device', default='cpu', help='torch device of the generator (default cpu)')
    add_worker_arguments(parser)
    parser.add_argument('--rrd', type=Path, metavar='DIR', help='write a Rerun recording of every episode there')
    parser.add_argument('--films', type=Path, metavar='DIR', help='write an mp4 of every failed episode there')
    add_robot_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the episodes, print the table, write the report."""
    from geo4d_ros.evaluation.baselines.registry import training_of

    tasks = checked_tasks(args.task)
    positive = (args.episodes, args.jobs, args.horizon_executed, args.max_cycles)
    require(min(positive) >= 1 and args.seed_start >= 0, 'counts should be positive and --seed-start not negative',
            InvalidInputError)
    options, model_sha256 = options_of(args)
    others = baseline_options(args, options)
    check_report_place(args.json, args.films)
    if args.rrd:
        from geo4d_ros.evaluation.rerun_scene import library

        library()
    started = time.monotonic()
    summary = summarise(run_episodes(args, options, tasks, 'model'), tasks)
    rows, tables = {}, {}
    for name, (row_options, digest) in others.items():
        found = summarise(run_episodes(args, row_options, tasks, name), tasks)
        rows[name] = {'readout': row_options.readout, 'model_sha256': digest,
                      **training_of(Path(row_options.checkpoint)),
                      'tasks': found['tasks'], 'success_rate': found['success_rate'], 'ci95': found['ci95']}
        tables[f'{name}, {row_options.readout}'] = found
    out = {'generator': args.generator, 'robot': args.robot, 'readout': options.readout,
           'checkpoint': reported_path(options.checkpoint),
           'model_sha256': model_sha256, 'cameras': args.cameras, 'noise': args.noise, 'tracker': args.tracker,
           'horizon_executed': args.horizon_executed, 'seed_start': args.seed_start, 'episodes': args.episodes,
           **summary, **({'baselines': rows} if rows else {}),
           'wall_s': round(time.monotonic() - started, 1)}
    kind = 'remote' if '://' in args.generator else args.generator
    write_report(f'closed-loop-{kind}-{options.readout}-{args.cameras}', out, args.json)
    print_table(summary)
    for title, found in tables.items():
        print(f'\n{title}')
        print_table(found)
    return 0


def run_episodes(args: argparse.Namespace, options: Any, tasks: list[str], name: str) -> list[Any]:
    """Reports of every episode of one row, in processes."""
    from tqdm import tqdm

    from geo4d_ros.evaluation.closed_loop.runs import run_episode
    from geo4d_ros.workers.pool import run_jobs

    jobs = [(options, task, args.seed_start + i) for i in range(args.episodes) for task in tasks]
    reports = []
    with tqdm(run_jobs(run_episode, jobs, args.jobs, args.ray, gpus_of(args.device)), total=len(jobs), unit='episode',
              desc=name) as bar:
        for report in bar:
            reports.append(report)
            bar.set_postfix(success=f'{sum(r.success for r in reports)}/{len(reports)}')
    return reports


def baseline_options(args: argparse.Namespace, options: Any) -> dict[str, tuple[Any, str]]:
    """Options and weights' hash of every baseline found in --baselines; a bad checkpoint raises here."""
    from geo4d_ros.evaluation.baselines.registry import BASELINES, found_checkpoints

    if args.baselines is None:
        return {}
    found = found_checkpoints(args.baselines)
    require(bool(found), f'{args.baselines} holds none of {", ".join(BASELINES)}', InvalidInputError)
    rows = {}
    for name, path in found.items():
        own = BASELINES[name].readouts
        readout = args.readout if args.readout in own else own[0]
        films = options.films and f'{options.films}/{name}'
        rows[name] = (replace(options, checkpoint=str(path), readout=readout, films=films),
                      weights_sha256(path, args.device))
    return rows


def options_of(args: argparse.Namespace) -> tuple[Any, str | None]:
    """Options of the episodes and the hash of the weights (None for the oracle); a bad checkpoint raises here."""
    from geo4d_ros.evaluation.closed_loop.runs import EpisodeOptions
    from geo4d_ros.generation.remote.address import is_remote
    from geo4d_ros.tracking.backends.registry import TRACKERS

    oracle = args.generator == 'oracle'
    remote = args.generator not in ('model', 'oracle')
    readout = args.readout or ('video' if oracle else 'fused')
    TRACKERS.get(args.tracker)
    require(not (oracle and args.readout in ('fused', 'state')),
            f'--readout {args.readout} needs a state stream, which the oracle has not; use video', InvalidInputError)
    require(args.generator == 'model' or not args.checkpoint,
            f'--checkpoint and --generator {args.generator} exclude each other', InvalidInputError)
    require(not remote or is_remote(args.generator), f'--generator should be model, oracle or remote://host:port but '
            f'got {args.generator!r}', InvalidInputError)
    checkpoint = args.generator if remote else None
    if not (oracle or remote):
        checkpoint = str(checkpoint_directory(args.checkpoint, args.robot))
    digest = None if checkpoint is None else weights_sha256(checkpoint, args.device)
    options = EpisodeOptions(checkpoint, readout, args.tracker, args.cameras, args.noise,
                             args.horizon_executed, args.max_cycles, args.device, args.films and str(args.films),
                             args.rrd and str(args.rrd), args.robot)
    return options, digest


class TaskRow(TypedDict):
    """The episodes of one task; failures: cause -> count."""

    success_rate: float
    n: int
    ci95: list[float]
    failures: dict[str, int]


class EpisodeRow(TypedDict):
    """An `EpisodeReport` without its timings."""

    task: str
    seed: int
    success: bool
    reason: str
    cause: str | None
    cycles: list[CycleRow]
    simulated_s: float
    film: str | None


class Rates(TypedDict):
    """What the table shows of one generator or baseline."""

    tasks: dict[str, TaskRow]
    success_rate: float  # mean over the tasks
    ci95: list[float]


class Summary(Rates):
    """The keys of the report that the episodes give; runs: every episode."""

    stages_ms: dict[str, dict[str, float] | None]
    runs: list[EpisodeRow]


def summarise(reports: list[EpisodeReport], tasks: list[str]) -> Summary:
    """Success per task with Wilson intervals, failures by cause, stage timings and every episode."""
    from geo4d_ros.evaluation.metrics.statistics import percentiles_ms

    rows: dict[str, TaskRow] = {}
    for task in tasks:
        mine = [r for r in reports if r.task == task]
        wins = sum(r.success for r in mine)
        causes = [r.cause or '' for r in mine if not r.success]
        rows[task] = {'success_rate': wins / len(mine), 'n': len(mine),
                      'ci95': [round(v, 4) for v in wilson_interval(wins, len(mine))],
                      'failures': {cause: causes.count(cause) for cause in sorted(set(causes))}}
    wins = sum(r.success for r in reports)
    names = dict.fromkeys(name for r in reports for name in r.stages)
    runs: list[EpisodeRow] = [
        {'task': r.task, 'seed': r.seed, 'success': r.success, 'reason': r.reason, 'cause': r.cause, 'cycles': r.cycles,
         'simulated_s': r.simulated_s, 'film': r.film} for r in sorted(reports, key=lambda r: (r.task, r.seed))]
    return {'tasks': rows, 'success_rate': sum(row['success_rate'] for row in rows.values()) / len(tasks),
            'ci95': [round(v, 4) for v in wilson_interval(wins, len(reports))],
            'stages_ms': {name: percentiles_ms([t for r in reports for t in r.stages.get(name, [])]) for name in names},
            'runs': runs}


def print_table(out: Rates) -> None:
    """The result in a few lines."""
    print(f'{"task":<10} {"success":>8} {"95 %":>14} {"n":>4}  failures')
    rows = [*out['tasks'].items()]
    for name, row in rows:
        causes = ', '.join(f'{cause} {count}' for cause, count in row['failures'].items()) or '-'
        low, high = row['ci95']
        print(f'{name:<10} {row["success_rate"]:>8.2f} {f"{low:.2f}..{high:.2f}":>14} {row["n"]:>4}  {causes}')
    low, high = out['ci95']
    print(f'{"mean":<10} {out["success_rate"]:>8.2f} {f"{low:.2f}..{high:.2f}":>14} '
          f'{sum(row["n"] for _, row in rows):>4}')
