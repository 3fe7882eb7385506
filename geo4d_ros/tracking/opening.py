"""How far the fingers are apart, from how well drawn fingers agree with the mask, chained over the frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from geo4d_ros.geometry.transforms import transform_points
from geo4d_ros.tracking.gripper import FINGER_SIGN, HAND, GripperModel
from geo4d_ros.tracking.problem import Problem
from geo4d_ros.tracking.silhouette import Raster, rasterise


@dataclass(frozen=True)
class OpeningModel:
    """Candidates and how much a pixel counts.

    levels, filter_levels: number of candidate openings over the stroke, at the end and frame by frame.
    pixel_weight: the log-likelihood of a pixel is scaled by it, because pixels next to each other err together.
    switch_cost: price of a change between frames, so that a flicker of one frame does not pass (the hysteresis);
    a change costs the same however wide it is. probability_floor: no mask is surer than this. min_pixels: with
    fewer pixels that tell candidates apart a frame says nothing. state_sigma_m: of a state stream's opening.
    """

    levels: int = 9
    filter_levels: int = 5
    pixel_weight: float = 0.35
    switch_cost: float = 3.0
    probability_floor: float = 0.08
    min_pixels: int = 4
    state_sigma_m: float = 0.006


def candidates(problem: Problem, model: OpeningModel) -> np.ndarray:
    """Candidate openings (levels,) [m]."""
    return np.linspace(0, problem.sdf.gripper.max_opening, model.levels)


def log_likelihood(problem: Problem, t: int, T: np.ndarray, model: OpeningModel) -> tuple[np.ndarray, int]:
    """Log-likelihood (levels,) of each candidate in frame t at pose T, and how many pixels told them apart."""
    openings = candidates(problem, model)
    score, told = np.zeros(len(openings)), 0
    finger_prob = problem.masks.fingers
    for view in problem.views:
        fingers = _draw(problem, view, T, openings)
        if fingers is None:
            continue
        differ = fingers.any(0) & ~fingers.all(0) & ~problem.unknown(view, t)
        v, u = np.nonzero(differ)
        if len(v) == 0:
            continue
        prob = (problem.masks.gripper if finger_prob is None else finger_prob)[view, t, v, u]
        p = np.clip(prob, model.probability_floor, 1 - model.probability_floor)
        on = fingers[:, v, u]
        score += model.pixel_weight * np.where(on, np.log(p), np.log(1 - p)).sum(1)
        told += len(v)
    return score, told


def frame_zero_bias(problem: Problem, T_0: np.ndarray, start: float, model: OpeningModel) -> np.ndarray:
    """By how much (levels,) a candidate beats the measured opening in frame 0: that much of it is the mask's fault
    (blur that fills the gap between open fingers looks like closed ones) and is taken off in every frame."""
    score, told = log_likelihood(problem, 0, T_0, model)
    if told < model.min_pixels:
        return np.zeros(model.levels)
    measured = int(np.abs(candidates(problem, model) - start).argmin())
    return np.maximum(score - score[measured], 0)


def _draw(problem: Problem, view: int, T: np.ndarray, openings: np.ndarray) -> np.ndarray | None:
    """Finger pixels (levels, H, W) bool of each candidate, without those behind the hand; None out of the view."""
    gripper, K, size = problem.sdf.gripper, problem.chunk.K[view], problem.chunk.size
    vertices, faces, part = gripper.posed(0.0)
    T_view_gripper = problem.T_view_ref[view] @ T
    posed = transform_points(T_view_gripper, vertices)
    hand = rasterise(posed, faces[part == HAND], K, size, gripper.closed)
    if hand is None:
        return None
    hand_depth = np.full(size, np.inf)
    u, v, z = _visible(hand, K, size)
    hand_depth[v, u] = z
    fingers = np.zeros((len(openings), *size), bool)
    moving = FINGER_SIGN[part_of_vertices(gripper)][:, None] * T_view_gripper[:3, 1] / 2
    for level, opening in enumerate(openings):
        raster = rasterise(posed + moving * opening, faces[part != HAND], K, size, gripper.closed)
        if raster is None:
            return None
        u, v, z = _visible(raster, K, size)
        front = z < hand_depth[v, u]
        fingers[level, v[front], u[front]] = True
    return fingers


def part_of_vertices(gripper: GripperModel) -> np.ndarray:
    """Part index (N,) of each vertex of `GripperModel.posed`."""
    return np.repeat(np.arange(3), [len(v) for v in gripper.vertices])


def _visible(raster: Raster, K: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels u, v (n,) inside the image and their depth (n,) [m]."""
    u, v, face = raster.pixels()
    inside = (u >= 0) & (v >= 0) & (u < size[1]) & (v < size[0])
    u, v, face = u[inside], v[inside], face[inside]
    return u, v, raster.depth_at(u.astype(float), v.astype(float), face, K)


