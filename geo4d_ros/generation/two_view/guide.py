"""What geometry alone says about a future frame: hints for the decoder, which paints the rest.

The body guide: frame-0 pixels of hand and arm of all views moved by the predicted motion of the gripper and of the
arm's joints (where they go comes from the state stream and the arm head; how they look there follows from rigid
motion and projection). The background plate: what the other views see of the resting scene, projected into this one,
for what the arm uncovers. The rays: where every pixel looks, to be expressed in the future gripper's frame.
"""

from __future__ import annotations

import torch

from geo4d_ros.generation.two_view.arm import bone_motions, nearest_bone

FINGER = 3  # class ids of the network's own segmentation: see SEGMENT_CLASSES in network.py
HAND = 2
ARM = 1
REST = 0
OWN_FIRST_M = 0.03  # how much nearer another view's point must be to hide a view's own: registration is not exact
GUIDE_CHANNELS = 7  # colour 3, depth, hand, arm, left: see `body_guide`


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


def splat(points: torch.Tensor, rgb: torch.Tensor, keep: torch.Tensor, K: torch.Tensor, height: int, width: int,
          behind: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Z-buffered projection, each point onto the four pixels around it.

    points (N, P, 3) in the camera's optical frame [m]; rgb (N, P, C); keep (N, P) bool; K (N, 3, 3);
    behind (N, P) [m]: how much farther a point counts in the buffer than it is.
    -> rgb (N, C, H, W), z (N, 1, H, W) [m], mask (N, 1, H, W) float; zero where no point lands.
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
    rank = (z if behind is None else z + behind[batch, index]).repeat(4)
    z, colour, batch = z.repeat(4), colour.repeat(4, 1), batch.repeat(4)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (z > 0.05)
    flat = ((batch * height + row) * width + column)[inside]
    rank, z, colour = rank[inside], z[inside], colour[inside]
    buffer = torch.full((n * height * width,), torch.inf, dtype=z.dtype, device=z.device)
    buffer.scatter_reduce_(0, flat, rank, 'amin')
    front = (rank <= buffer[flat] + 1e-3).nonzero()[:, 0]
    # One winner per pixel, the same with any number of threads: writing several in turn would be a race.
    winner = torch.full((n * height * width,), -1, dtype=front.dtype, device=front.device)
    winner.scatter_reduce_(0, flat[front], front, 'amax')
    mask = winner >= 0
    image = torch.zeros((n * height * width, rgb.shape[-1]), dtype=rgb.dtype, device=rgb.device)
    image[mask] = colour[winner[mask]]
    depth = torch.zeros_like(buffer)
    depth[mask] = z[winner[mask]]
    shape = (n, 1, height, width)
    return image.view(n, height, width, -1).permute(0, 3, 1, 2), depth.view(shape), mask.view(shape).to(rgb.dtype)


def packed(keep: torch.Tensor, *arrays: torch.Tensor) -> list[torch.Tensor]:
    """`keep` (B, N) and arrays (B, N, ...) cut to (B, P, ...): what is kept comes first, P is the largest count."""
    order = keep.to(torch.uint8).argsort(dim=1, descending=True)[:, : int(keep.sum(1).max())]
    return [torch.gather(a, 1, order.reshape(*order.shape, *[1] * (a.dim() - 2)).expand(-1, -1, *a.shape[2:]))
            for a in (keep, *arrays)]


def body_guide(points: torch.Tensor, rgb: torch.Tensor, segments: torch.Tensor, T_view_g0: torch.Tensor,
               K: torch.Tensor, T_g0_g: torch.Tensor, opening0: torch.Tensor, opening: torch.Tensor,
               arm0: torch.Tensor | None = None, arm: torch.Tensor | None = None) -> torch.Tensor:
    """Guide maps (B, K, V, 7, H, W) of the moved hand and arm in every view: colour 3, depth [m], where the hand is,
    where the arm is, and what either has left.

    points (B, V, H, W, 3) in g0; rgb (B, V, 3, H, W); segments (B, V, H, W) class ids; T_view_g0
    (B, V, 4, 4); K (B, V, 3, 3); T_g0_g (B, K, 4, 4); opening0 (B,), opening (B, K) [m]; the arm's joints now,
    arm0 (B, J, 3), and in those frames, arm (B, K, J, 3), in g0 [m]; None: only the hand moves.
    """
    b, v, h, w, _ = points.shape
    k, body = T_g0_g.shape[1], segments >= (HAND if arm is None else ARM)
    body &= segments <= FINGER
    if not body.any():
        return points.new_zeros((b, k, v, GUIDE_CHANNELS, h, w))
    source = torch.arange(v, device=points.device)[None, :, None, None].expand_as(segments)
    keep, flat, classes, colours, source = packed(body.flatten(1), points.flatten(1, 3), segments.flatten(1),
                                                  rgb.permute(0, 1, 3, 4, 2).flatten(1, 3), source.flatten(1))
    is_arm = classes == ARM
    colours = torch.cat([colours, ~is_arm[..., None], is_arm[..., None]], -1)
    moved = move_hand(flat, classes, T_g0_g, opening0, opening)
    if arm is not None and arm0 is not None:
        moved = torch.where(is_arm[:, None, :, None], move_arm(flat, arm0, arm, T_g0_g), moved)
    T = T_view_g0[:, None]
    in_view = moved[:, :, None] @ T[..., :3, :3].transpose(-1, -2) + T[..., None, :3, 3]
    many = lambda a: a[:, None, None].expand(b, k, v, *a.shape[1:]).flatten(0, 2)  # noqa: E731
    other = source[:, None, None] != torch.arange(v, device=points.device)[:, None]
    behind = OWN_FIRST_M * other.to(flat.dtype).expand(b, k, v, -1).flatten(0, 2)
    image, depth, mask = splat(in_view.flatten(0, 2), many(colours), many(keep),
                               K[:, None].expand(b, k, v, 3, 3).flatten(0, 2), h, w, behind)
    left = body[:, None, :, None].expand(b, k, v, 1, h, w).flatten(0, 2) * (1 - mask)
    return torch.cat([image[:, :3], depth, image[:, 3:], left], dim=1).view(b, k, v, GUIDE_CHANNELS, h, w)


def move_arm(points: torch.Tensor, arm0: torch.Tensor, arm: torch.Tensor, T_g0_g: torch.Tensor) -> torch.Tensor:
    """Arm points (B, N, 3) each moved with the bone it is nearest to: (B, K, N, 3), all in g0 [m]."""
    motions = bone_motions(arm0, arm, T_g0_g)
    bone = nearest_bone(points, arm0)
    T = torch.gather(motions, 2, bone[:, None, :, None, None].expand(-1, motions.shape[1], -1, 4, 4))
    return (T[..., :3, :3] @ points[:, None, :, :, None])[..., 0] + T[..., :3, 3]


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
