"""Judges the cycles of a failed episode against the simulator: how far off were the video and the plan."""

from __future__ import annotations

from typing import Any

import numpy as np

from geo4d_ros.evaluation.closed_loop.cell_rig import CellRig
from geo4d_ros.evaluation.closed_loop.episode import Cycle
from geo4d_ros.evaluation.closed_loop.failure_causes import CycleRecord
from geo4d_ros.evaluation.closed_loop.oracle import true_future
from geo4d_ros.evaluation.metrics.pose import MIN_GRIPPER_PIXELS, path_distance
from geo4d_ros.evaluation.simulated_truth import clip_of
from geo4d_ros.types import Video4D

NOT_SEEN_M = 9.99  # reported where the prediction does not show the gripper that is there


def judge_cycles(cell: Any, rig: CellRig, cycles: list[Cycle], executed: int, frames: int,
                 dt: float) -> list[CycleRecord]:
    """Each cycle's errors against what the expert would have done from the same state.

    The cell is moved to each cycle's state and left there. Only the first `executed` poses count, by their
    distance from the true path, so that a right path at another pace is no error.
    """
    records = []
    for cycle in cycles:
        plan_error = prediction_error = None
        if cycle.plan is not None and len(cycle.plan.T_base_gripper):
            cell.restore_state(cycle.before)
            future = true_future(cell, rig, frames, dt)
            plan_error = plan_error_m(cycle.plan.T_base_gripper[:executed, :3, 3], future.T_base_gripper[:, :3, 3])
            prediction_error = prediction_error_m(cycle.video, clip_of(future).video, executed)
        records.append(CycleRecord(cycle.reason, plan_error, prediction_error, cycle.closed, cycle.missed,
                                   cycle.retreated, cycle.plan.id if cycle.plan else ''))
    return records


def plan_error_m(planned: np.ndarray, path: np.ndarray) -> float:
    """Largest distance [m] of planned positions (k, 3) from the true path (T+1, 3)."""
    return float(path_distance(planned, path).max())


def prediction_error_m(predicted: Video4D, true: Video4D, executed: int) -> float | None:
    """Largest distance [m] of the predicted gripper's middle from the path of the true one, reference view.

    Over the first `executed` frames; None where neither can be seen or the video has no gripper mask.
    """
    if predicted.gripper_mask is None:
        return None
    path = [m for t in range(true.frames) if (m := gripper_middle(true, t)) is not None]
    if len(path) < 2:
        return None
    distances = []
    for t in range(1, executed + 1):
        if gripper_middle(true, t) is None:
            continue
        middle = gripper_middle(predicted, t)
        distances.append(NOT_SEEN_M if middle is None else float(path_distance(middle[None], np.array(path))[0]))
    return max(distances, default=None)


def gripper_middle(video: Video4D, frame: int) -> np.ndarray | None:
    """Median (3,) [m] of the gripper's points in the reference view, None when too few show it."""
    inside = (video.gripper_mask[0, frame] > 0.5) & video.valid[0, frame]
    return np.median(video.points[0, frame][inside], axis=0) if inside.sum() >= MIN_GRIPPER_PIXELS else None
