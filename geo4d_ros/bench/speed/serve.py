"""The policy server measured from outside: bytes and milliseconds per compression, misuse, many clients, memory."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypedDict

import numpy as np
import psutil
from tqdm import tqdm

from geo4d_ros.bench.speed.bad_clients import bad_clients, cut_off, misuse
from geo4d_ros.errors import BackendUnavailableError, Geo4dError
from geo4d_ros.evaluation.metrics.statistics import percentiles_ms
from geo4d_ros.generation.remote.address import Address
from geo4d_ros.generation.remote.arrays import COMPRESSIONS, pack
from geo4d_ros.generation.remote.client import RemoteGenerator
from geo4d_ros.generation.remote.messages import encode
from geo4d_ros.geometry.resampling import resize_frame
from geo4d_ros.types import Observation

START_SECONDS, ASK_SECONDS = 180.0, 240.0
BAD = 8  # clients of each bad kind
CUT_SECONDS = 45.0  # after which a client that answers no ping is gone: two intervals of 20 s


@contextmanager
def served(checkpoint: str | None, device: str) -> Iterator[tuple[int, psutil.Process]]:
    """`geo4d serve` as a process (None: a server without a model): its port and process.

    BackendUnavailableError when it does not come up.
    """
    command = [sys.executable, '-m', 'geo4d_ros.bench.speed.still_server']
    if checkpoint is not None:
        command = [sys.executable, '-m', 'geo4d_ros.cli.main', 'serve', '--port', '0', '--checkpoint', checkpoint,
                   '--device', device, '--waiting', '80', '--clients', '96']
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    alarm = threading.Timer(START_SECONDS, process.kill)
    alarm.start()
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            found = re.search(r'listening on remote://127\.0\.0\.1:(\d+)', line)
            if found:
                break
        else:
            raise BackendUnavailableError(f'geo4d serve did not start: {"".join(lines).strip()[-300:]}')
        alarm.cancel()
        threading.Thread(target=process.stderr.read, daemon=True).start()  # what it logs must not fill the pipe
        yield int(found[1]), psutil.Process(process.pid)
    finally:
        alarm.cancel()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class CompressionRow(TypedDict):
    """Bytes and p50, p95 [ms] of one compression; overhead: all but the model."""

    request_bytes: int
    request_bytes_at_camera_size: int
    reply_bytes: int
    total_ms: dict[str, float] | None
    overhead_ms: dict[str, float] | None
    n: int


class ServeReport(TypedDict):
    """The report of `geo4d benchmark serve`; the first three of the default compression."""

    request_bytes: int
    ms_p50: float
    ms_p95: float
    compressions: dict[str, CompressionRow]
    malformed: int
    malformed_outcome: dict[str, int]
    slow_clients: int
    half_open_clients: int
    unread_clients: int
    cut_off: dict[str, int]
    clients: int
    clients_answered: int
    clients_wall_s: float
    survived: bool
    server_mib_before: float
    server_mib_after: float
    repeats: int
    device: str
    camera_size: list[int]


def benchmark(observation: Observation, checkpoint: str | None, device: str, repeats: int, malformed: int, clients: int,
              seed: int = 0) -> ServeReport:
    """The report of `geo4d benchmark serve`; `observation` at the cameras' size."""
    with served(checkpoint, device) as (port, process):
        remote = RemoteGenerator(Address('127.0.0.1', port, timeout=ASK_SECONDS))
        remote.predict(observation)  # warm
        small = replace(observation, views=tuple(
            resize_frame(v, remote.metadata.height or v.depth.shape[0], remote.metadata.width or v.depth.shape[1])
            for v in observation.views))
        remote.close()
        rows = {name: _measure(port, observation, name, repeats) for name in COMPRESSIONS}
        before = process.memory_info().rss
        spoiled = misuse(port, observation, malformed, seed)
        with bad_clients(port, small, BAD) as bad:
            start = time.monotonic()
            answered = _many(port, observation, clients)
            seconds = time.monotonic() - start
            time.sleep(max(0.0, CUT_SECONDS - seconds))
            cut = {kind: cut_off(bad[kind]) for kind in ('half_open', 'unread')}
        after = process.memory_info().rss
        survived = process.is_running() and _lives(port, observation)
    default = rows['zstd']
    total = default['total_ms'] or {}
    return {'request_bytes': default['request_bytes'], 'ms_p50': total['p50'], 'ms_p95': total['p95'],
            'compressions': rows, 'malformed': malformed, 'malformed_outcome': spoiled['malformed_outcome'],
            'slow_clients': BAD, 'half_open_clients': BAD, 'unread_clients': BAD, 'cut_off': cut, 'clients': clients,
            'clients_answered': answered, 'clients_wall_s': round(seconds, 1), 'survived': survived,
            'server_mib_before': round(before / 2**20, 1), 'server_mib_after': round(after / 2**20, 1),
            'repeats': repeats, 'device': device, 'camera_size': list(observation.views[0].depth.shape)}


def _measure(port: int, observation: Observation, compression: str, repeats: int) -> CompressionRow:
    """Sizes and times of one compression; overhead: all but the model."""
    remote = RemoteGenerator(Address('127.0.0.1', port, timeout=ASK_SECONDS, compression=compression))
    full = len(pack({'observation': encode(observation, compression)}))
    replies = [remote.ask(observation, i) for i in tqdm(range(repeats), desc=compression, leave=False)]
    remote.close()
    totals = [r.timings_ms['remote'] / 1e3 for r in replies]
    overheads = [(r.timings_ms['remote'] - r.timings_ms['generate']) / 1e3 for r in replies]
    return {'request_bytes': replies[-1].request_bytes, 'request_bytes_at_camera_size': full,
            'reply_bytes': int(np.median([r.reply_bytes for r in replies])), 'total_ms': percentiles_ms(totals),
            'overhead_ms': percentiles_ms(overheads), 'n': repeats}


def _many(port: int, observation: Observation, clients: int) -> int:
    """How many of so many clients at once get their video."""
    answered: list[int] = []

    def ask() -> None:
        remote = RemoteGenerator(Address('127.0.0.1', port, timeout=ASK_SECONDS))
        try:
            answered.append(remote.predict(observation).frames)
        except Geo4dError:
            return
        finally:
            remote.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 2 * ASK_SECONDS
    for thread in tqdm(threads, desc='clients', leave=False):
        thread.join(max(0.0, end - time.monotonic()))
    return len(answered)


def _lives(port: int, observation: Observation) -> bool:
    try:
        return RemoteGenerator(Address('127.0.0.1', port, timeout=ASK_SECONDS)).predict(observation).frames > 1
    except Geo4dError:
        return False
