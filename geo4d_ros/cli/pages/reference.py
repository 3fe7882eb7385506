"""docs/reference/: parameters from the nodes' schemas, the graph from the policies that a test compares with it, the
commands from their parsers, reason codes from their table. A test says when a page is out of date.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from pathlib import Path
from typing import Any, get_type_hints

from geo4d_ros.cli.main import COMMANDS
from geo4d_ros.nodes.parameter_file import literal, schemas
from geo4d_ros.reasons import table
from geo4d_ros.resources import resource
from geo4d_ros.ros.graph.policies import PROCESSES, read_policy

MADE = 'Made by `python -m geo4d_ros.cli.pages.reference`.'
EVERY_NODE = ('/rosout', '/parameter_events', '/diagnostics', '/clock')
USES = {('topics', 'publish'): 'publishes', ('topics', 'subscribe'): 'hears', ('services', 'reply'): 'serves',
        ('services', 'request'): 'calls', ('actions', 'execute'): 'action server', ('actions', 'call'): 'action client'}


def pages() -> dict[str, str]:
    """File name in docs/reference/ -> text."""
    return {'parameters.md': parameters(), 'graph.md': graph(), 'commands.md': commands(), 'reason_codes.md': table()}


def cell(text: str) -> str:
    """Text of a table's cell."""
    return ' '.join(text.split()).replace('|', '\\|')


def parameters() -> str:
    """Every parameter of every node."""
    lines = ['# Parameters', '', f'`ros2 param describe` says the same of a running node. {MADE} A parameter with * is '
             'taken when the node starts, the others at any time that no run is under way.']
    for node, schema in schemas().items():
        lines += ['', f'## {node}', '', '| parameter | type | default | range | what |',
                  '| --- | --- | --- | --- | --- |']
        hints = get_type_hints(schema)
        lines += [_parameter(field, hints[field.name]) for field in dataclasses.fields(schema)]
    return '\n'.join(lines) + '\n'


def _parameter(field: dataclasses.Field, kind: Any) -> str:
    meta = field.metadata
    low, high = meta['minimum'], meta['maximum']
    span = ', '.join(f'`{choice}`' for choice in meta['choices']) or ('' if low is None and high is None
                                                                     else f'{low} to {high}')
    name = getattr(kind, '__name__', str(kind)) if isinstance(kind, type) else str(kind).replace('tuple[', 'list[')
    star = '*' if meta['read_only'] else ''
    cells = (f'`{meta["name"] or field.name}`{star}', name.replace(', ...', ''),
             f'`{cell(literal(field.default))}`', span, cell(meta['description']))
    return f'| {" | ".join(cells)} |'


def graph() -> str:
    """What every node publishes, hears, serves and calls."""
    lines = ['# Topics, services, actions', '', 'Every name is relative to the namespace of its node (below: none). '
             'From `config/sros2/`, which a test compares with the running graph; left out is what every node has '
             f'(log, parameters, clock, diagnostics). {MADE}']
    for process in PROCESSES:
        for node, kinds in read_policy(resource('config', 'sros2', f'{process}.xml').read_text()).items():
            rows = [f'| {USES[key]} | `{name}` |' for key in USES for name in sorted(kinds.get(key, ()))
                    if name not in EVERY_NODE and not name.startswith(f'/{node}/') and '/_action/' not in name]
            lines += ['', f'## {node}', '', f'In the process `{process}`.', '', '| | name |', '| --- | --- |', *rows]
    return '\n'.join(lines) + '\n'


def commands() -> str:
    """Every command with its options, as its parser has them."""
    lines = ['# Commands', '', f'`geo4d COMMAND --help` says the same. {MADE}']
    for name, (module, text) in sorted(COMMANDS.items()):
        parser = argparse.ArgumentParser(prog=f'geo4d {name}')
        importlib.import_module(f'geo4d_ros.cli.{module}').add_arguments(parser)
        lines += ['', f'## geo4d {name}', '', text[0].upper() + text[1:] + '.']
        options = [_option(action) for action in parser._actions if action.dest != 'help']
        if options:
            lines += ['', '| option | what |', '| --- | --- |', *options]
    return '\n'.join(lines) + '\n'


def _option(action: argparse.Action) -> str:
    word = action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)
    value = '' if action.nargs == 0 or not action.option_strings else f' {action.metavar or action.dest.upper()}'
    values = {**vars(action), 'prog': 'geo4d'}
    text = (action.help or '') % values if action.help and '%' in action.help else action.help or ''
    if action.choices:
        text += f' ({", ".join(map(str, action.choices))})'
    return f'| `{cell(word + value)}`{" needed" if action.required and action.option_strings else ""} | {cell(text)} |'


def main() -> None:
    """Write the pages into the checkout."""
    folder = Path('docs/reference')
    for name, text in pages().items():
        (folder / name).write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
