"""How far the fingers are apart, from how well drawn fingers agree with the mask, chained over the frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from geo4d_ros.geometry.transforms import transform_points
from geo4d_ros.tracking.objective import Problem
from geo4d_ros.tracking.rasteriser import draw
from geo4d_ros.tracking.segmentation.landmarks import CHANNELS, landmark_points


@dataclass(frozen=True)
class OpeningModel:
    """Candidates and how much a pixel counts.

    levels, filter_levels: number of candidate openings over the stroke, at the end and frame by frame.
    pixel_weight: the log-likelihood of a pixel is scaled by it, because pixels next to each other err together.
    tip_weight: of the log-likelihood of a tip's map; tip_floor: chance per map cell of a tip that the map misses.
    switch_cost: price of a change between frames, so that a flicker of one frame does not pass (the hysteresis);
    a change costs the same however wide it is. same_m: readings this near are the same opening. probability_floor:
    no mask is surer than this. min_pixels: with fewer pixels that tell candidates apart a frame says nothing.
    state_sigma_m: of a state stream's opening.
    """

    levels: int = 17
    filter_levels: int = 5
    pixel_weight: float = 0.2
    tip_weight: float = 0.5
    tip_floor: float = 0.003
    switch_cost: float = 3.0
    same_m: float = 0.0025
    probability_floor: float = 0.08
    min_pixels: int = 4
    state_sigma_m: float = 0.006


def candidates(problem: Problem, model: OpeningModel) -> np.ndarray:
    """Candidate openings (levels,) [m]."""
    return np.linspace(0, problem.sdf.gripper.max_opening, model.levels)


def log_likelihood(problem: Problem, t: np.ndarray, T: np.ndarray, model: OpeningModel
                   ) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood (F, levels) of each candidate in frames t (F,) at poses T (F, 4, 4), and how many pixels (F,)
    told the candidates apart."""
    openings = candidates(problem, model)
    score, told = np.zeros((len(t), len(openings))), np.zeros(len(t), int)
    fingers, corner = _draw(problem, T, openings)
    masks = problem.masks.gripper if problem.masks.fingers is None else problem.masks.fingers
    height, width = problem.chunk.size
    for i, frame in enumerate(t):
        for view in problem.views:
            drawn = fingers[i, view]
            v, u = np.nonzero(drawn.any(0) & ~drawn.all(0))
            y, x = v + corner[i, view, 1], u + corner[i, view, 0]
            inside = (y >= 0) & (x >= 0) & (y < height) & (x < width)
            y, x, v, u = y[inside], x[inside], v[inside], u[inside]
            known = ~problem.unknown(view, frame)[y, x]
            on = drawn[:, v[known], u[known]]
            p = np.clip(masks[view, frame, y[known], x[known]], model.probability_floor, 1 - model.probability_floor)
            score[i] += model.pixel_weight * np.where(on, np.log(p), np.log(1 - p)).sum(1)
            told[i] += int(known.sum())
    if problem.landmarks is not None:
        score += _tip_score(problem, t, T, openings, model)
        told[:] = np.maximum(told, model.min_pixels)  # a flat map says nothing by itself
    return score, told


def _tip_score(problem: Problem, t: np.ndarray, T: np.ndarray, openings: np.ndarray, model: OpeningModel) -> np.ndarray:
    """Log-likelihood (F, levels) of the finger tips' maps, hidden or not."""
    tips = landmark_points(problem.sdf.gripper, openings)[:, CHANNELS[-1] == CHANNELS]
    score = np.zeros((len(t), len(openings)))
    for i, frame in enumerate(t):
        for view in problem.views:
            p = transform_points(problem.T_view_ref[view] @ T[i], tips.reshape(-1, 3))
            K = problem.chunk.K[view]
            uv = p[:, :2] / np.maximum(p[:, 2:], 0.05) * K[[0, 1], [0, 1]] + K[:2, 2]
            chance = problem.landmarks.tip_chance(view, frame, uv).reshape(len(openings), -1)
            score[i] += model.tip_weight * np.log(chance + model.tip_floor).sum(1)
    return score


