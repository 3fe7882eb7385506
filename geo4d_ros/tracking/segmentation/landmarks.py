"""Points of the gripper that a network can find in an image even where hand or object hides them."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from geo4d_ros.robots.gripper import HAND, LEFT_FINGER, RIGHT_FINGER, GripperModel

# One map each: tool point, back of the hand, its two sides, the two finger tips. The gripper looks the same after
# half a turn about its approach axis, so the two points of a pair share a map with a peak each.
CHANNELS = np.array([0, 1, 2, 2, 3, 3])
MAPS = 4
BLOCK_PX = 2  # image pixels per map cell and axis
MAX_REACH = 8  # cells
GRID_SPREAD = 0.25  # cells^2: variance per axis of an exactly known point halfway between two cells
TIP_BLUR = 0.7  # cells: how far a tracked tip may be off
TIP_DEPTH_M = 0.006  # vertices this near the farthest one make the tip


def landmark_points(gripper: GripperModel, openings: np.ndarray) -> np.ndarray:
    """Points (F, 6, 3) [m] in the tool frame at openings (F,) [m], one per entry of CHANNELS."""
    hand = gripper.vertices[HAND]
    low, high = hand.min(0), hand.max(0)
    middle = (low[2] + high[2]) / 2
    points = np.tile(np.array([[0, 0, 0], [0, 0, low[2]], [0, low[1], middle], [0, high[1], middle],
                               _tip(gripper, RIGHT_FINGER), _tip(gripper, LEFT_FINGER)]), (len(openings), 1, 1))
    half = np.asarray(openings, np.float64)[:, None] / 2
    points[:, 4:, 1] += half * [-1.0, 1.0]
    return points


def _tip(gripper: GripperModel, part: int) -> np.ndarray:
    vertices = gripper.vertices[part]
    tip = vertices[vertices[:, 2] > vertices[:, 2].max() - TIP_DEPTH_M]
    return (tip.min(0) + tip.max(0)) / 2


def project_landmarks(gripper: GripperModel, T_view_gripper: np.ndarray, openings: np.ndarray, K: np.ndarray
                      ) -> np.ndarray:
    """Pixels (F, 6, 2) of the landmarks at poses (F, 4, 4) in a view; NaN behind the camera."""
    points = landmark_points(gripper, openings) @ np.swapaxes(T_view_gripper[:, :3, :3], 1, 2)
    points += T_view_gripper[:, None, :3, 3]
    z = np.where(points[..., 2:] > 0.05, points[..., 2:], np.nan)
    return points[..., :2] / z * K[[0, 1], [0, 1]] + K[:2, 2]


class LandmarkMaps:
    """Where a network sees the landmarks of a chunk, looked up around where they are expected.

    maps (V, T+1, 4, h, w) float32: chances per block of 2x2 pixels, each map sums to at most 1.
    """

    def __init__(self, maps: np.ndarray) -> None:
        pad = [(0, 0)] * 3 + [(MAX_REACH, MAX_REACH)] * 2
        self._maps = np.pad(maps, pad)
        self._total = maps.sum((3, 4))
        self._size = maps.shape[3:]
        self._tips = gaussian_filter(maps[:, :, CHANNELS[-1]], (0, 0, TIP_BLUR, TIP_BLUR))

    def find(self, t: np.ndarray, uv: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Around expected pixels uv (F, V, 6, 2) of frames t (F,), in windows of `reach` blocks to each side: mean
        pixel (F, V, 6, 2), variance per axis (F, V, 6) [px^2] beyond what the grid makes, chance inside the window
        and in all the image (F, V, 6), both at most 1."""
        h, w = self._size
        centre = np.nan_to_num((uv + 0.5) / BLOCK_PX - 0.5, nan=-99.0)
        cell = np.clip(np.rint(centre).astype(np.intp), [-MAX_REACH, -MAX_REACH], [w + MAX_REACH, h + MAX_REACH])
        shape = uv.shape[:3]
        view, channel = np.arange(shape[1])[None, :, None, None, None], CHANNELS[None, None, :, None, None]
        offset = np.arange(-reach, reach + 1)
        x = cell[..., 0, None, None] + offset[None, :] + MAX_REACH
        y = cell[..., 1, None, None] + offset[:, None] + MAX_REACH
        inside = (x >= 0) & (y >= 0) & (x < w + 2 * MAX_REACH) & (y < h + 2 * MAX_REACH)
        x, y = np.clip(x, 0, w + 2 * MAX_REACH - 1), np.clip(y, 0, h + 2 * MAX_REACH - 1)
        p = self._maps[view, t[:, None, None, None, None], channel, y, x] * inside
        mass = p.sum((-2, -1))
        safe = np.maximum(mass, 1e-9)
        dx, dy = (p * offset).sum((-2, -1)) / safe, (p * offset[:, None]).sum((-2, -1)) / safe
        spread = (p * (offset[None, :]**2 + offset[:, None]**2)).sum((-2, -1)) / safe - dx**2 - dy**2
        mean = BLOCK_PX * (cell + np.stack([dx, dy], -1)) + (BLOCK_PX - 1) / 2
        share = 1 / np.bincount(CHANNELS)[CHANNELS]
        total = np.moveaxis(self._total[:, t], 0, 1)[..., CHANNELS]
        variance = BLOCK_PX**2 * np.maximum(spread / 2 - GRID_SPREAD, 0)
        return mean, variance, np.minimum(mass / share, 1), np.minimum(total / share, 1)

    def tip_chance(self, view: int, t: int, uv: np.ndarray) -> np.ndarray:
        """Chance per map cell that a finger tip is at pixels uv (..., 2), (...) float; 0 outside the image."""
        h, w = self._size
        cell = np.nan_to_num((uv + 0.5) / BLOCK_PX - 0.5, nan=-9.0)
        low = np.floor(cell).astype(np.intp)
        x, y = low[..., 0], low[..., 1]
        inside = (x >= 0) & (y >= 0) & (x < w - 1) & (y < h - 1)
        x, y, fraction = np.where(inside, x, 0), np.where(inside, y, 0), cell - low
        fx, fy, p = fraction[..., 0], fraction[..., 1], self._tips[view, t]
        top, bottom = p[y, x] * (1 - fx) + p[y, x + 1] * fx, p[y + 1, x] * (1 - fx) + p[y + 1, x + 1] * fx
        return np.where(inside, top * (1 - fy) + bottom * fy, 0.0)
