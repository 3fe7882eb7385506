"""Coarse alignment of two views of one table top, seen from above: yaw and shift by Fourier correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from geo4d_ros.geometry.pointmaps import Plane
from geo4d_ros.geometry.transforms import invert, make_transform, transform_points

_HEIGHTS = (0.012, 0.06, 0.15, 0.6)  # edges of the three occupancy bands [m]
# Channels: three height bands, surface (seen at height 0), void (seen through at height 0), colour (3).
_LOW, _MIDDLE, _HIGH, _SURFACE, _VOID = range(5)
_CHANNELS = 8


@dataclass(frozen=True)
class Grid:
    """Square map: cell size [m], cells per side, side of the zero-padded correlation."""

    cell: float
    cells: int
    padded: int


COARSE = Grid(0.035, 48, 64)  # 1.7 m wide; shifts up to 0.56 m do not wrap around
FINE = Grid(0.014, 112, 128)  # 1.6 m wide; for shifts of a few cells
_COARSE_YAWS = np.deg2rad(np.arange(0, 360, 6.0))
_FINE_YAWS = np.deg2rad(np.arange(-5, 5.1, 1.25))
_FINE_SHIFT = 6  # cells


@dataclass(frozen=True)
class BirdView:
    """One view laid on its plane: T_plane_camera (4, 4), z up from the plane, origin where the camera looks.

    xy (N, 2) [m] of what is seen, channel (N,) which height band or the surface it belongs to, tint (N, 3) its
    colour's difference from the plane's; holes (M, 2) [m]: where the plane is seen through.
    """

    T_plane_camera: np.ndarray
    xy: np.ndarray
    channel: np.ndarray
    tint: np.ndarray
    holes: np.ndarray

    def maps(self, grid: Grid, yaw: float = 0.0, centre: np.ndarray | None = None) -> np.ndarray:
        """(8, cells, cells) float32 of the view turned by yaw [rad] about its origin, then moved by -centre (2,)
        [m]: presence 0 or 1, mean colour difference from the plane's."""
        c, s = np.cos(yaw), np.sin(yaw)
        R = np.array([[c, s], [-s, c]], np.float32)
        offset = np.zeros(2, np.float32) if centre is None else centre.astype(np.float32)
        size = grid.cells * grid.cells
        out = np.zeros((_CHANNELS, size), np.float32)
        index, inside = _cells(self.xy @ R - offset, grid)
        out[self.channel[inside], index] = 1
        out[_VOID, _cells(self.holes @ R - offset, grid)[0]] = 1
        out[_SURFACE] *= out[_LOW] == 0  # a cell with something low on it is not free
        count = np.maximum(np.bincount(index, minlength=size), 1)
        for k, weights in enumerate(self.tint[inside].T):
            out[_VOID + 1 + k] = np.bincount(index, weights, size) / count
        return out.reshape(_CHANNELS, grid.cells, grid.cells)


