"""Two RGB-D views -> features on a 24x32 grid, joint two-view tokens and one query per future frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from geo4d_ros.generation.two_view.layers import Block, ResBlock, fourier, fourier_size

PATCH = 4
BANDS = 6


@dataclass
class Scene:
    """What the encoder knows of the observation; grid = (H/4, W/4), points in the first gripper frame [m].

    features (B, V, C, h, w); tokens (B, V h/2 w/2, D); queries (B, T, D); points (B, V, h, w, 3) one real
    pixel of each patch; valid (B, V, h, w) bool; skip: per-view camera code (B, V, D).
    """

    features: torch.Tensor
    tokens: torch.Tensor
    queries: torch.Tensor
    points: torch.Tensor
    valid: torch.Tensor
    camera: torch.Tensor


def masked_patch_mean(points: torch.Tensor, valid: torch.Tensor, size: int) -> torch.Tensor:
    """Mean of valid points (N, 3, H, W) in size x size patches, zero where none is valid: (N, 3, H/s, W/s)."""
    weight = valid.to(points.dtype)
    total = F.avg_pool2d(points * weight, size)
    return total / F.avg_pool2d(weight, size).clamp(min=1e-3)


class Encoder(nn.Module):
    """Convolutional stem per view, then joint transformer layers over all views, the state and the queries."""

    def __init__(self, frames: int, channels: int, dim: int, layers: int, heads: int) -> None:
        super().__init__()
        stem_in = PATCH**2 * 7 + fourier_size(3, BANDS)
        self.stem = nn.Conv2d(stem_in, channels, 1)
        self.stem_blocks = nn.ModuleList([ResBlock(channels) for _ in range(2)])
        self.down = nn.Conv2d(channels, dim, 2, stride=2)
        self.down_block = ResBlock(dim)
        self.position = nn.Linear(fourier_size(3, BANDS), dim)
        self.camera = nn.Linear(fourier_size(6, 3), dim)
        self.state = nn.Linear(fourier_size(1, 4) + 9, dim)
        self.time = nn.Parameter(torch.randn(frames, dim) * 0.02)
        self.blocks = nn.ModuleList([Block(dim, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, channels * 4)
        self.up_block = ResBlock(channels)

    def forward(self, rgb: torch.Tensor, points: torch.Tensor, valid: torch.Tensor, T_g0_view: torch.Tensor,
                opening: torch.Tensor, seen: torch.Tensor) -> Scene:
        """rgb (B, V, 3, H, W) in [-1, 1]; points (B, V, H, W, 3) in g0 [m]; valid (B, V, H, W) bool;
        T_g0_view (B, V, 4, 4); opening (B,) [m]; seen (B, V) bool: views that were registered.
        """
        b, v = rgb.shape[:2]
        image = rgb.flatten(0, 1)
        xyz = points.flatten(0, 1).permute(0, 3, 1, 2).clamp(-2, 2)
        ok = valid.flatten(0, 1)[:, None]
        centre = masked_patch_mean(xyz, ok, PATCH)
        detail = (xyz - F.interpolate(centre, scale_factor=PATCH)).clamp(-0.3, 0.3) * ok * 8
        parts = [F.pixel_unshuffle(a, PATCH) for a in (image, detail, ok.to(image.dtype))]
        code = fourier(centre.movedim(1, -1), BANDS).movedim(-1, 1)
        x = self.stem(torch.cat([*parts, code], dim=1).contiguous(memory_format=torch.channels_last))
        for block in self.stem_blocks:
            x = block(x)
        camera = self.camera(fourier(torch.cat([T_g0_view[..., :3, 3], T_g0_view[..., :3, 2]], -1), 3))
        tokens, queries = self._attend(x, masked_patch_mean(xyz, ok, 2 * PATCH), camera, T_g0_view, opening, seen, b, v)
        h, w = x.shape[-2] // 2, x.shape[-1] // 2
        up = self.up(tokens).reshape(b * v, h, w, -1).permute(0, 3, 1, 2)
        features = self.up_block(x + F.pixel_shuffle(up, 2))
        pick = slice(PATCH // 2, None, PATCH)
        return Scene(features.unflatten(0, (b, v)), tokens, queries, points[:, :, pick, pick].clamp(-2, 2),
                     valid[:, :, pick, pick] & seen[:, :, None, None], camera)

    def _attend(self, x: torch.Tensor, centre: torch.Tensor, camera: torch.Tensor, T_g0_view: torch.Tensor,
                opening: torch.Tensor, seen: torch.Tensor, b: int, v: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Joint layers over [state, queries, tokens of every view]."""
        x = self.down_block(self.down(x)).flatten(2).transpose(1, 2)
        x = x + self.position(fourier(centre.flatten(2).transpose(1, 2), BANDS))
        x = x.unflatten(0, (b, v)) + camera[:, :, None]
        x = x * seen[:, :, None, None]
        proprio = torch.cat([fourier(opening[:, None] * 10, 4), T_g0_view[:, 0, :3, :3].flatten(1)], -1)
        head = torch.cat([self.state(proprio)[:, None], self.time[None].expand(b, -1, -1)], dim=1)
        per_view = x.shape[2]
        sequence = torch.cat([head, x.flatten(1, 2)], dim=1)
        for block in self.blocks:
            sequence = block(sequence)
        sequence = self.norm(sequence)
        return sequence[:, -v * per_view:], sequence[:, 1:-v * per_view]
