"""`geo4d export folder DATA --out OUT`: episodes as folders of pictures."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Source and destination."""
    parser.add_argument('data', type=Path, help='directory of episodes')
    parser.add_argument('--out', type=Path, required=True, help='directory, one folder per episode')


def run(args: argparse.Namespace) -> int:
    """One folder per episode."""
    from tqdm import tqdm

    from geo4d_ros.data.episodes import Episode, list_episodes
    from geo4d_ros.data.writers.folder import write_folder
    from geo4d_ros.errors import DatasetError, require

    paths = list_episodes(args.data)
    require(bool(paths), f'{args.data} holds no episode; run `geo4d collect`', DatasetError)
    for path in tqdm(paths, unit='folder', disable=None):
        write_folder(Episode.open(path), args.out / path.stem)
    print(f'{args.out}: {len(paths)} folders')
    return 0
