"""Building blocks of the two-view network."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


def fourier(x: torch.Tensor, bands: int) -> torch.Tensor:
    """Coordinates (..., D) [m] and their sines and cosines at wavelengths 2 m / 2^k: (..., D (1 + 2 bands))."""
    scale = math.pi * 2.0 ** torch.arange(bands, device=x.device, dtype=x.dtype)
    phase = (x[..., None] * scale).flatten(-2)
    return torch.cat([x, phase.sin(), phase.cos()], dim=-1)


def fourier_size(dims: int, bands: int) -> int:
    """Channels that `fourier` returns."""
    return dims * (1 + 2 * bands)


class ResBlock(nn.Module):
    """Two 3x3 convolutions with group norm; an optional vector scales and shifts the middle (FiLM)."""

    def __init__(self, channels: int, condition: int | None = None) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(condition, 2 * channels) if condition else None
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """x (N, C, H, W), condition (N, D) -> (N, C, H, W)."""
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.film is not None:
            # Split before the unsqueeze: the other way round crashes OpenVINO 2026.4 while it compiles.
            scale, shift = (part[..., None, None] for part in self.film(condition).chunk(2, dim=-1))
            h = h * (1 + scale) + shift
        return x + self.conv2(F.silu(h))


class Attention(nn.Module):
    """Multi-head attention of queries (N, L, D) over a context (N, S, D), itself by default."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """x (N, L, D), context (M, S, D) -> (N, L, D); N / M successive elements of x share a context."""
        context = x if context is None else context
        q = self.q(x).reshape(context.shape[0], -1, self.heads, x.shape[-1] // self.heads).transpose(1, 2)
        k, v = (a.unflatten(-1, (self.heads, -1)).transpose(1, 2) for a in self.kv(context).chunk(2, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """Pre-norm transformer block; with `cross`, it also attends to a context."""

    def __init__(self, dim: int, heads: int, cross: bool = False, expansion: int = 3) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm_cross = nn.LayerNorm(dim) if cross else None
        self.cross = Attention(dim, heads) if cross else None
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim))

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """x (N, L, D), context (M, S, D) as in `Attention` when the block has cross-attention -> (N, L, D)."""
        x = x + self.attention(self.norm1(x))
        if self.cross is not None:
            x = x + self.cross(self.norm_cross(x), context)
        return x + self.mlp(self.norm2(x))


def rotation_from_6d(r: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) from two columns (..., 6) by Gram-Schmidt (Zhou et al. 2019)."""
    a, b = r[..., :3], r[..., 3:]
    x = F.normalize(a, dim=-1)
    y = F.normalize(b - (x * b).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def pose_matrix(R: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """(..., 4, 4) transforms from (..., 3, 3) and (..., 3)."""
    top = torch.cat([R, t[..., None]], dim=-1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 0, 3] = 1
    return torch.cat([top, bottom], dim=-2)
