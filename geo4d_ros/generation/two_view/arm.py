"""Where the arm's joints will be, and what that says about every pixel: the skeleton that the decoder paints around.

The joints' positions are measured at the observation. A head tells where they go when the gripper goes somewhere;
frame-0 arm pixels are moved with the straight piece between two joints, a bone, that they belong to, and every bone
is shown to the decoder as every pixel's ray sees it.
"""

from __future__ import annotations

import torch
from torch import nn

WIDTHS = (0.04, 0.1, 0.25)  # [m] of the bells around a bone: the arm is 6 to 12 cm thick
BONE_FEATURES = len(WIDTHS) + 6
NEIGHBOUR = 0.05  # weight of the next joints in a bone's motion: they tell how it turns about itself


class ArmHead(nn.Module):
    """Positions of the arm's joints, base first, at given gripper poses: a learned inverse kinematics."""

    def __init__(self, dim: int, joints: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(6 * joints + 12, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU(),
                                 nn.Linear(dim, 7 * joints))
        self.with_hand = nn.Parameter(torch.linspace(-3, 3, joints))

    def forward(self, T_g0_g: torch.Tensor, arm0: torch.Tensor) -> torch.Tensor:
        """Gripper poses (B, K, 4, 4) and joints now, arm0 (B, J, 3) -> joints (B, K, J, 3), all in g0 [m].

        Each joint is between where it was and where the hand would take it, plus an offset along the axes of
        g0 (what stands still) and one along the gripper's (what turns with the hand).
        """
        R, t = T_g0_g[..., :3, :3], T_g0_g[..., :3, 3]
        stays = arm0[:, None].expand(-1, T_g0_g.shape[1], -1, -1)
        taken = stays @ R.transpose(-1, -2) + t[:, :, None]
        state = torch.cat([stays.flatten(-2), taken.flatten(-2), R.flatten(-2), t], -1)
        share, fixed, turned = self.out(state).unflatten(-1, (-1, 7)).split([1, 3, 3], -1)
        share = (share + self.with_hand[:, None]).sigmoid()
        return torch.lerp(stays, taken, share) + 0.1 * fixed + 0.1 * turned @ R.transpose(-1, -2)


def bone_motions(arm0: torch.Tensor, arm: torch.Tensor, T_g0_g: torch.Tensor) -> torch.Tensor:
    """Rigid motions (B, K, J - 1, 4, 4) of the bones in g0, from joints arm0 (B, J, 3) to arm (B, K, J, 3) [m].

    The best fit to a bone's own ends and, lightly, to the next joints (Kabsch); the last bone is the hand's.
    """
    joints = arm0.shape[1]
    distance = (torch.arange(joints)[None] - torch.arange(joints - 1)[:, None] - 0.5).abs()
    weight = (distance < 1).to(arm) + NEIGHBOUR * ((distance > 1) & (distance < 2)).to(arm)
    weight = weight / weight.sum(1, keepdim=True)
    middle0, middle = weight @ arm0[:, None], weight @ arm
    from0, to = arm0[:, None, None] - middle0[..., None, :], arm[:, :, None] - middle[..., None, :]
    H = torch.einsum('nj,bknjx,bknjy->bknxy', weight, from0.expand_as(to), to)
    U, _, Vt = torch.linalg.svd(H)
    V = Vt.transpose(-1, -2)
    sign = torch.linalg.det(V @ U.transpose(-1, -2))
    flip = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)
    T = torch.eye(4).to(arm).repeat(*H.shape[:3], 1, 1)
    T[..., :3, :3] = (V * flip[..., None, :]) @ U.transpose(-1, -2)
    T[..., :3, 3] = middle - (T[..., :3, :3] @ middle0[..., None])[..., 0]
    T[:, :, -1] = T_g0_g
    return T


def nearest_bone(points: torch.Tensor, joints: torch.Tensor) -> torch.Tensor:
    """Index (B, N) of the bone between joints (B, J, 3) that each point (B, N, 3) is nearest to."""
    start, bone = joints[:, None, :-1], (joints[:, 1:] - joints[:, :-1])[:, None]
    to_point = points[:, :, None] - start
    along = (to_point * bone).sum(-1, keepdim=True) / bone.square().sum(-1, keepdim=True).clamp(min=1e-6)
    return (to_point - along.clamp(0, 1) * bone).square().sum(-1).argmin(-1)


def bones_seen(joints: torch.Tensor, rays: torch.Tensor, origins: torch.Tensor, R_g0_view: torch.Tensor,
               ) -> torch.Tensor:
    """What every ray sees of every bone: (B, K, V, h, w, (J - 1) BONE_FEATURES).

    joints (B, K, J, 3), unit rays (B, V, h, w, 3), camera centres (B, V, 3), all in g0 [m]; R_g0_view (B, V, 3, 3).
    Per bone: bells of the ray's distance to it; the signed distance to its line with the line's normal in the image,
    which place its edges within a patch; how far along the bone and how far away the nearest place is.
    """
    start, end = joints[:, :, None, None, None, :-1], joints[:, :, None, None, None, 1:]
    ray, eye = rays[:, None, ..., None, :], origins[:, None, :, None, None, None]
    bone, to_start = end - start, start - eye
    length = bone.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    axis = bone / length
    # Nearest points of the ray eye + s ray and of the bone start + u axis, u kept on the bone.
    along = (ray * axis).sum(-1, keepdim=True)
    a, b = (to_start * ray).sum(-1, keepdim=True), (to_start * axis).sum(-1, keepdim=True)
    u = ((along * a - b) / (1 - along.square()).clamp(min=1e-3)).clamp(min=0).minimum(length)
    s = a + along * u
    distance = (to_start + u * axis - s * ray).norm(dim=-1, keepdim=True)
    normal = torch.linalg.cross(ray.expand_as(axis + ray), (axis + 0 * ray))
    normal = normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    side = (to_start * normal).sum(-1, keepdim=True)
    in_image = torch.einsum('bkvhwnd,bvdi->bkvhwni', normal, R_g0_view[..., :2])
    bells = torch.cat([(-(distance / width).square()).exp() for width in WIDTHS], -1)
    near = bells[..., -1:]  # nothing is said where the bone is far
    told = torch.cat([(side * 5).clamp(-2, 2), in_image, u / length, s], -1) * near
    return torch.cat([bells, told, near * (distance * 5)], -1).flatten(-2)
