"""The contract types over the wire. The schema is the dataclasses themselves: a field added there goes along here."""

from __future__ import annotations

import dataclasses
import types
import typing
from enum import Enum
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from geo4d_ros.errors import InvalidInputError, require
from geo4d_ros.generation.remote.arrays import Budget, pack_array, unpack_array

PROTOCOL = 1
T = TypeVar('T')


class Code(str, Enum):
    """Why a request got no prediction."""

    BUSY = 'BUSY'  # as many requests wait as may: ask again later
    BAD_REQUEST = 'BAD_REQUEST'  # the request breaks the contract
    FAILED = 'FAILED'  # the model raised an error


def encode(value: Any, compression: str = 'zstd') -> Any:
    """Plain msgpack values of a contract type; entries of free dictionaries that are no plain value stay here."""
    if isinstance(value, np.ndarray):
        return pack_array(value, compression)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name), compression) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return encode(value.value, compression)
    if isinstance(value, tuple | list):
        return [encode(item, compression) for item in value]
    if isinstance(value, dict):
        return {str(k): _number(v) for k, v in value.items() if _is_plain(_number(v))}
    value = _number(value)
    require(_is_plain(value), f'{type(value).__name__} does not go over the wire')
    return value


def decode(kind: type[T], value: Any, budget: Budget, name: str = 'message') -> T:
    """The contract type `kind` from plain values; its own checks run. InvalidInputError names what is wrong."""
    return _decode(kind, value, budget, name)


def _decode(kind: Any, value: Any, budget: Budget, name: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _decode(next(a for a in arguments if a is not type(None)), value, budget, name)
    if kind is np.ndarray or origin is np.ndarray:
        return unpack_array(name, value, budget)
    if origin is tuple:
        require(isinstance(value, list) and len(value) <= 4096, f'{name} should be a list')
        return tuple(_decode(arguments[0], item, budget, f'{name}[{i}]') for i, item in enumerate(value))
    if origin is dict or typing.is_typeddict(kind):
        good = isinstance(value, dict) and all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
        require(good, f'{name} should be a map of plain values')
        return value
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, budget, name)
    return _decode_scalar(kind, value, name)


def _decode_dataclass(kind: Any, value: Any, budget: Budget, name: str) -> Any:
    hints = _hints(kind)
    require(isinstance(value, dict), f'{name} should be a map')
    unknown = set(value) - set(hints)
    require(not unknown, f'{name} has an unknown field; do both sides run the same version?')
    fields = {key: _decode(hints[key], item, budget, f'{name}.{key}') for key, item in value.items()}
    try:
        return kind(**fields)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(f'{name} is not a {kind.__name__}: {error}') from error


def _decode_scalar(kind: Any, value: Any, name: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, Enum):
        require(isinstance(value, str | int) and value in {member.value for member in kind}, f'{name} is unknown')
        return kind(value)
    accepted = {float: (float, int)}.get(kind, kind)
    good = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
    require(good, f'{name} should be {kind.__name__} but got {type(value).__name__}')
    return kind(value)


@lru_cache(maxsize=32)
def _hints(kind: type) -> dict[str, type]:
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
