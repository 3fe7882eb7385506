"""`geo4d calibrate RECORDING --output F`: where the cameras stand, from a board that the gripper carries past them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, TypedDict

from geo4d_ros.cli.common import add_json_argument, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('source', type=Path, metavar='RECORDING', help='a recording that `geo4d import` reads, of the '
                        'gripper holding a ChArUco board and tilting it about two axes')
    parser.add_argument('--output', type=Path, default=Path('calibration.json'), metavar='F',
                        help='for `geo4d import --calibration` (calibration.json)')
    parser.add_argument('--board', default='7x5', metavar='CxR', help='squares across and down (7x5)')
    parser.add_argument('--square', type=float, default=0.04, metavar='M', help='side of a square [m] (0.04)')
    parser.add_argument('--marker', type=float, default=0.03, metavar='M', help='side of a marker [m] (0.03)')
    parser.add_argument('--dictionary', default='DICT_4X4_50', metavar='NAME', help="OpenCV's name (DICT_4X4_50)")
    parser.add_argument('--base-frame', metavar='FRAME', help="the robot's base in /tf")
    parser.add_argument('--gripper-frame', metavar='FRAME', help='the frame that the board is fixed to')
    parser.add_argument('--pictures', type=int, default=60, metavar='N', help='per camera, at most (60)')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Write the calibration and print the residuals."""
    import numpy as np

    from geo4d_ros.data.calibration.board import Board, calibrate
    from geo4d_ros.data.readers.registry import find_reader
    from geo4d_ros.data.recordings import ImportOptions
    from geo4d_ros.errors import ConfigurationError, DatasetError, require
    from geo4d_ros.robots.registry import load_robot

    parts = args.board.lower().split('x')
    require(len(parts) == 2 and all(p.isdigit() for p in parts), f'--board should be as 7x5 but is {args.board!r}')
    require(args.pictures >= 3, f'--pictures should be at least 3 but is {args.pictures}')
    board = Board(int(parts[0]), int(parts[1]), args.square, args.marker, args.dictionary)
    board.opencv()
    robot = load_robot()
    options = ImportOptions(args.base_frame or robot.base_frame, args.gripper_frame or robot.tool_frame)
    results = None
    for recording in find_reader(args.source).read(args.source, options):
        results = calibrate(recording, board, args.pictures)
        break
    if results is None:
        raise DatasetError(f'{args.source} holds no recording')
    try:
        args.output.write_text(json.dumps({r.name: {'T_base_camera': r.hand_eye.T_base_camera.tolist()}
                                           for r in results}, indent=1) + '\n')
    except OSError as error:
        raise ConfigurationError(f'cannot write {args.output}: {error.strerror}; choose a writable place') from error
    figures = [_figures(r) for r in results]
    write_report('calibrate', {'cameras': figures}, args.json)
    for result, figure in zip(results, figures, strict=True):
        print(f'{result.name}: {result.pictures} pictures, corners {result.corner_error_px:.2f} px, residual median '
              f'{figure["residual_mm_median"]:.1f} mm {figure["residual_deg_median"]:.2f} deg, largest '
              f'{np.max(result.hand_eye.residual_m) * 1e3:.1f} mm')
        print(f'  pose for cameras.launch.py: "{" ".join(f"{v:.6f}" for v in figure["pose"])}"')
    return 0


class CameraFigures(TypedDict):
    """A camera in the report; pose: x y z [m] qx qy qz qw of its optical frame in the base."""

    name: str
    pictures: int
    corner_error_px: float
    residual_mm_median: float
    residual_mm_max: float
    residual_deg_median: float
    pose: list[float]


def _figures(result: Any) -> CameraFigures:
    """JSON of one camera."""
    import numpy as np

    from geo4d_ros.geometry.transforms import pose_to_quaternion

    T = result.hand_eye.T_base_camera
    return {'name': result.name, 'pictures': result.pictures, 'corner_error_px': result.corner_error_px,
            'residual_mm_median': float(np.median(result.hand_eye.residual_m)) * 1e3,
            'residual_mm_max': float(np.max(result.hand_eye.residual_m)) * 1e3,
            'residual_deg_median': float(np.degrees(np.median(result.hand_eye.residual_rad))),
            'pose': [*T[:3, 3].tolist(), *pose_to_quaternion(T).tolist()]}
