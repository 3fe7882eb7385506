"""Filled silhouettes and outline points of posed meshes, many at once, from the edges where the facing turns.

A triangle covers the pixels between its edges, so the number of triangles over a pixel is a sum over edges crossed
on the way to it along the row (scan conversion; Wylie et al. 1967). Every triangle counts as turned towards the
camera, whatever its winding: then the two sides of an edge inside a surface cancel, and only rims are left, which
are few. Exact at pixel centres for any mesh, closed or not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geo4d_ros.robots.gripper import HAND, GripperModel
from geo4d_ros.tracking.outlines import MAX_CROP_PX, MIN_DEPTH_M, PADDING_PX

OUTSIDE_PX = 0.6  # an outline point has background this far outside it
OUTLINE_CELLS = 3  # per pixel, when outline points are wanted


class Shape:
    """Faces (M, 3) of a mesh and its undirected edges, each with the faces that share it."""

    def __init__(self, faces: np.ndarray) -> None:
        self.faces = faces
        half = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        face = np.tile(np.arange(len(faces)), 3)
        direction = np.where(half[:, 0] < half[:, 1], 1, -1).astype(np.int8)
        low, high = half.min(1).astype(np.int64), half.max(1).astype(np.int64)
        key = low * (int(faces.max()) + 1) + high
        order = np.argsort(key, kind='stable')
        first = np.flatnonzero(np.concatenate([[True], np.diff(key[order]) != 0]))
        self.edges = np.stack([low[order][first], high[order][first]], axis=1)
        self._face, self._direction, self._first = face[order], direction[order], first

    def rims(self, facing: np.ndarray) -> np.ndarray:
        """How often (B, E) int each edge bounds the triangles, signed by direction; facing (B, M) in {-1, 0, 1}."""
        return np.add.reduceat(facing[:, self._face] * self._direction, self._first, axis=1)


@dataclass(frozen=True)
class Drawing:
    """B meshes drawn into windows of one size, which may reach beyond their images.

    mask (B, h, w) bool; corner (B, 2) int [px]: image pixel x, y of each window's first one; cells: per pixel and
    axis; seen (B,) bool: False for what lies behind the camera, beside the image or far beyond it.
    instance, edge (R,) and sign (R,): the rims; cell_uv (B, N, 2): the vertices in window cells.
    """

    mask: np.ndarray
    corner: np.ndarray
    cells: int
    seen: np.ndarray
    instance: np.ndarray
    edge: np.ndarray
    sign: np.ndarray
    cell_uv: np.ndarray


def draw(shape: Shape, points: np.ndarray, K: np.ndarray, size: tuple[int, int], cells: int = 1,
         group: int = 1) -> Drawing:
    """Draw vertices points (B, N, 3) [m] in camera frames with intrinsics K (B, 3, 3) into images of size (H, W).

    group: so many meshes in a row share one window.
    """
    z = points[..., 2]
    seen = z.min(1) >= MIN_DEPTH_M
    safe = np.where(seen[:, None], z, 1.0)
    uv = points[..., :2] / safe[..., None] * K[:, None, [0, 1], [0, 1]] + K[:, None, :2, 2]
    low = np.floor(uv.min(1)) - PADDING_PX
    high = np.ceil(uv.max(1)) + PADDING_PX + 1
    height, width = size
    beside = (high <= 0).any(1) | (low[:, 0] >= width) | (low[:, 1] >= height)
    seen &= ~beside & ((high - low).max(1) <= MAX_CROP_PX)
    if group > 1:
        seen = seen.reshape(-1, group).all(1).repeat(group)
        low = low.reshape(-1, group, 2).min(1).repeat(group, 0)
        high = high.reshape(-1, group, 2).max(1).repeat(group, 0)
    low, high = np.where(seen[:, None], low, 0), np.where(seen[:, None], high, 1)
    w, h = ((high - low).max(0) * cells).astype(int)
    cell_uv = (uv - low[:, None] + 0.5) * cells - 0.5
    a, b, c = (cell_uv[:, shape.faces[:, i]] for i in range(3))
    turn = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
    facing = np.where(np.abs(turn) > 1e-9, np.sign(turn), 0).astype(np.int8) * seen[:, None]
    rims = shape.rims(facing)
    instance, edge = np.nonzero(rims)
    sign = rims[instance, edge].astype(np.float64)
    ends = cell_uv[instance[:, None], shape.edges[edge]]
    mask = _fill(instance, ends, sign, (len(points), h, w))
    return Drawing(mask, low.astype(int), cells, seen, instance, edge, sign, cell_uv)


def _fill(instance: np.ndarray, ends: np.ndarray, sign: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Cells (B, h, w) bool whose centres lie between rims: ends (R, 2, 2) in cells, sign (R,)."""
    count, h, w = shape
    y0, y1 = ends[:, 0, 1], ends[:, 1, 1]
    first = np.ceil(np.minimum(y0, y1)).astype(np.intp)
    rows = np.ceil(np.maximum(y0, y1)).astype(np.intp) - first
    rim = np.repeat(np.arange(len(rows)), rows)
    row = np.arange(len(rim)) - np.repeat(np.cumsum(rows) - rows, rows) + first[rim]
    slope = (ends[:, 1, 0] - ends[:, 0, 0]) / np.where(rows > 0, y1 - y0, 1.0)
    column = np.ceil(ends[rim, 0, 0] + (row - y0[rim]) * slope[rim]).astype(np.intp)
    flat = (instance[rim] * h + row) * (w + 1) + np.clip(column, 0, w)
    # On the way along a row, going up (y falls) enters a surface that is turned towards us, going down leaves it.
    step = np.bincount(flat, (sign * np.sign(y0 - y1))[rim], count * h * (w + 1))
    return step.reshape(count, h, w + 1).cumsum(2)[:, :, :w] > 0.5


