"""`geo4d cameras record`: looks of cameras as an RGB-D folder, which plays back as cameras and imports as data."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from geo4d_ros.errors import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    from geo4d_ros.cameras.sources import HELP

    parser.add_argument('camera', nargs='+', metavar='CAMERA', help=HELP)
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='new folder')
    parser.add_argument('--frames', type=int, default=150, metavar='N', help='looks to take (default: %(default)s)')
    parser.add_argument('--slop', type=float, default=0.034, metavar='S',
                        help='largest difference of the stamps of one look [s] (default: %(default)s)')


def run(args: argparse.Namespace) -> int:
    """Record until the number of looks, the end of a recording or ctrl-C; what is written so far stays good."""
    from tqdm import tqdm

    from geo4d_ros.cameras.protocol import RecordingEnded, observe
    from geo4d_ros.cameras.recording import FolderWriter
    from geo4d_ros.cameras.sources import close_cameras, open_cameras

    require(args.frames >= 1 and args.slop > 0, '--frames should be at least 1, --slop positive')
    os.environ.setdefault('MUJOCO_GL', 'egl')
    cameras = open_cameras(args.camera)
    writers: list[FolderWriter] = []
    looks = 0
    try:
        writers += [FolderWriter(args.out, camera) for camera in cameras]
        for _ in tqdm(range(args.frames), unit='look', leave=False):
            for writer, view in zip(writers, observe(cameras, slop=args.slop).views, strict=True):
                writer.write(view)
            looks += 1
    except (RecordingEnded, KeyboardInterrupt):
        require(looks >= 1, 'nothing was recorded')
    finally:
        for writer in writers:
            writer.close()
        close_cameras(cameras)
    print(f'{looks} looks of {len(cameras)} cameras: {args.out}')
    return 0
