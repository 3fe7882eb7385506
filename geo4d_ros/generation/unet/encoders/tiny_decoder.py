"""A small decoder of SVD's latents, for the loop: distilled from the autoencoder's own, a fiftieth of its work."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn


class TinyTemporalDecoder(ModelMixin, ConfigMixin):
    """Latents (N, C, h, w) of whole videos -> images (N, 3, 8h, 8w); decodes one modality.

    Per level two residual blocks in space and one in time; the last doubling is a pixel shuffle, so that no layer
    works at full size.
    """

    @register_to_config
    def __init__(
        self,
        widths: tuple[int, ...] = (256, 128, 64),
        latent_channels: int = 4,
        blocks: int = 2,
        scaling_factor: float = 0.18215,
    ) -> None:
        super().__init__()
        self.enter = nn.Conv2d(latent_channels, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.ModuleList([*(SpatialBlock(width) for _ in range(blocks)), TemporalBlock(width)]) for width in widths
        )
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(widths))
        self.leave = nn.Conv2d(widths[-1], 12, 3, padding=1)

    @apply_forward_hook
    def decode(self, z: torch.Tensor, num_frames: int = 1) -> DecoderOutput:
        """Images of unscaled latents of videos of `num_frames` frames, one after the other."""
        x = self.enter(z)
        for i, level in enumerate(self.levels):
            if i:
                x = F.interpolate(self.narrow[i - 1](x), scale_factor=2.0, mode='nearest')
            for block in level:
                x = block(x, num_frames)
        return DecoderOutput(sample=F.pixel_shuffle(self.leave(F.silu(x)), 2))

    def forward(self, z: torch.Tensor, num_frames: int = 1) -> torch.Tensor:
        """The images of `decode`, for training."""
        return self.decode(z, num_frames).sample


class SpatialBlock(nn.Module):
    """x + two 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor, num_frames: int) -> torch.Tensor:
        """(N, C, h, w), frames are independent."""
        return x + self.second(F.silu(self.first(F.silu(x))))


class TemporalBlock(nn.Module):
    """x + a convolution over three frames, which starts as nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, (3, 1), padding=(1, 0))
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, x: torch.Tensor, num_frames: int) -> torch.Tensor:
        """(B*T, C, h, w): as pictures (B, C, T, h*w) of height T."""
        clips = F.silu(x).unflatten(0, (-1, num_frames)).permute(0, 2, 1, 3, 4)
        mixed = self.mix(clips.flatten(3)).view(clips.shape).permute(0, 2, 1, 3, 4)
        return x + mixed.flatten(0, 1)
