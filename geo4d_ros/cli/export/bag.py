"""`geo4d export bag DATA --out OUT`: episodes as rosbag2 recordings, for RViz, Foxglove and any ROS tool."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Source and destination."""
    parser.add_argument('data', type=Path, help='directory of episodes')
    parser.add_argument('--out', type=Path, required=True, help='directory, one bag per episode')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap', help='default mcap')


def run(args: argparse.Namespace) -> int:
    """One bag per episode."""
    from tqdm import tqdm

    from geo4d_ros.data.episodes import Episode, list_episodes
    from geo4d_ros.data.writers.rosbag import write_bag
    from geo4d_ros.errors import DatasetError, require
    from geo4d_ros.robots.registry import load_robot

    paths = list_episodes(args.data)
    require(bool(paths), f'{args.data} holds no episode; run `geo4d collect`', DatasetError)
    for path in tqdm(paths, unit='bag', disable=None):
        episode = Episode.open(path)
        robot = load_robot(episode.robot)
        write_bag(episode, args.out / path.stem, args.storage, robot.base_frame, robot.tool_frame)
    print(f'{args.out}: {len(paths)} bags ({args.storage})')
    return 0
