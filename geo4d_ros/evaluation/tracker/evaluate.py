"""Measures a tracker on sequences with known poses, beside a registration baseline and the paper's opening rule."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypedDict

import numpy as np

from geo4d_ros.evaluation.metrics.statistics import bootstrap_interval
from geo4d_ros.evaluation.metrics.tracker import FAILURE_M, add_distance, adds_distance, auc, auroc, failed
from geo4d_ros.evaluation.simulated_truth import TruthClip
from geo4d_ros.geometry.transforms import translation_distance
from geo4d_ros.robots.gripper import GripperModel
from geo4d_ros.tracking.opening import is_closed
from geo4d_ros.tracking.protocol import Tracker
from geo4d_ros.types import TrackDetails, TrackStatus, Video4D


@dataclass
class TrackRecord:
    """Errors of one sequence, frames 1..T: add, adds [m], wrong (beyond 3 cm / 15 deg), confidence and status."""

    add: np.ndarray
    adds: np.ndarray
    wrong: np.ndarray
    confidence: np.ndarray
    ok: np.ndarray
    lost: np.ndarray
    opening_error: np.ndarray
    closed: np.ndarray
    closed_true: np.ndarray
    translation: np.ndarray
    seconds: float
    task: str
    seed: int
    reason: str = ''
    details: TrackDetails = field(default_factory=TrackDetails)


def run_tracker(tracker: Tracker, clip: TruthClip, video: Video4D, gripper: GripperModel) -> TrackRecord:
    """Track one video and compare with the clip's truth. Poses count even where the tracker says LOST (its raw
    ones, where it gives them): a failure rate without re-initialisation must not be hidden by giving up."""
    started = time.perf_counter()
    track = tracker.track(video, clip.observation)
    seconds = time.perf_counter() - started
    T = track.details.get('raw_T_ref_gripper', track.T_ref_gripper)[1:]
    T_true = clip.track.T_ref_gripper[1:]
    points = gripper.surface_points(gripper.max_opening, 300)
    opening = track.details.get('raw_opening', track.opening)
    return TrackRecord(
        add=add_distance(T, T_true, points), adds=adds_distance(T, T_true, points), wrong=failed(T, T_true),
        confidence=track.details.get('raw_confidence', track.confidence)[1:],
        ok=np.array([s is TrackStatus.OK for s in track.status[1:]]),
        lost=np.array([s is TrackStatus.LOST for s in track.status[1:]]),
        opening_error=np.abs(opening - clip.track.opening)[1:],
        closed=is_closed(opening, gripper.max_opening)[1:],
        closed_true=is_closed(clip.track.opening, gripper.max_opening)[1:],
        translation=translation_distance(T, T_true), seconds=seconds, task=clip.task, seed=clip.seed,
        reason=str(track.details.get('reason', '')), details=track.details)


class TaskRow(TypedDict):
    """The sequences of one task; failures: sequences lost at their end."""

    add_mm_mean: float
    failures: int
    n: int


class TrackerFigures(TypedDict):
    """What a tracker does, frames 1..T of all sequences together unless it says otherwise."""

    n: int  # sequences
    frames: int
    add_mm_mean: float
    add_mm_ci95: tuple[float, float]  # over sequences
    add_mm_median: float
    adds_mm_mean: float
    adds_auc: float
    add_auc: float
    last_frame_mm: float
    failure_rate: float  # of sequences, at their last frame
    failures: int
    open_closed_accuracy: float
    closed_share: float  # of the truth
    opening_error_mm: float
    ok_share: float
    lost_share: float
    refused_sequences: int
    ok_but_wrong_rate: float
    ok_frames_judged: int
    lost_auroc: float | None
    wrong_frames_judged: int
    ms_per_frame_p50: float
    tasks: dict[str, TaskRow]


class TrustedFigures(TypedDict, total=False):
    """Of the frames a plan would use; without any only their count."""

    trusted_frames: int
    trusted_add_mm_mean: float
    trusted_wrong_rate: float  # beyond 3 cm / 15 deg


def summarise(records: list[TrackRecord], stress: list[TrackRecord] | None = None) -> TrackerFigures:
    """The report's keys. `stress`: records of badly damaged sequences that join only the lost-detector's figure."""
    n = len(records)
    names = ('add', 'adds', 'wrong', 'confidence', 'ok', 'lost', 'opening_error', 'closed', 'closed_true')
    joined = {name: np.concatenate([getattr(r, name) for r in records]) for name in names}
    pooled = records + (stress or [])
    wrong = np.concatenate([r.wrong for r in pooled])
    confidence = np.concatenate([r.confidence for r in pooled])
    ok = np.concatenate([r.ok for r in pooled])
    failures = np.array([r.wrong[-1] for r in records])
    per_sequence = np.array([1000 * r.add.mean() for r in records])
    frames = len(records[0].add)
    return {
        'n': n, 'frames': len(joined['add']),
        'add_mm_mean': float(1000 * joined['add'].mean()), 'add_mm_ci95': bootstrap_interval(per_sequence),
        'add_mm_median': float(1000 * np.median(joined['add'])), 'adds_mm_mean': float(1000 * joined['adds'].mean()),
        'adds_auc': auc(joined['adds']), 'add_auc': auc(joined['add']),
        'last_frame_mm': float(1000 * np.mean([r.add[-1] for r in records])),
        'failure_rate': float(failures.mean()), 'failures': int(failures.sum()),
        'open_closed_accuracy': float((joined['closed'] == joined['closed_true']).mean()),
        'closed_share': float(joined['closed_true'].mean()),
        'opening_error_mm': float(1000 * joined['opening_error'].mean()),
        'ok_share': float(joined['ok'].mean()), 'lost_share': float(joined['lost'].mean()),
        'refused_sequences': sum(bool(r.lost.all()) for r in records),
        'ok_but_wrong_rate': float((ok & wrong).sum() / max(ok.sum(), 1)),
        'ok_frames_judged': int(ok.sum()),
        'lost_auroc': auroc(-confidence, wrong), 'wrong_frames_judged': int(wrong.sum()),
        'ms_per_frame_p50': float(np.median([1000 * r.seconds / frames for r in records])),
        'tasks': {task: {'add_mm_mean': float(1000 * np.mean([r.add.mean() for r in records if r.task == task])),
                         'failures': int(sum(r.wrong[-1] for r in records if r.task == task)),
                         'n': sum(r.task == task for r in records)}
                  for task in sorted({r.task for r in records})},
    }


def trusted_errors(records: Iterable[TrackRecord]) -> TrustedFigures:
    """Of the frames a plan would use (before the first LOST one): mean ADD [mm] and the share beyond 3 cm / 15 deg."""
    add, wrong = [], []
    for record in records:
        add.append(record.add[~record.lost])
        wrong.append(record.wrong[~record.lost])
    add_all, wrong_all = np.concatenate(add), np.concatenate(wrong)
    if len(add_all) == 0:
        return {'trusted_frames': 0}
    return {'trusted_frames': len(add_all), 'trusted_add_mm_mean': float(1000 * add_all.mean()),
            'trusted_wrong_rate': float(wrong_all.mean())}


def one_view(clip: TruthClip, video: Video4D) -> tuple[TruthClip, Video4D]:
    """The clip and video with the reference view alone."""
    whole = clip.observation
    observation = replace(whole, views=whole.views[:1],
                          T_ref_view=None if whole.T_ref_view is None else whole.T_ref_view[:1])
    cut = replace(video, rgb=video.rgb[:1], points=video.points[:1], valid=video.valid[:1], K=video.K[:1],
                  T_ref_view=video.T_ref_view[:1],
                  gripper_mask=None if video.gripper_mask is None else video.gripper_mask[:1])
    return replace(clip, observation=observation), cut


__all__ = ['FAILURE_M', 'TrackRecord', 'one_view', 'run_tracker', 'summarise', 'trusted_errors']
