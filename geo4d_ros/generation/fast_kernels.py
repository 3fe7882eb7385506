"""The same mathematics in forms that run faster: exact rewrites of three parts of diffusers' SVD blocks.

- a temporal convolution, kernel (3, 1, 1), is a 2D convolution over (frames, pixels);
- attention to a single token is that token's value, whatever the query: softmax of one score is 1;
- a feed-forward in slices of rows stays in the processor's cache.
All three apply on the CPU; the second everywhere. During training, where gradients are needed, only
the first is used.
"""

from __future__ import annotations

import types

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from torch import nn

_ROWS = 512


def use_fast_kernels(model: nn.Module | None) -> None:
    """Switch every part of `model` that has a faster exact form to it; weights and their names stay."""
    if model is None:
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d) and module.kernel_size == (3, 1, 1) and module.padding == (1, 0, 0):
            module.forward = types.MethodType(_planar_convolution, module)
        elif isinstance(module, FeedForward) and isinstance(module.net[0], GEGLU):
            module.forward = types.MethodType(_sliced_feed_forward, module)
        elif isinstance(module, Attention) and name.endswith('.attn2'):
            module.set_processor(SingleTokenAttention(module.processor))


def _planar_convolution(self: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    """(B, C, T, H, W): convolve over T only."""
    if x.device.type != 'cpu':
        return nn.Conv3d.forward(self, x)
    y = F.conv2d(x.flatten(3), self.weight[..., 0], self.bias, padding=(1, 0))
    return y.unflatten(3, x.shape[3:])


def _sliced_feed_forward(self: FeedForward, hidden_states: torch.Tensor, *args: object) -> torch.Tensor:
    """GEGLU feed-forward of (..., C), a few hundred rows at a time."""
    if torch.is_grad_enabled() or hidden_states.device.type != 'cpu':
        return FeedForward.forward(self, hidden_states, *args)
    proj, out = self.net[0].proj, self.net[2]
    half = proj.out_features // 2
    value, gate = (proj.weight[:half], proj.bias[:half]), (proj.weight[half:], proj.bias[half:])
    rows = hidden_states.reshape(-1, hidden_states.shape[-1])
    result = rows.new_empty(len(rows), out.out_features)
    for start in range(0, len(rows), _ROWS):
        piece = rows[start : start + _ROWS]
        hidden = F.linear(piece, *value).mul_(F.gelu(F.linear(piece, *gate)))
        result[start : start + _ROWS] = out(hidden)
    return result.view(*hidden_states.shape[:-1], -1)


class SingleTokenAttention:
    """Attention processor for a context of one token; anything else goes to the processor it replaces."""

    def __init__(self, processor: object) -> None:
        self.processor = processor

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: object,
    ) -> torch.Tensor:
        """(rows, n, C) attends to (rows, 1, D)."""
        plain = encoder_hidden_states is not None and encoder_hidden_states.shape[1] == 1 and attention_mask is None
        if not plain or torch.is_grad_enabled():
            return self.processor(attn, hidden_states, encoder_hidden_states, attention_mask, **kwargs)
        value = attn.to_out[0](attn.to_v(encoder_hidden_states))
        return value.expand(-1, hidden_states.shape[1], -1)
