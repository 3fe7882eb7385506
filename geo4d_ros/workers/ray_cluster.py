"""Jobs on a Ray cluster: the one place that knows Ray. A job is a task; a lost worker's task is done again elsewhere.

Ray is Apache-2.0 and optional (`pip install 'geo4d_ros[ray]'`). Its protocol runs whatever reaches it: a cluster
belongs into a network of its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from geo4d_ros.errors import BackendUnavailableError, ConfigurationError, Geo4dError, SimulationError
from geo4d_ros.resources import revision
from geo4d_ros.workers.pool import set_worker_environment

LOCAL = 'local'
RETRIES = 3  # of a task whose worker or machine was lost
OBJECT_STORE_BYTES = 100 << 20  # of a local cluster: jobs and reports are small, episodes go to disk
AHEAD = 2  # tasks handed over per free core, so that no worker waits for the next one


def require_ray() -> Any:
    """The ray module; BackendUnavailableError says how to get it."""
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')  # nobody is told about this cluster
    try:
        import ray
    except ImportError as error:
        raise BackendUnavailableError("--ray needs the package ray; pip install 'geo4d_ros[ray]', or drop --ray to use "
                                      "this machine's cores") from error
    return ray


def run_on_ray(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], address: str, processes: int,
               gpus: float = 0.0) -> Iterator[Any]:
    """function(*job) for every job on the cluster, results as they finish.

    address: 'local' (a cluster of `processes` workers on this machine, ended afterwards), 'auto' (RAY_ADDRESS or a
    cluster of this machine), HOST:PORT of a head node. The function must be importable on the workers, which have
    this revision of the package and the present folder at the same path (NFS or the like): they write there.
    Raises what a job raises; BackendUnavailableError without ray; ConfigurationError for a cluster that cannot be
    reached or lacks `gpus`; SimulationError for a job that lost `RETRIES` + 1 workers.
    """
    ray = require_ray()
    connect(ray, address, processes)
    try:
        width = AHEAD * _workers(ray, gpus)
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_run)
        waiting, place = iter(jobs), (os.getcwd(), revision())
        running = {task.remote(*place, function, job): job for job in islice(waiting, width)}
        while running:
            done = ray.wait(list(running), num_returns=1)[0][0]
            job = running.pop(done)
            running.update({task.remote(*place, function, job): job for job in islice(waiting, 1)})
            yield _result(ray, done, job)
    finally:
        ray.shutdown()


def connect(ray: Any, address: str, processes: int) -> None:
    """Join the cluster, or make a local one; ConfigurationError when there is none."""
    quiet = {'logging_level': logging.ERROR, 'log_to_driver': False}
    try:
        if address == LOCAL:
            os.environ.setdefault('RAY_worker_niceness', '0')  # else 15: below whatever else runs here
            ray.init('local', num_cpus=processes, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES,
                     **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise ConfigurationError(f'no Ray cluster at {address!r} ({str(error).splitlines()[0]}); start one with `ray '
                                 'start --head`, give its HOST:PORT, or use --ray local') from error


def _workers(ray: Any, gpus: float) -> int:
    """How many jobs the cluster does at once; ConfigurationError when none."""
    has = ray.cluster_resources()
    count = int(has.get('CPU', 0)) if not gpus else int(min(has.get('CPU', 0), has.get('GPU', 0) / gpus))
    if count < 1:
        raise ConfigurationError(f'the Ray cluster has {has.get("CPU", 0):.0f} CPUs and {has.get("GPU", 0):.0f} GPUs; '
                                 f'a job needs one CPU and {gpus:g} GPUs')
    return count


def _run(folder: str, wanted: str, function: Callable[..., Any], job: tuple[Any, ...]) -> Any:
    """One job in a worker, in the driver's folder."""
    set_worker_environment()
    has = _own_revision()
    if 'unknown' not in (has, wanted) and has != wanted:
        raise ConfigurationError(f'a worker on {os.uname().nodename} has revision {has} of the package, this machine '
                                 f'{wanted}: results would not be comparable; update it')
    try:
        os.chdir(folder)
    except OSError as error:
        raise ConfigurationError(f'{folder} does not exist on {os.uname().nodename} ({error.strerror}); share it with '
                                 'the cluster at the same path') from error
    return function(*job)


@lru_cache(maxsize=1)
def _own_revision() -> str:
    return revision()


def _result(ray: Any, done: Any, job: tuple[Any, ...]) -> Any:
    """The job's result, or what it raised, without Ray's wrapping."""
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Geo4dError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        what = ', '.join(str(part) for part in job if isinstance(part, str | int))
        raise SimulationError(f'the job {what} lost {RETRIES + 1} workers ({type(error).__name__}); out of memory? see '
                              "the cluster's logs") from error
