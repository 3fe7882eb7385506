"""Writes config/geo4d.yaml from the parameter classes: `python -m geo4d_ros.nodes.parameter_file > FILE`."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

import yaml

HEADER = """# Every parameter of every node with its default, in any namespace (/**). Copy the file, change the
# copy, and launch with params_file:=<copy>; `ros2 param describe <node> <parameter>` shows type and range.
"""


def schemas() -> dict[str, type]:
    """Node name -> its parameter class."""
    from geo4d_ros.nodes.gripper_tracker import TrackerParameters
    from geo4d_ros.nodes.simulated_cell import CellParameters
    from geo4d_ros.nodes.video_generator import GeneratorParameters
    from geo4d_ros.ros.execute.executor_parameters import ExecutorParameters

    return {'video_generator': GeneratorParameters, 'gripper_tracker': TrackerParameters,
            'plan_executor': ExecutorParameters, 'simulated_cell': CellParameters}


def literal(value: Any) -> str:
    """A YAML flow value; floats keep their point, since ROS tells 1 from 1.0."""
    if isinstance(value, float):
        text = repr(value)
        return text if '.' in text else f'{value:.1e}'
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix('\n').removesuffix('\n...')


def text() -> str:
    """The whole file."""
    lines = [HEADER]
    for node, schema in schemas().items():
        lines += [f'/**/{node}:', '  ros__parameters:']
        for field in dataclasses.fields(schema):
            meta = field.metadata
            choices = f' One of: {", ".join(meta["choices"])}.' if meta['choices'] else ''
            lines += [f'    # {line}' for line in textwrap.wrap(meta['description'] + choices, 105)]
            lines.append(f'    {meta["name"] or field.name}: {literal(field.default)}')
        lines.append('')
    return '\n'.join(lines)


if __name__ == '__main__':
    print(text(), end='')
