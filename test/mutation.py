"""Mutation score of gates, state machine and driver: `make mutation` or `python test/mutation.py [--json F]`.

Changes one place of a module at a time (a comparison, constant, operator, condition, branch, enum
member, keyword, return value) and runs the module's own tests: a change that no test notices is a
survivor. Written here because the tests are imported and collected once and every mutant is a fork of
that process: about 0.1 s each, where mutmut and cosmic-ray start an interpreter that imports
Pinocchio, scipy and hypothesis each time. Words and number formats in messages are not changed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import json
import os
import random
import resource
import sys
import time
import types
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'test'), str(ROOT / 'test/motion'), str(ROOT / 'test/loop')]
# module -> the tests that have to notice a change of it
TARGETS = {
    'geo4d_ros.motion.gates': ('test_gates',),
    'geo4d_ros.loop.checks': ('test_driver',),
    'geo4d_ros.loop.driver': ('test_driver',),
    'geo4d_ros.loop.interpreter': ('test_interpreter', 'test_driver'),
    'geo4d_ros.loop.machine': ('test_state_machine', 'test_loop_gripper', 'test_loop_recovery',
                                       'test_loop_stop', 'test_loop_limits'),
}
TIMEOUT = 120  # s of processor time for one mutant: an endless loop is noticed too
_STDERR = os.dup(2)
_COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
            ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
_REVERSE = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
_ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitAnd: ast.BitOr,
               ast.BitOr: ast.BitAnd}
_ENUMS = {'Reason': ('INTERNAL_ERROR', 'PLAN_EMPTY'), 'Phase': ('SETTLING', 'IDLE'),
          'ActionKind': ('REPORT', 'STOP'), 'EventKind': ('TICK', 'STOP'), 'Recovery': ('OPEN', 'RETREAT')}


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


def patch(module: types.ModuleType, tree: ast.Module) -> None:
    """Put the code of a changed tree into a module in use, so that everything that imported from it sees it.

    Enumerations stay as they are (nothing in them is mutated, and their members are compared by identity).
    """
    enums = {n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, Enum)}
    tree.body = [n for n in tree.body if not (isinstance(n, ast.ClassDef) and n.name in enums)]
    new = {'__name__': module.__name__, **{n: getattr(module, n) for n in enums}}
    exec(compile(tree, str(module.__file__), 'exec'), new)
    for name, value in new.items():
        old = getattr(module, name, None)
        if getattr(value, '__module__', None) == module.__name__ and isinstance(value, types.FunctionType):
            old.__code__, old.__defaults__ = value.__code__, value.__defaults__
        elif getattr(value, '__module__', None) == module.__name__ and isinstance(value, type) and name not in enums:
            _patch_class(old, value)
        elif isinstance(value, dict) and name.isupper():
            setattr(module, name, {k: getattr(module, f.__name__) for k, f in value.items()})
        elif isinstance(value, int | float | tuple):
            setattr(module, name, value)


def _patch_class(old: type, new: type) -> None:
    for name, value in vars(new).items():
        if name in ('__dict__', '__weakref__', '__doc__', '__module__', '__dataclass_fields__'):
            continue
        before = vars(old).get(name)
        if isinstance(value, types.FunctionType) and isinstance(before, types.FunctionType) and not value.__closure__ \
                and not before.__closure__:
            before.__code__, before.__defaults__ = value.__code__, value.__defaults__
        else:
            setattr(old, name, value)


class Mutants:
    """A pytest plugin: instead of running the collected tests once, runs them against every mutant, in forks."""

    def __init__(self, name: str, sample: int | None) -> None:
        self._module = sys.modules[name]
        self._tree = ast.parse(Path(str(self._module.__file__)).read_text())
        count = sum(1 for _ in mutations(self._tree))
        self._indices = random.Random(0).sample(range(count), min(sample or count, count))  # in random order
        self.survivors: list[str] = []

    def pytest_runtestloop(self, session) -> bool:
        if not self._survives(session, None):
            raise SystemExit(f'the tests fail on the unchanged {self._module.__name__}; mend that first')
        for done, index in enumerate(self._indices, start=1):
            changed, where = mutant(self._tree, index)
            if self._survives(session, changed):
                self.survivors.append(where)
                _say(f'  survived: {self._module.__name__} {where}')
            if done % 50 == 0:
                _say(f'  {self._module.__name__}: {done}/{len(self._indices)}, {len(self.survivors)} survivors')
        return True

    def _survives(self, session, tree: ast.Module | None) -> bool:
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        try:
            status = self._run(session, tree)
        except BaseException:  # whatever a mutant raises counts as noticed
            status = 1
        os._exit(status)

    def _run(self, session, tree: ast.Module | None) -> int:
        resource.setrlimit(resource.RLIMIT_CPU, (TIMEOUT, TIMEOUT))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        if tree is not None:
            patch(self._module, tree)
        for item, following in zip(session.items, [*session.items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                return 1
        return 0

    def report(self) -> dict:
        killed = len(self._indices) - len(self.survivors)
        return {'mutants': len(self._indices), 'killed': killed, 'score': round(killed / len(self._indices), 4),
                'survivors': self.survivors}


def _say(text: str) -> None:
    os.write(_STDERR, (text + '\n').encode())


def score(name: str, tests: tuple[str, ...], sample: int | None) -> dict:
    """Run the mutants of one module (or a random sample of them)."""
    importlib.import_module(name)
    plugin = Mutants(name, sample)
    options = ['-q', '-s', '-p', 'no:cacheprovider', '-p', 'no:warnings', '--tb=no']
    status = pytest.main([*options, *(str(next((ROOT / 'test').rglob(f'{test}.py'))) for test in tests)], [plugin])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f'{tests} could not be run: {status}')
    return plugin.report()


def main() -> int:
    """Print and write the scores; 0 when all reach the bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--json', type=Path, help='write the scores here')
    parser.add_argument('--sample', type=int, help='only so many mutants of each module, chosen at random')
    parser.add_argument('--bar', type=float, default=0.9, help='smallest score that passes (default 0.9)')
    parser.add_argument('--module', choices=list(TARGETS), help='only this module')
    args = parser.parse_args()
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
