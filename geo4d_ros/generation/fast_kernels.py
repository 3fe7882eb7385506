"""The same mathematics in forms that run faster: exact rewrites of the parts of diffusers' SVD networks.

- a temporal convolution, kernel (3, 1, 1), is three matrix products over shifted frames;
- attention to a single token is that token's value, whatever the query: softmax of one score is 1;
- a feed-forward in slices of rows stays in the processor's cache;
- nothing but attention mixes frames or pixels inside a temporal transformer, so no tensor is moved
  back and forth between (frames, pixels) and (pixels, frames);
- a blend a * x + (1 - a) * (x + r) is x + (1 - a) * r;
- feature maps are kept with their channels innermost, which is what all of the above read.
They apply to inference on the CPU, in video mode; the attention to a single token also on GPUs.
Training, and anything else, runs the library's own code. Weights and their names stay as they are.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock, FeedForward, TemporalBasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import AlphaBlender, ResnetBlock2D, SpatioTemporalResBlock, TemporalResnetBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from torch import nn

# Pixels of a feature map from which on channels innermost is the faster layout, for temporal and for spatial parts.
_TEMPORAL_PIXELS, _SPATIAL_PIXELS = 48, 1024
# What follows from weights alone, while they are fixed.
_CONSTANTS: ContextVar[dict[tuple[int, str], torch.Tensor] | None] = ContextVar('constants', default=None)


def use_fast_kernels(model: nn.Module | None) -> None:
    """Switch every part of `model` that has a faster exact form to it."""
    if model is None:
        return
    for name, module in model.named_modules():
        if isinstance(module, Attention) and name.endswith('.attn2'):
            module.set_processor(SingleTokenAttention(module.processor))
        elif isinstance(module, SpatioTemporalResBlock) and _is_plain(module.spatial_res_block):
            module.forward = types.MethodType(_residual_block, module)
        elif isinstance(module, TransformerSpatioTemporalModel):
            module.forward = types.MethodType(_transformer, module)


@contextmanager
def fixed_weights() -> Iterator[None]:
    """Inside, no weight may change: rearranged weights and position embeddings are computed once."""
    token = _CONSTANTS.set({})
    try:
        yield
    finally:
        _CONSTANTS.reset(token)


def _constant(module: nn.Module, name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """`make()`, remembered for `module` inside `fixed_weights`."""
    known = None if torch.compiler.is_compiling() else _CONSTANTS.get()
    if known is None:
        return make()
    key = (id(module), name)
    if key not in known:
        known[key] = make()
    return known[key]


def applies(x: torch.Tensor) -> bool:
    """Whether the fast forms are for this input: inference on a CPU."""
    return x.device.type == 'cpu' and not torch.is_grad_enabled()


def _is_plain(block: ResnetBlock2D) -> bool:
    """Without resampling, scale-shift norm or output scale, as in all of SVD."""
    resampled = block.upsample is not None or block.downsample is not None
    return not resampled and block.time_embedding_norm == 'default' and block.output_scale_factor == 1.0


def _residual_block(
    self: SpatioTemporalResBlock,
    hidden_states: torch.Tensor,
    temb: torch.Tensor | None = None,
    image_only_indicator: torch.Tensor | None = None,
) -> torch.Tensor:
    """(B*T, C, h, w) -> (B*T, C', h, w): a spatial and a temporal residual block, blended."""
    if not applies(hidden_states) or bool(image_only_indicator.any()):
        return SpatioTemporalResBlock.forward(self, hidden_states, temb, image_only_indicator)
    block, frames = self.spatial_res_block, image_only_indicator.shape[-1]
    x = _laid_out(hidden_states, _SPATIAL_PIXELS)
    emb = None if temb is None else F.silu(temb)
    y = block.conv1(F.silu(block.norm1(x), inplace=True))
    if emb is not None:
        y += block.time_emb_proj(emb)[:, :, None, None]
    y = block.conv2(F.silu(block.norm2(y), inplace=True))
    y += x if block.conv_shortcut is None else block.conv_shortcut(x)
    y = _laid_out(y, _TEMPORAL_PIXELS)
    clips = y.unflatten(0, (-1, frames)).transpose(1, 2)  # (B, C, T, h, w)
    change = _temporal_change(self.temporal_res_block, clips, emb)
    return y.add_(change.transpose(1, 2).flatten(0, 1), alpha=_temporal_share(self.time_mixer))


def _laid_out(x: torch.Tensor, pixels: int) -> torch.Tensor:
    """x (N, C, h, w) with its channels innermost when it has that many pixels, else outermost."""
    inner = x.shape[-2] * x.shape[-1] >= pixels
    return x.contiguous(memory_format=torch.channels_last if inner else torch.contiguous_format)


def _temporal_change(block: TemporalResnetBlock, x: torch.Tensor, emb: torch.Tensor | None) -> torch.Tensor:
    """What the temporal residual block adds to x (B, C, T, h, w); emb (B*T, E) is already activated."""
    y = _temporal_convolution(block.conv1, F.silu(block.norm1(x), inplace=True))
    if emb is not None:
        shift = block.time_emb_proj(emb).unflatten(0, (len(x), -1))  # (B, T, C)
        y += shift.transpose(1, 2)[..., None, None]
    return _temporal_convolution(block.conv2, F.silu(block.norm2(y), inplace=True))


def _temporal_convolution(conv: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    """(B, C, T, h, w): convolve over T only."""
    if x.shape[-2] * x.shape[-1] < _TEMPORAL_PIXELS:
        y = F.conv2d(x.flatten(3), conv.weight[..., 0], conv.bias, padding=(1, 0))
        return y.unflatten(3, x.shape[3:])
    rows = x.permute(0, 2, 3, 4, 1).flatten(1, 3)  # (B, T*h*w, C), a view
    frame = x.shape[-2] * x.shape[-1]
    before, now, after = _constant(conv, 'taps', lambda: conv.weight.flatten(2).permute(2, 1, 0).contiguous())
    out = torch.empty(*rows.shape[:2], conv.out_channels, dtype=x.dtype)
    for clip, result in zip(rows, out, strict=True):
        torch.addmm(conv.bias, clip, now, out=result)
        result[frame:].addmm_(clip[:-frame], before)
        result[:-frame].addmm_(clip[frame:], after)
    return out.unflatten(1, x.shape[2:]).permute(0, 4, 1, 2, 3)


def _temporal_share(mixer: AlphaBlender) -> float:
    """Weight of the temporal branch for videos."""
    factor = mixer.mix_factor if mixer.merge_strategy == 'fixed' else mixer.mix_factor.sigmoid()
    return float(factor) if mixer.switch_spatial_to_temporal_mix else 1 - float(factor)


def _transformer(
    self: TransformerSpatioTemporalModel,
    hidden_states: torch.Tensor,
    encoder_hidden_states: torch.Tensor | None = None,
    image_only_indicator: torch.Tensor | None = None,
    return_dict: bool = True,
) -> tuple[torch.Tensor]:
    """(B*T, C, h, w) with one context token per frame (B*T, 1, D), the same for all frames of a clip."""
    plain = applies(hidden_states) and encoder_hidden_states.shape[1] == 1 and not return_dict
    if not plain or bool(image_only_indicator.any()):
        return TransformerSpatioTemporalModel.forward(
            self, hidden_states, encoder_hidden_states, image_only_indicator, return_dict
        )
    frames = image_only_indicator.shape[-1]
    height, width = hidden_states.shape[-2:]
    rows = self.norm(_laid_out(hidden_states, _SPATIAL_PIXELS)).flatten(2).transpose(1, 2)  # (B*T, h*w, C)
    rows = self.proj_in(rows)
    embed = lambda: self.time_pos_embed(self.time_proj(torch.arange(frames)).to(rows.dtype))  # noqa: E731
    times = _constant(self, f'times{frames}', embed)  # (T, C)
    share = _temporal_share(self.time_mixer)
    for spatial, temporal in zip(self.transformer_blocks, self.temporal_transformer_blocks, strict=True):
        rows = _spatial_block(spatial, rows, encoder_hidden_states)
        clips = rows.unflatten(0, (-1, frames))  # (B, T, h*w, C)
        token = encoder_hidden_states[::frames, None]  # (B, 1, 1, D)
        mixed = _temporal_block(temporal, clips + times[:, None], token)
        rows = rows.lerp_(mixed.flatten(0, 1), share)
    out = self.proj_out(rows).transpose(1, 2).unflatten(2, (height, width))
    return (out.add_(hidden_states),)


def _spatial_block(block: BasicTransformerBlock, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """x (N, n, C) attends to itself and to context (N, 1, D); x is changed."""
    attn = block.attn1
    q, k, v = (t.unflatten(2, (attn.heads, -1)).transpose(1, 2) for t in _project(attn, block.norm1(x)))
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    _add_product(x, mixed, attn.to_out[0].weight)
    x += _token_value(block.attn2, context) + attn.to_out[0].bias
    return _add_feed_forward(x, block.norm3, block.ff)


def _temporal_block(block: TemporalBasicTransformerBlock, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """x (B, T, n, C): every pixel attends to itself at all times and to context (B, 1, 1, D); x is changed."""
    x = _add_feed_forward(x, block.norm_in, block.ff_in)
    attn = block.attn1
    q, k, v = (t.unflatten(3, (attn.heads, -1)).permute(0, 2, 3, 1, 4) for t in _project(attn, block.norm1(x)))
    for b in range(len(x)):  # (n, heads, T, d) without copies
        mixed = F.scaled_dot_product_attention(q[b], k[b], v[b]).permute(2, 0, 1, 3).flatten(2)
        _add_product(x[b], mixed, attn.to_out[0].weight)
    x += _token_value(block.attn2, context) + attn.to_out[0].bias
    return _add_feed_forward(x, block.norm3, block.ff)


def _project(attn: Attention, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values of x, in one product."""
    parts = (attn.to_q, attn.to_k, attn.to_v)
    weight = _constant(attn, 'qkv', lambda: torch.cat([part.weight for part in parts]))
    return F.linear(x, weight).chunk(3, dim=-1)


def _token_value(attn: Attention, context: torch.Tensor) -> torch.Tensor:
    """Attention of anything to a single token (..., 1, D): (..., 1, C)."""
    return attn.to_out[0](attn.to_v(context))


def _add_product(x: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor) -> None:
    """x += rows @ weight.T, without a tensor in between."""
    x.view(-1, x.shape[-1]).addmm_(rows.reshape(-1, rows.shape[-1]), weight.t())


def _add_feed_forward(x: torch.Tensor, norm: nn.LayerNorm, ff: FeedForward) -> torch.Tensor:
    """x += feed_forward(norm(x)) for x (..., C), a few hundred rows at a time."""
    if not isinstance(ff.net[0], GEGLU):
        return x.add_(ff(norm(x)))
    proj, out = ff.net[0].proj, ff.net[2]
    half = proj.out_features // 2
    value, gate = (proj.weight[:half], proj.bias[:half]), (proj.weight[half:], proj.bias[half:])
    for piece in x.view(-1, x.shape[-1]).split(max(512, 65536 // x.shape[-1])):
        normed = norm(piece)
        hidden = F.linear(normed, *value).mul_(F.gelu(F.linear(normed, *gate)))
        piece.addmm_(hidden, out.weight.t()).add_(out.bias)
    return x


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
        return _token_value(attn, encoder_hidden_states).expand(-1, hidden_states.shape[1], -1)
