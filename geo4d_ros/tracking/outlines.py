"""Outlines of the gripper: a small painter's rasteriser, contour points in 3D, and distance fields of masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

SUPERSAMPLING = 3  # odd, so that every pixel has a cell at its centre
MIN_DEPTH_M = 0.05
MAX_CROP_PX = 400
PADDING_PX = 2
MIN_SLOPE = 0.15  # per pixel: a flatter edge does not say where it is


@dataclass(frozen=True)
class Raster:
    """The gripper drawn into a window that may reach beyond the image.

    face (h * 3, w * 3) int32: 1 + index of the visible face, 0 elsewhere; x0, y0: window corner [px];
    vertices (N, 3) [m] in the camera frame; faces (M, 3).
    """

    face: np.ndarray
    x0: int
    y0: int
    vertices: np.ndarray
    faces: np.ndarray

    def pixels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Covered pixel centres: u (n,), v (n,) int, possibly outside the image, and their face index (n,)."""
        centre = SUPERSAMPLING // 2
        centres = self.face[centre::SUPERSAMPLING, centre::SUPERSAMPLING]
        y, x = np.nonzero(centres)
        return x + self.x0, y + self.y0, centres[y, x] - 1

    def depth_at(self, u: np.ndarray, v: np.ndarray, face: np.ndarray, K: np.ndarray) -> np.ndarray:
        """z (n,) [m] of the visible face's plane behind pixels (u, v), kept within the face's own depths."""
        corners = self.vertices[self.faces[face]]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        ray = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(len(u))], axis=1)
        along = np.einsum('ij,ij->i', normal, ray)
        safe = np.where(np.abs(along) < 1e-12, 1e-12, along)
        z = np.einsum('ij,ij->i', normal, corners[:, 0]) / safe
        return np.clip(z, corners[..., 2].min(1), corners[..., 2].max(1))

    def contour(self, K: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """At most `count` outline points: pixels (n, 2) at a third of a pixel, and 3D (n, 3) in the camera frame."""
        solid = self.face > 0
        inner = solid[1:-1, 1:-1]
        edge = inner & ~(solid[:-2, 1:-1] & solid[2:, 1:-1] & solid[1:-1, :-2] & solid[1:-1, 2:])
        y, x = np.nonzero(edge)
        if len(y) > count:
            pick = np.linspace(0, len(y) - 1, count).astype(np.intp)
            y, x = y[pick], x[pick]
        y, x = y + 1, x + 1
        u = self.x0 + (x + 0.5) / SUPERSAMPLING - 0.5
        v = self.y0 + (y + 0.5) / SUPERSAMPLING - 0.5
        z = self.depth_at(u, v, self.face[y, x] - 1, K)
        points = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], axis=1)
        return np.stack([u, v], axis=1), points


def rasterise(vertices: np.ndarray, faces: np.ndarray, K: np.ndarray, size: tuple[int, int],
              closed: bool = False) -> Raster | None:
    """Draw a mesh given in the camera frame (N, 3) [m]; size (H, W) of the image.

    closed: the mesh bounds a solid, its faces turn outwards: those seen from behind are left out.

    None when any of it lies behind the camera, all of it beside the image, or it fills far more than the image.
    """
    z = vertices[:, 2]
    if z.min() < MIN_DEPTH_M:
        return None
    uv = vertices[:, :2] / z[:, None] * K[[0, 1], [0, 1]] + K[:2, 2]
    low = np.floor(uv.min(0)).astype(int) - PADDING_PX
    high = np.ceil(uv.max(0)).astype(int) + PADDING_PX + 1
    height, width = size
    beside = high[0] <= 0 or high[1] <= 0 or low[0] >= width or low[1] >= height
    if beside or (high - low).max() > MAX_CROP_PX:
        return None
    w, h = high - low
    cells = (uv - low + 0.5) * SUPERSAMPLING - 0.5
    triangles = cells[faces]
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    turn = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    order = np.argsort(-z[faces].sum(1))
    # v points down: a face whose corners run counter-clockwise in space turns clockwise, i.e. negative, on screen.
    order = order[(turn[order] < -1e-9) if closed else (np.abs(turn[order]) > 1e-9)]
    image = Image.new('I', (int(w) * SUPERSAMPLING, int(h) * SUPERSAMPLING), 0)
    draw = ImageDraw.Draw(image)
    flat = triangles.reshape(-1, 6).tolist()
    for index in order.tolist():
        draw.polygon(flat[index], fill=index + 1)
    return Raster(np.asarray(image), int(low[0]), int(low[1]), vertices, faces)


