"""`geo4d import svd DIR --out OUT`: a geo4d-svd checkpoint that starts from Stable Video Diffusion."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Source, destination and the paper's switches."""
    parser.add_argument('source', type=Path, help='diffusers layout of stable-video-diffusion-img2vid')
    parser.add_argument('--out', type=Path, required=True, help='directory of the new checkpoint')
    parser.add_argument('--decoders', choices=('shared', 'per_view', 'per_view_points'), default='shared',
                        help='one decoder, one per view role (the paper), or RGB and two pointmap decoders')
    parser.add_argument('--links', nargs='*', default=['points'],
                        help='cross-attention: points, rgb, rgb_from_points, points_from_rgb')
    parser.add_argument('--size', nargs=2, type=int, default=(256, 320), metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--frames', type=int, default=10)


def run(args: argparse.Namespace) -> int:
    """Convert and report every key."""
    from geo4d_ros.generation.checkpoints.svd import import_svd

    pipeline, report = import_svd(
        args.source,
        {'decoders': args.decoders, 'links': tuple(args.links)},
        {'height': args.size[0], 'width': args.size[1], 'frames': args.frames},
    )
    return save_import(pipeline, report, args.out)


def save_import(pipeline, report, out: Path) -> int:
    """Write the checkpoint with its key report and print the counts."""
    from geo4d_ros.errors import ConfigurationError
    from geo4d_ros.generation.manifest import write_manifest

    try:
        pipeline.save(out)
        report.write(out / 'import_report.json')
        digest = write_manifest(out)
    except OSError as error:
        raise ConfigurationError(f'cannot write {out}: {error.strerror}; choose a writable place') from error
    print(f'{out}: {report.summary()}; details in import_report.json; sha256 {digest[:12]}')
    return 0
