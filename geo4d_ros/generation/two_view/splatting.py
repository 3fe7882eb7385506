"""Points seen from cameras: a z-buffer that keeps, per pixel, which point is in front."""

from __future__ import annotations

import torch
from torch.nn import functional as F

CENTRE_PX = 0.3  # a point this near to a pixel's centre is what the centre sees
MIN_DEPTH_M = 0.05
_DEPTH_STEPS = 20_000  # per metre
GAP_M, GAP_NEIGHBOURS = 0.015, 5  # so many of eight neighbours are nearer by that: a gap between points


def front_points(points: torch.Tensor, keep: torch.Tensor, K: torch.Tensor, size: tuple[int, int],
                 ) -> torch.Tensor:
    """Index (F, H, W) int64 of the point in front at every pixel, -1 for none.

    points (F, N, 3) [m] in F cameras' optical frames; keep (F, N) bool; K (F, 3, 3) [px]; size (H, W). A point off
    the centre only counts inside a shape: where most neighbours are covered.
    """
    (height, width), frames = size, len(points)
    frame, index = keep.nonzero(as_tuple=True)
    p = points[frame, index]
    z = p[:, 2]
    u = K[frame, 0, 0] * p[:, 0] / z.clamp(min=1e-3) + K[frame, 0, 2]
    v = K[frame, 1, 1] * p[:, 1] / z.clamp(min=1e-3) + K[frame, 1, 2]
    column, row = u.round().long(), v.round().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (z > MIN_DEPTH_M)
    centred = inside & (torch.maximum((u - column).abs(), (v - row).abs()) < CENTRE_PX)
    flat = (frame * height + row) * width + column
    count = points.shape[1]
    key = (z * _DEPTH_STEPS).long() * count + index

    def winners(chosen: torch.Tensor) -> torch.Tensor:
        buffer = torch.full((frames * height * width,), torch.iinfo(torch.int64).max, dtype=torch.int64)
        buffer.scatter_reduce_(0, flat[chosen], key[chosen], 'amin')
        empty = buffer == torch.iinfo(torch.int64).max
        return torch.where(empty, -1, buffer % count).view(frames, height, width)

    centre, any_ = winners(centred), winners(inside)
    neighbours = F.avg_pool2d((any_ >= 0).float()[:, None], 3, 1, 1)[:, 0] * 9
    return torch.where(centre >= 0, centre, torch.where(neighbours > 6.5, any_, -1))


def close_gaps(index: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """The index (F, H, W) of `front_points` with pixels between points of a surface given to a neighbour's point.

    depth (F, H, W) [m] of it, 0 = none. A gap shows nothing, or what lies behind, amid nearer neighbours.
    """
    z = torch.where(index >= 0, depth, torch.full_like(depth, 1e3))
    near, source = z.clone(), index.clone()
    count = torch.zeros_like(z)
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)):
        beside, its = torch.roll(z, (dy, dx), (1, 2)), torch.roll(index, (dy, dx), (1, 2))
        count += (beside < z - GAP_M).float()
        nearer = beside < near
        near, source = torch.where(nearer, beside, near), torch.where(nearer, its, source)
    return torch.where(count >= GAP_NEIGHBOURS, source, index)


def at_pixels(index: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Values (F, N, C) or (N, C) of the points in front, (F, H, W, C); zero where there is none."""
    safe = index.clamp(min=0)
    if values.dim() == 2:
        out = values[safe]
    else:
        out = torch.gather(values, 1, safe.flatten(1)[..., None].expand(-1, -1, values.shape[-1]))
        out = out.view(*index.shape, values.shape[-1])
    return out * (index >= 0)[..., None]


def pixel_directions(K: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Directions (F, H, W, 3) with z = 1 through the pixels' centres."""
    row, column = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing='ij')
    at = lambda i, j: K[:, i, j][:, None, None]  # noqa: E731
    x, y = (column - at(0, 2)) / at(0, 0), (row - at(1, 2)) / at(1, 1)
    return torch.stack([x, y, torch.ones_like(x)], -1)
