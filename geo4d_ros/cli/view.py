"""`geo4d view`: what cameras see and what a generator makes of it, in 3D, in Rerun."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

from geo4d_ros.cli.common import DEFAULT_CHECKPOINT, add_generator_argument
from geo4d_ros.errors import Geo4dError, InvalidInputError, require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('source', nargs='+', metavar='SOURCE', help='an observation file (.npz), the video.npz of '
                        '`geo4d predict`, a recording that `geo4d import` reads, or cameras as in `geo4d cameras show`')
    parser.add_argument('--predict', action='store_true', 
                        help='of an observation file: predict, track and show that too')
    parser.add_argument('--checkpoint', default=DEFAULT_CHECKPOINT, metavar='P', help='default %(default)s')
    add_generator_argument(parser)
    parser.add_argument('--device', default='cpu', help='default %(default)s')
    parser.add_argument('--readout', choices=('fused', 'video', 'state'), default='fused', help='default %(default)s')
    parser.add_argument('--frames', type=int, default=150, metavar='N',
                        help='looks of cameras, or of a recording (default %(default)s)')
    parser.add_argument('--out', type=Path, metavar='RRD', help='write this .rrd file instead of starting the viewer')


def run(args: argparse.Namespace) -> int:
    """Show the source, or write it as a file that `rerun FILE` shows."""
    from geo4d_ros.evaluation.rerun_scene import RerunScene, library

    library()
    os.environ.setdefault('MUJOCO_GL', 'egl')
    path = Path(args.source[0])
    one_file = len(args.source) == 1 and path.suffix == '.npz'
    require(one_file or not args.predict, '--predict takes one observation file', InvalidInputError)
    require(args.frames >= 1, f'--frames should be at least 1 but got {args.frames}', InvalidInputError)
    if len(args.source) == 1 and _is_recording(path):
        return _recording(args, path)
    if not one_file:
        return _cameras(args)
    video = _video_of(path)
    if video is not None:
        require(not args.predict, f'{path} is a video already', InvalidInputError)
        with RerunScene(args.out) as scene:
            scene.prediction(0, video)
    else:
        _observation(args, path)
    if args.out:
        print(f'{args.out}: open it with `rerun {args.out}`')
    return 0


def _cameras(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from geo4d_ros.cameras.protocol import RecordingEnded, observe
    from geo4d_ros.cameras.sources import close_cameras, open_cameras
    from geo4d_ros.evaluation.rerun_scene import RerunScene

    cameras = open_cameras(args.source)
    try:
        with RerunScene(args.out) as scene:
            for number in tqdm(range(args.frames), unit='look', leave=False):
                scene.look(number, observe(cameras))
    except (RecordingEnded, KeyboardInterrupt):
        pass
    finally:
        close_cameras(cameras)
    return 0


def _is_recording(path: Path) -> bool:
    """Whether it is a file or folder with whole demonstrations; what `geo4d cameras record` wrote is cameras."""
    from geo4d_ros.cameras.realsense import RECORDINGS

    of_cameras = path.suffix in (*RECORDINGS, '.npz') or (path / 'camera.json').is_file() \
        or any(path.glob('*/camera.json'))
    return path.exists() and not of_cameras


def _recording(args: argparse.Namespace, path: Path) -> int:
    from tqdm import tqdm

    from geo4d_ros.cli.observation.sources import first_recording
    from geo4d_ros.data.moments import observation_of
    from geo4d_ros.errors import DatasetError
    from geo4d_ros.evaluation.rerun_scene import RerunScene

    recording, kinematics = first_recording(path)
    stamps = recording.cameras[0].colour.stamps
    moments = np.linspace(0.0, float(stamps[-1] - stamps[0]) * 1e-9, min(args.frames, len(stamps)))
    shown, cause = 0, ''
    with RerunScene(args.out) as scene:
        for number, seconds in enumerate(tqdm(moments, unit='look', leave=False)):
            try:
                scene.look(number, observation_of(recording, float(seconds), kinematics))
                shown += 1
            except DatasetError as error:  # cameras apart at this moment, or one that began later
                cause = cause or str(error)
    require(shown > 0, f'{path} has no moment that can be shown: {cause}', InvalidInputError)
    print(f'{shown} of {len(moments)} moments{f", the first one left out: {cause}" if cause else ""}'
          + (f'; open with `rerun {args.out}`' if args.out else ''))
    return 0


def _observation(args: argparse.Namespace, path: Path) -> None:
    from geo4d_ros.evaluation.rerun_scene import RerunScene
    from geo4d_ros.observation_file import load_observation

    observation = load_observation(path)
    video: Any = None
    track: Any = None
    if args.predict:
        from geo4d_ros.generation.loading import open_generator
        from geo4d_ros.tracking.factory import create_tracker

        video = open_generator(args.generator or args.checkpoint, args.device).predict(observation)
        tracker = create_tracker(readout=args.readout)
        try:
            track = tracker.track(video, observation)
        except Geo4dError as error:
            print(f'no track: {error}')
        finally:
            tracker.close()
    with RerunScene(args.out) as scene:
        scene.look(0, observation, None if video is None else video.T_ref_view)
        if video is not None:
            scene.prediction(0, video)
        if track is not None:
            scene.track(0, track, video.stamps)
            scene.verdict(0, f'{track.trusted - 1} of {len(track) - 1} predicted poses are trusted', track.trusted > 1)


def _video_of(path: Path) -> Any:
    """The Video4D of a file that `geo4d predict` wrote; None when it is something else."""
    from geo4d_ros.types import Video4D

    names = ('rgb', 'points', 'valid', 'stamps', 'K', 'T_ref_view')
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not set(names) <= set(archive.files):
                return None
            return Video4D(*(archive[name] for name in names))
    except (OSError, ValueError, EOFError):
        return None  # whoever reads it as an observation says what is wrong
