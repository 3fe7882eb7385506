"""One clip's errors by region, its object and its crispness, and their sums over an evaluation.

Squared errors are pooled over an episode's clips before they become decibels; intervals are over episodes.
"""

from __future__ import annotations

from typing import Any

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


def region_sums(predicted: Video4D, clip: TruthClip) -> dict[str, Any]:
    """Everything `summarise_regions` needs of one clip: regions{name{sum}}, sharpness{sum}, object records."""
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


def _object_records(predicted: Video4D, clip: TruthClip, moved: np.ndarray) -> list[dict[str, Any]]:
    """One record per view and frame in which enough of the moved object can truly be seen."""
    if clip.colours is None or not moved.any():
        return []
    true = clip.video
    errors = _motion_errors(predicted, clip)
    records = []
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


def summarise_regions(clips: list[dict[str, Any]], groups: list[Any]) -> dict[str, Any]:
    """`regions`, `object` and `sharpness` of a row, each with ci95 and the number of episodes n."""
    episodes = [[c for c, g in zip(clips, groups, strict=True) if g == group] for group in dict.fromkeys(groups)]
    out: dict[str, Any] = {'regions': {}, 'object': _object_summary(episodes), 'sharpness': {}}
    for name in REGIONS:
        values = [_region_metrics(_pooled([c['regions'][name] for c in mine])) for mine in episodes]
        out['regions'][name] = _with_intervals({metric: [v[metric] for v in values] for metric in REGION_METRICS})
    pooled = sharpness(_pooled([c['sharpness'] for c in clips]))
    per_episode = [sharpness(_pooled([c['sharpness'] for c in mine])) for mine in episodes]
    spread = _with_intervals({metric: [v[metric] for v in per_episode] for metric in pooled})
    out['sharpness'] = {**{k: _rounded(v) for k, v in pooled.items()}, 'ci95': spread['ci95'], 'n': spread['n']}
    return out


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


def _with_intervals(values: dict[str, list[float]]) -> dict[str, Any]:
    """Mean, 95 % interval and count over episodes of every metric."""
    found = {metric: summary(np.array(v)) for metric, v in values.items()}
    return {**{metric: f['mean'] for metric, f in found.items()},
            'ci95': {metric: f['ci95'] for metric, f in found.items()},
            'n': max((int(str(f['n'])) for f in found.values()), default=0)}


def _object_summary(episodes: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """iou_mean, iou per step, iou_1, iou_5, iou_10, miss, centroid_cm (median), motion_error_cm_median and _mean, n."""
    per_episode = [[r for c in mine for r in c['object']] for mine in episodes]
    records = [r for mine in per_episode for r in mine]
    steps = range(1, 1 + max((r['step'] for r in records), default=0))
    iou_steps = [_mean([r['iou'] for r in records if r['step'] == t]) for t in steps]
    motion = [r['motion_cm'] for r in records]
    out: dict[str, Any] = {
        'iou_mean': _mean([r['iou'] for r in records]), 'iou': iou_steps,
        **{f'iou_{t}': _mean([r['iou'] for r in records if r['step'] == t]) for t in STEPS},
        'miss': _mean([float(r['missed']) for r in records]),
        'centroid_cm': _median([r['centroid_cm'] for r in records]),
        'motion_error_cm_median': _median(motion), 'motion_error_cm_mean': _mean(motion),
        'n': len(records), 'n_episodes': sum(bool(mine) for mine in per_episode),
    }
    for name, key in (('iou_mean', 'iou'), ('miss', 'missed'), ('motion_error_cm_mean', 'motion_cm')):
        means = [_number(_mean([float(r[key]) for r in mine])) for mine in per_episode]
        out.setdefault('ci95', {})[name] = summary(np.array(means))['ci95']
    return out


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
