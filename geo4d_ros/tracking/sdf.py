"""Signed distance to the gripper on voxel grids, one per rigid part, cached in the user's cache folder."""

from __future__ import annotations

import logging
import os
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from geo4d_ros.robots.gripper import GripperModel, sample_surface
from geo4d_ros.tracking.rasteriser import DrawnGripper

logger = logging.getLogger(__name__)

SPACING_M = 0.004
MARGIN_M = 0.06
SURFACE_SAMPLES = 20_000
FORMAT = 1


@dataclass(frozen=True)
class SdfGrid:
    """distance (X, Y, Z) float32 [m], negative inside; gradient (X, Y, Z, 3); origin (3,) of voxel 0 [m]."""

    distance: np.ndarray
    gradient: np.ndarray
    origin: np.ndarray
    spacing: float = SPACING_M

    def query(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance (N,) and its gradient (N, 3) at points (N, 3); beyond the grid the border voxel's values."""
        index = (points - self.origin) / self.spacing
        limit = np.array(self.distance.shape) - 1.001
        index = np.clip(index, 0, limit)
        low = index.astype(np.intp)
        fraction = index - low
        # First-order expansion about the nearest voxel: as good as trilinear at 4 mm and much cheaper.
        nearest = low + (fraction > 0.5)
        i, j, k = nearest.T
        gradient = self.gradient[i, j, k]
        offset = (index - nearest) * self.spacing
        return self.distance[i, j, k] + np.einsum('ij,ij->i', gradient, offset), gradient


class GripperSdf:
    """Signed distance to the articulated gripper."""

    def __init__(self, gripper: GripperModel, grids: tuple[SdfGrid, ...]) -> None:
        self.gripper, self.grids = gripper, grids

    @cached_property
    def drawn(self) -> DrawnGripper:
        """The same gripper, ready to be drawn."""
        return DrawnGripper(self.gripper)

    def query(self, points: np.ndarray, opening: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance (N,) [m] and gradient (N, 3) at points (N, 3) of the tool frame, fingers at `opening` [m], one or
        one per point (N,)."""
        distances, gradients = [], []
        for part, grid in enumerate(self.grids):
            d, g = grid.query(points - self.gripper.finger_shift(opening, part))
            distances.append(d)
            gradients.append(g)
        distance = np.stack(distances)
        nearest = distance.argmin(axis=0)
        rows = np.arange(len(points))
        return distance[nearest, rows], np.stack(gradients)[nearest, rows]


def build_grid(vertices: np.ndarray, faces: np.ndarray, spacing: float = SPACING_M) -> SdfGrid:
    """The grid of one part; the sign comes from flooding the outside, so a closed mesh is not required."""
    low, high = vertices.min(0) - MARGIN_M, vertices.max(0) + MARGIN_M
    shape = np.ceil((high - low) / spacing).astype(int) + 1
    axes = [low[i] + spacing * np.arange(shape[i]) for i in range(3)]
    cells = np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1)
    points, normals = sample_surface(vertices, faces, SURFACE_SAMPLES)
    distance, index = cKDTree(points).query(cells.reshape(-1, 3))
    distance, index = distance.reshape(shape), index.reshape(shape)
    shell = distance < 0.9 * spacing
    labels, _ = ndimage.label(~shell)
    outside = labels == labels[0, 0, 0]
    behind = np.einsum('...i,...i->...', cells - points[index], normals[index]) < 0
    inside = np.where(shell, behind, ~outside)
    signed = np.where(inside, -distance, distance).astype(np.float32)
    smooth = ndimage.gaussian_filter(signed, 0.6)
    gradient = np.stack(np.gradient(smooth, spacing), axis=-1)
    gradient /= np.maximum(np.linalg.norm(gradient, axis=-1, keepdims=True), 1e-6)
    return SdfGrid(signed, gradient.astype(np.float32), low, spacing)


def cache_folder() -> Path:
    """Where built grids are kept: $XDG_CACHE_HOME/geo4d_ros/tracking or ~/.cache/geo4d_ros/tracking."""
    base = os.environ.get('XDG_CACHE_HOME') or str(Path.home() / '.cache')
    return Path(base) / 'geo4d_ros' / 'tracking'


def gripper_sdf(gripper: GripperModel, folder: Path | None = None) -> GripperSdf:
    """The gripper's grids, from the cache when they were built before; an unwritable cache only costs time."""
    path = (folder or cache_folder()) / f'sdf-{FORMAT}-{gripper.sha256[:24]}.npz'
    grids = _read(path)
    if grids is None:
        grids = tuple(build_grid(v, f) for v, f in zip(gripper.vertices, gripper.faces, strict=True))
        _write(path, grids)
    return GripperSdf(gripper, grids)


def _read(path: Path) -> tuple[SdfGrid, ...] | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as data:
            return tuple(SdfGrid(data[f'd{i}'], data[f'g{i}'].astype(np.float32), data[f'o{i}']) for i in range(3))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        logger.warning('cached grid %s is damaged (%s); building it again', path, error)
        return None


def _write(path: Path, grids: tuple[SdfGrid, ...]) -> None:
    arrays = {}
    for i, grid in enumerate(grids):
        arrays |= {f'd{i}': grid.distance, f'g{i}': grid.gradient.astype(np.float16), f'o{i}': grid.origin}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix='.npz', delete=False) as file:
            np.savez_compressed(file, **arrays)
        os.replace(file.name, path)
    except OSError as error:
        logger.warning('cannot cache the gripper grid in %s (%s)', path.parent, error)
