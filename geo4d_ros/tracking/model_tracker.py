"""The default tracker: the gripper's own shape fitted to all views of a video, on the CPU."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from geo4d_ros.errors import require
from geo4d_ros.geometry.transforms import interpolate, rotation_angle, translation_distance
from geo4d_ros.robots.gripper import GripperModel, nearest_symmetric
from geo4d_ros.tracking.clip import prepare
from geo4d_ros.tracking.confidence import Agreement, ConfidenceModel, agreement, status_of
from geo4d_ros.tracking.frame_zero import FrameZero, FrameZeroLimits, check_frame_zero
from geo4d_ros.tracking.objective import Problem, Weights
from geo4d_ros.tracking.opening import (
    OpeningFilter,
    OpeningModel,
    candidates,
    decode,
    frame_zero_bias,
    log_likelihood,
    middle_of,
)
from geo4d_ros.tracking.opening_network import OpeningReader
from geo4d_ros.tracking.sdf import gripper_sdf
from geo4d_ros.tracking.segmentation.masks import MaskSource, check_masks
from geo4d_ros.tracking.solver import Motion, Solution, believed_frames, forward, refine
from geo4d_ros.types import GripperTrack, Observation, TrackDetails, TrackStatus, Video4D

MAX_GAP = 2  # frames


@dataclass(frozen=True)
class ModelTrackerConfig:
    """Everything that can be set; the defaults suit 2 Hz videos of 10 frames.

    reader: reads the opening off pictures of the fingers; None: it is read off the masks, as `opening` says.
    """

    weights: Weights = field(default_factory=Weights)
    motion: Motion = field(default_factory=Motion)
    opening: OpeningModel = field(default_factory=OpeningModel)
    frame_zero: FrameZeroLimits = field(default_factory=FrameZeroLimits)
    confidence: ConfidenceModel = field(default_factory=ConfidenceModel)
    views: int | None = None
    reader: OpeningReader | None = None


class ModelTracker:
    """Outlines, signed distance and a motion prior over all frames at once, frame 0 fixed."""

    name = 'model'

    def __init__(self, gripper: GripperModel, masks: MaskSource, readout: str = 'fused',
                 config: ModelTrackerConfig | None = None) -> None:
        require(readout in ('fused', 'video'), f'readout should be fused or video but got {readout!r}')
        self.gripper, self.readout = gripper, readout
        self.config = config or ModelTrackerConfig()
        self.masks, self.reader = masks, self.config.reader
        self._sdf = gripper_sdf(gripper)

    def close(self) -> None:
        """Nothing to release."""

    def track(self, video: Video4D, observation: Observation) -> GripperTrack:
        """See `Tracker.track`. details: masks, frame_zero, agreement per frame, covariance (T+1, 6, 6), timings."""
        started = time.perf_counter()
        chunk = prepare(video, observation, self.config.views)
        state = video.state if self.readout == 'fused' else None
        T_0 = np.asarray(observation.T_ref_gripper, np.float64)
        opening = self._start_opening(observation)
        masks = self.masks(chunk, T_0, opening)
        check_masks(masks, chunk)
        masked = time.perf_counter()
        problem = Problem(chunk, masks, self._sdf, self.config.weights)
        zero = check_frame_zero(problem, T_0, opening, self.config.frame_zero)
        details: TrackDetails = {'backend': self.name, 'masks': masks.source, 'frame_zero': zero,
                                   'readout': 'video' if state is None else 'fused',
                                   'opening': 'masks' if self.reader is None else 'network'}
        if zero.reason:
            track = lost_track(T_0, opening, chunk.frames, zero.reason, details)
        else:
            track = self._solve(problem, video, T_0, opening, state, zero, details)
        details['timings'] = {'masks_s': masked - started, 'total_s': time.perf_counter() - started}
        return track

    def _start_opening(self, observation: Observation) -> float:
        if observation.opening is None:
            return self.gripper.max_opening
        return float(np.clip(observation.opening, 0, self.gripper.max_opening))

    def _solve(self, problem: Problem, video: Video4D, T_0: np.ndarray, opening: float, state: GripperTrack | None,
               zero: FrameZero, details: TrackDetails) -> GripperTrack:
        solution = self._poses(problem, video, T_0, opening, state, details)
        openings, opening_confidence = self._openings(problem, solution, opening, state)
        found = agreement(problem, solution.T, openings, solution.covariance)
        confidence = self._confidence(solution, found, zero, state, details)
        details |= {'agreement': found, 'covariance': solution.covariance, 'opening_confidence': opening_confidence}
        return finish(solution.T, openings, confidence, self.config.confidence, self.gripper, details)

    def _poses(self, problem: Problem, video: Video4D, T_0: np.ndarray, opening: float, state: GripperTrack | None,
               details: TrackDetails) -> Solution:
        n, motion = problem.chunk.frames, self.config.motion
        openings, T_state, believed = np.full(n, opening), None, np.zeros(n, bool)
        fingers: OpeningFilter | None = OpeningFilter(problem, T_0, opening, self.config.opening)
        if state is not None:
            T_state = state.T_ref_gripper
            openings[1:] = np.clip(state.opening[1:], 0, self.gripper.max_opening)
            believed, fingers = believed_frames(problem, T_0, T_state, openings, motion), None
        histories, costs = forward(problem, T_0, openings, motion, T_state, believed, fingers)
        details['histories'], details['history_costs'] = histories, costs
        if self.reader is not None and state is None:
            openings = self._network_openings(problem, histories[0], opening, None)[0]
        problem.learn_depth_error(histories[0], openings)
        return refine(problem, histories[0], openings, motion, T_state, believed)

    def _openings(self, problem: Problem, solution: Solution, start: float, state: GripperTrack | None
                  ) -> tuple[np.ndarray, np.ndarray]:
        if self.reader is not None:
            return self._network_openings(problem, solution.T, start, state, solution.believed)
        model, T = self.config.opening, solution.T
        levels = candidates(problem, model)
        bias = frame_zero_bias(problem, T[0], start, model)
        scores = np.zeros((len(T), len(levels)))
        score, told = log_likelihood(problem, np.arange(1, len(T)), T[1:], model)
        scores[1:] = np.where(told[:, None] >= model.min_pixels, score - bias, 0)
        if state is not None:
            if solution.believed is not None:
                scores[solution.believed] *= self.config.motion.video_share
            scores[1:] -= 0.5 * ((levels - state.opening[1:, None]) / model.state_sigma_m) ** 2
        return decode(scores, levels, start, model)

    def _network_openings(self, problem: Problem, T: np.ndarray, start: float, state: GripperTrack | None,
                          believed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        stroke = self.gripper.max_opening
        chances = self.reader.chances(problem.chunk, problem.views, T, start / stroke)
        levels = np.linspace(0, stroke, chances.shape[1])
        if state is not None:
            score = np.log(chances + 1e-9)
            if believed is not None:
                score[believed] *= self.config.motion.video_share
            score -= 0.5 * ((levels - state.opening[:, None]) / self.config.opening.state_sigma_m) ** 2
            chances = np.exp(score - score.max(1, keepdims=True))
            chances /= chances.sum(1, keepdims=True)
        openings, confidence = middle_of(chances, levels)
        openings[0], confidence[0] = start, 1.0
        return openings, confidence

    def _confidence(self, solution: Solution, found: list[Agreement], zero: FrameZero, state: GripperTrack | None,
                    details: TrackDetails) -> np.ndarray:
        model = self.config.confidence
        apart: list[tuple[Any, ...]] = [()] * len(found)
        if state is not None:
            metres = translation_distance(solution.T, state.T_ref_gripper)
            radians = rotation_angle(solution.T, state.T_ref_gripper)
            if solution.pull is not None:
                metres = metres + np.linalg.norm(solution.pull[:, 3:], axis=1)
                radians = radians + np.linalg.norm(solution.pull[:, :3], axis=1)
            details |= {'state_distance_m': metres, 'believed': solution.believed}
            apart = list(zip(metres, radians, strict=True))
        confidence = np.array([model.probability(a, found[0], *far) for a, far in zip(found, apart, strict=True)])
        if zero.dropped:
            confidence = np.minimum(confidence, model.ok - 0.01)
        confidence[0] = 1.0
        return np.clip(confidence, 0, 1)


def lost_track(T_0: np.ndarray, opening: float, frames: int, reason: str, details: TrackDetails) -> GripperTrack:
    """A track whose every predicted frame is LOST: poses hold frame 0."""
    confidence = np.zeros(frames)
    confidence[0] = 1.0
    status = (TrackStatus.OK, *(TrackStatus.LOST,) * (frames - 1))
    details['reason'] = reason
    return GripperTrack(np.tile(T_0, (frames, 1, 1)), np.full(frames, opening), confidence, status, details)


def bridge_gaps(poses: np.ndarray, openings: np.ndarray, confidence: np.ndarray, model: ConfidenceModel) -> np.ndarray:
    """Fill up to MAX_GAP distrusted frames between two trusted ones, in place; the confidence (T+1,) that results.

    Interpolated, never extrapolated: both ends are at least `model.bridge` sure by themselves. What is filled in is
    DEGRADED, half as sure as the weaker end or just not lost.
    """
    confidence = confidence.copy()
    trusted = np.flatnonzero(confidence >= model.bridge)
    for a, b in pairwise(trusted.tolist()):
        if 1 < b - a <= MAX_GAP + 1 and (confidence[a + 1:b] < model.lost).any():
            s = np.arange(1, b - a) / (b - a)
            poses[a + 1:b] = interpolate(poses[a], poses[b], s)
            openings[a + 1:b] = openings[a] + s * (openings[b] - openings[a])
            confidence[a + 1:b] = max(model.lost, 0.5 * min(confidence[a], confidence[b]))
    return confidence


def finish(poses: np.ndarray, openings: np.ndarray, confidence: np.ndarray, model: ConfidenceModel,
           gripper: GripperModel, details: TrackDetails) -> GripperTrack:
    """Symmetry, status and the hold after the first LOST frame. poses (T+1, 4, 4), openings and confidence (T+1,)."""
    poses, openings, confidence = poses.copy(), openings.copy(), confidence.copy()
    for t in range(1, len(poses)):
        poses[t] = nearest_symmetric(poses[t], poses[t - 1], gripper.half_turn)
    details |= {'raw_T_ref_gripper': poses.copy(), 'raw_confidence': confidence.copy(), 'raw_opening': openings.copy()}
    confidence = bridge_gaps(poses, openings, confidence, model)
    status = status_of(confidence, model.ok, model.lost)
    trusted = next((t for t, s in enumerate(status) if s is TrackStatus.LOST), len(status))
    if trusted < len(status):
        poses[trusted:] = poses[trusted - 1]
        openings[trusted:] = openings[trusted - 1]
        confidence[trusted:] = 0.0
        details['reason'] = details.get('fault') or f'lost at frame {trusted}'
    return GripperTrack(poses, openings, confidence, status, details)
