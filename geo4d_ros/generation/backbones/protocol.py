"""What a video diffusion model has to offer to carry the two-view pointmap machinery."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from geo4d_ros.generation.unet.network import UNetOutput
from geo4d_ros.generation.unet.streams import Stream


class NoiseModel(Protocol):
    """How a model's noisy input, its prediction v and the clean latents hang together; a module of functions.

    Noise levels are EDM's everywhere, noisy = clean + sigma * noise, so that samplers, losses and distillation are
    the same for all backbones.
    """

    def scale_input(self, noisy: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
        """What the network is shown."""

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """What it is told of the noise level."""

    def denoised(self, noisy: torch.Tensor, v: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
        """Clean latents of its prediction."""

    def loss_weight(self, sigma: torch.Tensor) -> torch.Tensor:
        """Weight that makes the squared error of the clean latents that of v."""


class Backbone(Protocol):
    """A denoiser of all streams; an `nn.Module` with diffusers' config.

    config needs: in_channels, out_channels, block_out_channels, num_frames, links, decoders, token_routing, points,
    predict_residual, residual_std, state_stream, auxiliary_upscale.
    """

    noise: NoiseModel
    latent_channels: int
    config: Any

    def forward(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        condition: torch.Tensor,
        tokens: torch.Tensor | None = None,
        streams: list[Stream] | None = None,
        state: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> UNetOutput:
        """Predict v: latents (B, S, T, C, h, w) scaled, timestep (B, S), condition (B, S, C, h, w)."""
