"""Poses of all frames of a chunk: a forward pass frame by frame, then all frames together with a motion prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from geo4d_ros.geometry.transforms import make_transform
from geo4d_ros.tracking.confidence import view_overlap
from geo4d_ros.tracking.opening import OpeningFilter
from geo4d_ros.tracking.problem import Normal, Problem, covered

MIN_GAIN = 0.01  # of overlap, for another opening to be believed


@dataclass(frozen=True)
class Motion:
    """How the gripper is expected to move from frame to frame, and how far a state stream is trusted."""

    step_m: float = 0.06
    step_rad: float = 0.26
    # Grippers turn seldom and then far: turns beyond this share of step_rad are priced ever less (Cauchy).
    turn_ratio: float = 1.0
    acceleration_ratio: float = 0.5
    state_sigma_m: float = 0.02
    state_sigma_rad: float = 0.05
    forward_iterations: int = 5
    joint_iterations: int = 3

    @property
    def acceleration_sigma(self) -> np.ndarray:
        """Sigmas (6,) of the change of the step between frames: rotation [rad], translation [m]."""
        return self.acceleration_ratio * np.repeat([self.turn_ratio * self.step_rad, self.step_m], 3)

    @property
    def step_sigma(self) -> np.ndarray:
        """Sigmas (6,) of the step between frames."""
        return np.repeat([self.turn_ratio * self.step_rad, self.step_m], 3)

    def turn_weight(self, turn: np.ndarray) -> np.ndarray:
        """Weights (...) in (0, 1] of the prior on rotation vectors (..., 3): wide turns are let go."""
        return 1 / (1 + ((turn / (self.turn_ratio * self.step_rad)) ** 2).sum(-1) / 3)

    @property
    def state_sigma(self) -> np.ndarray:
        """Sigmas (6,) of a state stream's poses."""
        return np.repeat([self.state_sigma_rad, self.state_sigma_m], 3)


@dataclass
class Solution:
    """T (T+1, 4, 4); covariance (T+1, 6, 6) of rotation (tool frame) and translation (reference frame)."""

    T: np.ndarray
    covariance: np.ndarray


