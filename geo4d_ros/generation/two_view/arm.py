"""Where the arm's joints will be, and what that says about every patch: the skeleton that the decoder paints around.

The network never sees the joint angles. A head tells the joints' positions from the scene and a gripper pose; each
straight piece between two joints, a bone, is then shown to the decoder as every pixel's ray sees it.
"""

from __future__ import annotations

import torch
from torch import nn

from geo4d_ros.generation.two_view.encoder import BANDS, Scene
from geo4d_ros.generation.two_view.layers import fourier, fourier_size

WIDTHS = (0.04, 0.1, 0.25)  # [m] of the bells around a bone: the arm is 6 to 12 cm thick
BONE_FEATURES = len(WIDTHS) + 6


class ArmHead(nn.Module):
    """Positions of the arm's joints, base first, at given gripper poses; by pointing at points of the scene."""

    def __init__(self, channels: int, dim: int, joints: int, pointers: int = 8, size: int = 32) -> None:
        super().__init__()
        self.joints, self.pointers, self.size = joints, pointers, size
        self.key = nn.Linear(channels + fourier_size(3, BANDS), size)
        self.ask = nn.Linear(dim + 12, size * pointers)
        self.out = nn.Sequential(nn.Linear(dim + 12 + 3 * pointers, dim), nn.GELU(),
                                 nn.Linear(dim, joints * (pointers + 7)))

    def forward(self, scene: Scene, queries: torch.Tensor, T_g0_g: torch.Tensor) -> torch.Tensor:
        """queries (B, K, D) and gripper poses (B, K, 4, 4) of the frames -> joints (B, K, J, 3) in g0 [m].

        Each joint is a mix of the points pointed at and of the gripper's position, plus an offset along the axes of
        g0 (what stands still) and one along the gripper's (what turns with the hand).
        """
        R, t = T_g0_g[..., :3, :3], T_g0_g[..., :3, 3]
        points = scene.points.flatten(1, 3)
        features = scene.features.permute(0, 1, 3, 4, 2).flatten(1, 3)
        state = torch.cat([queries, R.flatten(-2), t * 3], -1)
        keys = self.key(torch.cat([features, fourier(points, BANDS)], -1))
        asks = self.ask(state).unflatten(-1, (self.pointers, self.size))
        logits = torch.einsum('bkmd,bnd->bkmn', asks, keys) * self.size**-0.5
        weights = logits.masked_fill(~scene.valid.flatten(1)[:, None, None], -1e4).softmax(-1)
        pointed = torch.einsum('bkmn,bnd->bkmd', weights, points)
        out = self.out(torch.cat([state, pointed.flatten(-2)], -1)).unflatten(-1, (self.joints, -1))
        share, with_hand, fixed, turned = out.split([self.pointers, 1, 3, 3], -1)
        mixed = torch.einsum('bkjm,bkmd->bkjd', share, pointed) + with_hand * t[:, :, None]
        return mixed + 0.3 * fixed + 0.3 * torch.einsum('bkxy,bkjy->bkjx', R, turned)


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
