"""The resting scene without robot and object: seen by a view itself, by the other one, or guessed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from geo4d_ros.generation.two_view.splatting import at_pixels, front_points, pixel_directions
from geo4d_ros.geometry.transforms import invert

FINER = 3  # the other view's pixels are split so many times per axis before they are projected
SAME_SURFACE_M = 0.03  # neighbouring pixels farther apart than this belong to two surfaces
BEHIND_M = 0.02  # what is uncovered cannot be nearer than what hid it, but for this much
RIM_PX = 1  # next to the unknown: no pixel is copied from there
LEVEL_M = 0.02  # about the base's height: the table
MEAN_PX = 5.0  # over which the table's colour is averaged
FLAT_M = 0.25  # how far a guess may continue a level surface before it takes the neighbour's depth instead


@dataclass(frozen=True)
class Background:
    """Per view: rgb (V, H, W, 3) float32 0..255, depth (V, H, W) [m], 0 = unknown; own, other (V, H, W) bool: seen by
    the view itself, by another one; the rest is guessed.
    """

    rgb: np.ndarray
    depth: np.ndarray
    own: np.ndarray
    other: np.ndarray


def background_of(rgb: np.ndarray, depth: np.ndarray, resting: np.ndarray, lent: np.ndarray, K: np.ndarray,
                  T_base_view: np.ndarray, seen: np.ndarray) -> Background:
    """rgb (V, H, W, 3) u8, depth (V, H, W) [m], resting (V, H, W) bool: pixels of what does not move, lent: those of
    them that the other view may use; K (V, 3, 3), T_base_view (V, 4, 4) with the base's z axis up; seen (V,) bool:
    views whose place is known.
    """
    colour = np.where(resting[..., None], rgb, 0).astype(np.float32)
    z = np.where(resting, depth, 0).astype(np.float32)
    others = np.zeros_like(resting)
    views = np.flatnonzero(seen)
    for v in views:
        for w in views[views != v]:
            T = invert(T_base_view[v]) @ T_base_view[w]
            c, d = _seen_from(rgb[w], np.where(lent[w], depth[w], 0), K[w], T, K[v])
            hidden_by = np.where(depth[v] > 0, depth[v], 0)
            use = ~resting[v] & ~others[v] & (d > 0) & (d > hidden_by - BEHIND_M)
            colour[v][use], z[v][use] = c[use], d[use]
            others[v] |= use
    for v in range(len(rgb)):
        _guess(colour[v], z[v], ~(resting[v] | others[v]), depth[v], K[v], T_base_view[v])
    return Background(colour, z, resting, others)


def _seen_from(rgb: np.ndarray, depth: np.ndarray, K: np.ndarray, T_to_from: np.ndarray, K_to: np.ndarray,
               ) -> tuple[np.ndarray, np.ndarray]:
    """Colour (H, W, 3) and depth (H, W) [m] of one view's pixels in another camera's image; 0 where there is none."""
    points, colours = finer_points(rgb, depth, K, depth > 0)
    T = torch.from_numpy(T_to_from).float()
    moved = points @ T[:3, :3].T + T[:3, 3]
    index = front_points(moved[None], torch.ones(1, len(moved), dtype=torch.bool),
                            torch.from_numpy(K_to).float()[None], depth.shape)
    return (at_pixels(index, colours)[0].numpy(), at_pixels(index, moved[:, 2:])[0, ..., 0].numpy())


def finer_points(rgb: np.ndarray, depth: np.ndarray, K: np.ndarray, mask: np.ndarray, finer: int = FINER,
                 ) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (N, 3) [m] in the view's frame and colours (N, 3) of masked pixels, each split finer x finer.

    Depth and colour are interpolated within a surface, never over its edge: there a pixel keeps its own.
    """
    z = torch.from_numpy(np.where(mask, depth, 0)).float()[None, None]
    size = (z.shape[-2] * finer, z.shape[-1] * finer)
    fine = lambda a, mode: F.interpolate(a, size=size, mode=mode, **(  # noqa: E731
        {'align_corners': False} if mode == 'bilinear' else {}))
    near, smooth = fine(z, 'nearest'), fine(z, 'bilinear')
    low, high = -F.max_pool2d(-z, 3, 1, 1), F.max_pool2d(z, 3, 1, 1)
    inside = fine(((high - low) < SAME_SURFACE_M).float(), 'nearest') > 0
    image = torch.from_numpy(rgb).float().permute(2, 0, 1)[None]
    z, image = torch.where(inside, smooth, near)[0, 0], torch.where(
        inside, fine(image, 'bilinear'), fine(image, 'nearest'))[0]
    keep = near[0, 0] > 0
    row, column = keep.nonzero(as_tuple=True)
    z = z[keep]
    x = ((column + 0.5) / finer - 0.5 - K[0, 2]) / K[0, 0]
    y = ((row + 0.5) / finer - 0.5 - K[1, 2]) / K[1, 1]
    return torch.stack([x.float() * z, y.float() * z, z], -1), image[:, keep].T


def _guess(colour: np.ndarray, z: np.ndarray, unknown: np.ndarray, before: np.ndarray, K: np.ndarray,
           T_base_view: np.ndarray) -> None:
    """Fill in place: depth by carrying on the nearest known surface, level if that fits, colours from around.

    What belongs to the level surface takes the colour of that surface, weighted by nearness: its own texture is
    unknown, and a streak of the next pixel is a worse guess than a mean. Pixels on the rim of what hid it are mixtures.
    """
    known = ~unknown
    clean = known & ~ndimage.binary_dilation(unknown, iterations=RIM_PX)
    clean = clean if clean.any() else known
    if not unknown.any() or not known.any():
        return
    index = ndimage.distance_transform_edt(~clean, return_distances=False, return_indices=True)
    nearest = z[index[0], index[1]]
    down = pixel_directions(torch.from_numpy(K)[None], z.shape)[0].numpy() @ T_base_view[2, :3]
    heights = T_base_view[2, 3] + down * z
    height = heights[index[0], index[1]]
    level = (height - T_base_view[2, 3]) / np.minimum(down, -1e-3)
    fits = (np.abs(level - nearest) < FLAT_M) & (level > before - BEHIND_M)
    depth = np.where(fits, level, np.maximum(nearest, before))
    z[unknown] = np.where(nearest > 0, depth, 0)[unknown]  # next to what is too far to measure it is so, too
    guess = colour[index[0], index[1]]
    floor = clean & (z > 0) & (np.abs(heights) < LEVEL_M)
    if floor.any():
        mean, near = _near_mean(colour, floor)
        on_floor = fits & (np.abs(height) < LEVEL_M) & near
        guess = np.where(on_floor[..., None], mean, guess)
    colour[unknown] = guess[unknown]


def _near_mean(colour: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours (H, W, 3) averaged over known pixels by nearness, and where there are enough of them."""
    weight = known.astype(np.float32)
    blurred = lambda a: ndimage.gaussian_filter(a, MEAN_PX)  # noqa: E731
    total = blurred(weight)
    mean = np.stack([blurred(colour[..., c] * weight) for c in range(3)], -1) / np.maximum(total, 1e-6)[..., None]
    return mean, total > 1e-3


__all__ = ['Background', 'background_of', 'finer_points']