def apply(T: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """The pose after a rotation vector in the tool frame (first 3) and a translation in the reference frame."""
    return make_transform(T[:3, :3] @ Rotation.from_rotvec(delta[:3]).as_matrix(), T[:3, 3] + delta[3:])


def difference(T: np.ndarray, T_other: np.ndarray) -> np.ndarray:
    """The delta (6,) with apply(T, delta) == T_other."""
    turn = Rotation.from_matrix(T[:3, :3].T @ T_other[:3, :3]).as_rotvec()
    return np.concatenate([turn, T_other[:3, 3] - T[:3, 3]])


def _add_prior(normal: Normal, delta_to_mean: np.ndarray, sigma: np.ndarray, robust: bool = False) -> None:
    """Pull towards a mean pose given as delta from the current one; `robust` (Cauchy) lets go of a far mean."""
    weight = 1 / sigma**2
    if robust:
        weight = weight / (1 + ((delta_to_mean / sigma) ** 2).sum() / 9)
    normal.H += np.diag(weight)
    normal.g -= weight * delta_to_mean


def forward(problem: Problem, T_0: np.ndarray, openings: np.ndarray, motion: Motion,
            state: np.ndarray | None, opening_filter: OpeningFilter | None = None) -> np.ndarray:
    """Poses (T+1, 4, 4) frame by frame from T_0; state (T+1, 4, 4) or None.

    openings (T+1,) [m] are revised in place by `opening_filter` once a frame's pose is known; where that changes
    the drawn fingers the frame is tracked again, and the opening is kept only if the drawn gripper fits better.
    """
    n = problem.chunk.frames
    poses = np.tile(T_0, (n, 1, 1))
    for t in range(1, n):
        T_mean = _predict(poses, t, state)
        problem.focus(t, T_mean, openings[t])
        T_state = None if state is None else state[t]
        poses[t] = _track_frame(problem, t, T_mean, openings[t], motion, T_state)
        if opening_filter is None:
            continue
        opening = opening_filter.update(t, poses[t])
        if abs(opening - openings[t]) <= 0.005:
            continue
        T = _track_frame(problem, t, T_mean, opening, motion, T_state)
        if _fit(problem, t, T, opening) > _fit(problem, t, poses[t], openings[t]) + MIN_GAIN:
            poses[t], openings[t:] = T, opening
    return poses


def _fit(problem: Problem, t: int, T: np.ndarray, opening: float) -> float:
    """Mean overlap of drawn and seen gripper over the views that see it."""
    overlaps = [view_overlap(problem, view, t, T, opening) for view in problem.views]
    return float(np.mean([x for x in overlaps if x is not None] or [0.0]))


def _predict(poses: np.ndarray, t: int, state: np.ndarray | None) -> np.ndarray:
    """Where frame t starts: half the last step ahead (steps stop as often as they go on), or the state's step."""
    if state is not None:
        # The step of the stream, applied to our pose: its offset, if any, does not enter.
        step = difference(state[t - 1], state[t])
        return apply(poses[t - 1], step)
    if t == 1:
        return poses[0]
    return apply(poses[t - 1], 0.5 * difference(poses[t - 2], poses[t - 1]))


def _track_frame(problem: Problem, t: int, T_mean: np.ndarray, opening: float, motion: Motion,
                 T_state: np.ndarray | None) -> np.ndarray:
    T = _align_centroids(problem, t, T_mean, opening, motion)
    outlines = {}
    for iteration in range(motion.forward_iterations):
        if iteration != 1:
            outlines = problem.outlines(t, T, opening)
        kernel = max(2.0, 8.0 / 2**iteration)
        normal = problem.linearise(t, T, opening, outlines, kernel)
        delta_mean = difference(T, T_mean)
        sigma = motion.step_sigma
        sigma[:3] /= np.sqrt(motion.turn_weight(delta_mean[:3]))
        _add_prior(normal, delta_mean, sigma)
        if T_state is not None:
            _add_prior(normal, difference(T, T_state), motion.state_sigma, robust=True)
        delta = np.linalg.solve(normal.H, -normal.g)
        T = apply(T, _limit(delta))
        if np.abs(delta[:3]).max() < 0.003 and np.abs(delta[3:]).max() < 0.0005:
            break
    return T


def _limit(delta: np.ndarray, angle: float = 0.3, distance: float = 0.08) -> np.ndarray:
    """A Gauss-Newton step no longer than what its linearisation holds for."""
    factor = max(np.linalg.norm(delta[:3]) / angle, np.linalg.norm(delta[3:]) / distance, 1.0)
    return delta / factor


def _align_centroids(problem: Problem, t: int, T: np.ndarray, opening: float, motion: Motion) -> np.ndarray:
    """Shift the pose so that drawn and seen masks share their centroids; only where they hardly overlap."""
    H, g, misplaced = np.diag(1 / motion.step_sigma[3:] ** 2), np.zeros(3), False
    for view in problem.views:
        raster, mask = problem.raster(view, T, opening), problem.mask(view, t)
        if raster is None or mask.sum() < 8:
            continue
        drawn = covered(raster, problem.chunk.size)
        if drawn.sum() < 8:
            continue
        misplaced |= (drawn & mask).sum() < 0.4 * (drawn | mask).sum()
        K, T_view = problem.chunk.K[view], problem.T_view_ref[view]
        x, y, z = (T_view @ T)[:3, 3]
        projection = np.array([[K[0, 0] / z, 0, -K[0, 0] * x / z**2], [0, K[1, 1] / z, -K[1, 1] * y / z**2]])
        J = projection @ T_view[:3, :3]
        shift = np.argwhere(mask).mean(0)[::-1] - np.argwhere(drawn).mean(0)[::-1]
        H += J.T @ J / 2.0**2
        g -= J.T @ shift / 2.0**2
    if not misplaced:
        return T
    return apply(T, np.concatenate([np.zeros(3), np.linalg.solve(H, -g)]))


def refine(problem: Problem, poses: np.ndarray, openings: np.ndarray, motion: Motion,
           state: np.ndarray | None) -> Solution:
    """All frames together: their evidence, and a Gaussian prior on each step and its change; frame 0 is fixed."""
    n = len(poses) - 1
    T = poses.copy()
    outlines = [{} for _ in range(n)]
    for iteration in range(motion.joint_iterations):
        H, g = np.zeros((n, 6, n, 6)), np.zeros((n, 6))
        for i in range(n):
            t = i + 1
            if iteration != 1:
                outlines[i] = problem.outlines(t, T[t], openings[t])
            normal = problem.linearise(t, T[t], openings[t], outlines[i], 2.0)
            if state is not None:
                _add_prior(normal, difference(T[t], state[t]), motion.state_sigma, robust=True)
            H[i, :, i] += normal.H
            g[i] += normal.g
        _add_motion(H, g, T, motion)
        flat = H.reshape(6 * n, 6 * n)
        delta = np.linalg.solve(flat, -g.ravel()).reshape(n, 6)
        for i in range(n):
            T[i + 1] = apply(T[i + 1], _limit(delta[i]))
    inverse = np.linalg.inv(flat).reshape(n, 6, n, 6)
    covariance = np.zeros((n + 1, 6, 6))
    covariance[1:] = inverse[np.arange(n), :, np.arange(n)]
    return Solution(T, covariance)


def _add_motion(H: np.ndarray, g: np.ndarray, T: np.ndarray, motion: Motion) -> None:
    """Normal equations of the steps and their changes; (n, 6, n, 6) and (n, 6), unknowns are frames 1..n."""
    n = len(g)
    steps = np.stack([difference(T[i], T[i + 1]) for i in range(n)])
    first = np.eye(n) - np.eye(n, k=-1)
    # The change of the step from rest before frame 0 is unknown: n - 1 rows.
    second = (np.eye(n) - 2 * np.eye(n, k=-1) + np.eye(n, k=-2))[1:]
    change = np.diff(steps, axis=0)
    turning = motion.turn_weight(steps[:, :3])
    for k in range(6):
        share = turning if k < 3 else np.ones(n)
        w1 = 0.25 * share / motion.step_sigma[k] ** 2
        w2 = np.minimum(share[1:], share[:-1]) / motion.acceleration_sigma[k] ** 2
        H[:, k, :, k] += first.T * w1 @ first + second.T * w2 @ second
        g[:, k] += first.T * w1 @ steps[:, k] + second.T * w2 @ change[:, k]


