"""Adds up the clips of a video evaluation: the report's JSON and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from geo4d_ros.evaluation.metrics.frechet import frechet_distance
from geo4d_ros.evaluation.metrics.statistics import percentiles_ms
from geo4d_ros.evaluation.movies import depth_colours, side_by_side, stack_rows, write_mp4
from geo4d_ros.evaluation.video.evaluate import ClipResult, ReadoutErrors, Sample
from geo4d_ros.evaluation.video.rows import (
    FRAME_METRICS,
    REGIONS,
    Interval,
    ReadoutRow,
    VideoRow,
    aggregate,
    grouped_mean,
    step_medians,
)
from geo4d_ros.reports.html import HtmlReport

FIRST_STEPS = 5
ERRORS: tuple[Literal['position_cm', 'rotation_deg', 'opening_mm', 'lost'], ...] = (
    'position_cm', 'rotation_deg', 'opening_mm', 'lost')
SHOWN = ('object_moved', 'gripper', 'robot', 'uncovered', 'static')
SHOWN_METRICS: tuple[Literal['psnr', 'error_3d_cm'], ...] = ('psnr', 'error_3d_cm')
_Object = Literal['iou_mean', 'iou_1', 'iou_5', 'iou_10', 'miss', 'centroid_cm', 'motion_error_cm_median',
                  'motion_error_cm_mean', 'n']
OBJECT: tuple[_Object, ...] = ('iou_mean', 'iou_1', 'iou_5', 'iou_10', 'miss', 'centroid_cm',
                               'motion_error_cm_median', 'motion_error_cm_mean', 'n')
CRISP: tuple[Literal['gradient_energy', 'gradient_cosine', 'block_ratio'], ...] = (
    'gradient_energy', 'gradient_cosine', 'block_ratio')


class VideoSummary(TypedDict):
    """What the clips add up to, as DESIGN section 9 names it."""

    rows: dict[str, VideoRow]
    readouts: dict[str, ReadoutRow]
    n: int
    n_episodes: int
    frechet_encoder: str
    predict_ms: dict[str, float] | None


class VideoReport(VideoSummary, total=False):
    """With what was evaluated, which the page shows, too."""

    revision: str
    split: str
    lpips_note: str


def summarise(results: list[ClipResult], encoder: str) -> VideoSummary:
    """rows, read-outs, per-task rows, Frechet distances and counts, as DESIGN section 9 names them."""
    groups = [(r.task, r.seed) for r in results]
    names = list(results[0].rows)
    rows = {name: aggregate([r.rows[name] for r in results], groups) for name in names}
    for name, row in rows.items():
        features = {key: np.array([f for r in results for f in r.features[key]]) for key in (name, 'truth')}
        enough = len(features['truth']) >= 4
        row['frechet_distance'] = round(frechet_distance(features[name], features['truth']), 5) if enough else None
        diversity = [r.diversity[name] for r in results if name in r.diversity]
        row['seed_diversity'] = grouped_mean(diversity, list(range(len(diversity))))[0] if diversity else None
        futures = [r.futures[name] for r in results if name in r.futures]
        row['futures'] = {key: round(float(np.mean([f[key] for f in futures])), 4) for key in futures[0]} | {
            'n': len(futures)} if futures else None
        if 'lpips' in results[0].rows[name]:
            row['lpips'], row['ci95']['lpips'] = grouped_mean([r.rows[name]['lpips'] for r in results], groups)
        row['tasks'] = {}
        for task in dict.fromkeys(r.task for r in results):
            mine = [r for r in results if r.task == task]
            row['tasks'][task] = aggregate([r.rows[name] for r in mine], [r.seed for r in mine])
    readouts = _readouts([r.readouts for r in results], groups)
    rows[names[0]]['gripper_error_cm'] = readouts.get('fused', readouts['video'])['position_cm_median']
    rows['copy']['gripper_error_cm'] = readouts['copy']['position_cm_median']
    for name in results[0].baseline_readouts:
        found = _readouts([r.baseline_readouts[name] for r in results], groups)
        rows[name]['readouts'] = {k: v for k, v in found.items() if k != 'copy'}
    return {'rows': rows, 'readouts': readouts, 'n': len(results), 'n_episodes': len(set(groups)),
            'frechet_encoder': encoder, 'predict_ms': percentiles_ms([r.predict_s for r in results])}


def _readouts(clips: list[dict[str, ReadoutErrors]], groups: list[Any]) -> dict[str, ReadoutRow]:
    """Errors of every read-out that all clips have: medians per step, and over the first steps with intervals."""
    out: dict[str, ReadoutRow] = {}
    for name in clips[0]:
        errors = {key: np.stack([clip[name][key] for clip in clips]) for key in ERRORS}
        early = errors['position_cm'][:, :FIRST_STEPS]
        mean, interval = grouped_mean([float(np.mean(row)) for row in early], groups)
        out[name] = {
            'position_cm_median': step_medians(errors['position_cm']),
            'rotation_deg_median': step_medians(errors['rotation_deg']),
            'opening_mm_median': step_medians(errors['opening_mm']),
            'position_cm_first5_median': round(float(np.median(early)), 3),
            'position_cm_first5_mean': mean, 'position_cm_first5_mean_ci95': interval,
            'lost_share': round(float(errors['lost'].mean()), 4),
        }
    return out


def write_page(report: VideoReport, results: list[ClipResult], path: Path) -> None:
    """report.html: tables, curves per horizon step, and sample clips as pictures and videos."""
    page = HtmlReport(f'Video evaluation: {report["split"]}')
    page.text(f'{report["n"]} clips of {report["n_episodes"]} episodes, revision {report.get("revision", "?")}. '
              'Means with 95 % bootstrap intervals over episodes. Depth and points of both views are in the '
              'reference frame. "copy" repeats frame 0; "codec" is the best this model could do.')
    for region in REGIONS:
        page.heading(region.replace('_', ' '))
        page.table(['row', *FRAME_METRICS],
                   [[name, *(_with_interval(row[region], row['ci95'][region], m) for m in FRAME_METRICS)]
                    for name, row in report['rows'].items()])
    _region_tables(page, report)
    page.heading('Consistency between the views')
    keys = ('consistency_covisible_miou', 'consistency_miou', 'chamfer_cm', 'frechet_distance', 'seed_diversity',
            'lpips')
    page.table(['row', *keys], [[name, *(row.get(k) for k in keys)] for name, row in report['rows'].items()])
    page.text(f'Frechet distance on {report["frechet_encoder"]}. {report["lpips_note"]}')
    _per_view_tables(page, report)
    page.heading('Gripper error per predicted step')
    steps = list(range(1, 1 + len(report['rows']['copy']['gripper_error_cm'])))
    page.curves('Position error, median [cm]', steps,
                {n: r['position_cm_median'] for n, r in report['readouts'].items()}, 'predicted frame', 'cm')
    page.curves('Rotation error, median [deg]', steps,
                {n: r['rotation_deg_median'] for n, r in report['readouts'].items()}, 'predicted frame', 'deg')
    page.table(['read-out', 'first 5 frames, median [cm]', 'mean [cm]', '95 %', 'lost'],
               [[n, r['position_cm_first5_median'], r['position_cm_first5_mean'],
                 _interval(r['position_cm_first5_mean_ci95']), r['lost_share']]
                for n, r in report['readouts'].items()])
    rows = [[row, n, r['position_cm_first5_median'], r['position_cm_first5_mean'],
             _interval(r['position_cm_first5_mean_ci95']), r['lost_share']]
            for row, part in report['rows'].items() for n, r in part.get('readouts', {}).items()]
    if rows:
        page.table(['row', 'read-out', 'first 5 frames, median [cm]', 'mean [cm]', '95 %', 'lost'], rows)
    _samples(page, results, path.parent)
    page.write(path)


def _region_tables(page: HtmlReport, report: VideoReport) -> None:
    page.heading('By region of the truth')
    page.text('Pooled over an episode, mean over episodes. uncovered: robot or object at frame 0, background now. The '
              'object counts where its own colours are found; miss: frames with less than a quarter of its pixels.')
    page.table(['row', *(f'{name} {metric}' for name in SHOWN for metric in SHOWN_METRICS)],
               [[name, *(row['regions'][region][metric] for region in SHOWN for metric in SHOWN_METRICS)]
                for name, row in report['rows'].items()])
    page.table(['row', *(f'object {k}' for k in OBJECT), *CRISP],
               [[name, *(row['object'][k] for k in OBJECT), *(row['sharpness'][k] for k in CRISP)]
                for name, row in report['rows'].items()])
    futures = {name: row['futures'] for name, row in report['rows'].items() if row.get('futures')}
    if futures:
        page.heading('Several futures')
        figures = list(next(iter(futures.values())))
        page.table(['row', *figures], [[name, *(row[k] for k in figures)] for name, row in futures.items()])


def _per_view_tables(page: HtmlReport, report: VideoReport) -> None:
    page.heading('Per task and per view')
    page.text('Both views are judged in the reference frame: "second" is the second view seen from the reference.')
    rows = []
    for name, row in report['rows'].items():
        for task, part in row['tasks'].items():
            for view, regions in part['views'].items():
                own = part['ci95']['views'][view]
                rows.append([name, task, view, part['n_clips'],
                             *(_with_interval(regions[region], own[region], m) for region in REGIONS
                               for m in ('psnr', 'abs_rel', 'error_3d_cm'))])
    short = {'full_frame': 'full', 'motion_masked': 'moved'}
    page.table(['row', 'task', 'view', 'clips', *(f'{short[r]} {m}' for r in REGIONS
                                         for m in ('psnr', 'abs_rel', 'error_3d_cm'))], rows)


def _samples(page: HtmlReport, results: list[ClipResult], folder: Path, limit: int = 3) -> None:
    page.heading('Samples')
    seen: set[str] = set()
    for result in results:
        if result.sample is None or result.task in seen or len(seen) >= limit:
            continue
        seen.add(result.task)
        frames = [_sample_frame(result.sample, t) for t in range(result.sample['true'].shape[1])]
        name = f'{result.task}, seed {result.seed}'
        page.image(stack_rows([frames[i] for i in (1, len(frames) // 2, len(frames) - 1)]), f'{name}: three steps')
        clip = folder / f'sample-{result.task}.mp4'
        write_mp4(clip, frames, fps=3)
        page.video(clip, f'{name}: true and predicted, both views, and the reference depth')


def _sample_frame(sample: Sample, t: int) -> np.ndarray:
    views = [pictures[v, t] for v in range(sample['true'].shape[0])
             for pictures in (sample['true'], sample['predicted'])]
    depths = [depth_colours(depth[t]) for depth in (sample['true_depth'], sample['predicted_depth'])]
    names = [f'view {v + 1} {kind}' for v in range(sample['true'].shape[0]) for kind in ('true', 'predicted')]
    return side_by_side(views + depths, [*names, 'depth true', 'depth predicted'], scale=2)


def _with_interval(means: dict[str, float | None], intervals: dict[str, Interval], metric: str) -> str | None:
    value, interval = means[metric], intervals[metric]
    return None if value is None else f'{value:.4g} ({_interval(interval)})'


def _interval(interval: list[float] | None) -> str | None:
    return None if interval is None else f'{interval[0]:.3g} to {interval[1]:.3g}'
