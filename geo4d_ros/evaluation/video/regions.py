"""One clip's errors by region, its object and its crispness, and their sums over an evaluation.

Squared errors are pooled over an episode's clips before they become decibels; intervals are over episodes.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np

from geo4d_ros.evaluation.metrics.consistency import iou
from geo4d_ros.evaluation.metrics.image import PSNR_CEILING_DB
from geo4d_ros.evaluation.metrics.regions import (
    MIN_OBJECT_PIXELS,
    MISSED_SHARE,
    REGIONS,
    has_moved,
    motion_error_cm,
    object_pixels,
    region_masks,
    sharpness,
    sharpness_sums,
)
from geo4d_ros.evaluation.metrics.statistics import summary
from geo4d_ros.evaluation.simulated_truth import OBJECT_CLASS, TruthClip
from geo4d_ros.types import Video4D

MIN_DEPTH_M = 0.05
MIN_REGION_PIXELS = 30  # of an episode; fewer do not count
MIN_CENTROID_PIXELS = 4
REGION_METRICS = ('psnr', 'abs_rel', 'error_3d_cm', 'coverage')
STEPS = (1, 5, 10)


class ObjectRecord(TypedDict):
    """The moved object in one view and frame."""

    step: int
    iou: float
    centroid_cm: float  # NaN where too little of it can be seen
    missed: bool
    motion_cm: float  # NaN for a video that does not say how it moved the object


class RegionSums(TypedDict):
    """Everything `summarise_regions` needs of one clip."""

    regions: dict[str, dict[str, float]]  # region -> sum
    sharpness: dict[str, float]
    object: list[ObjectRecord]


class RegionRow(TypedDict):
    """Means over the n episodes that show a region, and their 95 % intervals."""

    psnr: float | None
    abs_rel: float | None
    error_3d_cm: float | None
    coverage: float | None
    ci95: dict[str, list[float] | None]
    n: int


class ObjectRow(TypedDict):
    """The moved object over n records: step by step, and as a whole."""

    iou_mean: float | None
    iou: list[float | None]  # by step
    iou_1: float | None
    iou_5: float | None
    iou_10: float | None
    miss: float | None
    centroid_cm: float | None  # median
    motion_error_cm_median: float | None
    motion_error_cm_mean: float | None
    n: int
    n_episodes: int
    ci95: dict[str, list[float] | None]


class SharpnessRow(TypedDict):
    """Crispness of the robot, 1 is as crisp as the truth."""

    gradient_energy: float | None
    gradient_cosine: float | None
    block_ratio: float | None
    ci95: dict[str, list[float] | None]
    n: int


class RegionSummary(TypedDict):
    """What `summarise_regions` gives of a row."""

    regions: dict[str, RegionRow]
    object: ObjectRow
    sharpness: SharpnessRow


class _Spread(NamedTuple):
    mean: dict[str, float | None]
    ci95: dict[str, list[float] | None]
    n: int


def region_sums(predicted: Video4D, clip: TruthClip) -> RegionSums:
    """The sums of one clip."""
    true = clip.video
    moved = np.zeros(true.frames, bool) if clip.T_ref_object is None else has_moved(clip.T_ref_object)
    regions: dict[str, dict[str, float]] = {name: {} for name in REGIONS}
    crisp: dict[str, float] = {}
    for view in range(true.views):
        masks = region_masks(clip.labels[view], moved)
        for name, mask in masks.items():
            _add(regions[name], _errors(predicted, true, view, mask))
        _add(crisp, sharpness_sums(predicted.rgb[view, 1:], true.rgb[view, 1:], masks['robot']))
    return {'regions': regions, 'sharpness': crisp, 'object': _object_records(predicted, clip, moved)}


def _add(total: dict[str, float], more: dict[str, float]) -> None:
    for key, value in more.items():
        total[key] = total.get(key, 0.0) + value


def _errors(predicted: Video4D, true: Video4D, view: int, mask: np.ndarray) -> dict[str, float]:
    """Sums over a region (T, H, W) of one view: squared colour error, relative depth error, distance, counts.

    Depth is that of the view's own camera, by the true calibration.
    """
    difference = (predicted.rgb[view, 1:][mask].astype(np.float32) - true.rgb[view, 1:][mask]) / 255
    T = true.T_ref_view[view]
    judged = mask & true.valid[view, 1:]
    P, Q = (v.points[view, 1:] for v in (predicted, true))
    depth, true_depth = (np.where(judged, (x - T[:3, 3]) @ T[:3, 2], 0) for x in (P, Q))
    judged &= true_depth > MIN_DEPTH_M
    both = judged & predicted.valid[view, 1:] & (depth > MIN_DEPTH_M)
    return {
        'squared': float((difference**2).mean(axis=-1).sum()), 'pixels': float(mask.sum()),
        'relative': float((np.abs(depth - true_depth)[both] / true_depth[both]).sum()),
        'distance': float(100 * np.linalg.norm(P[both].astype(np.float64) - Q[both], axis=-1).sum()),
        'both': float(both.sum()), 'judged': float(judged.sum()),
    }


def _object_records(predicted: Video4D, clip: TruthClip, moved: np.ndarray) -> list[ObjectRecord]:
    """One record per view and frame in which enough of the moved object can truly be seen."""
    if clip.colours is None or not moved.any():
        return []
    true = clip.video
    errors = _motion_errors(predicted, clip)
    records: list[ObjectRecord] = []
    for view in range(true.views):
        for t in np.flatnonzero(moved[1:]) + 1:
            mask = clip.labels[view, t] == OBJECT_CLASS
            if mask.sum() < MIN_OBJECT_PIXELS:
                continue
            found = object_pixels(predicted.rgb[view, t], view, clip.colours)
            seen, true_seen = found & predicted.valid[view, t], mask & true.valid[view, t]
            centroid = float('nan')
            if min(seen.sum(), true_seen.sum()) >= MIN_CENTROID_PIXELS:
                middle, true_middle = (np.median(v.points[view, t][m], axis=0)
                                       for v, m in ((predicted, seen), (true, true_seen)))
                centroid = float(100 * np.linalg.norm(middle - true_middle))
            records.append({'step': int(t), 'iou': iou(found, mask), 'centroid_cm': centroid,
                            'missed': bool(found.sum() < MISSED_SHARE * mask.sum()), 'motion_cm': errors[t]})
    return records


def _motion_errors(predicted: Video4D, clip: TruthClip) -> np.ndarray:
    """(T+1,) [cm]: how far the predicted rigid motion puts the object's frame-0 points from where they went; NaN for a
    video that does not say how it moved the object."""
    true = clip.video
    if predicted.T_ref_object_motion is None:
        return np.full(true.frames, np.nan)
    points = np.concatenate([true.points[v, 0][(clip.labels[v, 0] == OBJECT_CLASS) & true.valid[v, 0]]
                             for v in range(true.views)]).astype(np.float64)
    start = np.linalg.inv(clip.T_ref_object[0])
    return np.array([motion_error_cm(points, predicted.T_ref_object_motion[t], clip.T_ref_object[t] @ start)
                     for t in range(true.frames)])


def summarise_regions(clips: list[RegionSums], groups: list[Any]) -> RegionSummary:
    """Pooled over each episode's clips, then over episodes."""
    episodes = [[c for c, g in zip(clips, groups, strict=True) if g == group] for group in dict.fromkeys(groups)]
    regions: dict[str, RegionRow] = {}
    for name in REGIONS:
        values = [_region_metrics(_pooled([c['regions'][name] for c in mine])) for mine in episodes]
        mean, ci95, n = _with_intervals({metric: [v[metric] for v in values] for metric in REGION_METRICS})
        regions[name] = {'psnr': mean['psnr'], 'abs_rel': mean['abs_rel'], 'error_3d_cm': mean['error_3d_cm'],
                         'coverage': mean['coverage'], 'ci95': ci95, 'n': n}
    pooled = sharpness(_pooled([c['sharpness'] for c in clips]))
    per_episode = [sharpness(_pooled([c['sharpness'] for c in mine])) for mine in episodes]
    spread = _with_intervals({metric: [v[metric] for v in per_episode] for metric in pooled})
    crisp: SharpnessRow = {
        'gradient_energy': _rounded(pooled['gradient_energy']), 'gradient_cosine': _rounded(pooled['gradient_cosine']),
        'block_ratio': _rounded(pooled['block_ratio']), 'ci95': spread.ci95, 'n': spread.n}
    return {'regions': regions, 'object': _object_summary(episodes), 'sharpness': crisp}


