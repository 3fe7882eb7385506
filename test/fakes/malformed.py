"""Requests that break the contract in every layer: bytes, msgpack, fields, arrays, values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from geo4d_ros.generation.remote.arrays import pack
from geo4d_ros.generation.remote.messages import encode
from geo4d_ros.types import Observation, RgbdFrame

JUNK: tuple[Any, ...] = (None, True, -1, 2**63, 1.5, float('nan'), 'x', b'x', [], {}, [[]], {'dtype': '|O'}, 'é' * 999,
                         {'dtype': '<f4', 'shape': [9], 'codec': 'zstd', 'data': b'(\xb5/\xfd'})


def good_request() -> dict[str, Any]:
    """What a client sends, with small pictures."""
    views = (RgbdFrame.example(6, 8), RgbdFrame.example(6, 8, 1))
    observation = Observation(views, np.eye(4), 0.04)
    return {'id': 1, 'seed': 0, 'video': True, 'track': False, 'observation': encode(observation)}


def malformed_requests(count: int, seed: int) -> Iterator[bytes | str]:
    """`count` of them, the same ones for the same seed; none is a valid request."""
    random = np.random.default_rng(seed)
    whole = pack(good_request())
    for i in range(count):
        kind = i % 5
        if kind == 0:
            yield random.bytes(int(random.integers(0, 200)))
        elif kind == 1:
            yield whole[:int(random.integers(0, len(whole)))]
        elif kind == 2:
            yield 'text ' * int(random.integers(1, 9))
        else:
            message = good_request()
            _spoil(message, random, drop=kind == 3)
            yield pack(message)


def _spoil(message: dict[str, Any], random: np.random.Generator, drop: bool) -> None:
    """Take one field away, or put junk in its place, somewhere in the tree; never what stays valid."""
    node, key = message, str(random.choice(list(message)))
    while isinstance(node[key], dict | list) and node[key] and random.random() < 0.8:
        node = node[key]
        key = random.choice(list(node)) if isinstance(node, dict) else int(random.integers(len(node)))
    required = {'id', 'seed', 'video', 'track', 'observation', 'views', 'rgb', 'depth', 'K', 'dtype', 'shape', 'codec',
                'data'}
    if isinstance(node, list) or key not in required:
        message['surplus'] = 1
    elif drop:
        del node[key]
    elif isinstance(node[key], bool):
        node[key] = 'perhaps'
    else:
        junk = JUNK[int(random.integers(len(JUNK)))]
        node[key] = {'not': 'this'} if type(junk) is type(node[key]) else junk
