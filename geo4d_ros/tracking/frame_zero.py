"""What frame 0 tells: it is the real observation and the gripper's pose in it is measured, so errors show."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from geo4d_ros.tracking.clip import Chunk
from geo4d_ros.tracking.confidence import view_overlap
from geo4d_ros.tracking.objective import Normal, Problem
from geo4d_ros.tracking.segmentation.landmarks import MAX_REACH
from geo4d_ros.tracking.solver import apply, difference

MAX_BIAS_PX, MAX_SIGMA_PX = 2.5, 4.0
ZERO = np.array([0])


@dataclass(frozen=True)
class FrameZeroLimits:
    """Gates on frame 0; a chunk outside them is refused (every predicted frame LOST, with the reason)."""

    min_overlap: float = 0.4
    scale_range: tuple[float, float] = (0.9, 1.1)
    min_scale_pixels: int = 15
    # A second view is moved only when it is off: a good calibration knows more than one frame can tell.
    correct_above_m: float = 0.003
    overlap_slack: float = 0.2
    max_correction_m: float = 0.06
    max_correction_rad: float = 0.10
    max_static_residual_m: float = 0.012
    max_uncertainty_m: float = 0.012
    min_static_points: int = 60
    iterations: int = 12
    prior_rad: float = 0.04
    prior_m: float = 0.04


@dataclass
class FrameZero:
    """scale (V,) applied to the depths; correction_m, correction_rad of each further view; overlap (V,) NaN where
    the gripper cannot be seen; static_residual_m (V,); reason: '' or why the chunk is refused."""

    scale: np.ndarray
    correction_m: np.ndarray
    correction_rad: np.ndarray
    overlap: np.ndarray
    static_residual_m: np.ndarray
    reason: str = ''
    dropped: list[int] = field(default_factory=list)


def check_frame_zero(problem: Problem, T_0: np.ndarray, opening: float, limits: FrameZeroLimits) -> FrameZero:
    """Fit depth scales, correct the further views' extrinsics, learn outline offsets; changes `problem`."""
    n = problem.chunk.views
    result = FrameZero(np.ones(n), np.zeros(n), np.zeros(n), np.full(n, np.nan), np.zeros(n))
    problem.focus(ZERO, T_0[None], np.array([opening]))
    for view in range(1, n):
        _correct_view(problem, view, T_0, opening, limits, result)
        if result.reason:
            return result
    for view in range(n):
        result.scale[view] = _depth_scale(problem, view, T_0, opening, limits)
        if not limits.scale_range[0] <= result.scale[view] <= limits.scale_range[1]:
            result.reason = (f'depth of view {view} is off by a factor {1 / result.scale[view]:.2f} on the gripper; '
                             'check the depth unit and the hand pose')
            return result
    problem.chunk.scale_depth(result.scale)
    problem.focus(ZERO, T_0[None], np.array([opening]))
    for view in range(n):
        overlap = view_overlap(problem, view, 0, T_0, opening)
        result.overlap[view] = np.nan if overlap is None else overlap
        _learn_outline_bias(problem, view, T_0, opening)
    problem.learn_landmark_bias(T_0, opening)
    _drop_bad_views(problem, result, limits)
    return result


def _drop_bad_views(problem: Problem, result: FrameZero, limits: FrameZeroLimits) -> None:
    bad = [v for v, overlap in enumerate(result.overlap) if overlap < limits.min_overlap]
    result.dropped = sorted({*result.dropped, *bad})
    good = [v for v, overlap in enumerate(result.overlap)
            if overlap >= limits.min_overlap and v not in result.dropped]
    for view in result.dropped:
        problem.drop(view)
    if not good:
        seen = ', '.join('out of view' if np.isnan(x) else f'{x:.2f}' for x in result.overlap)
        result.reason = (f'the gripper is not where its kinematics say in frame 0 (overlap per view: {seen}, '
                         f'expected {limits.min_overlap}); check the hand pose, the calibration and the mask')


def _depth_scale(problem: Problem, view: int, T_0: np.ndarray, opening: float, limits: FrameZeroLimits) -> float:
    """Median of true over seen depth on the gripper in frame 0; 1 where too little of it is seen."""
    raster = problem.raster(view, T_0, opening)
    if raster is None:
        return 1.0
    height, width = problem.chunk.size
    u, v, face = raster.pixels()
    inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
    u, v, face = u[inside], v[inside], face[inside]
    seen = problem.chunk.depth[view, 0, v, u]
    use = problem.mask(view, 0)[v, u] & (seen > 0)
    if use.sum() < limits.min_scale_pixels:
        return 1.0
    z = raster.depth_at(u[use].astype(float), v[use].astype(float), face[use], problem.chunk.K[view])
    return float(np.median(z / seen[use]))


