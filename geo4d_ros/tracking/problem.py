"""The tracking residuals of one chunk: outlines in every view, signed distance of the points, linearised per frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from geo4d_ros.geometry.transforms import transform_points
from geo4d_ros.tracking.chunk import MASK_LEVEL, Chunk, Masks
from geo4d_ros.tracking.sdf import GripperSdf
from geo4d_ros.tracking.silhouette import OutlineField, Raster, keep_near, outline_field, rasterise


@dataclass(frozen=True)
class Weights:
    """How far each kind of evidence is trusted.

    Pixels next to each other err together, so a view counts as `outline_count` or `depth_count` independent
    measurements however many pixels it has (tuned on simulated chunks with 1-4 % correlated depth error).
    """

    contour_points: int = 80
    outline_sigma_px: float = 1.0
    outline_count: float = 24.0
    depth_points: int = 120
    depth_sigma_ratio: float = 0.02  # of the distance
    depth_sigma_min_m: float = 0.005
    depth_count: float = 6.0
    tukey_sigmas: float = 3.5
    occlusion_margin_m: float = 0.03
    occlusion_margin_ratio: float = 0.03


@dataclass
class Outline:
    """Contour points of the posed gripper in one view, in the tool frame (n, 3), weights (n,)."""

    points: np.ndarray
    weight: np.ndarray


@dataclass
class Normal:
    """Normal equations about one pose: order is rotation (3, in the tool frame), translation (3, reference frame)."""

    H: np.ndarray
    g: np.ndarray

    @classmethod
    def zero(cls) -> Normal:
        """No information."""
        return cls(np.zeros((6, 6)), np.zeros(6))

    def add(self, J: np.ndarray, r: np.ndarray, w: np.ndarray) -> None:
        """Add weighted residuals r (n,) with Jacobian J (n, 6)."""
        Jw = J * w[:, None]
        self.H += Jw.T @ J
        self.g += Jw.T @ r


class Problem:
    """Everything measured about the gripper in one chunk; poses are T_ref_gripper (4, 4)."""

    def __init__(self, chunk: Chunk, masks: Masks, sdf: GripperSdf, weights: Weights | None = None) -> None:
        self.chunk, self.masks, self.sdf = chunk, masks, sdf
        self.weights = weights or Weights()
        self.views = list(range(chunk.views))
        self.T_view_ref = chunk.T_view_ref
        self.outline_bias = np.zeros(chunk.views)
        self.outline_sigma = np.full(chunk.views, self.weights.outline_sigma_px)
        self._fields: dict[tuple[int, int], OutlineField | None] = {}
        self._mask: dict[tuple[int, int], np.ndarray] = {}
        self._unknown: dict[tuple[int, int], np.ndarray] = {}
        self._points: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    # -- what is seen ------------------------------------------------------------------------------
    def mask(self, view: int, t: int) -> np.ndarray:
        """Gripper mask (H, W) bool after `focus`."""
        if (view, t) not in self._mask:
            self._mask[view, t] = self.masks.gripper[view, t] > MASK_LEVEL
        return self._mask[view, t]

    def focus(self, t: int, T: np.ndarray, opening: float) -> None:
        """Look at frame t with the gripper expected at T: drop far mask parts, note what may hide it."""
        vertices, _, _ = self.sdf.gripper.posed(opening)
        for view in self.views:
            for cache in (self._mask, self._unknown, self._fields):
                cache.pop((view, t), None)
            raster = self.raster(view, T, opening)
            if raster is not None:
                self._mask[view, t] = keep_near(self.mask(view, t), covered(raster, self.chunk.size))
            z = transform_points(self.T_view_ref[view] @ T, vertices)[:, 2]
            self._unknown[view, t] = self._may_hide(view, t, float(z.min()), float(z.max()))
        self._points.pop(t, None)

    def _may_hide(self, view: int, t: int, nearest: float, farthest: float) -> np.ndarray:
        """Pixels (H, W) bool of things that can lie in front of a gripper at these depths [m]."""
        w, depth = self.weights, self.chunk.depth[view, t]
        in_front = depth < nearest - w.occlusion_margin_m - w.occlusion_margin_ratio * nearest
        if self.masks.occluder is not None:
            # The arm and what is held touch the gripper: too near to be told apart by depth.
            in_front |= (self.masks.occluder[view, t] > MASK_LEVEL) & (depth < farthest + w.occlusion_margin_m)
        return in_front & (depth > 0) & ~self.mask(view, t)

    def unknown(self, view: int, t: int) -> np.ndarray:
        """Pixels (H, W) bool where the gripper may be hidden; none before `focus`."""
        return self._unknown.get((view, t), np.zeros(self.chunk.size, bool))

    def field(self, view: int, t: int) -> OutlineField | None:
        """Distance field of the mask's outline; None where nothing of the gripper is seen."""
        if (view, t) not in self._fields:
            self._fields[view, t] = outline_field(self.mask(view, t), self.unknown(view, t))
        return self._fields[view, t]

    def points(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masked points (n, 3) in the reference frame, their sigma [m] (n,) and weight (n,) of frame t."""
        if t not in self._points:
            parts = [self._view_points(view, t) for view in self.views]
            self._points[t] = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
        return self._points[t]

    def _view_points(self, view: int, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        w = self.weights
        depth = self.chunk.depth[view, t]
        inner = ndimage.binary_erosion(self.mask(view, t)) & (depth > 0)
        y, x = np.nonzero(inner if inner.sum() >= 12 else self.mask(view, t) & (depth > 0))
        if len(y) > w.depth_points:
            pick = np.linspace(0, len(y) - 1, w.depth_points).astype(np.intp)
            y, x = y[pick], x[pick]
        sigma = np.maximum(w.depth_sigma_min_m, w.depth_sigma_ratio * depth[y, x]).astype(np.float64)
        count = min(w.depth_count, len(y))
        return self.chunk.points[view, t, y, x].astype(np.float64), sigma, np.full(len(y), count / max(len(y), 1))

    def raster(self, view: int, T: np.ndarray, opening: float) -> Raster | None:
        """The gripper drawn at a pose; None when it is out of the view."""
        vertices, faces, _ = self.sdf.gripper.posed(opening)
        posed = transform_points(self.T_view_ref[view] @ T, vertices)
        return rasterise(posed, faces, self.chunk.K[view], self.chunk.size, self.sdf.gripper.closed)

    # -- residuals ---------------------------------------------------------------------------------
    def outlines(self, t: int, T: np.ndarray, opening: float) -> dict[int, Outline]:
        """Contour of the gripper at a pose, per view that sees it; points outside the image weigh 0."""
        result = {}
        height, width = self.chunk.size
        for view in self.views:
            raster = self.raster(view, T, opening)
            if raster is None or self.field(view, t) is None:
                continue
            uv, points = raster.contour(self.chunk.K[view], self.weights.contour_points)
            weight = ((uv > 1) & (uv < [width - 2, height - 2])).all(axis=1).astype(np.float64)
            T_view_gripper = self.T_view_ref[view] @ T
            tool = (points - T_view_gripper[:3, 3]) @ T_view_gripper[:3, :3]
            result[view] = Outline(tool, weight * self.weights.outline_count / max(len(uv), 1))
        return result

    def linearise(self, t: int, T: np.ndarray, opening: float, outlines: dict[int, Outline],
                  kernel_px: float) -> Normal:
        """Normal equations of frame t about T: outlines (Huber at kernel_px) and points (Tukey)."""
        normal = Normal.zero()
        for view, outline in outlines.items():
            self._add_outline(normal, view, t, T, outline, kernel_px)
        self._add_points(normal, t, T, opening)
        return normal

    def _add_outline(self, normal: Normal, view: int, t: int, T: np.ndarray, outline: Outline,
                     kernel_px: float) -> None:
        K, T_view = self.chunk.K[view], self.T_view_ref[view]
        R = T_view[:3, :3] @ T[:3, :3]
        p = outline.points @ R.T + (T_view @ T)[:3, 3]
        z = np.maximum(p[:, 2], 0.05)
        uv = p[:, :2] / z[:, None] * K[[0, 1], [0, 1]] + K[:2, 2]
        distance, gradient, known = self.field(view, t).query(uv)
        r = distance - self.outline_bias[view]
        # Chain rule: outline distance -> pixel -> camera point -> rotation about the tool frame, translation.
        gx, gy = gradient[:, 0] * K[0, 0] / z, gradient[:, 1] * K[1, 1] / z
        along = np.stack([gx, gy, -(gx * p[:, 0] + gy * p[:, 1]) / z], axis=1)
        J = np.concatenate([np.cross(outline.points, along @ R), along @ T_view[:3, :3]], axis=1)
        robust = kernel_px / np.maximum(np.abs(r), kernel_px)
        normal.add(J, r, outline.weight * known * robust / self.outline_sigma[view] ** 2)

    def _add_points(self, normal: Normal, t: int, T: np.ndarray, opening: float) -> None:
        points, sigma, weight = self.points(t)
        if len(points) == 0:
            return
        q = (points - T[:3, 3]) @ T[:3, :3]
        r, n = self.sdf.query(q, opening)
        J = np.concatenate([-np.cross(q, n), -(n @ T[:3, :3].T)], axis=1)
        cut = self.weights.tukey_sigmas * sigma
        robust = np.where(np.abs(r) < cut, (1 - (r / cut) ** 2) ** 2, 0.0)
        normal.add(J, r, weight * robust / sigma**2)


def covered(raster: Raster, size: tuple[int, int]) -> np.ndarray:
    """The raster's pixels as an image mask (H, W) bool."""
    u, v, _ = raster.pixels()
    inside = (u >= 0) & (v >= 0) & (u < size[1]) & (v < size[0])
    mask = np.zeros(size, bool)
    mask[v[inside], u[inside]] = True
    return mask
