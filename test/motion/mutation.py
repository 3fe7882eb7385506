"""Mutation score of the gates and the state machine: `python test/motion/mutation.py [--json F]`.

Changes one place of a module at a time (a comparison, constant, operator, condition, branch, enum
member, keyword) and runs the module's own tests: a change that no test notices is a survivor. Written
here because every mutant is a fork of one warm process: a second each, where mutmut and cosmic-ray
start a new interpreter that imports Pinocchio, scipy and hypothesis each time. Words and number
formats in messages are not changed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import json
import os
import random
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'test')]
# module -> the tests that have to notice a change of it
TARGETS = {
    'geo4d_ros.motion.gates': 'test/motion/test_gates.py',
    'geo4d_ros.motion.state_machine': 'test/motion/test_state_machine.py',
}
TIMEOUT = 120  # s of processor time for one mutant: an endless loop is noticed too
_COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
            ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
_REVERSE = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
_ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitAnd: ast.BitOr,
               ast.BitOr: ast.BitAnd}
_ENUMS = {'Reason': ('INTERNAL_ERROR', 'PLAN_EMPTY'), 'Phase': ('SETTLING', 'IDLE'),
          'ActionKind': ('REPORT', 'STOP'), 'EventKind': ('TICK', 'STOP')}


def mutations(tree: ast.Module) -> Iterator[tuple[ast.AST, str, Callable[[ast.AST], None]]]:
    """(node, what changes, the change to apply to the same node of a copy) of every mutation."""
    for node in _outside_words(tree):
        yield from _of_node(node)


def _outside_words(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that is no annotation, docstring, message or type alias."""
    for name, value in ast.iter_fields(tree):
        if name in ('annotation', 'returns', 'decorator_list'):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr):
                continue
            is_alias = isinstance(child, ast.Assign) and isinstance(child.value, ast.Subscript | ast.BinOp) \
                and isinstance(tree, ast.Module)
            if not is_alias:
                yield child
                yield from _outside_words(child)


def _of_node(node: ast.AST) -> Iterator[tuple[ast.AST, str, Callable[[ast.AST], None]]]:
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for table in (_COMPARE, _REVERSE):
                if type(op) in table:
                    new = table[type(op)]
                    yield node, f'{type(op).__name__} -> {new.__name__}', _set_item('ops', i, new)
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        new = _ARITHMETIC[type(node.op)]
        yield node, f'{type(node.op).__name__} -> {new.__name__}', _set('op', new)
    elif isinstance(node, ast.BoolOp):
        new = ast.And if isinstance(node.op, ast.Or) else ast.Or
        yield node, f'{type(node.op).__name__} -> {new.__name__}', _set('op', new)
        for i in range(len(node.values)):
            yield node, f'operand {i} dropped', lambda n, i=i: n.values.pop(i)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        yield node, 'negation dropped', _set('op', ast.UAdd if isinstance(node.op, ast.Invert) else _Truth)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        new = not node.value if isinstance(node.value, bool) else node.value + 1
        yield node, f'{node.value} -> {new}', lambda n: setattr(n, 'value', new)
    elif isinstance(node, ast.If | ast.IfExp):
        for value in (True, False):
            yield node, f'condition -> {value}', lambda n, v=value: setattr(n, 'test', ast.Constant(v))
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _ENUMS:
        new = next(m for m in _ENUMS[node.value.id] if m != node.attr)
        yield node, f'{node.attr} -> {new}', lambda n: setattr(n, 'attr', new)
    elif isinstance(node, ast.Call):
        for i, keyword in enumerate(node.keywords):
            if keyword.arg not in (None, 'axis', 'strict'):
                yield node, f'{keyword.arg}= dropped', lambda n, i=i: n.keywords.pop(i)
    elif isinstance(node, ast.Return) and node.value is not None \
            and not (isinstance(node.value, ast.Constant) and node.value.value is None):
        yield node, 'returns None', lambda n: setattr(n, 'value', ast.Constant(None))


class _Truth(ast.unaryop):
    """Marks a dropped `not`."""


def _set(field: str, kind: type) -> Callable[[ast.AST], None]:
    return lambda node: setattr(node, field, kind())


