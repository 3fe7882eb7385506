"""Paints one future frame of every view: which pixels move, their colour and their depth."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from geo4d_ros.generation.two_view.encoder import PATCH, Scene
from geo4d_ros.generation.two_view.layers import Block, ResBlock, fourier, fourier_size

# Per pixel: static (copy frame 0), hand (the gripper mask), changed otherwise (arm, object, uncovered).
MOTION_CLASSES = 3
DEPTH_SCALE = 0.3  # [m] per unit of the depth residual: about the spread of depth at moving pixels


class Decoder(nn.Module):
    """Time-conditioned decoder; both views of a frame attend to each other and to the encoded scene."""

    def __init__(self, channels: int, dim: int, layers: int, heads: int, cross_view: bool) -> None:
        super().__init__()
        self.cross_view = cross_view
        self.hint = nn.Conv2d(PATCH**2 * 5, channels, 1)
        self.when = nn.Sequential(nn.Linear(dim + fourier_size(3, 4) + 10, dim), nn.GELU(), nn.Linear(dim, dim))
        self.enter = ResBlock(channels, dim)
        self.down = nn.Conv2d(channels, dim, 2, stride=2)
        self.blocks = nn.ModuleList([Block(dim, heads, cross=True) for _ in range(layers)])
        self.up = nn.Linear(dim, channels * 4)
        self.exit = nn.ModuleList([ResBlock(channels, dim) for _ in range(2)])
        self.norm = nn.GroupNorm(8, channels)
        self.out = nn.Conv2d(channels, PATCH**2 * (MOTION_CLASSES + 4), 1)

    def forward(self, scene: Scene, queries: torch.Tensor, T_g0_g: torch.Tensor, opening: torch.Tensor,
                guide: torch.Tensor, rgb0: torch.Tensor, depth0: torch.Tensor) -> dict[str, torch.Tensor]:
        """queries (B, K, D), T_g0_g (B, K, 4, 4), opening (B, K) [m], guide (B, K, V, 5, H, W),
        rgb0 (B, V, 3, H, W) in [-1, 1], depth0 (B, V, 1, H, W) [m].
        -> motion logits (B, K, V, 3, H, W), rgb (B, K, V, 3, H, W), depth (B, K, V, 1, H, W) [m].
        """
        b, k, v = guide.shape[:3]
        mask = guide[:, :, :, 4:]
        base_rgb = torch.where(mask > 0, guide[:, :, :, :3], rgb0[:, None])
        base_depth = torch.where(mask > 0, guide[:, :, :, 3:4], depth0[:, None])
        hint = torch.cat([guide[:, :, :, :3], mask * (base_depth - depth0[:, None]).clamp(-1, 1), mask], 3)
        pose = torch.cat([queries, fourier(T_g0_g[..., :3, 3], 4), T_g0_g[..., :3, :3].flatten(-2),
                          opening[..., None] * 10], -1)
        when = (self.when(pose)[:, :, None] + scene.camera[:, None]).flatten(0, 2)
        x = scene.features[:, None].expand(b, k, *scene.features.shape[1:]).flatten(0, 2)
        x = self.enter(x + self.hint(F.pixel_unshuffle(hint.flatten(0, 2), PATCH)), when)
        y = self.down(x)
        h, w = y.shape[-2:]
        y = y.flatten(2).transpose(1, 2) + when[:, None]
        context = scene.tokens
        if self.cross_view:
            y = y.unflatten(0, (b * k, v)).flatten(1, 2)
            context = context.repeat_interleave(k, 0)
        else:
            context = context.unflatten(1, (v, -1)).repeat_interleave(k, 0).flatten(0, 1)
        for block in self.blocks:
            y = block(y, context)
        y = y.reshape(b * k * v, h, w, -1).permute(0, 3, 1, 2)
        x = x + F.pixel_shuffle(self.up(y.movedim(1, -1)).movedim(-1, 1), 2)
        for block in self.exit:
            x = block(x, when)
        out = F.pixel_shuffle(self.out(F.silu(self.norm(x))), PATCH).unflatten(0, (b, k, v))
        return {'motion': out[..., :MOTION_CLASSES, :, :],
                'rgb': base_rgb + out[..., MOTION_CLASSES:MOTION_CLASSES + 3, :, :],
                'depth': base_depth + DEPTH_SCALE * out[..., MOTION_CLASSES + 3:, :, :]}
