"""`geo4d predict`: one observation in, the predicted video, depth and point clouds out."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from geo4d_ros.cli.common import add_generator_argument, add_json_argument, write_report
from geo4d_ros.cli.observation.sources import add_source_arguments, take_observation
from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.types import Video4D


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `geo4d predict`."""
    add_source_arguments(parser)
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder for the results')
    parser.add_argument('--checkpoint', default='geo4d-sim-small', metavar='P',
                        help='directory of the weights, or the name of a shipped model (default: %(default)s)')
    add_generator_argument(parser)
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1, ... (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the prediction (default: %(default)s)')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Predict and write `prediction.mp4`, `video.npz`, `<view>/rgb_*.png`, `<view>/depth_*.png`, `points_*.ply`."""
    observation = take_observation(args)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f'cannot write {args.out}: {error.strerror}; choose a writable place') from error

    from geo4d_ros.generation.loading import model_sha256, open_generator

    name = args.generator or args.checkpoint
    generator, digest = open_generator(name, args.device), model_sha256(name)
    start = time.perf_counter()
    video = generator.predict(observation, args.seed)
    seconds = time.perf_counter() - start
    write_video(args.out, video, generator.dt)
    report = {'model': generator.name, 'model_sha256': digest, 'seed': args.seed,
              'views': video.views, 'frames': video.frames, 'size': list(video.rgb.shape[2:4]), 'wall_s': seconds,
              'stages_ms': {name: value * 1e3 for name, value in video.timings.items()}}
    write_report('summary', report, args.json, out_dir=args.out)
    print(f'{video.frames} frames of {video.views} views in {seconds:.2f} s: {args.out / "prediction.mp4"}')
    return 0


def write_video(out: Path, video: Video4D, dt: float) -> None:
    """Everything a person or a program may want of the video, below `out`."""
    from geo4d_ros.evaluation.movies import depth_colours, side_by_side, stack_rows, write_mp4

    np.savez_compressed(out / 'video.npz', rgb=video.rgb, points=video.points, valid=video.valid, K=video.K,
                        stamps=video.stamps, T_ref_view=video.T_ref_view)
    pictures = []
    for frame in range(video.frames):
        depth = [video.depth(view, frame) for view in range(video.views)]
        for view in range(video.views):
            write_images(out / ('reference', 'second')[view] if view < 2 else out / f'view{view + 1}', frame,
                         video.rgb[view, frame], depth[view])
        valid = video.valid[:, frame]
        write_ply(out / f'points_{frame:02d}.ply', video.points[:, frame][valid], video.rgb[:, frame][valid])
        pictures.append(stack_rows([side_by_side(list(video.rgb[:, frame]), scale=2),
                                    side_by_side([depth_colours(d) for d in depth], scale=2)]))
    write_mp4(out / 'prediction.mp4', pictures, fps=1 / dt)


def write_images(folder: Path, frame: int, rgb: np.ndarray, depth: np.ndarray) -> None:
    """rgb_<frame>.png and depth_<frame>.png, 16 bit, millimetres, 0 = invalid (as 16UC1 on topics)."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    Image.fromarray(rgb).save(folder / f'rgb_{frame:02d}.png')
    millimetres = np.clip(np.rint(depth * 1000), 0, 65535).astype(np.uint16)
    Image.fromarray(millimetres).save(folder / f'depth_{frame:02d}.png')


def write_ply(path: Path, points: np.ndarray, rgb: np.ndarray) -> None:
    """Binary little-endian PLY of points (N, 3) float32 [m] with colours (N, 3) uint8."""
    require(points.shape == rgb.shape, f'a cloud needs as many colours as points but got {rgb.shape}, {points.shape}')
    vertices = np.zeros(len(points), np.dtype([('xyz', '<f4', 3), ('rgb', 'u1', 3)]))
    vertices['xyz'], vertices['rgb'] = points, rgb
    properties = [*[f'property float {axis}' for axis in 'xyz'],
                  *[f'property uchar {colour}' for colour in ('red', 'green', 'blue')]]
    header = ['ply', 'format binary_little_endian 1.0', f'element vertex {len(points)}', *properties, 'end_header', '']
    path.write_bytes('\n'.join(header).encode() + vertices.tobytes())
