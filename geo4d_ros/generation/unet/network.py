"""The 4D denoiser: Stable Video Diffusion's U-Net run on all streams at once, with cross-view attention.

It adds to diffusers' `UNetSpatioTemporalConditionModel` what arXiv 2507.01099 needs: several streams
per sample, cross-view attention after every decoder block, optionally separate decoders, and (off by
default) a state stream and per-pixel auxiliary maps. Keys of the shared parts are those of SVD.

One tensor's way through `forward`, with B samples, S streams, T frames:
latents and condition (B, S, T, C, h, w) -> rows (B*S*T, 2C, h, w) -> conv_in -> down blocks (keeping
every output as a skip) -> mid block -> decoder blocks, each: concatenate the newest skip, residual
block, transformer, upsampler, cross-view attention -> conv_out -> (B, S, T, C, h, w).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.resnet import ResnetBlock2D, TemporalResnetBlock
from torch import nn

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.generation.unet.layers.cross_view import CrossViewAttention
from geo4d_ros.generation.unet.layers.state_stream import StateStream
from geo4d_ros.generation.unet.sampling import edm
from geo4d_ros.generation.unet.streams import (
    DECODERS,
    LINKS,
    ROUTINGS,
    Stream,
    all_streams,
    decoder_of,
    link_indices,
)

SVD_TIME_IDS = (6.0, 127.0, 0.02)  # frames per second - 1, motion bucket, noise augmentation


class DecoderBlock(NamedTuple):
    """One of the decoder's blocks; the last of a level also upsamples."""

    resnet: nn.Module
    attention: nn.Module | None
    upsampler: nn.Module | None
    channels: int


def decoder_blocks(up_blocks: nn.ModuleList) -> Iterator[DecoderBlock]:
    """The up blocks of a diffusers U-Net as a flat list: 12 for SVD (4 levels of 3)."""
    for up_block in up_blocks:
        attentions = getattr(up_block, 'attentions', [None] * len(up_block.resnets))
        for j, (resnet, attention) in enumerate(zip(up_block.resnets, attentions, strict=True)):
            last = j == len(up_block.resnets) - 1
            upsampler = up_block.upsamplers[0] if last and up_block.upsamplers is not None else None
            yield DecoderBlock(resnet, attention, upsampler, resnet.spatial_res_block.out_channels)


def set_resnet_eps(model: nn.Module, eps: float) -> None:
    """Give every residual block's group norms this epsilon."""
    for module in model.modules():
        if isinstance(module, (ResnetBlock2D, TemporalResnetBlock)):
            module.norm1.eps = module.norm2.eps = eps


@dataclass
class UNetOutput:
    """v-prediction (B, S, T, C, h, w); auxiliary logits (B, S, T, 2, H, W) or None; state v (B, T, 10) or None.

    features: the middle block's output (B*S*T, C', h', w').
    """

    sample: torch.Tensor
    auxiliary: torch.Tensor | None = None
    state: torch.Tensor | None = None
    features: torch.Tensor | None = None


def _check_switches(
    links: tuple[str, ...], decoders: str, token_routing: str, block_out_channels: tuple[int, ...], points: bool
) -> None:
    """ConfigurationError for values that no such model has."""
    unknown = [link for link in links if link not in LINKS]
    require(not unknown, f'unknown links {unknown}; known: {", ".join(LINKS)}', ConfigurationError)
    require(
        decoders in DECODERS,
        f'unknown decoders {decoders!r}; known: {", ".join(DECODERS)}',
        ConfigurationError,
    )
    require(
        token_routing in ROUTINGS,
        f'unknown token_routing {token_routing!r}; known: {", ".join(ROUTINGS)}',
        ConfigurationError,
    )
    require(points or not set(links) - {'rgb'}, f'without pointmap streams links can only be rgb but got {links}',
            ConfigurationError)
    bad = [c for c in block_out_channels if c % 32]
    require(not bad, f'block_out_channels should be multiples of 32 but got {bad}', ConfigurationError)


