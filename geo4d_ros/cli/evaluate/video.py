"""`geo4d evaluate video`: image, depth, consistency and gripper metrics of a generator, with honest baselines."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from geo4d_ros.cli.collect import image_size
from geo4d_ros.cli.common import (
    add_json_argument,
    add_worker_arguments,
    check_report_place,
    checked_tasks,
    checkpoint_directory,
    gpus_of,
    reported_path,
    revision,
    weights_sha256,
    write_report,
)
from geo4d_ros.errors import DatasetError, InvalidInputError, require

if TYPE_CHECKING:
    from geo4d_ros.reports.video import VideoReport

NO_LPIPS = 'LPIPS is absent: no package registry carries its backbone; give a TorchScript LPIPS with --lpips.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--checkpoint', type=Path, metavar='P', help='model directory (default: the shipped one)')
    parser.add_argument('--baselines', type=Path, metavar='DIR',
                        help='folder of trained baselines, each in a directory of its name: one more row each')
    parser.add_argument('--pure-video', type=Path, metavar='P',
                        help='model directory of the variant without state stream and drawn arm: a row of its own')
    parser.add_argument('--split', choices=('held-out-cameras', 'held-out-scenes', 'train'),
                        default='held-out-cameras', help='which cameras and scenes (default held-out-cameras)')
    parser.add_argument('--data', type=Path, metavar='DIR',
                        help='recorded episodes with two cameras or more (default: simulate scenes on the spot)')
    parser.add_argument('--episodes', type=int, default=10, metavar='N', help='episodes per task (default 10)')
    parser.add_argument('--windows', type=int, default=4, metavar='W', help='clips per episode (default 4)')
    parser.add_argument('--task', action='append', metavar='T', help='repeat for several (default: all three)')
    parser.add_argument('--seed-start', type=int, metavar='S', help='default 500000, split train: 0')
    parser.add_argument('--size', type=image_size, default=(96, 128), metavar='HxW',
                        help='image size that the model gives (default 96x128)')
    parser.add_argument('--diversity-seeds', type=int, default=2, metavar='K', help='samples per clip (default 2)')
    parser.add_argument('--i3d', type=Path, metavar='FILE', help='I3D TorchScript for a comparable FVD')
    parser.add_argument('--lpips', type=Path, metavar='FILE', help='TorchScript LPIPS; without it LPIPS is absent')
    parser.add_argument('--gaussians', type=int, default=0, metavar='N',
                        help='also fit N 4D Gaussians to every true clip: a reconstruction row (default 0: none)')
    parser.add_argument('--device', default='cpu', help='torch device of the generator (default cpu)')
    add_worker_arguments(parser)
    parser.add_argument('--out', type=Path, metavar='DIR', help='folder of report.html (default outputs/video-SPLIT)')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, write JSON and page."""
    from geo4d_ros.evaluation.baselines.registry import training_of
    from geo4d_ros.evaluation.metrics.frechet import I3D_ENCODER, OWN_ENCODER
    from geo4d_ros.evaluation.video.data import sources_of
    from geo4d_ros.evaluation.video.evaluate import VideoOptions
    from geo4d_ros.reports.video import summarise, write_page

    tasks = checked_tasks(args.task)
    require(min(args.episodes, args.windows, args.jobs, args.diversity_seeds) >= 1 and args.gaussians >= 0,
            '--episodes, --windows, --jobs and --diversity-seeds should be positive', InvalidInputError)
    require(args.i3d is None or args.i3d.is_file(), f'no I3D file at {args.i3d}', InvalidInputError)
    require(args.lpips is None or args.lpips.is_file(), f'no LPIPS file at {args.lpips}', InvalidInputError)
    folder = args.out or Path('outputs') / f'video-{args.split}'
    check_report_place(args.json, folder)
    rows, hashes = _rows(args)
    sources = sources_of(args.data, tasks, args.split, args.episodes, args.seed_start)
    options = VideoOptions(tuple((n, str(p)) for n, p in rows.items()), args.split, args.windows, args.size,
                           args.diversity_seeds, device=args.device, i3d=args.i3d and str(args.i3d),
                           lpips=args.lpips and str(args.lpips), gaussians=args.gaussians)
    started = time.monotonic()
    results, skipped = _evaluate(options, sources, args)
    require(bool(results), f'no episode could be used; first reason: {skipped[:1]}', DatasetError)
    report = {'revision': revision(), 'split': args.split, 'checkpoint': reported_path(rows['model']),
              'model_sha256': hashes['model'], 'baseline_sha256': hashes, 'seed_start': sources[0].seed,
              'episodes': args.episodes, 'windows': args.windows, 'skipped': skipped,
              'lpips_note': '' if args.lpips else NO_LPIPS,
              **summarise(results, I3D_ENCODER if args.i3d else OWN_ENCODER),
              'training': {name: training_of(path) for name, path in rows.items() if name != 'model'},
              'wall_s': round(time.monotonic() - started, 1)}
    write_report(f'video-{args.split}', report, args.json)
    shown = cast('VideoReport', report)
    write_page(shown, results, folder / 'report.html')
    _print_table(shown, folder)
    return 0


