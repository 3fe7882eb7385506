"""Paints one future frame of every view: which pixels move, their colour and their depth."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from geo4d_ros.generation.two_view.arm import BONE_FEATURES
from geo4d_ros.generation.two_view.encoder import PATCH, Scene
from geo4d_ros.generation.two_view.layers import Block, ResBlock, fourier, fourier_size

# Per pixel: static (copy frame 0), hand (the gripper mask), changed otherwise (arm, object, uncovered).
MOTION_CLASSES = 3
DEPTH_SCALE = 0.3  # [m] per unit of the depth residual: about the spread of depth at moving pixels
MEAN_DEPTH = 0.9  # [m] where painting starts from nothing: the middle of the working range
HAND_BANDS = 4


class Decoder(nn.Module):
    """Time-conditioned decoder; both views of a frame attend to each other and to the encoded scene."""

    def __init__(self, channels: int, dim: int, layers: int, heads: int, bones: int = 0) -> None:
        super().__init__()
        self.hint = nn.Conv2d(PATCH**2 * 5, channels, 1)
        self.plate = nn.Conv2d(PATCH**2 * 5, channels, 1)
        self.in_hand = nn.Linear(2 * fourier_size(3, HAND_BANDS) + 6, channels)
        self.bones = nn.Sequential(nn.Linear(bones * BONE_FEATURES, channels), nn.GELU(),
                                   nn.Linear(channels, channels)) if bones else None
        self.arm = nn.Conv2d(PATCH**2 * 6, channels, 1) if bones else None
        self.when = nn.Sequential(nn.Linear(dim + fourier_size(3, 4) + 10, dim), nn.GELU(), nn.Linear(dim, dim))
        self.enter = ResBlock(channels, dim)
        self.down = nn.Conv2d(channels, dim, 2, stride=2)
        self.blocks = nn.ModuleList([Block(dim, heads, cross=True) for _ in range(layers)])
        self.up = nn.Linear(dim, channels * 4)
        self.exit = nn.ModuleList([ResBlock(channels, dim) for _ in range(2)])
        self.norm = nn.GroupNorm(8, channels)
        self.out = nn.Conv2d(channels, PATCH**2 * (MOTION_CLASSES + 4), 1)
        self.blend = nn.Conv2d(channels, PATCH**2 * 2, 1)
        for hint in (self.plate, self.in_hand, self.blend, *([self.bones[-1], self.arm] if self.bones else [])):
            nn.init.zeros_(hint.weight)
        nn.init.constant_(self.blend.bias, -3.0)  # at first: frame 0 and the body guide, plus a residual

    def forward(self, scene: Scene, queries: torch.Tensor, T_g0_g: torch.Tensor, opening: torch.Tensor,
                guide: torch.Tensor, plate: torch.Tensor, rays: torch.Tensor, origins: torch.Tensor,
                rgb0: torch.Tensor, depth0: torch.Tensor, bones: torch.Tensor | None = None,
                ) -> dict[str, torch.Tensor]:
        """queries (B, K, D), T_g0_g (B, K, 4, 4), opening (B, K) [m], guide (B, K, V, 7, H, W),
        plate (B, V, 5, H, W), rays (B, V, h, w, 3) and origins (B, V, 3) in g0, see guide.py;
        rgb0 (B, V, 3, H, W) in [-1, 1], depth0 (B, V, 1, H, W) [m]; bones as `arm.bones_seen` gives them.
        -> motion logits (B, K, V, 3, H, W), rgb (B, K, V, 3, H, W), depth (B, K, V, 1, H, W) [m].
        """
        b, k, v = guide.shape[:3]
        colour, z, hand, arm, left = guide.split([3, 1, 1, 1, 1], 3)
        moved = hand + arm > 0
        base_rgb = torch.where(moved, colour, rgb0[:, None])
        base_depth = torch.where(moved, z, depth0[:, None])
        told = torch.cat([colour, (base_depth - depth0[:, None]).clamp(-1, 1), torch.ones_like(z)], 3)
        hidden = plate[:, :, 4:]
        behind = torch.cat([plate[:, :, :3], hidden * (plate[:, :, 3:4] - depth0).clamp(-1, 1), hidden], 2)
        pose = torch.cat([queries, fourier(T_g0_g[..., :3, 3], 4), T_g0_g[..., :3, :3].flatten(-2),
                          opening[..., None] * 10], -1)
        when = (self.when(pose)[:, :, None] + scene.camera[:, None]).flatten(0, 2)
        still = scene.features + self.plate(F.pixel_unshuffle(behind.flatten(0, 1), PATCH)).unflatten(0, (b, v))
        x = still[:, None].expand(b, k, *still.shape[1:]).flatten(0, 2)
        x = x + self.in_hand(seen_from_hand(scene, rays, origins, T_g0_g)).flatten(0, 2).movedim(-1, 1)
        if self.bones is not None:
            x = x + self.bones(bones).flatten(0, 2).movedim(-1, 1)
        x = x + self.hint(F.pixel_unshuffle((hand * told).flatten(0, 2), PATCH))
        if self.arm is not None:
            x = x + self.arm(F.pixel_unshuffle(torch.cat([arm * told, left], 3).flatten(0, 2), PATCH))
        x = self.enter(x.contiguous(memory_format=torch.channels_last), when)  # in which convolutions are fastest
        y = self.down(x)
        h, w = y.shape[-2:]
        y = y.flatten(2).transpose(1, 2) + when[:, None]
        y = y.unflatten(0, (b * k, v)).flatten(1, 2)
        for block in self.blocks:
            y = block(y, scene.tokens)
        y = y.reshape(b * k * v, h, w, -1).permute(0, 3, 1, 2)
        x = x + F.pixel_shuffle(self.up(y.movedim(1, -1)).movedim(-1, 1), 2)
        for block in self.exit:
            x = block(x, when)
        x = F.silu(self.norm(x))
        out = F.pixel_shuffle(self.out(x), PATCH).unflatten(0, (b, k, v))
        reveal, cover = F.pixel_shuffle(self.blend(x), PATCH).unflatten(0, (b, k, v)).sigmoid().split(1, 3)
        reveal = reveal * hidden[:, None]
        base_rgb = (1 - cover) * torch.lerp(base_rgb, plate[:, None, :, :3], reveal)
        base_depth = torch.lerp(torch.lerp(base_depth, plate[:, None, :, 3:4], reveal),
                                base_depth.new_tensor(MEAN_DEPTH), cover)
        return {'motion': out[..., :MOTION_CLASSES, :, :],
                'rgb': base_rgb + out[..., MOTION_CLASSES:MOTION_CLASSES + 3, :, :],
                'depth': base_depth + DEPTH_SCALE * out[..., MOTION_CLASSES + 3:, :, :]}


def seen_from_hand(scene: Scene, rays: torch.Tensor, origins: torch.Tensor, T_g0_g: torch.Tensor) -> torch.Tensor:
    """What every patch sees, in each future gripper frame: (B, K, V, h, w, 2 fourier(3) + 6).

    Its frame-0 point and the ray's closest approach to the tool centre, coded; ray direction and camera
    centre as they are. The arm looks much the same from its hand wherever the hand goes.
    """
    R, t = T_g0_g[..., :3, :3], T_g0_g[..., :3, 3]
    to_hand = lambda p: torch.einsum('bkij,bkvhwi->bkvhwj', R, p[:, None] - t[:, :, None, None, None])  # noqa: E731
    point = to_hand(scene.points) * scene.valid[:, None, ..., None]
    centre = to_hand(origins[:, :, None, None]).expand_as(point)
    ray = torch.einsum('bkij,bvhwi->bkvhwj', R, rays)
    closest = centre - (centre * ray).sum(-1, keepdim=True) * ray
    return torch.cat([fourier(point, HAND_BANDS), fourier(closest, HAND_BANDS), ray, centre], -1)