def _set_item(field: str, index: int, kind: type) -> Callable[[ast.AST], None]:
    return lambda node: getattr(node, field).__setitem__(index, kind())


class _DropTruth(ast.NodeTransformer):
    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return node.operand if isinstance(node.op, _Truth) else node


def mutant(tree: ast.Module, index: int) -> tuple[ast.Module, str]:
    """The tree with mutation `index` applied, and its description."""
    changed = copy.deepcopy(tree)
    node, what, change = next(m for i, m in enumerate(mutations(changed)) if i == index)
    where = f'line {node.lineno}: {what}'
    change(node)
    return ast.fix_missing_locations(_DropTruth().visit(changed)), where


def survives(name: str, tree: ast.Module, tests: str) -> bool:
    """Whether the tests pass with the module replaced; runs in a fork, so that nothing is left behind."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    try:
        status = _run_mutant(name, tree, tests)
    except BaseException:  # whatever a mutant raises at import counts as noticed
        status = 1
    os._exit(status)


def _run_mutant(name: str, tree: ast.Module, tests: str) -> int:
    import resource

    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (TIMEOUT, TIMEOUT))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    module = types.ModuleType(name)
    module.__file__ = str(ROOT / (name.replace('.', '/') + '.py'))
    sys.modules[name] = module
    package, _, short = name.rpartition('.')
    setattr(sys.modules[package], short, module)
    for user in [m for m in sys.modules if m.startswith('geo4d_ros.') and m != name]:
        if getattr(sys.modules[user], '__dict__', {}).get(short) is not None or user.startswith('geo4d_ros.evaluation'):
            del sys.modules[user]
    exec(compile(tree, module.__file__, 'exec'), module.__dict__)
    return int(pytest.main(['-x', '-q', '-p', 'no:cacheprovider', '-p', 'no:warnings', '--tb=no', str(ROOT / tests)]))


def score(name: str, tests: str, sample: int | None) -> dict:
    """Run the mutants of one module (or a random sample of them)."""
    path = ROOT / (name.replace('.', '/') + '.py')
    tree = ast.parse(path.read_text())
    count = sum(1 for _ in mutations(tree))
    indices = sorted(random.Random(0).sample(range(count), min(sample or count, count)))
    if not survives(name, tree, tests):
        raise SystemExit(f'{tests} fails on the unchanged {name}; mend that first')
    survivors = []
    for done, index in enumerate(indices, start=1):
        changed, where = mutant(tree, index)
        if survives(name, changed, tests):
            survivors.append(where)
            print(f'  survived: {path.name} {where}', file=sys.stderr)
        if done % 50 == 0:
            print(f'  {path.name}: {done}/{len(indices)}, {len(survivors)} survivors', file=sys.stderr)
    killed = len(indices) - len(survivors)
    return {'mutants': len(indices), 'killed': killed, 'score': round(killed / len(indices), 4), 'survivors': survivors}


def main() -> int:
    """Print and write the scores; 0 when all reach the bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--json', type=Path, help='write the scores here')
    parser.add_argument('--sample', type=int, help='only so many mutants of each module, chosen at random')
    parser.add_argument('--bar', type=float, default=0.85, help='smallest score that passes (default 0.85)')
    parser.add_argument('--module', choices=list(TARGETS), help='only this module')
    args = parser.parse_args()
    for name in ('numpy', 'scipy.spatial.transform', 'hypothesis', 'pytest', *TARGETS):
        importlib.import_module(name)  # warm, before the forks
    start, report = time.perf_counter(), {}
    for name, tests in TARGETS.items():
        if args.module in (None, name):
            report[name] = score(name, tests, args.sample)
            print(f'{name}: {report[name]["killed"]}/{report[name]["mutants"]} = {report[name]["score"]:.3f}')
    if args.json:
        args.json.write_text(json.dumps({'modules': report, 'wall_s': round(time.perf_counter() - start, 1)}, indent=1))
    return 0 if all(r['score'] >= args.bar for r in report.values()) else 3


if __name__ == '__main__':
    sys.exit(main())
