"""`geo4d doctor`: what this machine has, what it lacks, and how to mend each."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from geo4d_ros.cli.common import add_json_argument, write_report
from geo4d_ros.errors import Geo4dError
from geo4d_ros.resources import share_directory

SETUP = 'make setup'
# In a process of its own: the variable must be set before the first import, and a broken driver may crash.
GL_PROBE = ('import mujoco, OpenGL.GL as gl; context = mujoco.GLContext(64, 64); context.make_current(); '
            'print(gl.glGetString(gl.GL_RENDERER).decode())')


@dataclass(frozen=True)
class Check:
    """One line of the report; `fix` is what to do when `ok` is false."""

    name: str
    ok: bool
    detail: str
    fix: str = ''
    required: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `geo4d doctor`."""
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print the checks; 0 when all required ones are fine, 3 otherwise."""
    checks = [check for probe in PROBES for check in guarded(probe)]
    width = max(len(check.name) for check in checks)
    for check in checks:
        word = 'ok' if check.ok else 'MISSING' if check.required else 'absent'
        print(f'{word:<8}{check.name:<{width}}  {check.detail}')
        if not check.ok:
            print(f'{"":<8}{"":<{width}}  fix: {check.fix}')
    if args.json:
        write_report('doctor', {'checks': [vars(check) for check in checks]}, args.json)
    return 0 if all(check.ok or not check.required for check in checks) else 3


def guarded(probe: Callable[[], list[Check]]) -> list[Check]:
    """A probe that itself fails is a finding, not the end of the report."""
    try:
        return probe()
    except (ImportError, OSError, RuntimeError, Geo4dError) as error:
        return [Check(probe.__name__, False, f'{type(error).__name__}: {error}', SETUP)]


def interpreter() -> list[Check]:
    """Python and NumPy."""
    import numpy as np

    numpy_ok = tuple(map(int, np.__version__.split('.')[:2])) >= (1, 26)
    return [Check('python', sys.version_info >= (3, 10), f'{sys.version.split()[0]} at {sys.prefix}',
                  'use Python 3.11 or newer'),
            Check('numpy', numpy_ok, np.__version__, f'NumPy 1.26 or newer: {SETUP}')]


def ros() -> list[Check]:
    """rclpy, the middleware in use and the interface packages."""
    if importlib.util.find_spec('rclpy') is None:
        return [Check('rclpy', False, 'not importable', f'{SETUP}, or source /opt/ros/jazzy/setup.bash')]
    import rclpy

    try:
        version = importlib.metadata.version('rclpy')
    except importlib.metadata.PackageNotFoundError:
        version = 'unknown version'
    distribution = os.environ.get('ROS_DISTRO', 'wheels')
    rmw = rclpy.get_rmw_implementation_identifier()
    checks = [Check('rclpy', True, f'{version} ({distribution}) at {Path(rclpy.__file__).parents[1]}'),
              Check('middleware', rmw.startswith('rmw_fastrtps'), rmw, 'export RMW_IMPLEMENTATION=rmw_fastrtps_cpp '
                    '(others work; the image transport was measured on this one)', required=False)]
    return checks + interfaces()


def interfaces() -> list[Check]:
    """Message packages, provided by ROS or built by `make setup`."""
    from geo4d_ros.ros.interface_build import all_packages, status

    states = {package.name: status(package, Path(sys.prefix)) for package in all_packages()}
    missing = [name for name, state in states.items() if state == 'missing']
    detail = f'missing or outdated: {", ".join(missing)}' if missing else ', '.join(
        f'{name} ({state})' for name, state in states.items())
    return [Check('interfaces', not missing, detail, SETUP)]


def learning() -> list[Check]:
    """torch with its device, and the libraries of the generator."""
    if importlib.util.find_spec('torch') is None:
        return [Check('torch', False, 'not installed', SETUP)]
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else f'CPU, {os.cpu_count()} cores'
    checks = [Check('torch', True, f'{torch.__version__} on {device}')]
    for name in ('diffusers', 'transformers', 'mujoco', 'trimesh'):
        found = importlib.util.find_spec(name) is not None
        checks.append(Check(name, found, importlib.metadata.version(name) if found else 'not installed', SETUP))
    return checks


def graphics() -> list[Check]:
    """A real EGL context, as the simulated cameras need it."""
    result = subprocess.run([sys.executable, '-c', GL_PROBE], capture_output=True, text=True, check=False,
                            timeout=60, env={**os.environ, 'MUJOCO_GL': 'egl'})
    lines = (result.stdout if result.returncode == 0 else result.stderr).strip().splitlines()
    return [Check('graphics', result.returncode == 0, f'EGL on {lines[-1]}' if lines else 'no output',
                  'apt-get install libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri')]


def assets() -> list[Check]:
    """The meshes of the simulated robot."""
    found = importlib.util.find_spec('gymnasium_robotics') is not None
    return [Check('robot meshes', found, 'gymnasium-robotics' if found else 'not installed', SETUP)]


def models() -> list[Check]:
    """Every shipped checkpoint against its manifest."""
    from geo4d_ros.generation.manifest import checkpoint_sha256, verify_manifest

    folder = share_directory() / 'models'
    directories = sorted(p for p in folder.iterdir() if (p / 'config.json').exists() or
                         (p / 'model_index.json').exists()) if folder.is_dir() else []
    if not directories:
        return [Check('models', False, f'no checkpoint in {folder}', 'clone the repository again, or `geo4d train`')]
    checks = []
    for directory in directories:
        try:
            verify_manifest(directory)
            checks.append(Check(f'model {directory.name}', True, f'sha256 {checkpoint_sha256(directory)[:16]}'))
        except Geo4dError as error:
            checks.append(Check(f'model {directory.name}', False, str(error), f'git checkout -- {directory}'))
    return checks


def optional() -> list[Check]:
    """What only a real cell or other work needs."""
    wanted = {'realsense2_camera': ('camera driver', 'apt-get install ros-jazzy-realsense2-camera'),
              'moveit_ros_move_group': ('MoveIt', 'apt-get install ros-jazzy-moveit'),
              'rviz2': ('RViz', 'apt-get install ros-jazzy-rviz2')}
    prefixes = [Path(p) for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    checks = []
    for package, (name, fix) in wanted.items():
        found = any((p / 'share/ament_index/resource_index/packages' / package).exists() for p in prefixes)
        checks.append(Check(name, found, package if found else 'needs a ROS installation', fix, required=False))
    ffmpeg = importlib.util.find_spec('imageio_ffmpeg') is not None or shutil.which('ffmpeg') is not None
    checks.append(Check('ffmpeg', ffmpeg, 'found' if ffmpeg else 'not found', SETUP))
    return checks


PROBES: list[Callable[[], list[Check]]] = [interpreter, ros, learning, graphics, assets, models, optional]
