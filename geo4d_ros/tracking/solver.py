"""Poses of all frames of a chunk: a forward pass frame by frame, then all frames together with a motion prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from geo4d_ros.tracking.confidence import compare
from geo4d_ros.tracking.objective import Normal, Problem
from geo4d_ros.tracking.opening import OpeningFilter
from geo4d_ros.tracking.segmentation.landmarks import MAX_REACH

MIN_GAIN = 0.01  # of overlap, for another opening to be believed


@dataclass(frozen=True)
class Motion:
    """How the gripper is expected to move from frame to frame, and how far a state stream is trusted.

    step_m, step_rad: steps between frames. Planned motions move and turn at a constant rate or not at all, and change
    that seldom: still_rad is the sigma of a turn that goes on as it was (or stays none), turn_change_rad the scale of
    its change and acceleration_ratio (of step_m) that of a shift's, priced ever less beyond that (Cauchy). beam:
    histories kept; overlap_cost: what a fit that overlaps nothing of the mask costs, as a negative log-likelihood.
    state_sigma_m, state_sigma_rad: errors of the state stream per axis at frame 1, growing with the square root of the
    frame (a random walk; measured on 54 validation windows). video_share: weight of the video's evidence beside a
    stream. A video painted along the stream repeats its errors, and conservative fusion of two estimates of unknown
    correlation (covariance intersection, Julier and Uhlmann 1997) gives the weight to the surer one.
    believed_overlap: a frame whose drawn and seen gripper overlap less than this share of frame 0's overlap at the
    stream's pose is tracked in the video alone.
    """

    step_m: float = 0.06
    step_rad: float = 0.26
    still_rad: float = 0.012
    turn_change_rad: float = 0.01
    acceleration_ratio: float = 0.1
    beam: int = 2
    overlap_cost: float = 20.0
    state_sigma_m: float = 0.005
    state_sigma_rad: float = 0.012
    video_share: float = 0.01
    believed_overlap: float = 0.4
    forward_iterations: int = 4
    joint_iterations: int = 5

    @property
    def acceleration_sigma(self) -> np.ndarray:
        """Scales (6,) of the change of the step between frames: rotation [rad], translation [m]."""
        return np.repeat([self.turn_change_rad, self.acceleration_ratio * self.step_m], 3)

    @property
    def step_sigma(self) -> np.ndarray:
        """Sigmas (6,) of the step between frames."""
        return np.repeat([self.step_rad, self.step_m], 3)

    def state_sigma(self, t: np.ndarray) -> np.ndarray:
        """Sigmas (F, 6) of a state stream's poses at frames t (F,)."""
        return np.sqrt(t)[:, None] * np.repeat([self.state_sigma_rad, self.state_sigma_m], 3)


@dataclass
class Solution:
    """T (T+1, 4, 4); covariance (T+1, 6, 6) of rotation (tool frame) and translation (reference frame); pull (T+1, 6):
    where the video alone would move each pose; believed (T+1,) bool: frames that a state stream held."""

    T: np.ndarray
    covariance: np.ndarray
    pull: np.ndarray | None = None
    believed: np.ndarray | None = None


