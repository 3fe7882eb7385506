"""Node parameters from a frozen dataclass: described, typed, range-checked, readable as one object.

    @dataclass(frozen=True)
    class Parameters:
        max_age: float = parameter(0.5, 'Oldest camera pair that is used [s].', minimum=0.01, maximum=10.0)
        tracker: str = parameter('model', 'Tracking backend.', choices=('model', 'foundationpose'))
        checkpoint: str = parameter('', 'Directory of the weights.', read_only=True)

    self.parameters = NodeParameters(self, Parameters)
    self.parameters.values.max_age
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar, get_type_hints

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from geo4d_ros.errors import ConfigurationError

T = TypeVar('T')
TYPES: dict[Any, Parameter.Type] = {
    bool: Parameter.Type.BOOL, int: Parameter.Type.INTEGER, float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING, tuple[float, ...]: Parameter.Type.DOUBLE_ARRAY,
    tuple[str, ...]: Parameter.Type.STRING_ARRAY, tuple[int, ...]: Parameter.Type.INTEGER_ARRAY,
}


def parameter(default: Any, description: str, *, minimum: float | None = None, maximum: float | None = None,
              choices: tuple[str, ...] = (), length: int | None = None, read_only: bool = False,
              name: str | None = None) -> Any:
    """A dataclass field that becomes a ROS parameter; the description carries the unit.

    `minimum` and `maximum` (inclusive) hold for numbers and for every element of a number list, `length`
    for lists, `choices` for strings. `name` is the ROS name where it differs from the field's ('a.b').
    """
    return dataclasses.field(default=default, metadata={
        'description': description, 'minimum': minimum, 'maximum': maximum, 'choices': choices,
        'length': length, 'read_only': read_only, 'name': name})


def problem(field: dataclasses.Field, value: Any) -> str | None:
    """What is wrong with a value of the right type, in one line; None when nothing is."""
    meta = field.metadata
    name = meta['name'] or field.name
    if meta['choices'] and value not in meta['choices']:
        return f'{name} should be one of {", ".join(meta["choices"])} but got {value!r}'
    items = [value] if isinstance(value, (str, int, float)) else list(value)
    if meta['length'] is not None and len(items) != meta['length']:
        return f'{name} should have {meta["length"]} values but got {len(items)}'
    low, high = meta['minimum'], meta['maximum']
    for item in items:
        if not isinstance(item, (int, float)) or isinstance(item, bool):
            continue
        if not math.isfinite(item) or (low is not None and item < low) or (high is not None and item > high):
            return f'{name} should lie in [{low}, {high}] but got {item}'
    return None


def descriptor(field: dataclasses.Field, kind: Parameter.Type) -> ParameterDescriptor:
    """What `ros2 param describe` shows."""
    meta = field.metadata
    text = meta['description'] + (f' One of: {", ".join(meta["choices"])}.' if meta['choices'] else '')
    out = ParameterDescriptor(description=text, read_only=meta['read_only'], type=kind.value)
    low, high = meta['minimum'], meta['maximum']
    if kind is Parameter.Type.DOUBLE and (low is not None or high is not None):
        out.floating_point_range = [FloatingPointRange(from_value=float(-1e300 if low is None else low),
                                                       to_value=float(1e300 if high is None else high))]
    if kind is Parameter.Type.INTEGER and (low is not None or high is not None):
        out.integer_range = [IntegerRange(from_value=-2**62 if low is None else int(low),
                                          to_value=2**62 if high is None else int(high), step=1)]
    return out


class NodeParameters(Generic[T]):
    """Declares every field of `schema` on `node`; `values` is always the current, valid object.

    Raises ConfigurationError when an override (file, command line) has a wrong type or value.
    `on_change(new_values)` is called after a successful change at run time. While `locked()` returns a text (what is
    under way), every change is refused with it: a run keeps the values it began with.
    """

    def __init__(self, node: Node, schema: type[T], on_change: Callable[[T], None] | None = None,
                 locked: Callable[[], str] = lambda: '') -> None:
        self.fields = {f.metadata['name'] or f.name: f for f in dataclasses.fields(schema)}  # type: ignore[arg-type]
        self.on_change, self.locked = on_change, locked
        hints = get_type_hints(schema)
        found = {}
        for name, field in self.fields.items():
            kind = TYPES[hints[field.name]]
            try:
                default = list(field.default) if isinstance(field.default, tuple) else field.default
                value = node.declare_parameter(name, default, descriptor(field, kind)).value
            except Exception as error:  # rclpy has one exception class per kind of bad override
                raise ConfigurationError(f'parameter {name}: {_one_line(error)}') from error
            found[field.name] = self._checked(field, value)
        self.values: T = schema(**found)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._apply)

    @staticmethod
    def _checked(field: dataclasses.Field, value: Any) -> Any:
        wrong = problem(field, value)
        if wrong:
            raise ConfigurationError(f'parameter {wrong}')
        return tuple(value) if isinstance(field.default, tuple) else value

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        ours = [item.name for item in parameters if item.name in self.fields]
        busy = self.locked() if ours else ''
        if busy:
            return SetParametersResult(successful=False, reason=f'{", ".join(ours)}: not while {busy}')
        for item in parameters:
            wrong = item.name in self.fields and problem(self.fields[item.name], item.value)
            if wrong:
                return SetParametersResult(successful=False, reason=wrong)
        return SetParametersResult(successful=True)

    def _apply(self, parameters: list[Parameter]) -> None:
        changed = {self.fields[p.name].name: self._checked(self.fields[p.name], p.value)
                   for p in parameters if p.name in self.fields}
        if changed:
            self.values = dataclasses.replace(self.values, **changed)  # type: ignore[type-var]
            if self.on_change:
                self.on_change(self.values)


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())
