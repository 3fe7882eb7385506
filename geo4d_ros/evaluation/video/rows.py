"""All metrics of one predicted clip against the truth, and their means over clips."""

from __future__ import annotations

from itertools import product
from typing import Any, Literal, TypedDict

import numpy as np

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.evaluation.metrics.consistency import carry_mask, chamfer_cm, covisible_iou, iou
from geo4d_ros.evaluation.metrics.depth import abs_rel, delta1, error_3d_cm, moved_mask
from geo4d_ros.evaluation.metrics.image import psnr, ssim_map
from geo4d_ros.evaluation.metrics.pose import centroid_error_cm
from geo4d_ros.evaluation.metrics.statistics import summary
from geo4d_ros.evaluation.simulated_truth import TruthClip
from geo4d_ros.evaluation.video.regions import (
    ObjectRow,
    RegionRow,
    RegionSums,
    SharpnessRow,
    region_sums,
    summarise_regions,
)
from geo4d_ros.types import Video4D

Region = Literal['full_frame', 'motion_masked']
REGIONS: tuple[Region, ...] = ('full_frame', 'motion_masked')
FRAME_METRICS = ('psnr', 'ssim', 'abs_rel', 'delta1', 'error_3d_cm', 'coverage')
MIN_DEPTH_M = 0.05  # view 1 may see points behind the reference camera, where z has no relative error
MASK_THRESHOLD = 0.5


def view_name(view: int) -> str:
    """`reference`, `second`, `view2`, ..."""
    return ('reference', 'second')[view] if view < 2 else f'view{view}'


class ClipMetrics(TypedDict, total=False):
    """Every metric of one clip, frame 0 left out; NaN where there is nothing to judge.

    Depth and points of both views are in the reference frame (the paper's AbsRel of "m in n").
    """

    views: dict[str, dict[str, dict[str, float]]]  # view -> region -> metric
    consistency_miou: float  # NaN for one view, as the next two
    consistency_covisible_miou: float
    chamfer_cm: float
    centroid_cm: np.ndarray  # (T,) of the gripper's pixels in the reference view
    by_region: RegionSums
    lpips: float


Interval = list[float] | None  # 95 %


class RowIntervals(TypedDict, total=False):
    """Of the means with the same keys in a `VideoRow`."""

    full_frame: dict[str, Interval]
    motion_masked: dict[str, Interval]
    views: dict[str, dict[str, dict[str, Interval]]]
    consistency_miou: Interval
    consistency_covisible_miou: Interval
    chamfer_cm: Interval
    lpips: Interval


class ReadoutRow(TypedDict):
    """A read-out's errors: medians per step, and over the first five steps."""

    position_cm_median: list[float | None]
    rotation_deg_median: list[float | None]
    opening_mm_median: list[float | None]
    position_cm_first5_median: float
    position_cm_first5_mean: float | None
    position_cm_first5_mean_ci95: Interval
    lost_share: float


class VideoRow(TypedDict, total=False):
    """A row of the report: means over clips; the keys from `frechet_distance` on come from `reports.video`."""

    full_frame: dict[str, float | None]  # metric -> mean over the views
    motion_masked: dict[str, float | None]
    views: dict[str, dict[str, dict[str, float | None]]]  # view -> region -> metric
    consistency_miou: float | None
    consistency_covisible_miou: float | None
    chamfer_cm: float | None
    ci95: RowIntervals
    n_clips: int
    n_episodes: int
    regions: dict[str, RegionRow]
    object: ObjectRow
    sharpness: SharpnessRow
    gripper_centroid_cm: list[float | None]  # median by step
    frechet_distance: float | None
    seed_diversity: float | None
    futures: dict[str, float] | None
    lpips: float | None
    tasks: dict[str, VideoRow]
    gripper_error_cm: list[float | None]  # of the model and of the copy, median by step
    readouts: dict[str, ReadoutRow]  # of the other models


def clip_metrics(predicted: Video4D, clip: TruthClip) -> ClipMetrics:
    """Judge one clip. ConfigurationError where sizes differ."""
    true = clip.video
    if predicted.rgb.shape != true.rgb.shape:
        raise ConfigurationError(
            f'the prediction has (views, frames, height, width) {predicted.rgb.shape[:4]} '
            f'but the truth {true.rgb.shape[:4]}; set --size to what the model gives')
    views = {view_name(v): _view_metrics(predicted, clip, v) for v in range(true.views)}
    out: ClipMetrics = {'views': views, 'centroid_cm': np.full(true.frames - 1, np.nan),
                        'by_region': region_sums(predicted, clip), 'consistency_miou': np.nan,
                        'consistency_covisible_miou': np.nan, 'chamfer_cm': np.nan}
    if true.views > 1:
        out['chamfer_cm'] = _chamfer(predicted)
    if predicted.gripper_mask is not None:
        mask = predicted.gripper_mask > MASK_THRESHOLD
        true_mask = true.gripper_mask > MASK_THRESHOLD
        out['centroid_cm'] = centroid_error_cm(mask[0, 1:] & predicted.valid[0, 1:], predicted.points[0, 1:],
                                               true_mask[0, 1:] & true.valid[0, 1:], true.points[0, 1:])
        if true.views > 1:
            out['consistency_miou'], out['consistency_covisible_miou'] = _mask_consistency(predicted, mask, true)
    return out