def _learn_outline_bias(problem: Problem, view: int, T_0: np.ndarray, opening: float) -> None:
    """How a mask source errs shows at frame 0: too wide or narrow is subtracted later, ragged weighs less."""
    outlines = problem.outlines(ZERO, T_0[None], np.array([opening]))
    distance, _, weight, _, _ = problem.outline_distance(ZERO, T_0[None], outlines)
    known = weight[0, view] > 0
    if known.sum() >= 20:
        seen = distance[0, view, known]
        bias = float(np.clip(np.median(seen), -MAX_BIAS_PX, MAX_BIAS_PX))
        spread = 1.4826 * float(np.median(np.abs(seen - bias)))
        problem.outline_bias[view] = bias
        problem.outline_sigma[view] = max(problem.weights.outline_sigma_px, min(spread, MAX_SIGMA_PX))


def _correct_view(problem: Problem, view: int, T_0: np.ndarray, opening: float, limits: FrameZeroLimits,
                  result: FrameZero) -> None:
    """Move a further view so that its frame-0 points lie on the reference view's and the hand on its outline."""
    chunk = problem.chunk
    source = _static_points(chunk, view)
    target = _surface(chunk)
    T_fix = np.eye(4)
    _, residual = _static_normal(T_fix, source, target, chunk, 0.1)
    overlap = view_overlap(problem, view, 0, T_0, opening)
    static = float(np.median(np.abs(residual))) if len(residual) >= limits.min_static_points else np.inf
    # A hand that fits badly accuses the calibration only where the reference view's mask fits well.
    expected = (view_overlap(problem, 0, 0, T_0, opening) or 0.0) - limits.overlap_slack
    if static < limits.correct_above_m and (overlap is None or overlap > expected):
        result.static_residual_m[view] = static
        return
    for iteration in range(limits.iterations):
        gate = max(0.02, 0.10 * 0.7**iteration)
        normal, _ = _static_normal(T_fix, source, target, chunk, gate)
        _add_hand(normal, problem, view, T_0, opening, T_fix)
        # What the scene leaves open (turning about a plane's normal) stays as calibrated.
        prior = np.diag(np.repeat([1 / limits.prior_rad**2, 1 / limits.prior_m**2], 3))
        normal.H += prior
        normal.g -= prior @ difference(T_fix, np.eye(4))
        delta = np.linalg.solve(normal.H[0], -normal.g[0])
        T_fix = apply(T_fix, delta)
        if np.abs(delta).max() < 1e-4:
            break
    uncertain = _uncertainty_at(np.linalg.inv(normal.H[0]), T_fix, T_0)
    _, residual = _static_normal(T_fix, source, target, chunk, 0.02)
    turn, move = rotation_of(T_fix), _shift_at(T_fix, chunk)
    result.correction_m[view], result.correction_rad[view] = move, turn
    enough = len(residual) >= limits.min_static_points
    result.static_residual_m[view] = float(np.median(np.abs(residual))) if enough else np.nan
    if move > limits.max_correction_m or turn > limits.max_correction_rad:
        result.reason = (f'view {view} is {100 * move:.1f} cm / {np.degrees(turn):.1f} deg off its calibration; '
                         'calibrate the cameras again')
    elif enough and result.static_residual_m[view] > limits.max_static_residual_m:
        result.reason = (f'frame-0 points of view {view} and the reference view differ by '
                         f'{1000 * result.static_residual_m[view]:.0f} mm after correction; calibrate them again')
    elif uncertain > limits.max_uncertainty_m:
        result.dropped.append(view)
    else:
        chunk.move_view(view, T_fix)
        problem.T_view_ref = chunk.T_view_ref
        problem.focus(ZERO, T_0[None], np.array([opening]))


def _uncertainty_at(covariance: np.ndarray, T_fix: np.ndarray, T_0: np.ndarray) -> float:
    """Sigma [m] of where a correction T_fix with covariance (6, 6) leaves the hand, in its least known direction.

    A bare table slides over itself, and a scene without the hand in sight leaves that to the prior.
    """
    arm = T_fix[:3, :3].T @ (T_0[:3, 3] - T_fix[:3, 3])
    cross = np.array([[0, -arm[2], arm[1]], [arm[2], 0, -arm[0]], [-arm[1], arm[0], 0]])
    J = np.concatenate([-T_fix[:3, :3] @ cross, np.eye(3)], axis=1)
    return float(np.sqrt(np.linalg.eigvalsh(J @ covariance @ J.T)[-1]))


def rotation_of(T: np.ndarray) -> float:
    """Angle [rad] of a (4, 4) transform."""
    return float(np.arccos(np.clip((np.trace(T[:3, :3]) - 1) / 2, -1, 1)))


def _shift_at(T_fix: np.ndarray, chunk: Chunk) -> float:
    """How far [m] the middle of the scene moves under a correction."""
    valid = chunk.depth[0, 0] > 0
    middle = np.median(chunk.points[0, 0][valid], axis=0) if valid.any() else np.zeros(3)
    return float(np.linalg.norm(T_fix[:3, :3] @ middle + T_fix[:3, 3] - middle))


