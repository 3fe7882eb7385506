"""Imports run downwards only, rclpy stays at the boundary, torch is not loaded early, the tree stays small."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'geo4d_ros'
# Room -> the rooms it may import from, besides itself.
BASE = {'types', 'errors', 'reasons', 'geometry', 'resources', 'observation_file', 'workers', 'registry'}
LIBRARY = BASE | {'robots', 'generation', 'tracking', 'motion', 'loop', 'simulation', 'data'}
STUDY = LIBRARY | {'training', 'evaluation'}
ALLOWED = {
    'types': {'errors', 'geometry'}, 'errors': set(), 'geometry': {'types', 'errors'}, 'resources': {'errors'},
    'registry': {'errors'},
    'workers': {'errors', 'resources'}, 'reasons': set(), 'observation_file': {'types', 'errors'},
    'robots': BASE, 'generation': BASE | {'robots'}, 'tracking': BASE | {'robots', 'generation'},
    'motion': BASE | {'robots'}, 'loop': BASE | {'robots', 'generation', 'tracking', 'motion'},
    'simulation': LIBRARY - {'data'}, 'data': LIBRARY,
    'serving': BASE | {'robots', 'generation', 'tracking'}, 'cameras': LIBRARY,
    'training': LIBRARY, 'evaluation': STUDY,
    'reports': STUDY | {'cameras'}, 'bench': STUDY | {'reports', 'serving'},
    'ros': STUDY | {'reports', 'bench', 'serving', 'cameras'},
    'nodes': STUDY | {'reports', 'bench', 'ros', 'serving', 'cameras'},
    'cli': STUDY | {'reports', 'bench', 'ros', 'nodes', 'serving', 'cameras'},
}
ROS_MODULES = {'rclpy', 'rcl_interfaces', 'ament_index_python', 'launch', 'launch_ros'}
MOTION_MAY_USE = {'numpy', 'scipy', 'pinocchio', 'coal', 'toppra', 'ruckig'}


def files(*rooms):
    return [path for room in rooms for path in
            ([PACKAGE / f'{room}.py'] if (PACKAGE / f'{room}.py').exists() else sorted((PACKAGE / room).rglob('*.py')))]


def imports(path, top_only=False):
    """Full names of the modules a file imports; with `top_only`, only those imported when it is loaded."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path} has a relative import'
            yield node.module
            yield from (f'{node.module}.{alias.name}' for alias in node.names if node.module == 'geo4d_ros')


def is_ros(name):
    first = name.split('.')[0]
    return first in ROS_MODULES or first.endswith(('_msgs', '_srvs', '_interfaces')) or first == 'builtin_interfaces'


@pytest.mark.parametrize('room', ALLOWED)
def test_imports_run_downwards(room):
    for path in files(room):
        for name in imports(path):
            if name.startswith('geo4d_ros.'):
                other = name.split('.')[1]
                assert other in ALLOWED[room] | {room, '__version__'}, f'{path.relative_to(ROOT)} imports {name}'


def test_every_room_is_known():
    rooms = {p.stem for p in PACKAGE.iterdir() if p.suffix == '.py' or (p.is_dir() and (p / '__init__.py').exists())}
    assert rooms - {'__init__'} == set(ALLOWED)


@pytest.mark.parametrize('room', sorted(set(ALLOWED) - {'ros', 'nodes', 'cli'}))
def test_only_the_boundary_knows_ros(room):
    for path in files(room):
        assert not [name for name in imports(path) if is_ros(name)], f'{path.relative_to(ROOT)} imports ROS'


def test_the_command_line_imports_ros_and_torch_only_inside_functions():
    for path in files('cli'):
        early = [n for n in imports(path, top_only=True) if is_ros(n) or n.split('.')[0] == 'torch']
        assert not early, f'{path.relative_to(ROOT)} imports {early} when loaded'


def test_motion_needs_no_learning_library():
    standard = sys.stdlib_module_names
    for path in files('motion'):
        for name in imports(path):
            first = name.split('.')[0]
            assert first in MOTION_MAY_USE | {'geo4d_ros'} or first in standard, f'{path.name} imports {name}'


def loaded_after(modules, absent=()):
    """Names of all modules that importing `modules` loads, in a fresh interpreter where `absent` do not exist."""
    code = f'''
import importlib, sys
absent = {tuple(absent)!r}
class Hide:
    def find_spec(self, name, path=None, target=None):
        first = name.split(".")[0]
        if first in absent or (absent and first.endswith(("_msgs", "_srvs"))):
            raise ImportError(f"{{name}} is hidden")
sys.meta_path.insert(0, Hide())
for name in {list(modules)!r}:
    importlib.import_module(name)
print(" ".join(sys.modules))
'''
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False, cwd=ROOT,
                            env={**os.environ, 'MUJOCO_GL': 'egl'}, timeout=250)
    assert result.returncode == 0, result.stderr[-2000:]
    return set(result.stdout.split())


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def test_the_library_imports_without_ros():
    rooms = sorted(set(ALLOWED) - {'ros', 'nodes'})
    names = [module_name(p) for p in files(*rooms)]
    assert 'rclpy' not in loaded_after(names, absent=('rclpy', 'rcl_interfaces', 'builtin_interfaces'))


def test_torch_is_not_loaded_by_nodes_command_line_and_motion():
    names = [module_name(p) for p in files('nodes', 'motion', 'cli', 'types', 'geometry')]
    assert 'torch' not in loaded_after(names)


def test_only_the_robots_room_knows_a_robot_by_name():
    for path in files(*set(ALLOWED) - {'robots'}):
        named = [line for line in path.read_text().lower().splitlines()
                 if 'panda' in line or 'franka' in line]
        assert not named, f'{path.relative_to(ROOT)}: {named[0]}'


def test_nodes_stay_short():
    for path in (PACKAGE / 'nodes').glob('*.py'):
        assert len(path.read_text().splitlines()) < 200, f'{path.name} should convert, call the library, publish'


def tracked():
    result = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, check=False)
    if result.returncode:
        pytest.skip('not a git checkout')
    return [ROOT / name for name in result.stdout.decode().split('\0') if name]


def test_tracked_files_stay_under_60_mib():
    total = sum(path.stat().st_size for path in tracked() if path.exists())
    assert total < 60 * 2**20, f'{total / 2**20:.1f} MiB'


def test_no_pickles_and_no_code_from_strings():
    for path in files(*ALLOWED):
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        bad = {call for call in calls if call in ('eval', 'exec') or call.startswith('pickle.')}
        assert not bad, f'{path.relative_to(ROOT)} calls {bad}'