def _rows(args: argparse.Namespace) -> tuple[dict[str, Path], dict[str, str]]:
    """Row name -> checkpoint, and the hashes of their weights; a bad checkpoint raises here."""
    from geo4d_ros.evaluation.baselines.registry import BASELINES, found_checkpoints

    rows = {'model': checkpoint_directory(args.checkpoint)}
    if args.pure_video is not None:
        rows['pure_video'] = checkpoint_directory(args.pure_video)
    if args.baselines is not None:
        found = found_checkpoints(args.baselines)
        require(bool(found), f'{args.baselines} holds none of {", ".join(BASELINES)}', InvalidInputError)
        rows |= found
    return rows, {name: weights_sha256(path, args.device) for name, path in rows.items()}


def _evaluate(options: Any, sources: list[Any], args: argparse.Namespace) -> tuple[list[Any], list[str]]:
    from tqdm import tqdm

    from geo4d_ros.evaluation.video.evaluate import evaluate_episode
    from geo4d_ros.workers.pool import run_jobs

    results, skipped = [], []
    jobs = [(options, source) for source in sources]
    source = run_jobs(evaluate_episode, jobs, args.jobs, args.ray, gpus_of(args.device))
    with tqdm(source, total=len(jobs), unit='episode') as bar:
        for outcome in bar:
            if isinstance(outcome, str):
                skipped.append(outcome)
                bar.write(f'skipped: {outcome}')
            else:
                results += outcome
    return sorted(results, key=lambda r: (r.task, r.seed)), skipped


def _print_table(report: VideoReport, folder: Path) -> None:
    print(f'{report["n"]} clips of {report["n_episodes"]} episodes, {report["split"]}')
    head = ('psnr', 'abs_rel', 'delta1', 'error_3d_cm')
    print(f'{"row":<20}' + ''.join(f'{f"full {h}":>17}' for h in head) + ''.join(f'{f"moved {h}":>18}' for h in head))
    for name, row in report['rows'].items():
        print(f'{name:<20}' + ''.join(f'{_number(row["full_frame"][h]):>17}' for h in head)
              + ''.join(f'{_number(row["motion_masked"][h]):>18}' for h in head))
    print(f'\n{"row":<20}' + ''.join(f'{h:>12}' for h in ('object IoU', 'step 10', 'miss', 'robot grad', 'blocks',
                                                          'robot psnr', 'uncov psnr', 'uncov cm')))
    for name, row in report['rows'].items():
        regions, seen, crisp = row['regions'], row['object'], row['sharpness']
        values = (seen['iou_mean'], seen['iou_10'], seen['miss'], crisp['gradient_energy'], crisp['block_ratio'],
                  regions['robot']['psnr'], regions['uncovered']['psnr'], regions['uncovered']['error_3d_cm'])
        print(f'{name:<20}' + ''.join(f'{_number(v):>12}' for v in values))
    for name, readout in report['readouts'].items():
        print(f'gripper, first 5 frames, {name}: median {readout["position_cm_first5_median"]:.2f} cm')
    for name in ('model', 'codec'):
        row = report['rows'][name]
        print(f'consistency mIoU, {name}: {_number(row["consistency_covisible_miou"])} of what both views can see, '
              f'{_number(row["consistency_miou"])} in the paper\'s sense')
    print(folder / 'report.html')


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.4g}'