def _cells(xy: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Flat index of the cells of the positions that fall inside, and which do."""
    ij = np.floor(xy / grid.cell).astype(np.int64) + grid.cells // 2
    inside = np.all((ij >= 0) & (ij < grid.cells), axis=1)
    return ij[inside, 0] * grid.cells + ij[inside, 1], inside


def plane_frame(plane: Plane) -> np.ndarray:
    """T_plane_camera (4, 4): z is the plane's normal, x and the origin follow the optical axis's footprint."""
    z = plane.normal
    reach = min(plane.offset / max(-z[2], 0.2), 1.5)  # along the optical axis to the plane
    foot = np.array([0, 0, reach])
    origin = foot - (z @ foot + plane.offset) * z
    x = np.array([0, 0, 1.0]) - z[2] * z
    x /= max(np.linalg.norm(x), 1e-9)
    return invert(make_transform(np.column_stack([x, np.cross(z, x), z]), origin))


def bird_view(points: np.ndarray, colours: np.ndarray, plane: Plane) -> BirdView:
    """The view from above of points (N, 3) [m] in the camera frame with colours (N, 3) in 0..1."""
    T = plane_frame(plane)
    p = transform_points(T, points).astype(np.float32)
    band = np.digitize(p[:, 2], _HEIGHTS) - 1
    channel = np.where(np.abs(p[:, 2]) < _HEIGHTS[0], _SURFACE, band)
    seen = (channel == _SURFACE) | ((band >= 0) & (band <= _HIGH))
    # Where the line of sight to something below the plane meets the plane there is nothing.
    below = p[:, 2] < -0.05
    eye = T[:3, 3].astype(np.float32)
    share = eye[2] / (eye[2] - p[below, 2])
    holes = eye[:2] + share[:, None] * (p[below, :2] - eye[:2])
    surface = channel == _SURFACE
    base = np.median(colours[surface], 0) if surface.any() else np.full(3, 0.5)
    return BirdView(T, p[seen, :2], channel[seen], (colours[seen] - base).astype(np.float32), holes)


def _agreement() -> np.ndarray:
    """Weight (8, 8) of each pair of channels meeting in one cell."""
    M = np.zeros((_CHANNELS, _CHANNELS))
    M[_LOW, _LOW], M[_MIDDLE, _MIDDLE], M[_HIGH, _HIGH] = 2.0, 2.0, 1.0
    M[_SURFACE, _SURFACE], M[_VOID, _VOID] = 0.15, 0.3
    M[_SURFACE, _LOW] = M[_LOW, _SURFACE] = -1.0
    M[_VOID, _LOW] = M[_LOW, _VOID] = -1.0
    M[_SURFACE, _VOID] = M[_VOID, _SURFACE] = -1.0
    M[range(5, 8), range(5, 8)] = 8.0
    return M


def _turned(maps: np.ndarray, yaws: np.ndarray) -> np.ndarray:
    """Maps (len(yaws), 8, cells, cells) turned by each yaw [rad] about the centre, nearest cell."""
    cells = maps.shape[-1]
    centre = (np.arange(cells) - cells // 2 + 0.5).astype(np.float32)
    x, y = np.meshgrid(centre, centre, indexing='ij')
    c, s = np.cos(yaws)[:, None, None], np.sin(yaws)[:, None, None]
    i = np.floor(c * x + s * y).astype(np.int64) + cells // 2
    j = np.floor(c * y - s * x).astype(np.int64) + cells // 2
    inside = (i >= 0) & (i < cells) & (j >= 0) & (j < cells)
    return (maps[:, np.where(inside, i, 0), np.where(inside, j, 0)] * inside).swapaxes(0, 1)


def _correlate(reference: np.ndarray, turned: np.ndarray, grid: Grid) -> np.ndarray:
    """Agreement (yaws, padded, padded) of the maps at every cyclic shift of `turned`."""
    anchor = np.einsum('kl,kij->lij', _agreement(), reference).astype(np.float32)
    size = (grid.padded, grid.padded)
    spectrum = scipy.fft.rfft2(anchor, size)
    return scipy.fft.irfft2((spectrum * scipy.fft.rfft2(turned, size).conj()).sum(1), size)


@dataclass(frozen=True)
class PlanarPose:
    """yaw [rad] and shift (2,) [m] that bring the second map onto the reference, and how well they agree."""

    yaw: float
    shift: np.ndarray
    score: float

    def lift(self, reference: BirdView, second: BirdView) -> np.ndarray:
        """T_ref_second (4, 4) of the cameras."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        T = make_transform(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), np.array([*self.shift, 0]))
        return invert(reference.T_plane_camera) @ T @ second.T_plane_camera


def search(reference: BirdView, second: BirdView, keep: int = 4) -> list[PlanarPose]:
    """The `keep` best of all yaws and shifts, best first, apart from each other."""
    turned = _turned(second.maps(COARSE), _COARSE_YAWS)
    score = _correlate(reference.maps(COARSE), turned, COARSE)
    found = []
    for _ in range(keep):
        k, i, j = np.unravel_index(score.argmax(), score.shape)
        shift = (np.array([i, j]) + COARSE.padded // 2) % COARSE.padded - COARSE.padded // 2
        found.append(PlanarPose(float(_COARSE_YAWS[k]), shift * COARSE.cell, float(score[k, i, j])))
        yaws = (np.arange(-2, 3) + k) % len(_COARSE_YAWS)
        rows, columns = ((np.arange(-2, 3) + n) % COARSE.padded for n in (i, j))
        score[np.ix_(yaws, rows, columns)] = -np.inf
    return found


def polish(reference: BirdView, second: BirdView, pose: PlanarPose) -> PlanarPose:
    """The best pose within 5 deg and 8 cm of the given one, on the fine grid, interpolated between cells."""
    fixed = reference.maps(FINE)
    turned = np.stack([second.maps(FINE, pose.yaw + d, -pose.shift) for d in _FINE_YAWS])
    score = np.roll(_correlate(fixed, turned, FINE), (_FINE_SHIFT, _FINE_SHIFT), (1, 2))
    score = score[:, : 2 * _FINE_SHIFT + 1, : 2 * _FINE_SHIFT + 1]
    peak = np.unravel_index(score.argmax(), score.shape)
    k, i, j = (_vertex(np.moveaxis(score, axis, 0)[(slice(None), *np.delete(peak, axis))], int(peak[axis]))
               for axis in range(3))
    yaw = pose.yaw + float(np.interp(k, np.arange(len(_FINE_YAWS)), _FINE_YAWS))
    shift = pose.shift + (np.array([i, j]) - _FINE_SHIFT) * FINE.cell
    return PlanarPose(yaw, shift, float(score[peak]))


def _vertex(values: np.ndarray, peak: int) -> float:
    """Position of the parabola's vertex through a peak and its neighbours."""
    if not 0 < peak < len(values) - 1:
        return float(peak)
    left, middle, right = values[peak - 1: peak + 2]
    curvature = left - 2 * middle + right
    return float(peak) if curvature >= 0 else peak + 0.5 * float((left - right) / curvature)