def outline_points(drawing: Drawing, shape: Shape, model: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` points of each mesh's outer outline in its own frame (B, count, 3), and how many (B,).

    model (B, N, 3): the vertices in that frame. Points are spread evenly over the outline.
    """
    n, (h, w) = len(model), drawing.mask.shape[1:]
    ends = drawing.cell_uv[drawing.instance[:, None], shape.edges[drawing.edge]]
    along = ends[:, 1] - ends[:, 0]
    length = np.linalg.norm(along, axis=1)
    pieces = np.ceil(length / drawing.cells).astype(np.intp)
    rim = np.repeat(np.arange(len(pieces)), pieces)
    share = (np.arange(len(rim)) - np.repeat(np.cumsum(pieces) - pieces, pieces) + 0.5) / pieces[rim]
    out = np.stack([along[:, 1], -along[:, 0]], axis=1) * (np.sign(drawing.sign) / np.maximum(length, 1e-9))[:, None]
    beyond = ends[rim, 0] + share[:, None] * along[rim] + OUTSIDE_PX * drawing.cells * out[rim]
    x, y = np.rint(beyond).astype(np.intp).T
    instance = drawing.instance[rim]
    outer = ~drawing.mask[instance, np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)]
    rim, share, instance = rim[outer], share[outer], instance[outer]
    total = np.bincount(instance, minlength=n)
    rank = np.arange(len(instance)) - (np.cumsum(total) - total)[instance]
    wanted = np.minimum(total, count)
    slot = rank * wanted[instance] // total[instance]
    kept = slot != (rank - 1) * wanted[instance] // total[instance]
    kept |= rank == 0
    rim, share, instance, slot = rim[kept], share[kept, None], instance[kept], slot[kept]
    a, b = shape.edges[drawing.edge[rim]].T
    points = np.zeros((n, count, 3))
    points[instance, slot] = model[instance, a] * (1 - share) + model[instance, b] * share
    return points, wanted


def paste(drawing: Drawing, index: int, size: tuple[int, int]) -> np.ndarray:
    """One drawing of one cell per pixel as an image mask (H, W) bool."""
    image = np.zeros(size, bool)
    if drawing.seen[index]:
        x, y = drawing.corner[index]
        h, w = drawing.mask.shape[1:]
        rows, columns = slice(max(y, 0), min(y + h, size[0])), slice(max(x, 0), min(x + w, size[1]))
        image[rows, columns] = drawing.mask[index, rows.start - y:rows.stop - y, columns.start - x:columns.stop - x]
    return image


class DrawnGripper:
    """A gripper ready to be drawn at many openings: vertices (N, 3) at opening 0; whole, hand and fingers:
    what can be drawn; between_z: height of the plane between hand and fingers."""

    def __init__(self, gripper: GripperModel) -> None:
        self.vertices, faces, part = gripper.posed(0.0)
        self._gripper, self._counts = gripper, [len(v) for v in gripper.vertices]
        vertex_part = np.repeat(np.arange(3), self._counts)
        self.whole, self.hand, self.fingers = Shape(faces), Shape(faces[part == HAND]), Shape(faces[part != HAND])
        z = self.vertices[:, 2]
        self.between_z = float(z[vertex_part == HAND].max() + z[vertex_part != HAND].min()) / 2

    def at(self, openings: np.ndarray) -> np.ndarray:
        """Vertices (B, N, 3) [m] in the tool frame at openings (B,) [m]."""
        shifts = [self._gripper.finger_shift(openings, part) for part in range(3)]
        return self.vertices + np.repeat(np.stack(shifts, axis=1), self._counts, axis=1)
