"""The tracking residuals of one chunk: outlines in every view, signed distance of the points, linearised per frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geo4d_ros.geometry.transforms import transform_points
from geo4d_ros.tracking.clip import MASK_LEVEL, Chunk, Masks
from geo4d_ros.tracking.outlines import (
    OutlineField,
    Raster,
    keep_near,
    outline_field,
    rasterise,
    sample_fields,
    window_of,
)
from geo4d_ros.tracking.rasteriser import Drawing, Shape, draw, outline_points, paste
from geo4d_ros.tracking.sdf import GripperSdf
from geo4d_ros.tracking.segmentation.landmarks import CHANNELS, LandmarkMaps, landmark_points

FIELD_MARGIN_PX = 20  # around mask and expected gripper; farther away the distance no longer grows


@dataclass(frozen=True)
class Weights:
    """How far each kind of evidence is trusted.

    Pixels next to each other err together, so a view counts as `outline_count` or `depth_count` independent
    measurements however many pixels it has (tuned on simulated chunks with 1-4 % correlated depth error).
    """

    contour_points: int = 60
    outline_sigma_px: float = 1.0
    outline_count: float = 24.0
    depth_points: int = 80
    landmark_count: float = 6.0  # of the 6 landmarks of a view
    landmark_sigma_px: float = 0.6  # beside the spread that their maps show
    landmark_bias_share: float = 0.4
    landmark_bias_px: float = 2.0
    landmark_elsewhere: float = 3.0  # cost of a landmark that is seen, but not where it is expected
    depth_sigma_ratio: float = 0.02  # of the distance
    depth_sigma_min_m: float = 0.005
    depth_sigma_max_m: float = 0.05
    depth_count: float = 1.5
    tukey_sigmas: float = 3.5
    occlusion_margin_m: float = 0.03
    occlusion_margin_ratio: float = 0.03


@dataclass
class Outlines:
    """Outline points of the posed gripper per frame and view, in the tool frame (F, V, n, 3), weights (F, V, n)."""

    points: np.ndarray
    weight: np.ndarray


@dataclass
class Normal:
    """Normal equations about F poses: H (F, 6, 6), g (F, 6); order is rotation (3, in the tool frame), translation
    (3, reference frame). cost (F,): of the robust terms, as a negative log-likelihood."""

    H: np.ndarray
    g: np.ndarray
    cost: np.ndarray

    @classmethod
    def zero(cls, frames: int = 1) -> Normal:
        """No information."""
        return cls(np.zeros((frames, 6, 6)), np.zeros((frames, 6)), np.zeros(frames))

    def add(self, J: np.ndarray, r: np.ndarray, w: np.ndarray) -> None:
        """Add weighted residuals r (F, n) with Jacobian J (F, n, 6)."""
        Jw = np.swapaxes(J * w[..., None], 1, 2)
        self.H += Jw @ J
        self.g += (Jw @ r[..., None])[..., 0]


class Problem:
    """Everything measured about the gripper in one chunk; poses are T_ref_gripper (4, 4), frames t (F,) int."""

    def __init__(self, chunk: Chunk, masks: Masks, sdf: GripperSdf, weights: Weights | None = None) -> None:
        self.chunk, self.masks, self.sdf = chunk, masks, sdf
        self.weights = weights or Weights()
        self.views = list(range(chunk.views))
        self.T_view_ref = chunk.T_view_ref
        self.outline_bias = np.zeros(chunk.views)
        self.outline_sigma = np.full(chunk.views, self.weights.outline_sigma_px)
        shape = (chunk.frames, chunk.views, *chunk.size)
        self._mask = np.swapaxes(masks.gripper > MASK_LEVEL, 0, 1).copy()
        self._unknown = np.zeros(shape, bool)
        self._distance, self._known = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._gradient = np.zeros((*shape, 2), np.float32)
        self._outlined = np.zeros(shape[:2], bool)
        self.landmark_bias = np.zeros((chunk.views, len(CHANNELS), 2))
        self.landmarks = None if masks.landmarks is None else LandmarkMaps(masks.landmarks)
        n = chunk.views * self.weights.depth_points
        self._points, self._point_weight = np.zeros((chunk.frames, n, 3)), np.zeros((chunk.frames, n))
        self._point_sigma = np.ones((chunk.frames, n))

    # -- what is seen ------------------------------------------------------------------------------
    def mask(self, view: int, t: int) -> np.ndarray:
        """Gripper mask (H, W) bool after `focus`."""
        return self._mask[t, view]

    def unknown(self, view: int, t: int) -> np.ndarray:
        """Pixels (H, W) bool where the gripper may be hidden; none before `focus`."""
        return self._unknown[t, view]

    def field(self, view: int, t: int) -> OutlineField | None:
        """Distance field of the mask's outline after `focus`; None where nothing of the gripper is seen."""
        if not self._outlined[t, view]:
            return None
        return OutlineField(self._distance[t, view], self._gradient[t, view], self._known[t, view])

    def points(self, t: int) -> np.ndarray:
        """Masked points (n, 3) of frame t in the reference frame after `focus`."""
        return self._points[t][self._point_weight[t] > 0]

    def focus(self, t: np.ndarray, T: np.ndarray, openings: np.ndarray) -> np.ndarray:
        """Look at frames t (F,) with the gripper expected at T (F, 4, 4): drop far mask parts, note what may hide it.

        Returns the pixels (F, V, H, W) bool that the expected gripper covers.
        """
        drawn, _ = self.cover(T, openings)
        vertices = self.sdf.drawn.at(openings)
        for i, frame in enumerate(t):
            for view in self.views:
                whole = self.masks.gripper[view, frame] > MASK_LEVEL
                self._mask[frame, view] = keep_near(whole, drawn[i, view])
                z = transform_points(self.T_view_ref[view] @ T[i], vertices[i])[:, 2]
                self._unknown[frame, view] = self._may_hide(view, frame, float(z.min()), float(z.max()))
                self._set_field(view, frame, drawn[i, view])
                self._set_points(view, frame)
        return drawn

    def _may_hide(self, view: int, t: int, nearest: float, farthest: float) -> np.ndarray:
        """Pixels (H, W) bool of things that can lie in front of a gripper at these depths [m]."""
        w, depth = self.weights, self.chunk.depth[view, t]
        in_front = depth < nearest - w.occlusion_margin_m - w.occlusion_margin_ratio * nearest
        if self.masks.occluder is not None:
            # The arm and what is held touch the gripper: too near to be told apart by depth.
            in_front |= (self.masks.occluder[view, t] > MASK_LEVEL) & (depth < farthest + w.occlusion_margin_m)
        if self.masks.fixture is not None:
            in_front |= (self.masks.fixture[view, t] > MASK_LEVEL) & (depth < (nearest + farthest) / 2)
        return in_front & (depth > 0) & ~self.mask(view, t)

    def _set_field(self, view: int, t: int, drawn: np.ndarray) -> None:
        mask = self._mask[t, view]
        self._outlined[t, view] = bool(mask.any())
        self._known[t, view], self._gradient[t, view] = 0, 0
        self._distance[t, view] = -FIELD_MARGIN_PX
        if not mask.any():
            return
        window = window_of(mask | drawn, FIELD_MARGIN_PX)
        field = outline_field(mask[window], self._unknown[t, view][window], self.masks.gripper[view, t][window])
        self._outlined[t, view] = field is not None
        if field is not None:
            self._distance[t, view][window], self._known[t, view] = field.distance, 1
            self._gradient[t, view][window], self._known[t, view][window] = field.gradient, field.known

    def _set_points(self, view: int, t: int) -> None:
        w, depth, mask = self.weights, self.chunk.depth[view, t], self._mask[t, view]
        inner = mask & (depth > 0)
        inner[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
        y, x = np.nonzero(inner if inner.sum() >= 12 else mask & (depth > 0))
        if len(y) > w.depth_points:
            pick = np.linspace(0, len(y) - 1, w.depth_points).astype(np.intp)
            y, x = y[pick], x[pick]
        low, n = view * w.depth_points, len(y)
        own = slice(low, low + n)
        self._point_weight[t, low:low + w.depth_points] = 0
        self._points[t, own] = self.chunk.points[view, t, y, x]
        self._point_sigma[t, own] = np.maximum(w.depth_sigma_min_m, w.depth_sigma_ratio * depth[y, x])
        self._point_weight[t, own] = min(w.depth_count, n) / max(n, 1)

    def learn_landmark_bias(self, T_0: np.ndarray, opening: float) -> None:
        """By how much the maps miss the landmarks in frame 0, whose pose (4, 4) is known: part of it stays."""
        if self.landmarks is None:
            return
        points = np.repeat(landmark_points(self.sdf.gripper, np.array([opening]))[:, None], self.chunk.views, axis=1)
        _, uv, _ = self._project(T_0[None], points)
        mean, _, here, _ = self.landmarks.find(np.array([0]), uv, 3)
        w = self.weights
        off = np.clip(mean - uv, -w.landmark_bias_px, w.landmark_bias_px)
        self.landmark_bias = w.landmark_bias_share * here[0, ..., None] * off[0]

    def learn_depth_error(self, T: np.ndarray, openings: np.ndarray) -> None:
        """Trust each view's depth as far as its points have lain on the gripper at T (T+1, 4, 4), frame 0 left out.

        Outlines say where the gripper is whatever the depth; generated depth is off by anything between nothing and
        several per cent.
        """
        w, t = self.weights, np.arange(1, len(T))
        q = (self._points[t] - T[t, None, :3, 3]) @ T[t, :3, :3]
        r = np.abs(self.sdf.query(q.reshape(-1, 3), np.repeat(openings[t], q.shape[1]))[0].reshape(q.shape[:2]))
        for view in self.views:
            own = slice(view * w.depth_points, (view + 1) * w.depth_points)
            seen = self._point_weight[t, own] > 0
            if seen.sum() >= w.depth_points:
                sigma = 1.4826 * float(np.median(r[:, own][seen]))
                self._point_sigma[:, own] = np.clip(sigma, w.depth_sigma_min_m, w.depth_sigma_max_m)

    def drop(self, view: int) -> None:
        """Leave a view out from now on."""
        self.views.remove(view)
        self._outlined[:, view] = False
        low = view * self.weights.depth_points
        self._point_weight[:, low:low + self.weights.depth_points] = 0

    # -- what would be seen ------------------------------------------------------------------------
    def raster(self, view: int, T: np.ndarray, opening: float) -> Raster | None:
        """The gripper drawn at a pose with its faces; None when it is out of the view."""
        vertices, faces, _ = self.sdf.gripper.posed(opening)
        posed = transform_points(self.T_view_ref[view] @ T, vertices)
        return rasterise(posed, faces, self.chunk.K[view], self.chunk.size, self.sdf.gripper.closed)

    def draw(self, shape: Shape, T: np.ndarray, vertices: np.ndarray, cells: int = 1) -> Drawing:
        """Vertices (F, N, 3) of the tool frame at T (F, 4, 4) drawn in all views: F x V drawings, view by view."""
        T_view = self.T_view_ref[None] @ T[:, None]
        posed = vertices[:, None] @ np.swapaxes(T_view[..., :3, :3], -1, -2) + T_view[..., None, :3, 3]
        K = np.tile(self.chunk.K, (len(T), 1, 1))
        return draw(shape, posed.reshape(-1, *posed.shape[2:]), K, self.chunk.size, cells)

    def cover(self, T: np.ndarray, openings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (F, V, H, W) bool of the gripper at T (F, 4, 4), and how many (F, V) with those beside the image; 0
        where it cannot be seen."""
        drawing = self.draw(self.sdf.drawn.whole, T, self.sdf.drawn.at(openings))
        shape = (len(T), self.chunk.views)
        images = [paste(drawing, i, self.chunk.size) for i in range(len(drawing.seen))]
        area = np.where(drawing.seen, drawing.mask.sum((1, 2)), 0)
        return np.stack(images).reshape(*shape, *self.chunk.size), area.reshape(shape)

    # -- residuals ---------------------------------------------------------------------------------
    def outlines(self, t: np.ndarray, T: np.ndarray, openings: np.ndarray) -> Outlines:
        """Outlines of the gripper at poses T (F, 4, 4); points outside the image weigh 0."""
        drawn, w, shape = self.sdf.drawn, self.weights, (len(T), self.chunk.views)
        vertices = drawn.at(openings)
        drawing = self.draw(drawn.whole, T, vertices, 3)
        model = np.repeat(vertices, self.chunk.views, axis=0)
        points, count = outline_points(drawing, drawn.whole, model, w.contour_points)
        weight = (np.arange(w.contour_points) < count[:, None]) * (w.outline_count / np.maximum(count, 1))[:, None]
        points, weight = points.reshape(*shape, -1, 3), weight.reshape(*shape, -1)
        return Outlines(points, weight * self._outlined[t][..., None])

    def _project(self, T: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Camera points and pixels of tool points (F, V, n, 3) at T (F, 4, 4), and the poses (F, V, 4, 4) used."""
        T_view = self.T_view_ref[None] @ T[:, None]
        p = points @ np.swapaxes(T_view[..., :3, :3], -1, -2) + T_view[..., None, :3, 3]
        f, c = self.chunk.K[:, [0, 1], [0, 1]], self.chunk.K[:, :2, 2]
        uv = p[..., :2] / np.maximum(p[..., 2:], 0.05) * f[:, None] + c[:, None]
        return p, uv, T_view

    def outline_distance(self, t: np.ndarray, T: np.ndarray, outlines: Outlines
                         ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Distance (F, V, n) [px] of outline points to the mask's outline, its gradient (F, V, n, 2), their weights
        (0 where nothing is known), camera points (F, V, n, 3) and poses (F, V, 4, 4)."""
        p, uv, T_view = self._project(T, outlines.points)
        shape, (height, width) = uv.shape[:3], self.chunk.size
        index = (t[:, None] * self.chunk.views + np.arange(self.chunk.views)).ravel().repeat(shape[2])
        flat = [a.reshape(-1, *a.shape[2:]) for a in (self._distance, self._gradient, self._known)]
        r, gradient, known = sample_fields(*flat, index, uv.reshape(-1, 2))
        inside = ((uv > 1) & (uv < [width - 2, height - 2])).all(-1)
        return r.reshape(shape), gradient.reshape(*shape, 2), outlines.weight * inside * known.reshape(shape), p, T_view

    def linearise(self, t: np.ndarray, T: np.ndarray, openings: np.ndarray, outlines: Outlines,
                  kernel_px: float) -> Normal:
        """Normal equations of frames t about T (F, 4, 4): outlines (Huber at kernel_px) and points (Tukey)."""
        normal = Normal.zero(len(T))
        J, r, weight = self.outline_terms(t, T, outlines, kernel_px)
        n = len(T)
        normal.add(J.reshape(n, -1, 6), r.reshape(n, -1), weight.reshape(n, -1))
        # Huber's weight is rho'(r) / r: the cost beyond the kernel is k |r| - k^2 / 2.
        beyond = np.maximum(np.abs(r), kernel_px)
        normal.cost += (weight * (0.5 * np.minimum(np.abs(r), kernel_px) ** 2 * beyond / kernel_px
                                  + beyond * (beyond - kernel_px))).sum((1, 2))
        self._add_points(normal, t, T, openings)
        if self.landmarks is not None:
            self.add_landmarks(normal, t, T, openings, 5 if kernel_px > 3 else 3)
        return normal

    def add_landmarks(self, normal: Normal, t: np.ndarray, T: np.ndarray, openings: np.ndarray, reach: int) -> None:
        """Landmarks pulled to where their maps have them within `reach` cells of the expected pixels: mean shift
        (Comaniciu and Meer 2002)."""
        J, r, weight, elsewhere = self.landmark_terms(t, T, openings, reach)
        n = len(T)
        normal.add(J.reshape(n, -1, 6), r.reshape(n, -1), weight.reshape(n, -1))
        normal.cost += 0.5 * (weight * r**2).sum((1, 2)) + self.weights.landmark_elsewhere * elsewhere

    def landmark_terms(self, t: np.ndarray, T: np.ndarray, openings: np.ndarray, reach: int
                       ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Jacobians (F, V, 12, 6), residuals (F, V, 12) [px] and weights of the landmarks, u first, then v; and how
        many (F,) are seen, but farther away."""
        w = self.weights
        points = np.repeat(landmark_points(self.sdf.gripper, openings)[:, None], self.chunk.views, axis=1)
        p, uv, T_view = self._project(T, points)
        mean, variance, here, anywhere = self.landmarks.find(t, uv, reach)
        used = np.isin(np.arange(self.chunk.views), self.views)[:, None]
        share = w.landmark_count / points.shape[2] * used * (p[..., 2] > 0.05)
        weight = share * here / (variance + w.landmark_sigma_px**2)
        z = np.maximum(p[..., 2], 0.05)
        jacobians = []
        for axis in range(2):
            f = self.chunk.K[:, axis, axis, None] / z
            along = np.zeros_like(p)
            along[..., axis], along[..., 2] = f, -f * p[..., axis] / z
            jacobians.append(np.concatenate([cross(points, along @ T_view[..., :3, :3]),
                                             along @ self.T_view_ref[:, :3, :3]], -1))
        r = np.moveaxis(uv - mean + self.landmark_bias, -1, 2).reshape(*weight.shape[:2], -1)
        elsewhere = (share * (anywhere - np.minimum(here, anywhere))).sum((1, 2))
        return np.concatenate(jacobians, axis=2), r, np.tile(weight, 2), elsewhere

    def landmarks_met(self, t: np.ndarray, T: np.ndarray, openings: np.ndarray) -> np.ndarray:
        """Share (F,) of the landmarks that the maps have within a cell or two of where poses T (F, 4, 4) put them; NaN
        without maps."""
        if self.landmarks is None or not self.views:
            return np.full(len(T), np.nan)
        points = np.repeat(landmark_points(self.sdf.gripper, openings)[:, None], self.chunk.views, axis=1)
        _, uv, _ = self._project(T, points)
        _, _, here, _ = self.landmarks.find(t, uv + self.landmark_bias, 1)
        return here[:, self.views].mean((1, 2))

    def outline_terms(self, t: np.ndarray, T: np.ndarray, outlines: Outlines, kernel_px: float
                      ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Jacobians (F, V, n, 6), residuals (F, V, n) [px] and weights of the outlines."""
        distance, gradient, weight, p, T_view = self.outline_distance(t, T, outlines)
        r = distance - self.outline_bias[:, None]
        # Chain rule: outline distance -> pixel -> camera point -> rotation about the tool frame, translation.
        z = np.maximum(p[..., 2], 0.05)
        gx = gradient[..., 0] * self.chunk.K[:, None, 0, 0] / z
        gy = gradient[..., 1] * self.chunk.K[:, None, 1, 1] / z
        along = np.stack([gx, gy, -(gx * p[..., 0] + gy * p[..., 1]) / z], axis=-1)
        J = np.concatenate([cross(outlines.points, along @ T_view[..., :3, :3]),
                            along @ self.T_view_ref[:, :3, :3]], axis=-1)
        robust = kernel_px / np.maximum(np.abs(r), kernel_px)
        return J, r, weight * robust / self.outline_sigma[:, None] ** 2

    def _add_points(self, normal: Normal, t: np.ndarray, T: np.ndarray, openings: np.ndarray) -> None:
        J, r, sigma = self.point_terms(t, T, openings)
        cut, weight = self.weights.tukey_sigmas * sigma, self._point_weight[t]
        near = np.maximum(1 - (r / cut) ** 2, 0.0)
        normal.add(J, r, weight * near**2 / sigma**2)
        normal.cost += (weight * cut**2 / 6 * (1 - near**3) / sigma**2).sum(1)

    def point_terms(self, t: np.ndarray, T: np.ndarray, openings: np.ndarray
                    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Jacobians (F, n, 6), residuals (F, n) [m]: signed distances of the measured points to the posed gripper; and
        their standard deviations (F, n) [m]."""
        q = (self._points[t] - T[:, None, :3, 3]) @ T[:, :3, :3]
        r, n = self.sdf.query(q.reshape(-1, 3), np.repeat(openings, q.shape[1]))
        r, n = r.reshape(q.shape[:2]), n.reshape(q.shape)
        J = np.concatenate([-cross(q, n), -(n @ np.swapaxes(T[:, :3, :3], 1, 2))], axis=-1)
        return J, r, self._point_sigma[t]


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product of (..., 3) arrays; numpy's own spends most of its time on axes."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def covered(raster: Raster, size: tuple[int, int]) -> np.ndarray:
    """The raster's pixels as an image mask (H, W) bool."""
    u, v, _ = raster.pixels()
    inside = (u >= 0) & (v >= 0) & (u < size[1]) & (v < size[0])
    mask = np.zeros(size, bool)
    mask[v[inside], u[inside]] = True
    return mask
