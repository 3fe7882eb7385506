"""The values of a YAML config against the types of a dataclass: one line says which key is wrong, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from math import isfinite
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from geo4d_ros.errors import ConfigurationError, require

Config = TypeVar('Config')
_COUNTS = frozenset({'batch', 'accumulation', 'steps', 'warmup', 'save_every', 'sample_every', 'cached_windows',
                     'future_frames', 'student_steps', 'fake_updates'})  # at least 1
_POSITIVE = frozenset({'minutes', 'validate_every_min', 'lr', 'fake_lr', 'clip', 'save_every_s'})
_NOT_NEGATIVE = frozenset({'workers', 'weight_decay', 'seed', 'arm_steps', 'ema', 'fresh_share'})


def checked_config(kind: type[Config], values: Mapping[str, Any], what: str = 'training') -> Config:
    """`kind(**values)` with every value of its field's type; unknown keys are named.

    YAML 1.1 reads 2e-4 as a text (it wants 2.0e-4): texts that are numbers count as numbers. Raises
    ConfigurationError, one line, for anything else.
    """
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(str(k) for k in set(values) - set(known))
    require(not unknown, f'unknown {what} keys {unknown}; available: {known}', ConfigurationError)
    hints = get_type_hints(kind)
    checked = {name: _value(hints[name], value, f'{what} key {name}') for name, value in values.items()}
    for name, value in checked.items():
        _in_range(name, value, what)
    return kind(**checked)


def _in_range(name: str, value: Any, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    good, needed = True, ''
    if name in _COUNTS:
        good, needed = value >= 1, 'at least 1'
    elif name in _POSITIVE:
        good, needed = value > 0, 'positive'
    elif name in _NOT_NEGATIVE:
        good, needed = value >= 0, 'not negative'
    require(good, f'{what} key {name} should be {needed} but is {value}', ConfigurationError)


def _value(hint: Any, value: Any, what: str) -> Any:
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    kind = next(option for option in options if option is not type(None))
    origin = get_origin(kind) or kind
    if origin is tuple:
        parts = get_args(kind)
        require(isinstance(value, list | tuple) and len(value) == len(parts),
                f'{what} should be {len(parts)} values but is {value!r}', ConfigurationError)
        return tuple(_value(part, v, what) for part, v in zip(parts, value, strict=True))
    if origin is list:
        require(isinstance(value, list), f'{what} should be a list but is {value!r}', ConfigurationError)
        return [_value(get_args(kind)[0], v, what) for v in value]
    if origin in (int, float) and not isinstance(value, bool):
        return _number(origin, value, what)
    names = {int: 'a whole number', float: 'a number', str: 'a text', bool: 'true or false', dict: 'a mapping of keys'}
    require(origin not in names or (isinstance(value, origin) and (origin is bool or not isinstance(value, bool))),
            f'{what} should be {names.get(origin)} but is {value!r}', ConfigurationError)
    return value


def _number(kind: type, value: Any, what: str) -> int | float:
    try:
        number = float(value)
        good = isfinite(number) and (kind is float or number == int(number))
    except (TypeError, ValueError, OverflowError):
        good = False
    require(good, f'{what} should be a {"finite" if kind is float else "whole"} number but is {value!r}',
            ConfigurationError)
    return number if kind is float else int(number)