def apply(T: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Poses (..., 4, 4) after rotation vectors in the tool frame and translations in the reference frame (..., 6)."""
    out = T.copy()
    turn = Rotation.from_rotvec(delta[..., :3].reshape(-1, 3)).as_matrix().reshape(*delta.shape[:-1], 3, 3)
    out[..., :3, :3] = T[..., :3, :3] @ turn
    out[..., :3, 3] += delta[..., 3:]
    return out


def difference(T: np.ndarray, T_other: np.ndarray) -> np.ndarray:
    """The delta (..., 6) with apply(T, delta) == T_other."""
    R = np.swapaxes(T[..., :3, :3], -1, -2) @ T_other[..., :3, :3]
    turn = Rotation.from_matrix(R.reshape(-1, 3, 3)).as_rotvec().reshape(*R.shape[:-2], 3)
    return np.concatenate([turn, T_other[..., :3, 3] - T[..., :3, 3]], axis=-1)


def _add_prior(normal: Normal, delta_to_mean: np.ndarray, sigma: np.ndarray) -> None:
    """Pull towards mean poses given as deltas (F, 6) from the current ones, with sigmas (F, 6)."""
    weight = 1 / sigma**2
    normal.H[:, np.arange(6), np.arange(6)] += weight
    normal.g -= weight * delta_to_mean


def believed_frames(problem: Problem, T_0: np.ndarray, state: np.ndarray, openings: np.ndarray, motion: Motion
                    ) -> np.ndarray:
    """Frames (T+1,) bool in which the video shows the gripper where the state stream (T+1, 4, 4) has it; focuses
    on the stream's poses. openings (T+1,) [m]."""
    t = np.arange(1, len(state))
    problem.focus(t, state[1:], openings[1:])
    poses = np.concatenate([T_0[None], state[1:]])
    mean = _overlaps(problem, np.arange(len(state)), poses, openings)
    return mean >= motion.believed_overlap * max(mean[0], motion.believed_overlap)


def forward(problem: Problem, T_0: np.ndarray, openings: np.ndarray, motion: Motion, state: np.ndarray | None,
            believed: np.ndarray, opening_filter: OpeningFilter | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Histories (B, T+1, 4, 4) frame by frame from T_0 and their costs (B,), best first.

    state (T+1, 4, 4), taken over where `believed` (T+1,) bool, or None.

    A turn that begins hardly shows in one frame: `motion.beam` histories are kept, with their costs so far (Reid 1979).
    openings (T+1,) [m] are revised in place by `opening_filter` once a frame's pose is known; where that changes
    the drawn fingers the frame is tracked again, and the opening is kept only if the drawn gripper fits better.
    """
    n = problem.chunk.frames
    histories, costs = np.tile(T_0, (1, n, 1, 1)), np.zeros(1)
    for t in range(1, n):
        if state is not None and believed[t]:
            histories, costs = histories[:1], np.zeros(1)
            histories[0, t] = state[t]
            continue
        T_mean, frame = _expected(histories[:1], t)[0], np.array([t])
        drawn = problem.focus(frame, T_mean[None], openings[frame])
        shift = _first_shift(problem, t, T_mean, drawn[0], openings[t], motion)
        parents, parent_costs = histories, costs
        histories, costs = _extend(problem, t, parents, parent_costs, shift, openings[t], motion)
        if opening_filter is None:
            continue
        opening = opening_filter.update(t, histories[0, t])
        if abs(opening - openings[t]) <= 0.005:
            continue
        others, other_costs = _extend(problem, t, parents, parent_costs, shift, opening, motion)
        if _fit(problem, frame, others[0, t], opening) > _fit(problem, frame, histories[0, t], openings[t]) + MIN_GAIN:
            histories, costs, openings[t:] = others, other_costs, opening
    return histories, costs


def _fit(problem: Problem, t: np.ndarray, T: np.ndarray, opening: float) -> float:
    """Mean overlap of drawn and seen gripper over the views that see it."""
    return float(_overlaps(problem, t, T[None], np.array([opening]))[0])


def _overlaps(problem: Problem, t: np.ndarray, T: np.ndarray, openings: np.ndarray) -> np.ndarray:
    """Mean overlap (F,) over the views that see the gripper at T (F, 4, 4) in frames t (F,); 0 where none does."""
    overlap, _ = compare(problem, t, T, openings)
    seen = np.isfinite(overlap)
    return np.where(seen, overlap, 0).sum(1) / np.maximum(seen.sum(1), 1)


def _expected(histories: np.ndarray, t: int) -> np.ndarray:
    """Where frame t can be expected after histories (B, T+1, 4, 4): (2 B, 4, 4), half the last shift ahead (shifts
    stop as often as they go on), first all without a turn, then all with their last one."""
    last = histories[:, t - 1]
    step = difference(histories[:, t - 2], last) if t > 1 else np.zeros((len(last), 6))
    step[:, 3:] *= 0.5
    return apply(np.concatenate([last, last]), np.concatenate([step * [0, 0, 0, 1, 1, 1], step]))


def _extend(problem: Problem, frame: int, histories: np.ndarray, costs: np.ndarray, shift: np.ndarray, opening: float,
            motion: Motion) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest histories (B', T+1, 4, 4) with frame t added, and their costs (B',), best first.

    Each history goes on in three ways, each fitted to the frame: no turn, the last turn again, any turn. shift (3,)
    [m]: where the search starts from what is expected.
    """
    expected, n = _expected(histories, frame), len(histories)
    T_mean = np.concatenate([expected, expected[:n]])
    sigma = np.tile(motion.step_sigma, (3 * n, 1))
    sigma[:2 * n, :3] = motion.still_rad
    if frame == 1:  # no turn yet that could go on
        T_mean, sigma = T_mean[n:], sigma[n:]
    count = len(T_mean)
    openings, t, outlines = np.full(count, opening), np.full(count, frame), None
    T = T_mean.copy()
    T[:, :3, 3] += shift
    for iteration in range(motion.forward_iterations):
        if iteration % 2 == 0:
            outlines = problem.outlines(t, T, openings)
        normal = problem.linearise(t, T, openings, outlines, max(2.0, 8.0 / 2**iteration))
        _add_prior(normal, difference(T, T_mean), sigma)
        delta = np.linalg.solve(normal.H, -normal.g[..., None])[..., 0]
        T = apply(T, _limit(delta))
        if np.abs(delta[:, :3]).max() < 0.003 and np.abs(delta[:, 3:]).max() < 0.0005:
            break
    cost = problem.linearise(t, T, openings, outlines, 2.0).cost
    cost += motion.overlap_cost * (1 - _overlaps(problem, t, T, openings))
    cost += 0.5 * ((difference(T, T_mean) / sigma) ** 2).sum(1) + np.log(sigma).sum(1)
    cost += np.tile(costs, count // n)
    kept: list[int] = []
    for i in np.argsort(cost).tolist():
        if all(_differ(T[i], T[k]) for k in kept):
            kept.append(i)
        if len(kept) == motion.beam:
            break
    longer = histories[np.array(kept) % n].copy()
    longer[:, frame] = T[kept]
    return longer, cost[kept]


def _differ(T_a: np.ndarray, T_b: np.ndarray, angle: float = 0.08, distance: float = 0.01) -> bool:
    apart = difference(T_a, T_b)
    return bool(np.linalg.norm(apart[:3]) > angle or np.linalg.norm(apart[3:]) > distance)


def _limit(delta: np.ndarray, angle: float = 0.3, distance: float = 0.08) -> np.ndarray:
    """Gauss-Newton steps (F, 6) no longer than what their linearisation holds for."""
    factor = np.maximum(np.linalg.norm(delta[:, :3], axis=1) / angle, np.linalg.norm(delta[:, 3:], axis=1) / distance)
    return delta / np.maximum(factor, 1.0)[:, None]


def _first_shift(problem: Problem, t: int, T: np.ndarray, drawn: np.ndarray, opening: float, motion: Motion
                 ) -> np.ndarray:
    """The shift (3,) [m] to where the landmarks are seen; without landmarks that which makes drawn (V, H, W) and seen
    masks share their centroids, and none unless they hardly overlap."""
    prior = np.diag(1 / motion.step_sigma[3:] ** 2)
    if problem.landmarks is not None:
        normal = Normal.zero()
        problem.add_landmarks(normal, np.array([t]), T[None], np.array([opening]), MAX_REACH)
        return np.linalg.solve(normal.H[0, 3:, 3:] + prior, -normal.g[0, 3:])
    H, g, misplaced = prior, np.zeros(3), False
    for view in problem.views:
        mask, own = problem.mask(view, t), drawn[view]
        if mask.sum() < 8 or own.sum() < 8:
            continue
        misplaced |= bool((own & mask).sum() < 0.4 * (own | mask).sum())
        K, T_view = problem.chunk.K[view], problem.T_view_ref[view]
        x, y, z = (T_view @ T)[:3, 3]
        projection = np.array([[K[0, 0] / z, 0, -K[0, 0] * x / z**2], [0, K[1, 1] / z, -K[1, 1] * y / z**2]])
        J = projection @ T_view[:3, :3]
        shift = np.argwhere(mask).mean(0)[::-1] - np.argwhere(own).mean(0)[::-1]
        H = H + J.T @ J / 2.0**2
        g = g - J.T @ shift / 2.0**2
    return np.linalg.solve(H, -g) if misplaced else np.zeros(3)


def refine(problem: Problem, poses: np.ndarray, openings: np.ndarray, motion: Motion, state: np.ndarray | None,
           believed: np.ndarray) -> Solution:
    """All frames together: their evidence, and a prior on each step and its change; frame 0 is fixed."""
    n = len(poses) - 1
    T, t, frames = poses.copy(), np.arange(1, n + 1), np.arange(n)
    held = believed[1:] & (state is not None)
    share = np.where(held, motion.video_share, 1.0)
    outlines = None
    for iteration in range(motion.joint_iterations):
        if iteration != 1:
            outlines = problem.outlines(t, T[1:], openings[1:])
        seen = problem.linearise(t, T[1:], openings[1:], outlines, 2.0)
        normal = Normal(seen.H * share[:, None, None], seen.g * share[:, None], seen.cost)
        if state is not None:
            sigma = np.where(held[:, None], motion.state_sigma(t), np.inf)
            _add_prior(normal, difference(T[1:], state[1:]), sigma)
        H = np.zeros((n, 6, n, 6))
        H[frames, :, frames] = normal.H
        _add_motion(H, normal.g, T, motion, held)
        flat = H.reshape(6 * n, 6 * n)
        delta = np.linalg.solve(flat, -normal.g.ravel()).reshape(n, 6)
        T[1:] = apply(T[1:], _limit(delta))
    inverse = np.linalg.inv(flat).reshape(n, 6, n, 6)
    covariance, pull = np.zeros((n + 1, 6, 6)), np.zeros((n + 1, 6))
    covariance[1:] = inverse[frames, :, frames]
    alone = seen.H + np.diag(1 / motion.step_sigma**2)
    pull[1:] = np.linalg.solve(alone, -seen.g[..., None])[..., 0]
    return Solution(T, covariance, pull, np.concatenate([[True], held]))


def _add_motion(H: np.ndarray, g: np.ndarray, T: np.ndarray, motion: Motion, held: np.ndarray) -> None:
    """Normal equations of the steps and their changes; (n, 6, n, 6) and (n, 6), unknowns are frames 1..n.

    A stream knows its own motion: nothing is asked of steps that end in a frame it holds (n,) bool.
    """
    n = len(g)
    steps = difference(T[:-1], T[1:])
    first = np.eye(n) - np.eye(n, k=-1)
    # The change of the step from rest before frame 0 is unknown: n - 1 rows.
    second = (np.eye(n) - 2 * np.eye(n, k=-1) + np.eye(n, k=-2))[1:]
    change = np.diff(steps, axis=0)
    free = (~held).astype(float)
    # Cauchy: a change of turn or of shift beyond its scale is let go.
    sudden = 1 / (1 + ((change.reshape(-1, 2, 3) / motion.acceleration_sigma.reshape(2, 3)) ** 2).sum(2) / 3)
    for k in range(6):
        w1 = 0.25 * free / motion.step_sigma[k] ** 2
        w2 = sudden[:, k // 3] * free[1:] / motion.acceleration_sigma[k] ** 2
        H[:, k, :, k] += first.T * w1 @ first + second.T * w2 @ second
        g[:, k] += first.T * w1 @ steps[:, k] + second.T * w2 @ change[:, k]
