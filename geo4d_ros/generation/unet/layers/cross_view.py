"""Cross-view attention: features of one stream look up those of another at the same frame and level."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class CrossViewAttention(nn.Module):
    """Residual multi-head attention from one feature map to another of the same size (paper, appendix).

    No time mixing, no camera or positional embedding, no mask: the batch is frames, the tokens are
    pixels. The released layers have no norm and torch's default init; `zero_init` starts the layer
    as the identity and `norm` puts a LayerNorm on both inputs.
    """

    def __init__(
        self, channels: int, heads: int = 8, head_dim: int = 64, zero_init: bool = True, norm: bool = False
    ) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.norm = nn.LayerNorm(channels) if norm else nn.Identity()
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_k = nn.Linear(channels, inner, bias=False)
        self.to_v = nn.Linear(channels, inner, bias=False)
        self.to_out = nn.Linear(inner, channels)
        if zero_init:
            nn.init.zeros_(self.to_out.weight)
            nn.init.zeros_(self.to_out.bias)

    def forward(self, query: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """What to add to `query`; both (frames, channels, h, w), result the same."""
        height, width = query.shape[-2:]
        x = self.norm(query.flatten(2).transpose(1, 2))
        y = self.norm(source.flatten(2).transpose(1, 2))
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (self.to_q(x), self.to_k(y), self.to_v(y)))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.to_out(out).transpose(1, 2).unflatten(2, (height, width))
