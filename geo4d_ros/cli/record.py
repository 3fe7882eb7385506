"""`geo4d record --output BAG`: the topics of a cell as rosbag2, checked while they come in."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from geo4d_ros.cli.common import add_json_argument, add_robot_argument, write_report
from geo4d_ros.robots.description import RobotDescription
from geo4d_ros.robots.registry import load_robot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--output', type=Path, required=True, metavar='BAG', help='new folder of this demonstration')
    parser.add_argument('--seconds', type=float, default=30.0, metavar='S', help='how long (30); ctrl-C ends earlier')
    parser.add_argument('--cameras', nargs='+', default=['/camera1/camera1', '/camera2/camera2'], metavar='NS',
                        help='namespaces of the cameras (/camera1/camera1 /camera2/camera2)')
    add_robot_argument(parser)
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap', help='default mcap')
    add_json_argument(parser)


def lacks(bag: Path, robot: RobotDescription) -> list[str]:
    """What an import of the bag will miss, calibration and masks among it, each with its remedy; read as it will be."""
    from geo4d_ros.data.readers.registry import find_reader
    from geo4d_ros.data.recordings import ImportOptions
    from geo4d_ros.data.trainings import REMEDIES, missing_of, trainable
    from geo4d_ros.errors import Geo4dError

    options = ImportOptions(robot.base_frame, robot.tool_frame, robot.finger_joints)
    try:
        for recording in find_reader(bag).read(bag, options):
            missing = missing_of(recording)
            able = trainable(missing, len(recording.cameras))
            return [*(f'missing: {name}; {REMEDIES[name]}' for name in missing),
                    *(f'trainable: {name}' for name, lacking in able.items() if not lacking)]
    except Geo4dError as error:
        return [f'it cannot be imported: {error}']
    return []


def run(args: argparse.Namespace) -> int:
    """0 when everything that a training needs came in time, 2 with one line for what did not."""
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from tqdm import tqdm

    from geo4d_ros.errors import require
    from geo4d_ros.ros.graph.bag_recorder import BagRecorder

    require(args.seconds > 0, f'--seconds should be positive but got {args.seconds}')
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node('geo4d_record', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        with BagRecorder(node, tuple(args.cameras), args.output, args.storage) as recorder:
            end = time.monotonic() + args.seconds
            try:
                with tqdm(total=round(args.seconds), unit='s', disable=None) as bar:
                    while time.monotonic() < end:
                        executor.spin_once(timeout_sec=0.1)
                        done = round(args.seconds - (end - time.monotonic()))
                        if done > bar.n:
                            bar.set_postfix_str(f'pictures/s {recorder.summary()}')
                            bar.update(done - bar.n)
            except KeyboardInterrupt:
                pass  # as much as there is, checked like a whole recording
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
    problems = recorder.problems()
    write_report('record', {'seconds': args.seconds, 'problems': problems,
                            'topics': {topic: check.as_json() for topic, check in recorder.checks.items()}}, args.json)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f'{args.output}: {sum(c.count for c in recorder.checks.values())} messages, {len(problems)} problems')
    for line in lacks(args.output, load_robot(args.robot)):
        print(line)
    return 2 if problems else 0