def transition(levels: int, model: OpeningModel) -> np.ndarray:
    """Chances (levels, levels) of going from one candidate to another between frames."""
    # A neighbouring level is the same opening, half a level off; any other costs the same.
    matrix = np.full((levels, levels), np.exp(-model.switch_cost) / levels) + np.eye(levels)
    matrix += 0.3 * (np.eye(levels, k=1) + np.eye(levels, k=-1))
    return matrix / matrix.sum(1, keepdims=True)


def prior(openings: np.ndarray, start: float) -> np.ndarray:
    """Chances (levels,) of the candidates at frame 0, whose opening [m] is measured."""
    weight = np.exp(-0.5 * ((openings - start) / (0.6 * (openings[1] - openings[0]))) ** 2)
    return weight / weight.sum()


def evidence(score: np.ndarray) -> np.ndarray:
    """Likelihoods (..., levels) up to a factor, from log-likelihoods."""
    return np.exp(score - score.max(-1, keepdims=True))


class OpeningFilter:
    """The opening while the frames come one by one; coarse, so that the outline's fingers are drawn about right."""

    def __init__(self, problem: Problem, T_0: np.ndarray, start: float, model: OpeningModel) -> None:
        self._problem, self._model = problem, replace(model, levels=model.filter_levels)
        self._openings = candidates(problem, self._model)
        self._chance = prior(self._openings, start)
        self._transition = transition(len(self._openings), self._model)
        self._start = start
        self._bias = frame_zero_bias(problem, T_0, start, self._model)

    def update(self, t: int, T: np.ndarray) -> float:
        """Most likely opening [m] of frame t, whose pose is T; the measured one while nothing has changed."""
        score, told = log_likelihood(self._problem, t, T, self._model)
        score = score - self._bias
        self._chance = self._chance @ self._transition
        if told >= self._model.min_pixels:
            self._chance = self._chance * evidence(score)
            self._chance /= self._chance.sum()
        best = self._openings[int(self._chance.argmax())]
        step = self._openings[1] - self._openings[0]
        return self._start if abs(best - self._start) <= 0.5 * step + 1e-9 else float(best)


def decode(scores: np.ndarray, openings: np.ndarray, start: float, model: OpeningModel
           ) -> tuple[np.ndarray, np.ndarray]:
    """Openings (T+1,) [m] and their confidence (T+1,) from scores (T+1, levels); frame 0 is `start`, as measured.

    Posterior means of a chain whose changes cost `switch_cost` (forward-backward; Rabiner 1989).
    """
    n, levels = scores.shape
    move = transition(levels, model)
    seen = evidence(scores)
    seen[0] = prior(openings, start)
    alpha, beta = np.zeros((n, levels)), np.ones((n, levels))
    alpha[0] = seen[0]
    for t in range(1, n):
        alpha[t] = (alpha[t - 1] @ move) * seen[t]
        alpha[t] /= max(alpha[t].sum(), 1e-300)
    for t in range(n - 2, -1, -1):
        beta[t] = move @ (beta[t + 1] * seen[t + 1])
        beta[t] /= max(beta[t].sum(), 1e-300)
    posterior = alpha * beta
    posterior /= np.maximum(posterior.sum(1, keepdims=True), 1e-300)
    mean = posterior @ openings
    spread = np.sqrt(np.maximum(posterior @ openings**2 - mean**2, 0))
    confidence = np.clip(1 - spread / (0.25 * (openings[-1] - openings[0])), 0, 1)
    mean[0], confidence[0] = start, 1.0
    return mean, confidence


def is_closed(opening: np.ndarray, max_opening: float, switch: float = 0.012) -> np.ndarray:
    """Whether the fingers are off their open stop, (T+1,) bool, with hysteresis.

    An open gripper counts as closed once it is `switch` [m] below the widest opening since it opened; a closed
    one as open once it has risen `switch` above the narrowest one. opening (T+1,) [m]. Fingers that hold
    something wide never pass half the stroke, so a threshold there would not see them close.
    """
    closed = np.zeros(len(opening), bool)
    now, reference = bool(opening[0] < max_opening - switch), float(opening[0])
    for t, value in enumerate(opening):
        if now:
            reference = min(reference, value)
            if value > reference + switch:
                now, reference = False, value
        else:
            reference = max(reference, value)
            if value < reference - switch:
                now, reference = True, value
        closed[t] = now
    return closed