def _view_metrics(predicted: Video4D, clip: TruthClip, view: int) -> dict[str, dict[str, float]]:
    true = clip.video
    rgb, rgb_true = predicted.rgb[view, 1:], true.rgb[view, 1:]
    similarity = np.stack([ssim_map(p, t) for p, t in zip(rgb, rgb_true, strict=True)])
    moved = moved_mask(true.rgb[view], true.points[view], true.valid[view])[1:]
    out = {}
    for region, inside in (('full_frame', np.ones_like(moved)), ('motion_masked', moved)):
        judged = inside & true.valid[view, 1:] & (true.points[view, 1:, ..., 2] > MIN_DEPTH_M)
        both = judged & predicted.valid[view, 1:]
        z = np.where(predicted.valid[view, 1:], predicted.points[view, 1:, ..., 2], 0)
        z_true = true.points[view, 1:, ..., 2]
        out[region] = {
            'psnr': psnr(rgb, rgb_true, inside),
            'ssim': float(similarity[inside].mean()) if inside.any() else float('nan'),
            'abs_rel': abs_rel(z, z_true, both),
            'delta1': delta1(z, z_true, judged),
            'error_3d_cm': error_3d_cm(predicted.points[view, 1:], true.points[view, 1:], both),
            'coverage': float(both.sum() / judged.sum()) if judged.any() else float('nan'),
        }
    return out


def _chamfer(video: Video4D) -> float:
    """Mean over frames of the distance between the clouds of views 0 and 1."""
    clouds = [[video.points[v, t][video.valid[v, t]] for v in (0, 1)] for t in range(1, video.frames)]
    return float(np.mean([chamfer_cm(a, b) for a, b in clouds]))


def _mask_consistency(predicted: Video4D, mask: np.ndarray, true: Video4D) -> tuple[float, float]:
    """The paper's mIoU: predicted mask of the reference view carried into view 1 by predicted points and true
    calibration, against view 1's own predicted mask; and the same for what both views can see."""
    paper, covisible = [], []
    for t in range(1, predicted.frames):
        lifted = mask[0, t] & predicted.valid[0, t]
        drawn = carry_mask(lifted, predicted.points[0, t], true.K[1], true.T_ref_view[1], mask.shape[2:])
        paper.append(iou(drawn, mask[1, t]))
        covisible.append(covisible_iou(mask[:2, t], predicted.points[:2, t], predicted.valid[:2, t], true.K,
                                       true.T_ref_view))
    return _mean(paper), _mean(covisible)


def _mean(values: list[float]) -> float:
    finite = np.asarray(values)[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float('nan')


def aggregate(clips: list[ClipMetrics], groups: list[Any]) -> VideoRow:
    """Means over clips as in the report's rows, with 95 % intervals over `groups` (the clip's episode)."""
    views = list(clips[0]['views'])
    row: VideoRow = {'ci95': {}, 'n_clips': len(clips), 'n_episodes': len(set(groups)), 'views': {}}
    for region in REGIONS:
        row[region], row['ci95'][region] = {}, {}
        for metric in FRAME_METRICS:
            per_clip = [_mean([c['views'][v][region][metric] for v in views]) for c in clips]
            row[region][metric], row['ci95'][region][metric] = grouped_mean(per_clip, groups)
    row['ci95']['views'] = {view: {region: {} for region in REGIONS} for view in views}
    for view in views:
        row['views'][view] = {region: {} for region in REGIONS}
        for region, metric in product(REGIONS, FRAME_METRICS):
            row['views'][view][region][metric], row['ci95']['views'][view][region][metric] = grouped_mean(
                [c['views'][view][region][metric] for c in clips], groups)
    keys: tuple[Literal['consistency_miou', 'consistency_covisible_miou', 'chamfer_cm'], ...] = (
        'consistency_miou', 'consistency_covisible_miou', 'chamfer_cm')
    for key in keys:
        row[key], row['ci95'][key] = grouped_mean([c[key] for c in clips], groups)
    found = summarise_regions([c['by_region'] for c in clips], groups)
    row['regions'], row['object'], row['sharpness'] = found['regions'], found['object'], found['sharpness']
    row['gripper_centroid_cm'] = step_medians(np.stack([c['centroid_cm'] for c in clips]))
    return row


def grouped_mean(values: list[float], groups: list[Any]) -> tuple[float | None, list[float] | None]:
    """Mean of per-group means and its 95 % interval; clips of one episode are not independent."""
    per_group = [_mean([v for v, g in zip(values, groups, strict=True) if g == group]) for group in
                 dict.fromkeys(groups)]
    result = summary(np.array(per_group))
    return result['mean'], result['ci95']


def step_medians(values: np.ndarray) -> list[float | None]:
    """Median over clips per horizon step of (N, T) errors; a step nobody could be judged at gives None.

    An infinite error (gripper not predicted) counts as large, so the median may be None too.
    """
    out: list[float | None] = []
    for column in values.T:
        judged = column[~np.isnan(column)]
        median = float(np.median(judged)) if len(judged) else float('inf')
        out.append(round(median, 3) if np.isfinite(median) else None)
    return out
