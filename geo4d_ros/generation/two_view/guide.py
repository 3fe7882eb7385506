"""What geometry alone says about a future frame: hints for the decoder, which paints the rest.

The hand guide: frame-0 hand pixels of all views moved by the predicted gripper motion (where the gripper goes comes
from the state stream; how it looks there follows from rigid motion and projection). The background plate: what
the other views see of the resting scene, projected into this one, for what the arm uncovers. The rays: where
every pixel looks, to be expressed in the future gripper's frame.
"""

from __future__ import annotations

import torch

FINGER = 3  # class ids of the network's own segmentation: see SEGMENT_CLASSES in network.py
HAND = 2
REST = 0


def move_hand(points: torch.Tensor, segments: torch.Tensor, T_g0_g: torch.Tensor,
              opening0: torch.Tensor, opening: torch.Tensor) -> torch.Tensor:
    """Hand points after the motion, still in the first gripper frame.

    points (B, N, 3) in g0 [m]; segments (B, N) class ids; T_g0_g (B, K, 4, 4); opening0 (B,),
    opening (B, K) [m]. Finger points slide along y by half the change of opening. -> (B, K, N, 3).
    """
    slide = 0.5 * (opening - opening0[:, None])[:, :, None] * torch.sign(points[:, None, :, 1])
    slide = slide * (segments == FINGER)[:, None]
    moved = points[:, None] + torch.stack([torch.zeros_like(slide), slide, torch.zeros_like(slide)], -1)
    return moved @ T_g0_g[..., :3, :3].transpose(-1, -2) + T_g0_g[..., None, :3, 3]


