"""The policy server measured from outside: bytes and milliseconds per compression, misuse, many clients, memory."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
from tqdm import tqdm
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from geo4d_ros.errors import BackendUnavailableError, Geo4dError
from geo4d_ros.evaluation.metrics.statistics import percentiles_ms
from geo4d_ros.generation.remote.address import Address
from geo4d_ros.generation.remote.arrays import COMPRESSIONS, pack, unpack
from geo4d_ros.generation.remote.client import RemoteGenerator
from geo4d_ros.generation.remote.messages import encode
from geo4d_ros.types import Observation

START_SECONDS, ASK_SECONDS = 180.0, 120.0


@contextmanager
def served(checkpoint: str | None, device: str) -> Iterator[tuple[int, psutil.Process]]:
    """`geo4d serve` as a process (None: a server without a model): its port and process.

    BackendUnavailableError when it does not come up.
    """
    command = [sys.executable, '-m', 'geo4d_ros.bench.speed.still_server']
    if checkpoint is not None:
        command = [sys.executable, '-m', 'geo4d_ros.cli.main', 'serve', '--port', '0', '--checkpoint', checkpoint,
                   '--device', device, '--waiting', '64', '--clients', '80']
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


def benchmark(observation: Observation, checkpoint: str | None, device: str, repeats: int, malformed: int, clients: int,
              seed: int = 0) -> dict[str, Any]:
    """The report of `geo4d benchmark serve`; `observation` at the cameras' size."""
    with served(checkpoint, device) as (port, process):
        RemoteGenerator(Address('127.0.0.1', port, timeout=ASK_SECONDS)).predict(observation)  # warm
        rows = {name: _measure(port, observation, name, repeats) for name in COMPRESSIONS}
        before = process.memory_info().rss
        spoiled = misuse(port, observation, malformed, seed)
        slow = _slow_clients(port, 8)
        answered = _many(port, observation, clients)
        for one in slow:
            one.close()
        after = process.memory_info().rss
        survived = process.is_running() and _lives(port, observation)
    default = rows['zstd']
    return {'request_bytes': default['request_bytes'], 'ms_p50': default['total_ms']['p50'],
            'ms_p95': default['total_ms']['p95'], 'compressions': rows, 'malformed': malformed, **spoiled,
            'slow_clients': len(slow), 'clients': clients, 'clients_answered': answered, 'survived': survived,
            'server_mib_before': round(before / 2**20, 1), 'server_mib_after': round(after / 2**20, 1),
            'repeats': repeats, 'device': device, 'camera_size': list(observation.views[0].depth.shape)}


def _measure(port: int, observation: Observation, compression: str, repeats: int) -> dict[str, Any]:
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


def misuse(port: int, observation: Observation, count: int, seed: int) -> dict[str, Any]:
    """Sends `count` malformed requests; how they were answered, and how many were not within a minute."""
    small = replace(observation, views=tuple(type(v).example(6, 8) for v in observation.views))
    outcome = {'refused': 0, 'hung_up': 0, 'unanswered': 0, 'accepted': 0}
    connection = None
    for data in tqdm(malformed_requests(small, count, seed), total=count, desc='malformed', leave=False):
        if connection is None:
            connection = connect(f'ws://127.0.0.1:{port}', compression=None).__enter__()
            connection.recv(60)
        try:
            connection.send(data)
            outcome['refused' if 'code' in unpack(connection.recv(60)) else 'accepted'] += 1
        except ConnectionClosed:
            outcome['hung_up'] += 1
            connection = None
        except TimeoutError:
            outcome['unanswered'] += 1
            connection = None
    if connection is not None:
        connection.close()
    return {'malformed_outcome': outcome}


JUNK: tuple[Any, ...] = (None, True, -1, 2**63, 1.5, float('nan'), 'x', b'x', [], {}, [[]], {'dtype': '|O'}, 'é' * 999,
                         {'dtype': '<f4', 'shape': [9], 'codec': 'zstd', 'data': b'(\xb5/\xfd'})
REQUIRED = {'id', 'seed', 'video', 'track', 'observation', 'views', 'rgb', 'depth', 'K', 'dtype', 'shape', 'codec',
            'data'}


def malformed_requests(observation: Observation, count: int, seed: int) -> Iterator[bytes | str]:
    """`count` requests that break the contract in every layer (bytes, msgpack, fields, arrays, values); the same ones
    for the same seed, none of them valid.
    """
    random = np.random.default_rng(seed)
    good = {'id': 1, 'seed': 0, 'video': True, 'track': False, 'observation': encode(observation)}
    whole = pack(good)
    for i in range(count):
        kind = i % 5
        if kind == 0:
            yield random.bytes(int(random.integers(0, 200)))
        elif kind == 1:
            yield whole[:int(random.integers(0, len(whole)))]
        elif kind == 2:
            yield 'text ' * int(random.integers(1, 9))
        else:
            message = unpack(whole)
            _spoil(message, random, drop=kind == 3)
            yield pack(message)


def _spoil(message: dict[str, Any], random: np.random.Generator, drop: bool) -> None:
    """Take one field away, or put junk in its place, somewhere in the tree; never what stays valid."""
    node: Any = message
    key: Any = str(random.choice(list(message)))
    while isinstance(node[key], dict | list) and node[key] and random.random() < 0.8:
        node = node[key]
        key = random.choice(list(node)) if isinstance(node, dict) else int(random.integers(len(node)))
    if isinstance(node, list) or key not in REQUIRED:
        message['surplus'] = 1
    elif drop:
        del node[key]
    elif isinstance(node[key], bool):
        node[key] = 'perhaps'
    else:
        junk = JUNK[int(random.integers(len(JUNK)))]
        node[key] = {'not': 'this'} if type(junk) is type(node[key]) else junk


def _slow_clients(port: int, count: int) -> list[socket.socket]:
    """Connections that never say anything."""
    return [socket.create_connection(('127.0.0.1', port)) for _ in range(count)]


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