class Geo4dUNet(UNetSpatioTemporalConditionModel):
    """The multi-stream U-Net; every switch of the paper and of this package is a config field.

    points: off = RGB streams alone, as plain SVD has (a baseline).
    links: which streams attend across views and modalities (`streams.LINKS`).
    decoders: 'shared', 'per_view' or 'per_view_points' (`streams.decoder_of`).
    token_routing: 'own', 'released' (image tokens) or 'learned' (no CLIP: a token per modality and role).
    time_ids: constants for SVD's extra time embedding, or None to do without it (as released).
    predict_residual: latents are differences to the condition, divided by `residual_std` (one per modality).
    resnet_eps: of all residual blocks' norms; None keeps diffusers' mixture of 1e-5 and 1e-6, sgm has 1e-5.
    state_stream, auxiliary_upscale (> 0: gripper-mask and motion-gate maps at that multiple of the latents).
    """

    _supports_gradient_checkpointing = True
    noise = edm

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (
            *('CrossAttnDownBlockSpatioTemporal',) * 3,
            'DownBlockSpatioTemporal',
        ),
        up_block_types: tuple[str, ...] = ('UpBlockSpatioTemporal', *('CrossAttnUpBlockSpatioTemporal',) * 3),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 768,
        layers_per_block: int = 2,
        cross_attention_dim: int = 1024,
        transformer_layers_per_block: int = 1,
        num_attention_heads: int | tuple[int, ...] = (5, 10, 20, 20),
        num_frames: int = 10,
        links: tuple[str, ...] = ('points',),
        link_heads: int = 8,
        link_head_dim: int = 64,
        link_zero_init: bool = True,
        link_norm: bool = False,
        decoders: str = 'shared',
        token_routing: str = 'own',
        time_ids: tuple[float, float, float] | None = SVD_TIME_IDS,
        predict_residual: bool = False,
        residual_std: tuple[float, float] = (1.0, 1.0),
        state_stream: bool = False,
        auxiliary_upscale: int = 0,
        resnet_eps: float | None = None,
        points: bool = True,
    ) -> None:
        _check_switches(links, decoders, token_routing, block_out_channels, points)
        super().__init__(
            sample_size,
            in_channels,
            out_channels,
            down_block_types,
            up_block_types,
            block_out_channels,
            addition_time_embed_dim,
            projection_class_embeddings_input_dim,
            layers_per_block,
            cross_attention_dim,
            transformer_layers_per_block,
            num_attention_heads,
            num_frames,
        )
        self.gradient_checkpointing = False
        if resnet_eps is not None:
            set_resnet_eps(self, resnet_eps)
        if time_ids is None:
            self.add_embedding = None
        self.extra_decoders = nn.ModuleList(copy.deepcopy(self.up_blocks) for _ in range(DECODERS[decoders] - 1))
        widths = [block.channels for block in decoder_blocks(self.up_blocks)]
        self.link_attentions = nn.ModuleDict(
            {
                link: nn.ModuleList(
                    CrossViewAttention(c, link_heads, link_head_dim, link_zero_init, link_norm) for c in widths
                )
                for link in links
            }
        )
        embedding_dim = block_out_channels[0] * 4
        if token_routing == 'learned':  # rows: points and RGB of the reference, points and RGB of the others
            self.stream_tokens = nn.Parameter(torch.randn(4, cross_attention_dim) * 0.02)
        self.state = StateStream(embedding_dim, block_out_channels[-1]) if state_stream else None
        self.conv_auxiliary = None
        if auxiliary_upscale:
            self.conv_auxiliary = nn.Conv2d(block_out_channels[0], 2 * auxiliary_upscale**2, 3, padding=1)

    @property
    def latent_channels(self) -> int:
        """Channels C of one stream's latents."""
        return self.config.out_channels

    def forward(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        condition: torch.Tensor,
        tokens: torch.Tensor | None = None,
        streams: list[Stream] | None = None,
        state: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> UNetOutput:
        """Predict v for every stream.

        latents (B, S, T, C, h, w), already scaled by c_in; timestep (B, S) = ln(sigma) / 4;
        condition (B, S, C, h, w), latents of the observation, unscaled, or one for every frame
        (B, S, T, C, h, w); tokens (B, S, 1, D), one
        image token per stream (None when learned); streams: who is who, default every stream of all
        views; state: noisy future states (B, T, 10) scaled like the latents, and the measured
        one (B, 10).
        """
        samples, count, frames = latents.shape[:3]
        streams = streams or all_streams(count // (1 + self.config.points), self.config.points)
        require(len(streams) == count, f'{len(streams)} streams are named but the latents hold {count}')
        require(
            2 * latents.shape[3] == self.config.in_channels,
            f'latents should have {self.config.in_channels // 2} channels but got {latents.shape[3]}',
        )
        grid = (samples, count, frames)

        # 1. Embeddings: the time (and state) per frame, one context token per stream.
        emb = self._time_embedding(timestep, latents.dtype)[:, :, None].expand(*grid, -1)
        state_inputs = None
        if self.state is not None:
            require(state is not None, 'this model has a state stream: the observation needs the robot state')
            state_inputs = self.state.inputs(*state)
            emb = emb + self.state.embed(state_inputs)[:, None]
        emb = emb.flatten(0, 2)
        context = self._context(tokens, streams, samples)[:, :, None].expand(*grid, -1, -1).flatten(0, 2)
        indicator = torch.zeros(samples * count, frames, dtype=latents.dtype, device=latents.device)

        # 2. Input: noisy latents and condition side by side in channels.
        condition = (condition if condition.dim() == 6 else condition[:, :, None]).expand_as(latents)
        x = self.conv_in(torch.cat([latents, condition], dim=3).flatten(0, 2))

        # 3. Encoder and middle: shared by all streams, every output kept for the decoder.
        skips = [x]
        for block in self.down_blocks:
            extra = {'encoder_hidden_states': context} if getattr(block, 'has_cross_attention', False) else {}
            x, outputs = block(hidden_states=x, temb=emb, image_only_indicator=indicator, **extra)
            skips.extend(outputs)
        x = self.mid_block(hidden_states=x, temb=emb, encoder_hidden_states=context, image_only_indicator=indicator)
        features, state_v = x, None
        if self.state is not None:
            reference = [i for i, s in enumerate(streams) if s.view == 0]
            state_v = self.state.predict(x.unflatten(0, grid)[:, reference], state_inputs)

        # 4. Decoder: all streams in lock step, attending across views after every block.
        x = self._decode(x, skips, emb, context, indicator, streams, grid)

        # 5. Output.
        x = self.conv_act(self.conv_norm_out(x))
        auxiliary = None
        if self.conv_auxiliary is not None:
            maps = nn.functional.pixel_shuffle(self.conv_auxiliary(x), self.config.auxiliary_upscale)
            auxiliary = maps.unflatten(0, grid)
        return UNetOutput(self.conv_out(x).unflatten(0, grid), auxiliary, state_v, features)

    def _time_embedding(self, timestep: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """(B, S, E) of timesteps (B, S), plus SVD's constant time-ids where the config has them."""
        emb = self.time_embedding(self.time_proj(timestep.flatten()).to(dtype))
        if self.add_embedding is not None:
            ids = torch.tensor(self.config.time_ids, device=timestep.device, dtype=torch.float32)
            emb = emb + self.add_embedding(self.add_time_proj(ids).flatten()[None].to(dtype))
        return emb.unflatten(0, timestep.shape)

    def _context(self, tokens: torch.Tensor | None, streams: list[Stream], samples: int) -> torch.Tensor:
        """Context (B, S, 1, D) of every stream."""
        if self.config.token_routing == 'learned':
            rows = [2 * int(s.view > 0) + s.modality for s in streams]
            return self.stream_tokens[rows][None, :, None].expand(samples, -1, -1, -1)
        require(tokens is not None, 'this model is conditioned on image tokens; pass tokens (B, S, 1, D)')
        return tokens

    def _decode(
        self,
        x: torch.Tensor,
        skips: list[torch.Tensor],
        emb: torch.Tensor,
        context: torch.Tensor,
        indicator: torch.Tensor,
        streams: list[Stream],
        grid: tuple[int, int, int],
    ) -> torch.Tensor:
        """Run every decoder block on its streams, then let linked streams attend; rows stay (B*S*T, ...)."""
        groups = self._decoder_groups(streams)
        links = self._links(streams)
        per_decoder = [list(decoder_blocks(up_blocks)) for up_blocks in (self.up_blocks, *self.extra_decoders)]
        skips = list(skips)
        for i in range(len(per_decoder[0])):
            x = torch.cat([x, skips.pop()], dim=1)
            size = skips[-1].shape[-2:] if skips else None
            if len(groups) == 1:
                x = self._run_block(per_decoder[groups[0][0]][i], x, emb, context, indicator, size)
            else:
                x = self._run_groups(groups, per_decoder, i, x, emb, context, indicator, size, grid)
            x = self._attend(i, x, links, grid)
        return x

    def _links(self, streams: list[Stream]) -> dict[str, tuple[list[int], list[int]]]:
        """Positions of the attending and the attended streams, of every link in use."""
        links = {link: link_indices(streams, link) for link in self.config.links}
        return {link: indices for link, indices in links.items() if indices[0]}

    def _decoder_groups(self, streams: list[Stream]) -> list[tuple[int, list[int]]]:
        """(decoder, positions of its streams) for every decoder in use."""
        owners = [decoder_of(stream, self.config.decoders) for stream in streams]
        return [(d, [i for i, owner in enumerate(owners) if owner == d]) for d in sorted(set(owners))]

    def _run_block(
        self,
        block: DecoderBlock,
        x: torch.Tensor,
        emb: torch.Tensor,
        context: torch.Tensor,
        indicator: torch.Tensor,
        size: torch.Size | None,
    ) -> torch.Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            x = self._gradient_checkpointing_func(block.resnet, x, emb, indicator)
        else:
            x = block.resnet(x, emb, image_only_indicator=indicator)
        if block.attention is not None:
            x = block.attention(x, encoder_hidden_states=context, image_only_indicator=indicator, return_dict=False)[0]
        if block.upsampler is not None:
            doubled = size == (2 * x.shape[-2], 2 * x.shape[-1])
            x = block.upsampler(x, None if doubled else tuple(size))
        return x

    def _run_groups(
        self,
        groups: list,
        per_decoder: list,
        i: int,
        x: torch.Tensor,
        emb: torch.Tensor,
        context: torch.Tensor,
        indicator: torch.Tensor,
        size: torch.Size | None,
        grid: tuple[int, int, int],
    ) -> torch.Tensor:
        """Block i of every decoder on its own streams, put back into stream order."""
        outputs: list[torch.Tensor] = [x] * grid[1]
        for decoder, positions in groups:
            rows = [t.unflatten(0, grid)[:, positions].flatten(0, 2) for t in (x, emb, context)]
            own = indicator.unflatten(0, grid[:2])[:, positions].flatten(0, 1)
            y = self._run_block(per_decoder[decoder][i], *rows, own, size)
            y = y.unflatten(0, (grid[0], len(positions), grid[2]))
            for k, position in enumerate(positions):
                outputs[position] = y[:, k]
        return torch.stack(outputs, dim=1).flatten(0, 2)

    def _attend(
        self,
        i: int,
        x: torch.Tensor,
        links: dict[str, tuple[list[int], list[int]]],
        grid: tuple[int, int, int],
    ) -> torch.Tensor:
        """Add layer i of every link; all links read the block's raw output."""
        if not links:
            return x
        raw, change = x.unflatten(0, grid), torch.zeros_like(x)  # keeps the memory layout of x
        changes = change.unflatten(0, grid)
        for link, (queries, keys) in links.items():
            pair = (raw[:, indices].flatten(0, 2) for indices in (queries, keys))
            delta = self.link_attentions[link][i](*pair).unflatten(0, (grid[0], len(queries), grid[2]))
            changes[:, queries] += delta
        return x + change
