"""Where `geo4d predict` and `geo4d observation make` take an observation from: a file, the simulated cell, a recording
of any kind that `geo4d import` reads, or the cameras of this machine."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geo4d_ros.errors import InvalidInputError, require
from geo4d_ros.types import Observation

if TYPE_CHECKING:
    from geo4d_ros.data.recordings import Recording
    from geo4d_ros.robots.inverse_kinematics import ArmKinematics


def add_source_arguments(parser: argparse.ArgumentParser, file: bool = True) -> None:
    """`--observation`, `--from-sim`, `--from-folder`, `--from-bag`, `--from-cameras`, and what goes with them."""
    from geo4d_ros.cameras.sources import HELP

    source = parser.add_mutually_exclusive_group(required=True)
    if file:
        source.add_argument('--observation', type=Path, metavar='FILE',
                            help='.npz with rgb_i, depth_i [m], K_i per view (see geo4d_ros/observation_file.py)')
    source.add_argument('--from-sim', metavar='TASK', nargs='?', const='apple',
                        help='the simulated cell as it begins (apple), robot state included')
    source.add_argument('--from-folder', type=Path, metavar='DIR',
                        help='a folder of pictures, an RGB-D folder of `geo4d cameras record`, or a LeRobot dataset')
    source.add_argument('--from-bag', type=Path, metavar='BAG',
                        help='a rosbag2 recording, .mcap, or RealSense .bag, .db3')
    source.add_argument('--from-cameras', nargs='+', metavar='CAMERA', help=f'one look, the reference first: {HELP}')
    parser.add_argument('--at', type=float, default=0.0, metavar='S', help='moment of a recording [s] (default 0)')
    parser.add_argument('--scene-seed', type=int, default=500000, metavar='N',
                        help='scene and cameras of the simulated cell (default: %(default)s)')


def take_observation(args: argparse.Namespace) -> Observation:
    """The observation that the arguments name; one line for whatever is wrong with its source."""
    require(args.at >= 0 and args.scene_seed >= 0, '--at and --scene-seed should not be negative', InvalidInputError)
    if getattr(args, 'observation', None) is not None:
        from geo4d_ros.observation_file import load_observation

        return load_observation(args.observation)
    if args.from_sim is not None:
        return simulated(args.from_sim, args.scene_seed)
    if args.from_cameras:
        return seen(args.from_cameras)
    return recorded(args.from_folder or args.from_bag, args.at)


def simulated(task: str, seed: int) -> Observation:
    """The cell of a task and seed before anything moves, seen by two held-out cameras."""
    from geo4d_ros.cli.common import checked_tasks
    from geo4d_ros.evaluation.closed_loop.cell_rig import CellRig
    from geo4d_ros.simulation.cameras import sample_cameras
    from geo4d_ros.simulation.cell import Cell

    checked_tasks([task])
    os.environ.setdefault('MUJOCO_GL', 'egl')
    cell = Cell(task, seed)
    cameras = sample_cameras(np.random.default_rng(seed), 2, 'held-out', 640, 480)
    with CellRig(cell.model, cameras, labels=False) as rig:
        return rig.observe(cell)


def seen(names: list[str]) -> Observation:
    """One look of cameras without robot state: they do not know of it."""
    from geo4d_ros.cameras.protocol import observe
    from geo4d_ros.cameras.sources import close_cameras, open_cameras

    os.environ.setdefault('MUJOCO_GL', 'egl')
    cameras = open_cameras(names)
    try:
        return observe(cameras)
    finally:
        close_cameras(cameras)


def recorded(path: Path, seconds: float) -> Observation:
    """A moment of the first demonstration of a recording, read as `geo4d import` reads it for the default robot."""
    from geo4d_ros.data.moments import observation_of

    if (path / 'camera.json').is_file() or any(path.glob('*/camera.json')):  # of `geo4d cameras record`
        require(seconds == 0, f'{path} is read from its beginning; leave --at away', InvalidInputError)
        return seen([str(path)])
    recording, kinematics = first_recording(path)
    return observation_of(recording, seconds, kinematics)


def first_recording(path: Path) -> tuple[Recording, ArmKinematics | None]:
    """The first recording of a file or folder, and the arm's kinematics where its joints are the default robot's."""
    from geo4d_ros.data.readers.registry import find_reader
    from geo4d_ros.data.recordings import ImportOptions
    from geo4d_ros.robots.inverse_kinematics import shared_kinematics
    from geo4d_ros.robots.registry import load_robot

    reader, robot = find_reader(path), load_robot()
    options = ImportOptions(robot.base_frame, robot.tool_frame, tuple(robot.finger_joints))
    recording = next(iter(reader.read(path, options)), None)
    require(recording is not None, f'{path} holds no recording', InvalidInputError)
    assert recording is not None
    known = set(recording.joint_names) >= set(robot.joints)
    return recording, shared_kinematics() if known else None