def _pooled(sums: list[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in sums:
        _add(total, part)
    return total


def _region_metrics(sums: dict[str, float]) -> dict[str, float]:
    nothing = dict.fromkeys(REGION_METRICS, float('nan'))
    if sums.get('pixels', 0) < MIN_REGION_PIXELS:
        return nothing
    both, judged = sums['both'], sums['judged']
    mean_square = max(sums['squared'] / sums['pixels'], 1e-12)
    return nothing | {'psnr': min(PSNR_CEILING_DB, float(-10 * np.log10(mean_square)))} | (
        {'coverage': both / judged} if judged else {}) | (
        {'abs_rel': sums['relative'] / both, 'error_3d_cm': sums['distance'] / both} if both else {})


def _with_intervals(values: dict[str, list[float]]) -> _Spread:
    """Mean, 95 % interval and count over episodes of every metric."""
    found = {metric: summary(np.array(v)) for metric, v in values.items()}
    return _Spread({metric: f['mean'] for metric, f in found.items()},
                   {metric: f['ci95'] for metric, f in found.items()},
                   max((f['n'] for f in found.values()), default=0))


def _object_summary(episodes: list[list[RegionSums]]) -> ObjectRow:
    per_episode = [[r for c in mine for r in c['object']] for mine in episodes]
    records = [r for mine in per_episode for r in mine]
    steps = range(1, 1 + max((r['step'] for r in records), default=0))
    iou_steps = [_mean([r['iou'] for r in records if r['step'] == t]) for t in steps]
    motion = [r['motion_cm'] for r in records]
    first, fifth, tenth = (_mean([r['iou'] for r in records if r['step'] == t]) for t in STEPS)
    intervals: dict[str, list[float] | None] = {}
    keys: tuple[tuple[str, Literal['iou', 'missed', 'motion_cm']], ...] = (
        ('iou_mean', 'iou'), ('miss', 'missed'), ('motion_error_cm_mean', 'motion_cm'))
    for name, key in keys:
        means = [_number(_mean([float(r[key]) for r in mine])) for mine in per_episode]
        intervals[name] = summary(np.array(means))['ci95']
    return {
        'iou_mean': _mean([r['iou'] for r in records]), 'iou': iou_steps, 'iou_1': first, 'iou_5': fifth,
        'iou_10': tenth,
        'miss': _mean([float(r['missed']) for r in records]),
        'centroid_cm': _median([r['centroid_cm'] for r in records]),
        'motion_error_cm_median': _median(motion), 'motion_error_cm_mean': _mean(motion),
        'n': len(records), 'n_episodes': sum(bool(mine) for mine in per_episode), 'ci95': intervals,
    }


def _number(value: float | None) -> float:
    return float('nan') if value is None else value


def _rounded(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None


def _finite(values: list[float]) -> np.ndarray:
    array = np.asarray(values, np.float64)
    return array[np.isfinite(array)]


def _mean(values: list[float]) -> float | None:
    finite = _finite(values)
    return _rounded(float(finite.mean())) if len(finite) else None


def _median(values: list[float]) -> float | None:
    finite = _finite(values)
    return _rounded(float(np.median(finite))) if len(finite) else None