def _static_points(chunk: Chunk, view: int, count: int = 1500) -> np.ndarray:
    """Frame-0 points (n, 3) of a view in the reference frame, far ones left out."""
    depth = chunk.depth[view, 0]
    y, x = np.nonzero((depth > 0) & (depth < 2.5))
    pick = np.linspace(0, len(y) - 1, min(count, len(y))).astype(np.intp)
    return chunk.points[view, 0, y[pick], x[pick]].astype(np.float64)


def _surface(chunk: Chunk) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frame-0 points (H, W, 3) of the reference view, their normals and where both can be trusted (H, W)."""
    points = chunk.points[0, 0].astype(np.float64)
    depth = chunk.depth[0, 0]
    dx = np.zeros_like(points)
    dy = np.zeros_like(points)
    dx[:, 1:-1] = points[:, 2:] - points[:, :-2]
    dy[1:-1] = points[2:] - points[:-2]
    normal = np.cross(dx, dy)
    length = np.linalg.norm(normal, axis=-1)
    step = np.maximum(np.linalg.norm(dx, axis=-1), np.linalg.norm(dy, axis=-1))
    good = (depth > 0) & (depth < 2.5) & (length > 1e-12) & (step < 0.06 * np.maximum(depth, 0.3))
    good[[0, -1]] = False
    good[:, [0, -1]] = False
    return points, normal / np.maximum(length, 1e-12)[..., None], good


def _static_normal(T_fix: np.ndarray, source: np.ndarray, target: tuple, chunk: Chunk, gate: float
                   ) -> tuple[Normal, np.ndarray]:
    """Point-to-plane with association by projection (Rusinkiewicz and Levoy 2001); inlier residuals [m]."""
    points, normals, good = target
    K = chunk.K[0]
    p = source @ T_fix[:3, :3].T + T_fix[:3, 3]
    z = np.where(p[:, 2] > 0.05, p[:, 2], np.nan)
    with np.errstate(invalid='ignore'):
        uv = p[:, :2] / z[:, None] * K[[0, 1], [0, 1]] + K[:2, 2]
        inside = ((uv >= 0) & (uv <= [chunk.size[1] - 1, chunk.size[0] - 1])).all(axis=1)
    u, v = np.rint(uv[inside]).astype(np.intp).T
    q, n = points[v, u], normals[v, u]
    r = np.einsum('ij,ij->i', p[inside] - q, n)
    use = good[v, u] & (np.abs(r) < gate) & (np.linalg.norm(p[inside] - q, axis=1) < 3 * gate)
    r, n, s = r[use], n[use], source[inside][use]
    normal = Normal.zero()
    J = np.concatenate([np.cross(s, n @ T_fix[:3, :3]), n], axis=1)
    robust = (1 - (r / gate) ** 2) ** 2
    # Depth errors are alike over large patches: all static points together count as about 60 measurements.
    sigma = max(0.004, 1.5 * float(np.median(np.abs(r)))) if len(r) else 1.0
    normal.add(J[None], r[None], (robust * 60 / max(len(r), 1) / sigma**2)[None])
    return normal, r


def _add_hand(normal: Normal, problem: Problem, view: int, T_0: np.ndarray, opening: float, T_fix: np.ndarray) -> None:
    """The hand's known pose against its outline in the view that is being corrected."""
    kept = problem.T_view_ref
    inverse = np.eye(4)
    inverse[:3, :3] = T_fix[:3, :3].T
    inverse[:3, 3] = -T_fix[:3, :3].T @ T_fix[:3, 3]
    problem.T_view_ref = kept.copy()
    problem.T_view_ref[view] = kept[view] @ inverse
    outlines = problem.outlines(ZERO, T_0[None], np.array([opening]))
    J, r, weight = problem.outline_terms(ZERO, T_0[None], outlines, 4.0)
    # Moving the camera's frame by a small motion is moving the hand the other way, about another centre.
    normal.add(J[:, view] @ _adjoint(T_0, T_fix), r[:, view], weight[:, view])
    if problem.landmarks is not None:
        J, r, weight, _ = problem.landmark_terms(ZERO, T_0[None], np.array([opening]), MAX_REACH)
        normal.add(J[:, view] @ _adjoint(T_0, T_fix), r[:, view], weight[:, view])
    problem.T_view_ref = kept


def _adjoint(T_0: np.ndarray, T_fix: np.ndarray) -> np.ndarray:
    """d(hand delta) / d(correction delta), (6, 6).

    With T_fix' = apply(T_fix, (w, t)), hand points h seen by the view move as T_fix'^-1 h. To first order that is
    the hand moving in the fixed view by -(R w) about the origin of the correction and by -t.
    """
    R, origin = T_fix[:3, :3], T_fix[:3, 3]
    arm = T_0[:3, 3] - origin
    cross = np.array([[0, -arm[2], arm[1]], [arm[2], 0, -arm[0]], [-arm[1], arm[0], 0]])
    A = np.zeros((6, 6))
    A[:3, :3] = -T_0[:3, :3].T @ R
    A[3:, :3] = cross @ R
    A[3:, 3:] = -np.eye(3)
    return A
