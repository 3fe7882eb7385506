"""`geo4d export lerobot DATA --out OUT`: this package's episodes as a LeRobot dataset."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Source and destination."""
    parser.add_argument('data', type=Path, help='directory of episodes, from `geo4d collect`')
    parser.add_argument('--out', type=Path, required=True, help='new directory')
    parser.add_argument('--depth', action='store_true', help='depth too, as 16-bit pictures')


def run(args: argparse.Namespace) -> int:
    """Export and say what came out."""
    from geo4d_ros.data.episodes import list_episodes
    from geo4d_ros.data.writers.lerobot import export_lerobot
    from geo4d_ros.errors import DatasetError, require

    paths = list_episodes(args.data)
    require(bool(paths), f'{args.data} holds no episode; run `geo4d collect`', DatasetError)
    info = export_lerobot(paths, args.out, args.depth)
    print(f'{args.out}: {info["total_episodes"]} episodes, {info["total_frames"]} frames, '
          f'{info["total_tasks"]} tasks, LeRobot {info["codebase_version"]}')
    return 0
