"""Independent jobs over worker processes, on this machine or on a Ray cluster; results as they finish."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from geo4d_ros.errors import SimulationError
from geo4d_ros.workers.parent import end_with_parent

# One thread per worker: with a worker per core, more only get in each other's way.
WORKER_ENVIRONMENT = {'MUJOCO_GL': 'egl', 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1', 'LP_NUM_THREADS': '1'}


def run_jobs(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], processes: int, ray: str | None = None,
             gpus: float = 0.0) -> Iterator[Any]:
    """function(*job) for every job, in `processes` spawned workers (in this process for 1).

    ray: address of a cluster that does them instead, 'local' for one of `processes` workers made for this call
    (`ray_cluster.run_on_ray`); gpus: how many GPUs of it a job needs.
    Raises what a job raises, and SimulationError when a worker dies (on a cluster: again and again).
    """
    set_worker_environment()
    if ray is not None:
        from geo4d_ros.workers.ray_cluster import run_on_ray

        yield from run_on_ray(function, jobs, ray, processes, gpus)
    elif min(processes, len(jobs)) <= 1:
        yield from (function(*job) for job in jobs)
    else:
        yield from _in_processes(function, jobs, min(processes, len(jobs)))


def set_worker_environment() -> None:
    """The worker's environment, where the user has not set it otherwise; before the libraries are imported."""
    os.environ.update({k: v for k, v in WORKER_ENVIRONMENT.items() if k not in os.environ})


def _in_processes(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], processes: int) -> Iterator[Any]:
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(processes, mp_context=context, initializer=end_with_parent) as pool:
        waiting = iter(jobs)
        running = {pool.submit(function, *job) for job in islice(waiting, 2 * processes)}
        try:
            while running:
                done = next(as_completed(running))
                running.remove(done)
                running.update(pool.submit(function, *job) for job in islice(waiting, 1))
                yield done.result()
        except BrokenProcessPool as error:
            raise SimulationError('a worker process died (out of memory?); run with fewer --jobs') from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
