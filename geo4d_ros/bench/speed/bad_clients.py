"""Clients that a policy server has to outlive: malformed, silent, half-open, and deaf to their answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from tqdm import tqdm
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from geo4d_ros.generation.remote.arrays import pack, unpack
from geo4d_ros.generation.remote.messages import encode
from geo4d_ros.types import Observation

UPGRADE = ('GET / HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
           'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n')


def misuse(port: int, observation: Observation, count: int, seed: int) -> dict[str, dict[str, int]]:
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


def _spoil(message: Any, random: np.random.Generator, drop: bool) -> None:
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


@contextmanager
def bad_clients(port: int, observation: Observation, each: int) -> Iterator[dict[str, list[socket.socket]]]:
    """Connections held open while the others go on, `each` of every kind: `slow` never says anything, `half_open` falls
    silent in the middle of a message, `unread` asks for a video and never reads it.
    """
    message = pack({'id': 1, 'seed': 0, 'video': True, 'track': False, 'observation': encode(observation)})
    frame = _frame(message)
    opened = {'slow': [socket.create_connection(('127.0.0.1', port)) for _ in range(each)],
              'half_open': [_upgraded(port, frame[:len(frame) // 2]) for _ in range(each)],
              'unread': [_upgraded(port, frame) for _ in range(each)]}
    try:
        yield opened
    finally:
        for sockets in opened.values():
            for one in sockets:
                one.close()


def _upgraded(port: int, data: bytes) -> socket.socket:
    """A connection past its handshake that has sent `data`; its buffer takes little of what comes."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.settimeout(60)
    one.connect(('127.0.0.1', port))
    one.sendall(UPGRADE.format(port).encode())
    answer = b''
    while b'\r\n\r\n' not in answer:
        answer += one.recv(1)
    one.sendall(data)
    return one


def _frame(message: bytes) -> bytes:
    """One binary websocket message from a client; masked with zeros, which leaves it as it is."""
    return b'\x82\xff' + len(message).to_bytes(8, 'big') + bytes(4) + message


def cut_off(sockets: list[socket.socket]) -> int:
    """How many of them the server has hung up on; what it sent before is read away."""
    count = 0
    for one in sockets:
        one.setblocking(False)
        try:
            while one.recv(1 << 20):
                continue
            count += 1
        except BlockingIOError:
            continue
        except OSError:
            count += 1
    return count
