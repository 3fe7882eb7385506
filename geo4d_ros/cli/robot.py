"""`geo4d robot check`: whether a described robot can work here, and how it looks."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from geo4d_ros.cli.common import add_json_argument, check_report_place, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('robot', help='name of a robot, or its YAML file (docs/tutorials/own_arm.md)')
    parser.add_argument('--picture', type=Path, metavar='F', help='PNG of it (default outputs/robot-NAME.png)')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Check, draw, print one line per check. 0: all is well; 2: something has to be mended."""
    os.environ.setdefault('MUJOCO_GL', 'egl')
    from geo4d_ros.errors import Geo4dError
    from geo4d_ros.robots.registry import load_robot
    from geo4d_ros.simulation.robot_check import check_robot

    robot = load_robot(args.robot)
    picture = args.picture or Path('outputs') / f'robot-{robot.name}.png'
    check_report_place(args.json, picture.parent)
    found = check_robot(robot)
    drawn = None
    try:
        from PIL import Image

        from geo4d_ros.simulation.robot_check import draw_robot

        Image.fromarray(draw_robot(robot)).save(picture)
        drawn = str(picture)
    except (Geo4dError, ValueError, OSError) as error:
        print(f'no picture: {" ".join(str(error).split())}')
    good = all(f.good for f in found)
    write_report('robot_check', {'robot': robot.name, 'good': good, 'picture': drawn,
                                 'checks': {f.name: {'good': f.good, 'message': f.message} for f in found}}, args.json)
    for f in found:
        print(f'{"ok  " if f.good else "FAIL"}  {f.name:<14} {f.message}')
    if drawn:
        print(f'drawn in {drawn}')
    return 0 if good else 2
