"""Pointmaps as images in [-1, 1]: one range for x, y and z, a validity mask beside them.

Invalid pixels (depth 0) hold the zero point, as in the release. There they are moved to another frame like any
other, which puts them into the camera's centre; the corrected convention keeps them at zero.
"""

from __future__ import annotations

import torch

RANGE_M = (-1.0, 2.0)
NEAR_M = 0.05  # a decoded point closer to the camera than this is the invalid sentinel, not a surface


def unproject(depth: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Points (..., H, W, 3) [m] in the camera's optical frame; depth (..., H, W) [m], K (..., 3, 3)."""
    height, width = depth.shape[-2:]
    u = torch.arange(width, device=depth.device, dtype=depth.dtype)
    v = torch.arange(height, device=depth.device, dtype=depth.dtype)
    fx, fy, cx, cy = (K[..., i, j, None, None].to(depth.dtype) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return torch.stack([(u - cx) / fx * depth, (v[:, None] - cy) / fy * depth, depth], dim=-1)


def transform(points: torch.Tensor, T_a_b: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """Points (..., H, W, 3) of b in a; T_a_b (..., 4, 4); invalid ones stay at zero, all move without `valid`."""
    R, t = T_a_b[..., :3, :3].to(points.dtype), T_a_b[..., :3, 3].to(points.dtype)
    moved = (points.flatten(-3, -2) @ R.transpose(-1, -2) + t[..., None, :]).view_as(points)
    return moved if valid is None else torch.where(valid[..., None], moved, torch.zeros_like(moved))


def normalise(points: torch.Tensor) -> torch.Tensor:
    """Image (..., 3, H, W), [-1, 2] m mapped to [-1, 1], of points (..., H, W, 3)."""
    low, high = RANGE_M
    return (2 * (points - low) / (high - low) - 1).movedim(-1, -3)


def denormalise(image: torch.Tensor) -> torch.Tensor:
    """Points (..., H, W, 3) [m], clamped to the range, of an image (..., 3, H, W)."""
    low, high = RANGE_M
    return ((image.movedim(-3, -1) + 1) * ((high - low) / 2) + low).clamp(low, high)


def validity(points: torch.Tensor, sentinel: torch.Tensor | None = None) -> torch.Tensor:
    """(..., H, W) bool: a decoded point (..., H, W, 3) in the reference frame is a surface, not the sentinel (3,).

    The sentinel stands for pixels without depth: the origin, or, for models that were trained on moved invalid
    points, the centre of the view's camera in the reference frame; then this is the test of the view's own depth,
    as it was before the move.
    """
    return (points if sentinel is None else points - sentinel).norm(dim=-1) > NEAR_M
