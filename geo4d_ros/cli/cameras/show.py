"""`geo4d cameras show`: what cameras deliver, in numbers and one picture."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from geo4d_ros.cli.common import add_json_argument, write_report
from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.types import RgbdFrame

if TYPE_CHECKING:
    from geo4d_ros.cameras.protocol import Camera


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    from geo4d_ros.cameras.sources import HELP

    parser.add_argument('camera', nargs='+', metavar='CAMERA', help=HELP)
    parser.add_argument('--frames', type=int, default=30, metavar='N', help='looks to take (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('outputs/cameras.png'), metavar='PNG',
                        help='the last look: colour above depth (default: %(default)s)')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Take the looks; rate, skew, dropped frames, share of valid depth; the last one as a picture."""
    from tqdm import tqdm

    from geo4d_ros.cameras.protocol import RecordingEnded, observe
    from geo4d_ros.cameras.sources import close_cameras, open_cameras

    require(args.frames >= 1, f'--frames should be at least 1 but got {args.frames}')
    os.environ.setdefault('MUJOCO_GL', 'egl')
    cameras = open_cameras(args.camera)
    looks, start = [], time.monotonic()
    try:
        for _ in tqdm(range(args.frames), unit='look', leave=False):
            try:
                looks.append(observe(cameras).views)
            except RecordingEnded:
                break
        seconds = time.monotonic() - start
        require(bool(looks), 'the recording has no complete look', ConfigurationError)
        rows = [_summary(camera, [views[i] for views in looks], looks) for i, camera in enumerate(cameras)]
        report = {'looks': len(looks), 'rate_hz': len(looks) / seconds, 'cameras': rows}
    finally:
        close_cameras(cameras)
    _picture(args.out, looks[-1])
    for row in rows:
        print(f'{row["name"]}: {row["size"][1]}x{row["size"][0]}, {row["valid_depth"]:.0%} valid depth, median '
              f'{row["median_depth_m"]:.2f} m, {row["dropped"]} dropped, skew at most {row["skew_ms_max"]:.1f} ms')
    print(f'{len(looks)} looks at {report["rate_hz"]:.1f} Hz; {args.out}')
    if args.json:
        write_report('cameras_show', report, args.json)
    return 0


class CameraFigures(TypedDict):
    """A camera in the report."""

    name: str
    size: list[int]  # height, width
    K: np.ndarray  # (3, 3)
    depth_unit_m: float
    valid_depth: float  # share of the last frame's pixels
    median_depth_m: float
    dropped: int
    remarks: list[str]
    skew_ms_max: float  # against the first camera


def _summary(camera: Camera, frames: list[RgbdFrame], looks: list[Any]) -> CameraFigures:
    last = frames[-1]
    seen = last.depth[last.depth > 0]
    skews = [abs(frame.stamp - views[0].stamp) / 1e6 for frame, views in zip(frames, looks, strict=True)]
    watch = getattr(camera, 'watch', None)
    median = float(np.median(seen)) if len(seen) else 0.0
    return {'name': camera.name, 'size': list(last.depth.shape), 'K': last.K, 'depth_unit_m': camera.depth_unit,
            'valid_depth': float((last.depth > 0).mean()), 'median_depth_m': median,
            'dropped': watch.dropped if watch else 0, 'remarks': watch.remarks if watch else [],
            'skew_ms_max': max(skews)}


def _picture(path: Path, views: tuple[Any, ...]) -> None:
    from PIL import Image

    from geo4d_ros.evaluation.movies import depth_colours, side_by_side, stack_rows

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [side_by_side([view.rgb for view in views]), side_by_side([depth_colours(view.depth) for view in views])]
        Image.fromarray(stack_rows(rows)).save(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f'cannot write {path}: {error}') from error
