"""`geo4d import FOLDER|BAG|DATASET --output DIR`: own recordings as episodes to train on."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geo4d_ros.cli.collect import image_size
from geo4d_ros.cli.common import add_json_argument, write_report
from geo4d_ros.errors import ConfigurationError, DatasetError, require

if TYPE_CHECKING:
    from geo4d_ros.data.importing import Imported
    from geo4d_ros.data.recordings import CameraCalibration, ImportOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('source', type=Path, metavar='SOURCE', help='rosbag2 folder, .mcap, .db3, RealSense .bag, '
                        'LeRobot dataset, folder of pictures, or a folder of such recordings')
    parser.add_argument('--output', type=Path, required=True, metavar='DIR', help='directory of the episodes')
    parser.add_argument('--task', metavar='NAME', help="what the robot does; default: what the recording says")
    parser.add_argument('--instruction', metavar='TEXT', help='what it was told; default: the task')
    parser.add_argument('--reader', metavar='NAME', help='read it as this kind; default: by its looks')
    parser.add_argument('--size', type=image_size, default=(96, 128), metavar='HxW', help='default 96x128')
    parser.add_argument('--cameras', nargs='+', default=[], metavar='NAME', help='which, the reference first')
    parser.add_argument('--calibration', type=Path, metavar='F', help='JSON: camera name -> {"K" or fx, fy, cx, cy; '
                        '"T_base_camera"; "depth_unit_m"}, where the recording does not say it')
    parser.add_argument('--robot', metavar='R', help='name of the robot or its YAML file: its frames and joints are '
                        'taken, and a training knows whose data it is (default: not said)')
    parser.add_argument('--base-frame', metavar='FRAME', help="the robot's base in /tf")
    parser.add_argument('--gripper-frame', metavar='FRAME', help='the tool centre point in /tf')
    parser.add_argument('--gripper-joints', nargs='+', metavar='JOINT', help='joints whose sum is the opening')
    parser.add_argument('--opening-scale', type=float, default=1.0, metavar='X', help='metres per sum of them (1)')
    parser.add_argument('--opening-offset', type=float, default=0.0, metavar='M', help='opening where they are 0 (0)')
    parser.add_argument('--max-skew', type=float, default=0.05, metavar='S', help='between two cameras (0.05)')
    parser.add_argument('--seed-start', type=int, default=0, metavar='S', help='number of the first episode (0)')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Import what can be imported; 2 when something could not."""
    from tqdm import tqdm

    from geo4d_ros.data.collect import check_writable
    from geo4d_ros.data.importing import ImportSettings, import_recordings
    from geo4d_ros.data.readers.registry import find_sources

    require(args.max_skew > 0 and args.seed_start >= 0, '--max-skew should be positive, --seed-start not negative')
    sources = find_sources(args.source, args.reader)
    settings = ImportSettings(args.output, args.size, args.task, args.instruction, args.max_skew,
                              seed_start=args.seed_start, options=_options(args), robot=args.robot)
    check_writable(args.output)
    outcomes = []
    with tqdm(import_recordings(sources, settings), unit='recording', disable=None) as bar:
        for outcome in bar:
            outcomes.append(outcome)
            if outcome.error:
                bar.write(f'geo4d import: {outcome.error}', file=sys.stderr)
    kept = [o for o in outcomes if o.path is not None]
    write_report('import', {'episodes': len(kept), 'failed': len(outcomes) - len(kept),
                            'recordings': [_as_json(o) for o in outcomes]}, args.json)
    _say(kept, args.output)
    require(bool(outcomes), f'{args.source} holds no demonstration', DatasetError)
    return 0 if len(kept) == len(outcomes) else 2


def _options(args: argparse.Namespace) -> ImportOptions:
    from geo4d_ros.data.recordings import ImportOptions
    from geo4d_ros.robots.registry import load_robot

    robot = load_robot(args.robot)
    return ImportOptions(args.base_frame or robot.base_frame, args.gripper_frame or robot.tool_frame,
                         tuple(args.gripper_joints or robot.finger_joints), args.opening_scale,
                         args.opening_offset, tuple(args.cameras),
                         _calibration(args.calibration) if args.calibration else {})


def _calibration(path: Path) -> dict[str, CameraCalibration]:
    """What `--calibration` says, by camera."""
    import numpy as np

    from geo4d_ros.data.readers.folder import intrinsics_of
    from geo4d_ros.data.recordings import CameraCalibration
    from geo4d_ros.geometry.transforms import check_transform

    found = {}
    try:
        cameras = json.loads(path.read_text())
        for name, described in cameras.items():
            T = described.get('T_base_camera')
            matrix = None if T is None else np.array(T, np.float64)
            if matrix is not None:
                check_transform(f'{path}: T_base_camera of {name}', matrix)
            unit = described.get('depth_unit_m')
            found[name] = CameraCalibration(intrinsics_of(described, f'{path}: {name}'), matrix,
                                            None if unit is None else float(unit))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f'{path} is no calibration of cameras ({error}); see docs/tutorials/own_data.md'
                                 ) from error
    return found


def _as_json(outcome: Imported) -> dict[str, Any]:
    return {**vars(outcome), 'trainable': {k: list(v) for k, v in outcome.trainable.items()} if outcome.path else None}


def _say(kept: list[Imported], out: Path) -> None:
    """How many episodes, what they lack, and what can be trained on all of them."""
    from geo4d_ros.data.trainings import REMEDIES, trainable

    if not kept:
        return
    print(f'{out}: {len(kept)} episodes, {sum(o.frames for o in kept)} moments, largest skew of the cameras '
          f'{max(o.largest_skew_ms for o in kept):.0f} ms')
    for note in sorted({note for o in kept for note in o.notes}):
        print(f'note: {note}')
    missing = sorted({name for o in kept for name in o.missing})
    for name in missing:
        count = sum(name in o.missing for o in kept)
        print(f'missing: {name} in {count} of {len(kept)}; {REMEDIES[name]}')
    for name, lacking in trainable(missing, min(o.cameras for o in kept)).items():
        print(f'trainable: {name}' if not lacking else f'not trainable without {", ".join(lacking)}: {name}')
