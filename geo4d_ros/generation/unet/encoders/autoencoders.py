"""Images to latents and back, behind one interface: SVD's temporal VAE and the patch codec of small presets.

Both have diffusers' API, `encode(x).latent_dist` and `decode(z, num_frames).sample`; the functions
below add the conventions of SVD: a condition is the mode, unscaled; a target is a sample, scaled.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLTemporalDecoder, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn

from geo4d_ros.errors import ConfigurationError, require

Autoencoder = AutoencoderKLTemporalDecoder  # or PatchAutoencoder: same calls


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """A linear code of square patches: lossless (a pixel-unshuffle) or the leading principal components.

    x (N, 3, H, W) -> z (N, C, H/patch, W/patch), C = 3 * patch^2 when lossless.
    """

    @register_to_config
    def __init__(
        self,
        patch: int = 8,
        in_channels: int = 3,
        latent_channels: int | None = None,
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        full = in_channels * patch**2
        require(
            latent_channels is None or 1 <= latent_channels <= full,
            f'latent_channels should be in 1..{full} but got {latent_channels}',
            ConfigurationError,
        )
        # diffusers reads a model's device and dtype off its parameters, so there is always one.
        self.unit = nn.Parameter(torch.ones(1), requires_grad=False)
        if latent_channels is not None:
            self.basis = nn.Parameter(torch.eye(latent_channels, full), requires_grad=False)
            self.mean = nn.Parameter(torch.zeros(full), requires_grad=False)

    @torch.no_grad()
    def fit(self, images: torch.Tensor) -> None:
        """Set the code to the principal components of the patches of images (N, 3, H, W)."""
        patches = F.pixel_unshuffle(images, self.config.patch).movedim(1, -1).flatten(0, -2).double()
        mean = patches.mean(0)
        _, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean))
        self.mean.copy_(mean)
        self.basis.copy_(vectors.flip(1).T[: self.config.latent_channels])

    @apply_forward_hook  # so that offloaded weights are fetched
    def encode(self, x: torch.Tensor) -> AutoencoderKLOutput:
        """Latents as a distribution without spread, so that mode and sample agree."""
        z = F.pixel_unshuffle(x, self.config.patch)
        if self.config.latent_channels is not None:
            z = torch.einsum('nchw,kc->nkhw', z - self.mean[:, None, None], self.basis)
        moments = torch.cat([z, torch.full_like(z, -30.0)], dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments, deterministic=True))

    @apply_forward_hook
    def decode(self, z: torch.Tensor, num_frames: int = 1) -> DecoderOutput:
        """Images of latents; `num_frames` is accepted for the common interface and changes nothing."""
        if self.config.latent_channels is not None:
            z = torch.einsum('nkhw,kc->nchw', z, self.basis) + self.mean[:, None, None]
        return DecoderOutput(sample=F.pixel_shuffle(z, self.config.patch))


AUTOENCODERS = {c.__name__: c for c in (AutoencoderKLTemporalDecoder, PatchAutoencoder)}


def spatial_factor(vae: Autoencoder) -> int:
    """Pixels per latent, along each side."""
    if isinstance(vae, PatchAutoencoder):
        return vae.config.patch
    if hasattr(vae, 'spatial_factor'):
        return vae.spatial_factor
    return 2 ** (len(vae.config.block_out_channels) - 1)


def encode_condition(vae: Autoencoder, images: torch.Tensor) -> torch.Tensor:
    """Unscaled mode latents (N, C, h, w) of images (N, 3, H, W) in [-1, 1]."""
    return vae.encode(images.to(vae.dtype)).latent_dist.mode()


def encode_target(
    vae: Autoencoder, images: torch.Tensor, generator: torch.Generator | None = None, quant_conv: bool = True
) -> torch.Tensor:
    """Scaled, sampled latents (N, C, h, w) of images (N, 3, H, W) in [-1, 1]."""
    return target_distribution(vae, images, quant_conv).sample(generator) * vae.config.scaling_factor


def target_distribution(
    vae: Autoencoder, images: torch.Tensor, quant_conv: bool = True
) -> DiagonalGaussianDistribution:
    """Unscaled latents of images (N, 3, H, W) as the training targets are drawn from.

    Without `quant_conv` the encoder's moments are taken as they are: released weights have a quant_conv on
    their conditions only.
    """
    if quant_conv or isinstance(vae, PatchAutoencoder):
        return vae.encode(images.to(vae.dtype)).latent_dist
    return DiagonalGaussianDistribution(vae.encoder(images.to(vae.dtype)))


def decode_video(vae: Autoencoder, latents: torch.Tensor, chunk: int | None = None) -> torch.Tensor:
    """float32 images (T, 3, H, W) of one video's scaled latents (T, C, h, w).

    `chunk` frames at a time bounds the memory. The temporal decoder mixes neighbouring frames, so
    with it a chunked video differs slightly at the seams.
    """
    z = (latents / vae.config.scaling_factor).to(vae.dtype)
    pieces = z.split(chunk or len(z))
    return torch.cat([vae.decode(piece, num_frames=len(piece)).sample.float() for piece in pieces])