@dataclass(frozen=True)
class OutlineField:
    """Signed distance [px] to a mask's outline, positive inside, with its gradient; `known` is 0 where something
    in front may hide the outline. All (H, W), sampled bilinearly or at the nearest pixel."""

    distance: np.ndarray
    gradient: np.ndarray
    known: np.ndarray

    def query(self, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distance (N,), gradient (N, 2) and known (N,) at pixels (N, 2), clamped to the image."""
        first = np.zeros(len(uv), np.intp)
        return sample_fields(self.distance[None], self.gradient[None], self.known[None], first, uv)


def sample_fields(distance: np.ndarray, gradient: np.ndarray, known: np.ndarray, index: np.ndarray, uv: np.ndarray
                  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`OutlineField.query` in many fields at once: distance and known (F, H, W), gradient (F, H, W, 2), index (N,)."""
    height, width = distance.shape[1:]
    u = np.clip(uv[:, 0], 0, width - 1.001)
    v = np.clip(uv[:, 1], 0, height - 1.001)
    x, y = u.astype(np.intp), v.astype(np.intp)
    fx, fy = u - x, v - y
    top = distance[index, y, x] * (1 - fx) + distance[index, y, x + 1] * fx
    bottom = distance[index, y + 1, x] * (1 - fx) + distance[index, y + 1, x + 1] * fx
    row, column = y + (fy > 0.5), x + (fx > 0.5)
    return top * (1 - fy) + bottom * fy, gradient[index, row, column], known[index, row, column]


def outline_field(mask: np.ndarray, unknown: np.ndarray | None = None, chance: np.ndarray | None = None
                  ) -> OutlineField | None:
    """Distance field of a mask (H, W) bool; None for an empty or full one, which has no outline.

    unknown (H, W) bool: pixels where the gripper may be hidden. Background is pulled towards mask or unknown
    pixels, and nothing is known inside the latter. chance (H, W) of the mask: says within the pixel where the outline
    runs.
    """
    if not mask.any() or mask.all():
        return None
    possible = mask if unknown is None else mask | unknown
    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~possible)
    distance = np.where(mask, inside - 0.5, np.where(possible, 0, 0.5 - outside)).astype(np.float32)
    if chance is not None:
        slope = np.hypot(*np.gradient(chance))
        edge = (np.abs(distance) < 1) & (slope > MIN_SLOPE) & ((chance > 0.5) == mask)
        distance[edge] = np.clip((chance[edge] - 0.5) / slope[edge], -1, 1)
    dy, dx = np.gradient(distance)
    known = np.ones(mask.shape, np.float32)
    known[possible & ~mask] = 0
    return OutlineField(distance, np.stack([dx, dy], axis=-1), known)


def keep_near(mask: np.ndarray, expected: np.ndarray, reach_px: int = 12) -> np.ndarray:
    """The parts of a mask (H, W) within `reach_px` of the box around where the gripper is expected (H, W) bool: ghosts
    elsewhere are dropped.

    A mask with nothing near comes back whole: then the gripper has jumped, and the far part is the evidence.
    """
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count <= 1 or not expected.any():
        return mask
    near = labels[window_of(expected, reach_px)]
    size = np.bincount(labels.ravel(), minlength=count + 1)
    share = np.bincount(near.ravel(), minlength=count + 1) / np.maximum(size, 1)
    kept = share > 0.3
    kept[0] = False
    return kept[labels] if kept.any() else mask


def window_of(mask: np.ndarray, margin_px: int) -> tuple[slice, slice]:
    """The box around a mask (H, W) bool that is not empty, grown by a margin within the image."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (slice(max(rows[0] - margin_px, 0), rows[-1] + margin_px + 1),
            slice(max(columns[0] - margin_px, 0), columns[-1] + margin_px + 1))
