"""The same mathematics in forms that run faster: exact rewrites of the parts of diffusers' SVD networks.

- all matrix products and convolutions go through `prepacked`, with weights rearranged once per prediction;
- feature maps are kept with their channels innermost, so that pixels are rows of a matrix, and nothing
  is moved back and forth between (frames, pixels) and (pixels, frames);
- attention to a single token is that token's value, whatever the query: softmax of one score is 1;
- a feed-forward in slices of rows stays in the processor's cache;
- a convolution of a picture doubled by repetition sees every pixel several times: four small
  convolutions of the picture itself, one per place in the doubled pixel, with weights summed;
- a blend a * x + (1 - a) * (x + r) is x + (1 - a) * r.
They apply to inference on the CPU, in video mode; the attention to a single token also on GPUs.
Training, and anything else, runs the library's own code. Weights and their names stay as they are.
"""

from __future__ import annotations

import types
from functools import reduce

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock, FeedForward, TemporalBasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import (
    AlphaBlender,
    ResnetBlock2D,
    SpatioTemporalResBlock,
    TemporalResnetBlock,
    Upsample2D,
)
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from torch import nn

from geo4d_ros.generation.unet.kernels.prepacked import constant, convolution, linear, packs, product

# Numbers of an intermediate result that fit the processor's cache beside what they are made of.
_CACHED_NUMBERS = 1 << 18


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
        elif isinstance(module, Upsample2D) and _doubles(module):
            module.forward = types.MethodType(_upsampler, module)
        elif isinstance(module, nn.Linear):
            module.forward = types.MethodType(_linear, module)
        elif isinstance(module, nn.Conv2d) and _is_common(module):
            module.forward = types.MethodType(_convolution, module)


def applies(x: torch.Tensor) -> bool:
    """Whether the fast forms are for this input: inference on a CPU, in a precision that sums of squares survive."""
    precise = x.dtype in (torch.float32, torch.float64)
    return x.device.type == 'cpu' and precise and not torch.is_grad_enabled()


def _is_plain(block: ResnetBlock2D) -> bool:
    """Without resampling, scale-shift norm or output scale, as in all of SVD."""
    resampled = block.upsample is not None or block.downsample is not None
    return not resampled and block.time_embedding_norm == 'default' and block.output_scale_factor == 1.0


def _doubles(module: Upsample2D) -> bool:
    """Repetition of every pixel, then a 3x3 convolution."""
    conv = module.conv if module.use_conv and not module.use_conv_transpose else None
    plain = isinstance(conv, nn.Conv2d) and _is_common(conv) and conv.kernel_size == (3, 3)
    return plain and conv.padding == (1, 1) and conv.stride == (1, 1) and module.interpolate and module.norm is None


def _is_common(conv: nn.Conv2d) -> bool:
    """Zero padding, no groups, no dilation."""
    numbers = isinstance(conv.padding, tuple) and conv.padding_mode == 'zeros'
    return numbers and conv.groups == 1 and conv.dilation == (1, 1)


