"""How collecting and evaluating scale over workers: processes of this machine and a local Ray cluster, side by side."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, TypedDict

from geo4d_ros.data.collect import Recording, record
from geo4d_ros.data.episodes import Episode, list_episodes
from geo4d_ros.evaluation.closed_loop.runs import EpisodeOptions, EpisodeReport, run_episode
from geo4d_ros.workers.pool import run_jobs
from geo4d_ros.workers.ray_cluster import LOCAL

SEED = 500_000


class WorkReport(TypedDict, total=False):
    """One kind of work; rows: <way>_<workers> -> wall_s, start_s, per_s and its ratio to the fewest workers'."""

    rows: dict[str, dict[str, float]]
    identical: bool
    result_sha256: str


class ScalingReport(TypedDict):
    """The report of `geo4d benchmark scaling`."""

    task: str
    seed_start: int
    demos: int
    episodes: int
    workers: list[int]
    collect: WorkReport
    closed_loop: WorkReport


def measure(task: str, demos: int, episodes: int, workers: Sequence[int], checkpoint: str,
            ray: bool) -> ScalingReport:
    """The report of `geo4d benchmark scaling`: jobs per second of each way and number of workers, and whether all of
    them gave the same results, byte for byte."""
    ways = [(way, address, n) for way, address in (('processes', None), ('ray', LOCAL if ray else ''))
            for n in workers if address != '']
    found: dict[str, WorkReport] = {}
    for what, count, run in (('collect', demos, _collect), ('closed_loop', episodes, _evaluate)):
        rows: dict[str, dict[str, float]] = {}
        results: list[str] = []
        for way, address, n in ways if count else ():
            row, result = run(task, count, n, address, checkpoint)
            rows[f'{way}_{n}'] = row
            results.append(result)
        for way, _, n in ways if count else ():
            rows[f'{way}_{n}']['ratio'] = rows[f'{way}_{n}']['per_s'] / rows[f'{way}_{workers[0]}']['per_s']
        found[what] = {'rows': rows, 'identical': len(set(results)) == 1, 'result_sha256': results[0]} if rows else {}
    return {'task': task, 'seed_start': SEED, 'demos': demos, 'episodes': episodes, 'workers': list(workers),
            'collect': found['collect'], 'closed_loop': found['closed_loop']}


def _collect(task: str, demos: int, workers: int, address: str | None, _: str) -> tuple[dict[str, float], str]:
    with tempfile.TemporaryDirectory() as folder:
        jobs = [(Recording(folder, cameras=3), task, SEED + i) for i in range(demos)]
        row, _found = _timed(lambda: run_jobs(record, jobs, workers, address), lambda outcome: outcome.seconds)
        digest = hashlib.sha256()
        for path in list_episodes(folder):
            episode = Episode.open(path)
            digest.update(json.dumps(dict(episode.attributes), sort_keys=True, default=str).encode())
            for name, array in sorted(episode.load().items()):
                digest.update(name.encode() + array.tobytes())
    return row, digest.hexdigest()


def _evaluate(task: str, episodes: int, workers: int, address: str | None,
              checkpoint: str) -> tuple[dict[str, float], str]:
    jobs = [(EpisodeOptions(checkpoint), task, SEED + i) for i in range(episodes)]
    row, found = _timed(lambda: run_jobs(run_episode, jobs, workers, address), _stages)
    plain = [asdict(replace(report, stages={})) for report in sorted(found, key=lambda report: report.seed)]
    return row, hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()


def _stages(report: EpisodeReport) -> float:
    return sum(sum(times) for times in report.stages.values())


def _timed(run: Callable[[], Iterator[Any]], own_s: Callable[[Any], float]) -> tuple[dict[str, float], list[Any]]:
    """start_s: until the first result, less what that job took itself; per_s: jobs a second after the start."""
    started, start_s = time.perf_counter(), 0.0
    found: list[Any] = []
    for result in run():
        if not found:
            start_s = max(0.0, time.perf_counter() - started - own_s(result))
        found.append(result)
    wall_s = time.perf_counter() - started
    return {'wall_s': wall_s, 'start_s': start_s, 'per_s': len(found) / max(wall_s - start_s, 1e-9)}, found