def frame_zero_bias(problem: Problem, T_0: np.ndarray, start: float, model: OpeningModel) -> np.ndarray:
    """By how much (levels,) a candidate beats the measured opening in frame 0: that much of it is the mask's fault
    (blur that fills the gap between open fingers looks like closed ones) and is taken off in every frame."""
    score, told = log_likelihood(problem, np.array([0]), T_0[None], model)
    if told[0] < model.min_pixels:
        return np.zeros(model.levels)
    measured = int(np.abs(candidates(problem, model) - start).argmin())
    return np.maximum(score[0] - score[0, measured], 0)


def _draw(problem: Problem, T: np.ndarray, openings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finger pixels (F, V, levels, h, w) bool of each candidate, without those behind the hand, in windows whose
    corners are (F, V, 2) [px]; all False out of the view."""
    shape, chunk, levels = problem.sdf.drawn, problem.chunk, len(openings)
    T_view = (problem.T_view_ref[None] @ T[:, None]).reshape(-1, 4, 4)
    K = np.tile(chunk.K, (len(T), 1, 1))
    vertices = shape.at(openings)
    posed = vertices[None] @ np.swapaxes(T_view[:, None, :3, :3], -1, -2) + T_view[:, None, None, :3, 3]
    n = vertices.shape[1]
    drawing = draw(shape.fingers, posed.reshape(-1, n, 3), K.repeat(levels, 0), chunk.size, group=levels)
    masks = drawing.mask.reshape(len(T_view), levels, *drawing.mask.shape[1:])
    hand = draw(shape.hand, posed[:, [0, -1]].reshape(-1, n, 3), K.repeat(2, 0), chunk.size, group=2).mask[::2]
    # Hand and fingers lie on two sides of a plane: the camera's side is in front, everywhere.
    camera_z = -np.einsum('ni,ni->n', T_view[:, :3, 3], T_view[:, :3, 2])
    h, w = np.minimum(hand.shape[1:], masks.shape[2:])
    for i in np.flatnonzero(camera_z < shape.between_z):
        masks[i, :, :h, :w] &= ~hand[i, :h, :w]
    views = problem.chunk.views
    return (masks.reshape(len(T), views, *masks.shape[1:]),
            drawing.corner[::levels].reshape(len(T), views, 2))


def transition(openings: np.ndarray, model: OpeningModel) -> np.ndarray:
    """Chances (levels, levels) of going from one candidate opening (levels,) [m] to another between frames."""
    # A near level is the same opening, read a little off; any other costs the same.
    apart = np.subtract.outer(openings, openings) / model.same_m
    matrix = np.exp(-0.5 * apart**2) * (openings[1] - openings[0]) / (4 * model.same_m)
    matrix += np.exp(-model.switch_cost) / len(openings)
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
        self._transition = transition(self._openings, self._model)
        self._start = start
        self._bias = frame_zero_bias(problem, T_0, start, self._model)

    def update(self, t: int, T: np.ndarray) -> float:
        """Most likely opening [m] of frame t, whose pose is T; the measured one while nothing has changed."""
        score, told = log_likelihood(self._problem, np.array([t]), T[None], self._model)
        score = score[0] - self._bias
        self._chance = self._chance @ self._transition
        if told[0] >= self._model.min_pixels:
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
    move = transition(openings, model)
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


def middle_of(chances: np.ndarray, openings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Medians (T+1,) [m] of chances (T+1, levels) over evenly spread openings (levels,) [m], and their confidence
    (T+1,). A median lies on the likelier side of any threshold."""
    half = (openings[1] - openings[0]) / 2
    edges = np.append(openings - half, openings[-1] + half)
    total = np.concatenate([np.zeros((len(chances), 1)), np.cumsum(chances, axis=1)], axis=1)
    total /= total[:, -1:]
    median = np.array([np.interp(0.5, row, edges) for row in total])
    mean = chances @ openings
    spread = np.sqrt(np.maximum(chances @ openings**2 - mean**2, 0))
    confidence = np.clip(1 - spread / (0.25 * (openings[-1] - openings[0])), 0, 1)
    return np.clip(median, openings[0], openings[-1]), confidence


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
