"""`geo4d cameras list`: the RealSense cameras of this machine."""

from __future__ import annotations

import argparse

from geo4d_ros.cli.common import add_json_argument, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """One line a camera; 0 also when there is none."""
    from geo4d_ros.cameras.realsense import list_realsense

    cameras = list_realsense()
    for camera in cameras:
        print(f'realsense:{camera.serial}  {camera.model}, firmware {camera.firmware}, USB {camera.usb}')
    if not cameras:
        print('no RealSense camera is plugged in')
    if args.json:
        write_report('cameras', {'cameras': [vars(camera) for camera in cameras]}, args.json)
    return 0
