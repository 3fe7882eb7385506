"""`geo4d observation make`: one look at a simulated cell, a recording or cameras as the file that `predict` reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from geo4d_ros.cli.common import add_json_argument, write_report
from geo4d_ros.cli.observation.sources import add_source_arguments, take_observation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `geo4d observation make`."""
    add_source_arguments(parser, file=False)
    parser.add_argument('--out', type=Path, required=True, metavar='FILE', help='.npz to write')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Take the look and write it."""
    from geo4d_ros.observation_file import save_observation

    observation = take_observation(args)
    out = args.out if args.out.suffix == '.npz' else args.out.with_name(args.out.name + '.npz')
    save_observation(out, observation)
    has = [name for name in ('T_ref_gripper', 'opening', 'arm_points') if getattr(observation, name) is not None]
    sizes = ', '.join('{1}x{0}'.format(*view.depth.shape) for view in observation.views)
    print(f'{len(observation.views)} views ({sizes}), robot state: {", ".join(has) or "none"}: {out}')
    if args.json:
        write_report('observation', {'views': len(observation.views), 'state': has, 'file': str(out)}, args.json)
    return 0
