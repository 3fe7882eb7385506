"""How far a tracked frame may be trusted: agreement of drawn and seen gripper, turned into a calibrated number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geo4d_ros.tracking.objective import Problem
from geo4d_ros.types import TrackStatus

MIN_VISIBLE_PX = 20


@dataclass(frozen=True)
class Agreement:
    """Of one frame. iou: the worst view's overlap of drawn and seen gripper, hidden pixels left out, 0 when no
    view sees it; views: how many do; visible: share of the drawn gripper that is neither hidden nor outside the
    image, the best view's; sigma_m, sigma_rad: of the solution; met: share of the landmarks seen where the pose has
    them, NaN where nothing looks for them."""

    iou: float
    views: int
    visible: float
    sigma_m: float
    sigma_rad: float
    met: float = np.nan


def agreement(problem: Problem, T: np.ndarray, openings: np.ndarray, covariance: np.ndarray) -> list[Agreement]:
    """Compare all frames of a chunk with the gripper drawn at T (T+1, 4, 4), openings (T+1,), covariance
    (T+1, 6, 6)."""
    n = len(T)
    overlap, share = compare(problem, np.arange(n), T, openings)
    met = problem.landmarks_met(np.arange(n), T, openings)
    result = []
    for t in range(n):
        seen = overlap[t][np.isfinite(overlap[t])]
        sigma = np.sqrt(np.maximum(np.diag(covariance[t]), 0))
        result.append(Agreement(float(seen.min()) if len(seen) else 0.0, len(seen), float(share[t].max()),
                                float(np.linalg.norm(sigma[3:])), float(np.linalg.norm(sigma[:3])), float(met[t])))
    return result


def view_overlap(problem: Problem, view: int, t: int, T: np.ndarray, opening: float) -> float | None:
    """Intersection over union in one view without hidden pixels; None when too little of the gripper can be seen."""
    overlap = compare(problem, np.array([t]), T[None], np.array([opening]))[0][0, view]
    return float(overlap) if np.isfinite(overlap) else None


def compare(problem: Problem, t: np.ndarray, T: np.ndarray, openings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection over union (F, V) of drawn and seen gripper in frames t (F,) at T (F, 4, 4), hidden pixels left
    out, NaN where too little can be seen; and the share (F, V) of the drawn gripper that can be seen."""
    drawn, area = problem.cover(T, openings)
    overlap, share = np.full(area.shape, np.nan), np.zeros(area.shape)
    for i, frame in enumerate(t):
        for view in problem.views:
            visible = drawn[i, view] & ~problem.unknown(view, frame)
            count, seen = int(visible.sum()), problem.mask(view, frame)
            share[i, view] = count / max(int(area[i, view]), 1)
            if count >= MIN_VISIBLE_PX:
                overlap[i, view] = (visible & seen).sum() / (visible | seen).sum()
    return overlap, share


def status_of(confidence: np.ndarray, ok: float, lost: float) -> tuple[TrackStatus, ...]:
    """Status per frame; from the first LOST frame on every frame is LOST, frame 0 (measured) never is."""
    result = [TrackStatus.OK]
    for value in confidence[1:]:
        if result[-1] is TrackStatus.LOST or value < lost:
            result.append(TrackStatus.LOST)
        else:
            result.append(TrackStatus.OK if value >= ok else TrackStatus.DEGRADED)
    return tuple(result)


@dataclass(frozen=True)
class ConfidenceModel:
    """Logistic model of P(pose within 3 cm and 15 deg), and the status thresholds on it.

    Fitted with a small ridge to 3350 frames of 336 tracks of validation scenes in the video alone: clean, 2 % depth
    error, badly damaged, and with their frames in random order, so that the hand leaps. `state` terms and `hidden` are
    set by hand. met: of the landmarks. hidden: only where nothing looks for landmarks, which are found behind things
    too. single: of all frames of a video that shows the gripper in one view only, set by itself on 319 tracks: one
    view hides errors along its line of sight from every other term. sigma_m, sigma_rad: per e-fold of the solution's
    sigmas beyond usual_sigma; left out beside a state stream, whose own sigmas they then mostly are. ok: below it a
    frame is DEGRADED; lost: below it LOST, more likely wrong than right; bridge: a gap's two ends are at least so sure.
    """

    bias: float = -2.367
    iou: float = 1.309
    met: float = 5.245
    min_reference_iou: float = 0.6
    hidden: float = -7.81
    one_view: float = -1.838
    single: float = -0.7
    sigma_m: float = -0.954
    sigma_rad: float = -1.26
    usual_sigma: tuple[float, float] = (0.007, 0.057)
    ok: float = 0.95
    lost: float = 0.5
    bridge: float = 0.8
    state: float = 2.0
    state_sigma_m: float = 0.03
    state_sigma_rad: float = 0.26

    def probability(self, a: Agreement, reference: Agreement, state_m: float | None = None,
                    state_rad: float = 0.0) -> float:
        """Confidence in [0, 1] of a frame.

        reference: frame 0's agreement, whose pose is true: masks that overlap badly there do so everywhere.
        state_m, state_rad: distance to the state stream's pose; agreement raises, disagreement lowers.
        """
        if a.views == 0:
            return 0.0
        overlap = min(a.iou / max(reference.iou, self.min_reference_iou), 1.0)
        score = self.bias + self.iou * overlap + self.one_view * (a.views == 1) + self.single * (reference.views == 1)
        if np.isnan(a.met):  # the overlap stands for the landmarks
            score += self.met * overlap + self.hidden * max(0.5 - a.visible, 0)
        else:
            score += self.met * min(a.met / max(reference.met, self.min_reference_iou), 1.0)
        if state_m is None:
            score += (self.sigma_m * np.log(max(a.sigma_m, 1e-6) / self.usual_sigma[0])
                      + self.sigma_rad * np.log(max(a.sigma_rad, 1e-6) / self.usual_sigma[1]))
        else:
            apart = max(state_m / self.state_sigma_m, state_rad / self.state_sigma_rad)
            score += self.state * max(1 - apart, -4.0)
        return float(1 / (1 + np.exp(-score)))