def _linear(self: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return linear(self, x) if packs(x) else nn.Linear.forward(self, x)


def _convolution(self: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    if not packs(x):
        return nn.Conv2d.forward(self, x)
    return convolution(self, 'weight', x, lambda: self.weight, self.bias, self.padding, self.stride)


def _residual_block(
    self: SpatioTemporalResBlock,
    hidden_states: torch.Tensor,
    temb: torch.Tensor | None = None,
    image_only_indicator: torch.Tensor | None = None,
) -> torch.Tensor:
    """(B*T, C, h, w) -> (B*T, C', h, w): a spatial and a temporal residual block, blended."""
    if not applies(hidden_states) or _has_images(image_only_indicator):
        return SpatioTemporalResBlock.forward(self, hidden_states, temb, image_only_indicator)
    block, frames = self.spatial_res_block, image_only_indicator.shape[-1]
    x = hidden_states.contiguous(memory_format=torch.channels_last)
    emb = None if temb is None else F.silu(temb)
    shift = None if emb is None else block.time_emb_proj(emb)[:, :, None, None]
    y = _spatial_part(block, x, shift) if torch.compiler.is_compiling() else _spatial_slices(block, x, shift)
    clips = y.permute(0, 2, 3, 1).flatten(1, 2).unflatten(0, (-1, frames))  # (B, T, h*w, C), a view of y
    _add_temporal_part(self.temporal_res_block, clips, emb, _temporal_share(self.time_mixer))
    return y


def _at_a_time(numbers: int) -> int:
    """How many rows of so many numbers each are handled together; compiled code goes through all in one loop."""
    return 1 << 40 if torch.compiler.is_compiling() else max(1, _CACHED_NUMBERS // numbers)


def _has_images(indicator: torch.Tensor) -> bool:
    """Whether some frames are pictures of their own, not of a video; what is compiled has none."""
    return not torch.compiler.is_compiling() and bool(indicator.any())


def _pictures_like(x: torch.Tensor, channels: int, height: int, width: int) -> torch.Tensor:
    """Room for pictures (N, channels, height, width), channels innermost."""
    return torch.empty((len(x), channels, height, width), dtype=x.dtype, device=x.device,
                       memory_format=torch.channels_last)


def _joined(pieces: list[torch.Tensor]) -> torch.Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _spatial_slices(block: ResnetBlock2D, x: torch.Tensor, shift: torch.Tensor | None) -> torch.Tensor:
    """`_spatial_part`, some pictures at a time."""
    count = _at_a_time(x[0].numel())
    shifts = [None] * len(x) if shift is None else shift.split(count)
    y = _pictures_like(x, block.out_channels, *x.shape[2:])
    for piece, own, out in zip(x.split(count), shifts, y.split(count), strict=False):
        _spatial_part(block, piece, own, out)
    return y


def _spatial_part(
    block: ResnetBlock2D, x: torch.Tensor, shift: torch.Tensor | None, out: torch.Tensor | None = None
) -> torch.Tensor:
    """The spatial residual block of x (N, C, h, w), into `out`; shift (N, C', 1, 1) comes from the time embedding."""
    y = block.conv1(F.silu(_group_norm(block.norm1, x), inplace=True))
    if shift is not None:
        y += shift
    y = block.conv2(F.silu(_group_norm(block.norm2, y, in_place=True), inplace=True))
    return torch.add(y, x if block.conv_shortcut is None else _pixel_product(block.conv_shortcut, x), out=out)


def _pixel_product(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A 1x1 convolution of x (N, C, h, w), channels innermost."""
    if conv.kernel_size != (1, 1):
        return conv(x)
    rows = product(conv, 'rows', x.permute(0, 2, 3, 1), lambda: conv.weight[..., 0, 0], conv.bias)
    return rows.permute(0, 3, 1, 2)


def _moments(rows: torch.Tensor) -> torch.Tensor:
    """(2, N, C): sums of rows (N, n, C) and of their squares."""
    pieces = rows.split(_at_a_time(rows[:, 0].numel()), dim=1)
    sums, squares = (reduce(torch.add, [t.sum(1) for t in parts]) for parts in (pieces, (p * p for p in pieces)))
    return torch.stack((sums, squares))


def _scale_and_shift(norm: nn.GroupNorm, moments: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, C) each, with norm(rows) = scale * rows + shift, for `count` rows of these moments."""
    groups = (norm.num_groups, -1)
    moments = moments.unflatten(2, groups)
    mean, square = moments.sum(3, keepdim=True).div_(count * moments.shape[3])
    scale = torch.addcmul(square, mean, mean, value=-1).clamp_min_(0).add_(norm.eps).rsqrt_()
    scale = scale * norm.weight.view(groups)
    shift = torch.addcmul(norm.bias.view(groups), mean, scale, value=-1)
    return scale.flatten(1), shift.flatten(1)


def _group_norm(norm: nn.GroupNorm, x: torch.Tensor, in_place: bool = False) -> torch.Tensor:
    """norm(x) of x (N, C, h, w), channels innermost."""
    rows = x.permute(0, 2, 3, 1).flatten(1, 2)  # (N, h*w, C), a view
    scale, shift = _scale_and_shift(norm, _moments(rows), rows.shape[1])
    out = torch.addcmul(shift[:, None], rows, scale[:, None], out=rows if in_place else None)
    return out.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def _add_temporal_part(
    block: TemporalResnetBlock, x: torch.Tensor, emb: torch.Tensor | None, share: torch.Tensor
) -> None:
    """x += share * what the temporal residual block adds to x (B, T, n, C); emb (B*T, E) is already activated.

    Its convolutions mix the times of a pixel only, so a slice of pixels at a time stays in the cache.
    """
    shift = None if emb is None else block.time_emb_proj(emb).unflatten(0, x.shape[:2])[:, :, None]
    count = _at_a_time(x.shape[0] * x.shape[1] * block.conv1.out_channels)
    rows = x.shape[1] * x.shape[2]
    affine = _scale_and_shift(block.norm1, _moments(x.flatten(1, 2)), rows)
    middle = [_temporal_convolution(block.conv1, _activated(piece, *affine)) for piece in x.split(count, dim=2)]
    for y in middle if shift is not None else ():
        y.add_(shift)
    affine = _scale_and_shift(block.norm2, reduce(torch.add, [_moments(y.flatten(1, 2)) for y in middle]), rows)
    for y, piece in zip(middle, x.split(count, dim=2), strict=True):
        piece.addcmul_(_temporal_convolution(block.conv2, _activated(y, *affine, in_place=True)), share)


def _activated(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, in_place: bool = False) -> torch.Tensor:
    """silu(scale * x + shift) of x (B, T, n, C) and (B, C) each."""
    out = torch.addcmul(shift[:, None, None], x, scale[:, None, None], out=x if in_place else None)
    return F.silu(out, inplace=True)


def _temporal_convolution(conv: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    """(B, T, n, C), kernel (3, 1, 1): on a picture of height T and width n."""
    picture = x.permute(0, 3, 1, 2)
    y = convolution(conv, f'picture{x.shape[2]}', picture, lambda: conv.weight[..., 0], conv.bias, (1, 0))
    return y.permute(0, 2, 3, 1)


def _temporal_share(mixer: AlphaBlender) -> torch.Tensor:
    """Weight of the temporal branch for videos, a scalar."""
    factor = mixer.mix_factor if mixer.merge_strategy == 'fixed' else mixer.mix_factor.sigmoid()
    return (factor if mixer.switch_spatial_to_temporal_mix else 1 - factor).reshape(())


def _upsampler(
    self: Upsample2D, hidden_states: torch.Tensor, output_size: int | None = None, *_: object
) -> torch.Tensor:
    """(N, C, h, w) -> (N, C', 2h, 2w)."""
    if not packs(hidden_states) or output_size is not None:
        return Upsample2D.forward(self, hidden_states, output_size)
    x, conv = hidden_states, self.conv
    (height, width), channels = x.shape[-2:], conv.out_channels
    bias = None if conv.bias is None else constant(conv, 'bias of four', lambda: conv.bias.repeat(4))
    places = convolution(conv, 'four', x, lambda: _weights_of_four(conv.weight), bias, (1, 1))
    out = _pictures_like(x, channels, 2 * height, 2 * width)
    for i, y in enumerate(places.split(channels, dim=1)):
        a, b = divmod(i, 2)
        out[..., a::2, b::2] = y[..., a : a + height, b : b + width]
    return out


def _weights_of_four(weight: torch.Tensor) -> torch.Tensor:
    """(4C', C, 2, 2) of a kernel (C', C, 3, 3): for upper left, upper right, lower left, lower right.

    The upper of two equal rows sees the row above once and its own twice, the lower its own twice
    and the row below once; columns alike.
    """
    upper, lower = ((0,), (1, 2)), ((0, 1), (2,))
    kernels = [
        torch.stack([torch.stack([weight[:, :, r][..., c].sum((2, 3)) for c in columns], -1) for r in rows], -2)
        for rows in (upper, lower)
        for columns in (upper, lower)
    ]
    return torch.cat(kernels)


def _transformer(
    self: TransformerSpatioTemporalModel,
    hidden_states: torch.Tensor,
    encoder_hidden_states: torch.Tensor | None = None,
    image_only_indicator: torch.Tensor | None = None,
    return_dict: bool = True,
) -> tuple[torch.Tensor]:
    """(B*T, C, h, w) with one context token per frame (B*T, 1, D), the same for all frames of a clip."""
    plain = applies(hidden_states) and encoder_hidden_states.shape[1] == 1 and not return_dict
    if not plain or _has_images(image_only_indicator):
        return TransformerSpatioTemporalModel.forward(
            self, hidden_states, encoder_hidden_states, image_only_indicator, return_dict
        )
    frames = image_only_indicator.shape[-1]
    x = hidden_states.contiguous(memory_format=torch.channels_last)
    rows = _group_norm(self.norm, x).permute(0, 2, 3, 1).flatten(1, 2)  # (B*T, h*w, C), a view
    rows = self.proj_in(rows)
    embed = lambda: self.time_pos_embed(self.time_proj(torch.arange(frames)).to(rows.dtype))  # noqa: E731
    times = constant(self, f'times{frames}', embed)  # (T, C)
    share = _temporal_share(self.time_mixer)
    for spatial, temporal in zip(self.transformer_blocks, self.temporal_transformer_blocks, strict=True):
        rows = _spatial_block(spatial, rows, encoder_hidden_states)
        clips = rows.unflatten(0, (-1, frames))  # (B, T, h*w, C)
        token = encoder_hidden_states[::frames, None]  # (B, 1, 1, D)
        mixed = _temporal_block(temporal, clips + times[:, None], token)
        rows = rows.lerp_(mixed.flatten(0, 1), share)
    out = linear(self.proj_out, rows, plus=x.permute(0, 2, 3, 1).flatten(1, 2))
    return (out.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2),)


def _spatial_block(block: BasicTransformerBlock, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """x (N, n, C) attends to itself and to context (N, 1, D)."""
    attn = block.attn1
    q, k, v = (t.unflatten(2, (attn.heads, -1)).transpose(1, 2) for t in _project(attn, block.norm1(x)))
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    x = linear(attn.to_out[0], mixed, plus=x).add_(_token_value(block.attn2, context))
    return _add_feed_forward(x, block.norm3, block.ff)


def _temporal_block(block: TemporalBasicTransformerBlock, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """x (B, T, n, C): every pixel attends to itself at all times and to context (B, 1, 1, D)."""
    x = _add_feed_forward(x, block.norm_in, block.ff_in)
    attn = block.attn1
    parts = _project(attn, block.norm1(x))
    mixed = torch.empty_like(x)
    for b in range(len(x)):  # (n, heads, T, d) without copies
        q, k, v = (t[b].unflatten(2, (attn.heads, -1)).permute(1, 2, 0, 3) for t in parts)
        mixed[b] = F.scaled_dot_product_attention(q, k, v).permute(2, 0, 1, 3).flatten(2)
    x = linear(attn.to_out[0], mixed, plus=x).add_(_token_value(block.attn2, context))
    return _add_feed_forward(x, block.norm3, block.ff)


def _project(attn: Attention, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values of x, in one product."""
    parts = (attn.to_q, attn.to_k, attn.to_v)
    return product(attn, 'qkv', x, lambda: torch.cat([part.weight for part in parts]), None).chunk(3, dim=-1)


def _token_value(attn: Attention, context: torch.Tensor) -> torch.Tensor:
    """Attention of anything to a single token (..., 1, D): (..., 1, C)."""
    return attn.to_out[0](attn.to_v(context))


def _add_feed_forward(x: torch.Tensor, norm: nn.LayerNorm, ff: FeedForward) -> torch.Tensor:
    """x + feed_forward(norm(x)) for x (..., C), some rows at a time."""
    if not isinstance(ff.net[0], GEGLU):
        return x + ff(norm(x))
    proj, out = ff.net[0].proj, ff.net[2]
    half = proj.out_features // 2
    pieces = []
    for piece in x.reshape(-1, x.shape[-1]).split(max(256, _at_a_time(half))):
        normed = norm(piece)
        gate = product(proj, 'gate', normed, lambda: proj.weight[half:], proj.bias[half:], 'gelu')
        hidden = product(proj, 'value', normed, lambda: proj.weight[:half], proj.bias[:half], times=gate)
        pieces.append(linear(out, hidden, plus=piece))
    return _joined(pieces).view(x.shape)


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
