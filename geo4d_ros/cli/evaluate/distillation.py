"""`geo4d evaluate distillation`: few-step students against their teacher."""

from __future__ import annotations

import argparse
from pathlib import Path

from geo4d_ros.cli.common import add_json_argument, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Models, clips and seeds."""
    parser.add_argument('--teacher', type=Path, required=True, help='checkpoint of the diffusion model')
    parser.add_argument('--student', type=Path, help='checkpoint of its student (none: only the teacher)')
    parser.add_argument('--noised-real', type=Path, help='checkpoint of a student without backward simulation')
    parser.add_argument('--data', type=Path, default=Path('outputs/data/held_out'),
                        help='episodes no model was trained on')
    parser.add_argument('--clips', type=int, default=12, help='held-out clips')
    parser.add_argument('--seeds', type=int, default=4, help='samples per clip and model')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Sample, compare, write the report, print the table."""
    from geo4d_ros.bench.distillation import compare

    report = compare(args.teacher, args.student, args.noised_real, args.data, args.clips, args.seeds)
    write_report('evaluate-distillation', report, args.json)
    names = ('frechet_to_teacher', 'frechet_to_truth', 'psnr_to_teacher_mean', 'psnr_to_truth', 'diversity',
             'gripper_points_cm')
    print(f'{"":22s}' + ''.join(f'{name:>22s}' for name in names))
    for row, figures in report['rows'].items():
        print(f'{row:22s}' + ''.join(f'{figures[name]:22.3f}' for name in names))
    return 0
