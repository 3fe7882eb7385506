"""`geo4d evaluate expert`: how often the scripted expert does the tasks, judged by the simulator's state."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass
from typing import TypedDict

from geo4d_ros.cli.common import (
    add_json_argument,
    add_robot_argument,
    add_worker_arguments,
    checked_tasks,
    wilson_interval,
    write_report,
)
from geo4d_ros.errors import require


@dataclass(frozen=True)
class Episode:
    """One episode of the expert; duration [s] of simulated time, failure None for a success."""

    task: str
    seed: int
    success: bool
    duration: float
    failure: str | None


class TaskRow(TypedDict):
    """The episodes of one task in the report."""

    success_rate: float
    n: int
    ci95: tuple[float, float]
    failures: dict[str, int]  # why -> count
    failed_seeds: list[int]
    mean_duration_s: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--episodes', type=int, default=100, help='episodes per task (default 100)')
    parser.add_argument('--task', action='append', help='cereal, spatula or apple; may be repeated (default all)')
    parser.add_argument('--seed-start', type=int, default=500_000, help='first scene seed (default 500000: held out)')
    add_worker_arguments(parser)
    parser.add_argument('--perturb', action='store_true', help='disturb every episode once: push, missed grasp, drop')
    add_robot_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the episodes, print one line per task and write the report."""
    from tqdm import tqdm

    from geo4d_ros.robots.registry import load_robot
    from geo4d_ros.workers.pool import run_jobs

    for name in ('episodes', 'jobs'):
        require(getattr(args, name) >= 1, f'--{name} should be at least 1 but got {getattr(args, name)}')
    require(args.seed_start >= 0, f'--seed-start should be at least 0 but got {args.seed_start}')
    robot = load_robot(args.robot)
    tasks = checked_tasks(args.task)
    robot.prepare()  # its meshes are made once, before the processes start
    started = time.monotonic()
    jobs = [(task, args.seed_start + i, args.perturb, args.robot) for task in tasks for i in range(args.episodes)]
    with tqdm(run_jobs(_episode, jobs, args.jobs, args.ray), total=len(jobs), unit='episode') as bar:
        results = list(bar)
    rows = {task: _summary([r for r in results if r.task == task]) for task in tasks}
    report = {'model_sha256': None, 'robot': args.robot, 'seed_start': args.seed_start, 'episodes': args.episodes,
              'perturbed': args.perturb, 'wall_s': round(time.monotonic() - started, 2), 'tasks': rows}
    write_report('evaluate_expert', report, args.json)
    for task, row in rows.items():
        low, high = row['ci95']
        print(f'{task:<8} {row["success_rate"]:.3f}  n={row["n"]}  95 % [{low:.3f}, {high:.3f}]  '
              f'{row["mean_duration_s"]:.1f} s per episode')
    return 0


def _episode(task: str, seed: int, perturbed: bool, robot: str) -> Episode:
    import numpy as np

    from geo4d_ros.robots.registry import load_robot
    from geo4d_ros.simulation.cell import make_cell
    from geo4d_ros.simulation.rollout import random_perturbations, rollout

    cell = make_cell(task, seed, robot=load_robot(robot))
    disturbances = random_perturbations(np.random.default_rng([seed, 1]), task) if perturbed else []
    result = rollout(cell, perturb=disturbances)
    return Episode(task, seed, result.success, result.duration, result.failure)


def _summary(rows: list[Episode]) -> TaskRow:
    good = sum(row.success for row in rows)
    failed = [row for row in rows if not row.success]
    return {'success_rate': good / len(rows), 'n': len(rows), 'ci95': wilson_interval(good, len(rows)),
            'failures': dict(Counter(row.failure or '' for row in failed)),
            'failed_seeds': sorted(row.seed for row in failed),
            'mean_duration_s': round(sum(row.duration for row in rows) / len(rows), 2)}