def splat(points: torch.Tensor, rgb: torch.Tensor, keep: torch.Tensor, K: torch.Tensor,
          height: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Z-buffered projection, each point onto the four pixels around it.

    points (N, P, 3) in the camera's optical frame [m]; rgb (N, P, 3); keep (N, P) bool; K (N, 3, 3).
    -> rgb (N, 3, H, W), z (N, 1, H, W) [m], mask (N, 1, H, W) float; zero where no point lands.
    """
    n = points.shape[0]
    batch, index = keep.nonzero(as_tuple=True)
    p, colour = points[batch, index], rgb[batch, index]
    z = p[:, 2].clamp(min=1e-3)
    u = K[batch, 0, 0] * p[:, 0] / z + K[batch, 0, 2]
    v = K[batch, 1, 1] * p[:, 1] / z + K[batch, 1, 2]
    corners = [(du, dv) for du in (0, 1) for dv in (0, 1)]
    column = torch.cat([u.floor() + du for du, _ in corners]).long()
    row = torch.cat([v.floor() + dv for _, dv in corners]).long()
    z, colour, batch = z.repeat(4), colour.repeat(4, 1), batch.repeat(4)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (z > 0.05)
    flat = ((batch * height + row) * width + column)[inside]
    z, colour = z[inside], colour[inside]
    buffer = torch.full((n * height * width,), torch.inf, dtype=z.dtype, device=z.device)
    buffer.scatter_reduce_(0, flat, z, 'amin')
    front = z <= buffer[flat] + 1e-3
    image = torch.zeros((n * height * width, 3), dtype=rgb.dtype, device=rgb.device)
    image[flat[front]] = colour[front]
    mask = buffer.isfinite()
    depth = torch.where(mask, buffer, torch.zeros_like(buffer))
    shape = (n, 1, height, width)
    return image.view(n, height, width, 3).permute(0, 3, 1, 2), depth.view(shape), mask.view(shape).to(rgb.dtype)


def hand_guide(points: torch.Tensor, rgb: torch.Tensor, segments: torch.Tensor, T_view_g0: torch.Tensor,
               K: torch.Tensor, T_g0_g: torch.Tensor, opening0: torch.Tensor, opening: torch.Tensor) -> torch.Tensor:
    """Guide maps (B, K, V, 5, H, W): colour 3, depth [m], mask of the moved hand in every view.

    points (B, V, H, W, 3) in g0; rgb (B, V, 3, H, W); segments (B, V, H, W) class ids; T_view_g0
    (B, V, 4, 4); K (B, V, 3, 3); T_g0_g (B, K, 4, 4); opening0 (B,), opening (B, K) [m].
    """
    b, v, h, w, _ = points.shape
    k = T_g0_g.shape[1]
    flat_points, flat_segments = points.flatten(1, 3), segments.flatten(1)
    keep = (flat_segments == HAND) | (flat_segments == FINGER)
    if not keep.any():
        return points.new_zeros((b, k, v, 5, h, w))
    order = keep.to(torch.uint8).argsort(dim=1, descending=True)[:, : int(keep.sum(1).max())]  # pack hand pixels
    pick = lambda a: torch.gather(a, 1, order.reshape(*order.shape, *[1] * (a.dim() - 2)).expand(-1, -1, *a.shape[2:]))  # noqa: E731
    flat_points, flat_segments, keep = pick(flat_points), pick(flat_segments), pick(keep)
    colours = pick(rgb.permute(0, 1, 3, 4, 2).flatten(1, 3))
    moved = move_hand(flat_points, flat_segments, T_g0_g, opening0, opening)[:, :, None]
    T = T_view_g0[:, None]
    in_view = moved @ T[..., :3, :3].transpose(-1, -2) + T[..., None, :3, 3]
    many = lambda a: a[:, None, None].expand(b, k, v, *a.shape[1:]).flatten(0, 2)  # noqa: E731
    image, depth, mask = splat(in_view.flatten(0, 2), many(colours), many(keep),
                               K[:, None].expand(b, k, v, 3, 3).flatten(0, 2), h, w)
    return torch.cat([image, depth, mask], dim=1).view(b, k, v, 5, h, w)


def background_plate(points: torch.Tensor, rgb: torch.Tensor, rest: torch.Tensor, T_view_g0: torch.Tensor,
                     K: torch.Tensor) -> torch.Tensor:
    """Resting pixels of the other views seen from each view: maps (B, V, 5, H, W): colour 3, depth [m], mask.

    points (B, V, H, W, 3) in g0; rgb (B, V, 3, H, W); rest (B, V, H, W) bool: valid pixels of what does not move;
    T_view_g0 (B, V, 4, 4); K (B, V, 3, 3).
    """
    b, v, h, w, _ = points.shape
    flat, colours = points.flatten(1, 3)[:, None], rgb.permute(0, 1, 3, 4, 2).flatten(1, 3)[:, None]
    in_view = flat @ T_view_g0[..., :3, :3].transpose(-1, -2) + T_view_g0[..., None, :3, 3]
    other = ~torch.eye(v, dtype=torch.bool, device=points.device).repeat_interleave(h * w, 1)
    keep = rest.flatten(1)[:, None] & other[None]
    image, depth, mask = splat(in_view.flatten(0, 1), colours.expand(b, v, -1, 3).flatten(0, 1), keep.flatten(0, 1),
                               K.flatten(0, 1), h, w)
    return torch.cat([image, depth, mask], dim=1).view(b, v, 5, h, w)


def pixel_rays(T_g0_view: torch.Tensor, K: torch.Tensor, height: int, width: int, step: int) -> torch.Tensor:
    """Unit directions (B, V, H/step, W/step, 3) in g0 of the rays through every step-th pixel.

    T_g0_view (B, V, 4, 4); K (B, V, 3, 3) of the full (H, W) images.
    """
    row = torch.arange(step // 2, height, step, dtype=K.dtype, device=K.device)
    column = torch.arange(step // 2, width, step, dtype=K.dtype, device=K.device)
    y, x = torch.meshgrid(row, column, indexing='ij')
    at = lambda i, j: K[..., i, j][..., None, None]  # noqa: E731
    direction = torch.stack([(x - at(0, 2)) / at(0, 0), (y - at(1, 2)) / at(1, 1), torch.ones_like(x).expand(
        *K.shape[:2], *x.shape)], -1)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    return torch.einsum('bvij,bvhwj->bvhwi', T_g0_view[..., :3, :3], direction)
