"""Wan 2.2's transformer (diffusers, Apache-2.0) on all streams at once, with cross-view attention and a state stream.

The library's own forward pass runs unchanged: streams are folded into the batch, the observation's latents go in front
as a clean frame (timestep zero, as TI2V has it), and what is ours is added by hooks after the blocks. With the new
layers at their zero start every stream is exactly what the library computes for it alone.

Frames are encoded one by one (`FrameAutoencoder`): at 2 Hz neighbours have too little in common for the codec's
compression of time, and a mask or a condition of one frame stays one of one frame.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan, ConfigMixin, ModelMixin, WanTransformer3DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.generation.module_config import ModuleConfig
from geo4d_ros.generation.unet.layers.cross_view import CrossViewAttention
from geo4d_ros.generation.unet.layers.state_stream import StateStream
from geo4d_ros.generation.unet.network import UNetOutput
from geo4d_ros.generation.unet.sampling import flow
from geo4d_ros.generation.unet.streams import LINKS, Stream, all_streams, link_indices


class Geo4dWanTransformer(WanTransformer3DModel):
    """The multi-stream transformer; fields beyond Wan's own mean what they mean in `Geo4dUNet`.

    link_every: cross-view attention after every so many blocks; context_tokens: learned tokens per kind of stream,
    in place of a prompt.
    """

    noise = flow

    @register_to_config
    def __init__(
        self,
        patch_size: tuple[int, ...] = (1, 2, 2),
        num_attention_heads: int = 24,
        attention_head_dim: int = 128,
        in_channels: int = 48,
        out_channels: int = 48,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 14336,
        num_layers: int = 30,
        cross_attn_norm: bool = True,
        qk_norm: str | None = 'rms_norm_across_heads',
        eps: float = 1e-6,
        rope_max_seq_len: int = 1024,
        num_frames: int = 10,
        links: tuple[str, ...] = ('points',),
        link_every: int = 3,
        link_heads: int = 8,
        link_head_dim: int = 64,
        link_zero_init: bool = True,
        link_norm: bool = True,
        context_tokens: int = 8,
        decoders: str = 'shared',
        token_routing: str = 'learned',
        predict_residual: bool = False,
        residual_std: tuple[float, float] = (1.0, 1.0),
        state_stream: bool = False,
        auxiliary_upscale: int = 0,
        points: bool = True,
        block_out_channels: tuple[int, ...] = (3072,),
    ) -> None:
        super().__init__(
            patch_size=patch_size, num_attention_heads=num_attention_heads, attention_head_dim=attention_head_dim,
            in_channels=in_channels, out_channels=out_channels, text_dim=text_dim, freq_dim=freq_dim, ffn_dim=ffn_dim,
            num_layers=num_layers, cross_attn_norm=cross_attn_norm, qk_norm=qk_norm, eps=eps,
            rope_max_seq_len=rope_max_seq_len,
        )
        plain = decoders == 'shared' and token_routing == 'learned' and not auxiliary_upscale
        require(plain, 'this backbone has one shared decoder, learned tokens and no auxiliary maps', ConfigurationError)
        unknown = [link for link in links if link not in LINKS]
        require(not unknown, f'unknown links {unknown}; known: {", ".join(LINKS)}', ConfigurationError)
        dim = num_attention_heads * attention_head_dim
        layers = range(link_every - 1, num_layers, link_every)
        self.link_attentions = nn.ModuleDict({
            link: nn.ModuleDict({
                str(i): CrossViewAttention(dim, link_heads, link_head_dim, link_zero_init, link_norm) for i in layers
            })
            for link in links
        })
        self.stream_tokens = nn.Parameter(torch.randn(4, context_tokens, text_dim) * 0.02)
        self.state = StateStream(dim, dim) if state_stream else None
        self.last_features: torch.Tensor | None = None
        self._links: dict[str, tuple[list[int], list[int]]] = {}
        self._grid, self._state_embedding = (0, 0, 0, 0, 0), None
        for i in layers:
            self.blocks[i].register_forward_hook(lambda _, __, x, i=i: self._attend(str(i), x))
        self.condition_embedder.register_forward_hook(lambda module, _, out: self._add_state(module, out))

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
        """Predict v for every stream; shapes as in `Geo4dUNet.forward`, timestep (B, S) = 1000 * share of noise."""
        samples, count, frames, _, height, width = latents.shape
        streams = streams or all_streams(count // (1 + self.config.points), self.config.points)
        require(len(streams) == count, f'{len(streams)} streams are named but the latents hold {count}')
        rows, columns = height // self.config.patch_size[1], width // self.config.patch_size[2]
        self._grid = (samples, count, frames + 1, rows, columns)
        self._links = {link: link_indices(streams, link) for link in self.config.links}
        state_inputs = None
        self._state_embedding = None
        if self.state is not None:
            require(state is not None, 'this model has a state stream: the observation needs the robot state')
            state_inputs = self.state.inputs(*state)
            self._state_embedding = self.state.embed(state_inputs)
        video = torch.cat([condition[:, :, None].to(latents.dtype), latents], 2).flatten(0, 1).transpose(1, 2)
        times = timestep.flatten()[:, None].expand(-1, frames + 1).clone()
        times[:, 0] = 0  # the observation is clean
        kinds = [2 * int(s.view > 0) + s.modality for s in streams]
        context = self.stream_tokens[kinds].repeat(samples, 1, 1).to(latents.dtype)
        out = super().forward(video, times.repeat_interleave(rows * columns, 1), context, return_dict=False)[0]
        sample = out[:, :, 1:].transpose(1, 2).unflatten(0, (samples, count))
        features = self.last_features.unflatten(0, (samples, count))  # (B, S, T+1, n, dim)
        state_v = None
        if self.state is not None:
            reference = [i for i, s in enumerate(streams) if s.view == 0]
            maps = features[:, reference, 1:].unflatten(3, (rows, columns)).movedim(-1, 3)
            state_v = self.state.predict(maps, state_inputs)
        flat = features[:, :, 1:].unflatten(3, (rows, columns)).movedim(-1, 3).flatten(0, 2)
        return UNetOutput(sample, None, state_v, flat)

    def _attend(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Hook after a block, x (B*S, (T+1)*n, dim): add the cross-view attention of that depth."""
        samples, count, frames, rows, columns = self._grid
        raw = x.view(samples, count, frames, rows, columns, -1).movedim(-1, 3)
        change = torch.zeros_like(raw)
        for link, (queries, keys) in self._links.items():
            if queries:
                pair = (raw[:, indices].flatten(0, 2) for indices in (queries, keys))
                delta = self.link_attentions[link][name](*pair)
                change[:, queries] += delta.unflatten(0, (samples, len(queries), frames))
        x = (raw + change).movedim(3, -1).reshape(x.shape)
        self.last_features = x.view(samples * count, frames, rows * columns, -1)
        return x

    def _add_state(self, module: nn.Module, out: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        """Hook after the time embedding (B*S, (T+1)*n, dim): add the state's, frame by frame."""
        if self._state_embedding is None:
            return None
        _, count, _, rows, columns = self._grid
        own = nn.functional.pad(self._state_embedding, (0, 0, 1, 0))  # nothing for the observation
        own = own.repeat_interleave(count, 0).repeat_interleave(rows * columns, 1)
        temb = out[0] + own
        return temb, module.time_proj(module.act_fn(temb)), *out[2:]


class FrameAutoencoder(ModelMixin, ConfigMixin):
    """Wan's video autoencoder on single frames, with normalised latents: SVD's calls, scaling factor 1."""

    @register_to_config
    def __init__(self, codec: ModuleConfig | None = None, scaling_factor: float = 1.0) -> None:
        super().__init__()
        lists = {k: list(v) if isinstance(v, tuple) else v for k, v in (codec or {}).items()}
        self.wan_vae = AutoencoderKLWan(**lists)
        count = self.wan_vae.config.z_dim
        self.register_buffer('mean', torch.tensor(self.wan_vae.config.latents_mean)[:count, None, None], False)
        self.register_buffer('std', torch.tensor(self.wan_vae.config.latents_std)[:count, None, None], False)

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent, along each side."""
        return self.wan_vae.config.scale_factor_spatial

    @apply_forward_hook
    def encode(self, x: torch.Tensor) -> AutoencoderKLOutput:
        """Latents (N, C, h, w) of images (N, 3, H, W), as a distribution."""
        moments = self.wan_vae.encode(x[:, :, None]).latent_dist.parameters[:, :, 0]
        mean, logvar = moments.chunk(2, 1)
        scaled = torch.cat([(mean - self.mean) / self.std, logvar - 2 * self.std.log()], 1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(scaled))

    @apply_forward_hook
    def decode(self, z: torch.Tensor, num_frames: int = 1) -> DecoderOutput:
        """Images of latents (N, C, h, w), frame by frame."""
        return DecoderOutput(sample=self.wan_vae.decode((z * self.std + self.mean)[:, :, None]).sample[:, :, 0])
