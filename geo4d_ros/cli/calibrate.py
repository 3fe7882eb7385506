"""`geo4d calibrate RECORDING`: where the cameras stand, from a board in the gripper or from the gripper itself."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from geo4d_ros.cli.common import add_json_argument, add_robot_argument, write_report

if TYPE_CHECKING:
    import numpy as np


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('source', type=Path, metavar='RECORDING', help='a recording that `geo4d import` reads, of the '
                        'gripper moving in front of the cameras')
    parser.add_argument('--by', choices=('board', 'silhouette'), default='board',
                        help='board: a ChArUco board fixed to the gripper, tilted about two axes; silhouette: labels '
                        'of the gripper against its meshes (default board)')
    parser.add_argument('--output', type=Path, default=Path('calibration.json'), metavar='F',
                        help='for `geo4d import --calibration` and cameras.launch.py calibration:= (calibration.json)')
    parser.add_argument('--board', default='7x5', metavar='CxR', help='squares across and down (7x5)')
    parser.add_argument('--square', type=float, default=0.04, metavar='M', help='side of a square [m] (0.04)')
    parser.add_argument('--marker', type=float, default=0.03, metavar='M', help='side of a marker [m] (0.03)')
    parser.add_argument('--dictionary', default='DICT_4X4_50', metavar='NAME', help="OpenCV's name (DICT_4X4_50)")
    parser.add_argument('--base-frame', metavar='FRAME', help="the robot's base in /tf")
    parser.add_argument('--gripper-frame', metavar='FRAME', help='the frame that the board is fixed to, or the tool '
                        'centre point')
    parser.add_argument('--gripper-joints', nargs='+', metavar='JOINT', help='joints whose sum is the opening')
    parser.add_argument('--pictures', type=int, metavar='N', help='per camera, at most (60; silhouettes 24)')
    add_robot_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Write the calibration and print the residuals."""
    from geo4d_ros.errors import ConfigurationError

    figures = _by_board(args) if args.by == 'board' else _by_silhouette(args)
    try:
        args.output.write_text(json.dumps({f['name']: {'T_base_camera': f['T_base_camera']} for f in figures}, indent=1)
                               + '\n')
    except OSError as error:
        raise ConfigurationError(f'cannot write {args.output}: {error.strerror}; choose a writable place') from error
    write_report('calibrate', {'by': args.by, 'cameras': figures}, args.json)
    for figure in figures:
        turned = f' {figure["residual_deg_median"]:.2f} deg' if 'residual_deg_median' in figure else ''
        print(f'{figure["name"]}: {figure["pictures"]} pictures, {figure["error_px"]:.2f} px, residual median '
              f'{figure["residual_mm_median"]:.1f} mm{turned}, largest {figure["residual_mm_max"]:.1f} mm')
        print(f'  pose for cameras.launch.py: "{" ".join(f"{v:.6f}" for v in figure["pose"])}"')
    return 0


def _by_board(args: argparse.Namespace) -> list[CameraFigures]:
    import numpy as np

    from geo4d_ros.data.calibration.board import Board, calibrate
    from geo4d_ros.errors import require

    parts = args.board.lower().split('x')
    require(len(parts) == 2 and all(p.isdigit() for p in parts), f'--board should be as 7x5 but is {args.board!r}')
    pictures = 60 if args.pictures is None else args.pictures
    require(pictures >= 3, f'--pictures should be at least 3 but is {pictures}')
    board = Board(int(parts[0]), int(parts[1]), args.square, args.marker, args.dictionary)
    board.opencv()
    return [_figures(r.name, r.pictures, r.corner_error_px, r.hand_eye.T_base_camera, r.hand_eye.residual_m,
                     float(np.degrees(np.median(r.hand_eye.residual_rad))))
            for r in _of_first(args, lambda recording: calibrate(recording, board, pictures))]


def _by_silhouette(args: argparse.Namespace) -> list[CameraFigures]:
    import numpy as np

    from geo4d_ros.data.calibration.silhouette import calibrate
    from geo4d_ros.robots.gripper import gripper_of
    from geo4d_ros.robots.registry import load_robot

    gripper = gripper_of(load_robot(args.robot))
    return [_figures(r.name, r.pictures, float(np.median(r.residual_px)), r.T_base_camera, r.residual_m)
            for r in _of_first(args, lambda recording: calibrate(recording, gripper, args.pictures or 24))]


def _of_first(args: argparse.Namespace, calibrate: Callable[[Any], list[Any]]) -> list[Any]:
    """What comes of the first demonstration of the source, while its file is open."""
    from geo4d_ros.data.readers.registry import find_sources
    from geo4d_ros.data.recordings import ImportOptions
    from geo4d_ros.errors import DatasetError
    from geo4d_ros.robots.registry import load_robot

    robot = load_robot(args.robot)
    options = ImportOptions(args.base_frame or robot.base_frame, args.gripper_frame or robot.tool_frame,
                            tuple(args.gripper_joints or robot.finger_joints))
    for reader, source in find_sources(args.source):
        for recording in reader.read(source, options):
            return calibrate(recording)
    raise DatasetError(f'{args.source} holds no recording')


class _Placed(TypedDict):
    name: str
    pictures: int
    error_px: float
    T_base_camera: list[list[float]]
    residual_mm_median: float
    residual_mm_max: float
    pose: list[float]


class CameraFigures(_Placed, total=False):
    """A camera in the report; pose: x y z [m] qx qy qz qw of its optical frame in the base; only a board tells the
    angle."""

    residual_deg_median: float


def _figures(name: str, pictures: int, error_px: float, T: np.ndarray, residual_m: np.ndarray,
             residual_deg: float | None = None) -> CameraFigures:
    """JSON of one camera."""
    import numpy as np

    from geo4d_ros.geometry.transforms import pose_to_quaternion

    figures: CameraFigures = {
        'name': name, 'pictures': pictures, 'error_px': error_px, 'T_base_camera': T.tolist(),
        'residual_mm_median': float(np.median(residual_m)) * 1e3, 'residual_mm_max': float(np.max(residual_m)) * 1e3,
        'pose': [*T[:3, 3].tolist(), *pose_to_quaternion(T).tolist()]}
    if residual_deg is not None:
        figures['residual_deg_median'] = residual_deg
    return figures
