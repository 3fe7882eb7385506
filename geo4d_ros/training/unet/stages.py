"""The stages of training: each has the module to train and a loss of one batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import nn

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.generation.backbones.protocol import NoiseModel
from geo4d_ros.generation.unet.encoders.autoencoders import PatchAutoencoder, target_distribution
from geo4d_ros.generation.unet.encoders.tiny_decoder import TinyTemporalDecoder
from geo4d_ros.generation.unet.network import UNetOutput
from geo4d_ros.generation.unet.pipeline import Geo4dPipeline
from geo4d_ros.generation.unet.streams import all_streams, token_view
from geo4d_ros.training.unet.batches import Clips, Latents, sample_generator
from geo4d_ros.training.unet.config import UNetTrainConfig
from geo4d_ros.training.unet.distillation import DistillationStage, unit_noise
from geo4d_ros.training.unet.latent_cache import Prepared, prepare
from geo4d_ros.training.unet.losses import (
    auxiliary_losses,
    masks_invalid,
    noise_levels,
    state_loss,
    video_loss,
)

Losses = dict[str, torch.Tensor]  # name -> scalar; 'loss' is what is minimised


class Stage(Protocol):
    """What the training loop needs."""

    model: nn.Module  # its parameters are trained
    step: int  # set by the loop before every step
    find_unused_parameters: bool  # whether some parameters get no gradient in some steps

    def losses(self, model: nn.Module, batch: Clips | Prepared) -> Losses:
        """Losses of one batch (pixels or cached latents), with `model` possibly wrapped for several processes."""

    def finish(self) -> None:
        """Set the pipeline to sample as this stage trains, before it is used or saved."""


def denoise_batch(
    model: nn.Module,
    scheme: NoiseModel,
    latents: Latents,
    sigma: torch.Tensor,
    noise: torch.Tensor,
    state_noise: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor | None, UNetOutput]:
    """x0 of the video (B, S, T, C, h, w) and of the states; noise is already scaled by sigma per stream."""
    level = sigma[:, :, None, None, None, None]
    noisy = latents.clean + noise if noise is not None else torch.zeros_like(latents.clean)
    s = sigma[:, 0, None, None]
    noisy_state = latents.state + state_noise if state_noise is not None else torch.zeros_like(latents.state)
    out = model(
        scheme.scale_input(noisy, level),
        scheme.timestep(sigma),
        latents.condition,
        latents.tokens,
        state=(scheme.scale_input(noisy_state, s), latents.measured),
    )
    x0 = scheme.denoised(noisy, out.sample.float(), level)
    x0_state = None if out.state is None else scheme.denoised(noisy_state, out.state.float(), s)
    return x0, x0_state, out


class DenoiserStage:
    """Trains the U-Net: 'diffusion' at all noise levels, or 'regression' from zero input at the highest."""

    step, find_unused_parameters = 0, False

    def __init__(self, pipeline: Geo4dPipeline, config: UNetTrainConfig) -> None:
        self.pipeline, self.config, self.model = pipeline, config, pipeline.unet
        self.regression = config.stage == 'regression'

    def losses(self, model: nn.Module, batch: Clips | Prepared) -> Losses:
        """Video loss, and those of the auxiliary maps and the state where the model has them."""
        config, pipeline = self.config.loss, self.pipeline
        batch = batch if isinstance(batch, Prepared) else prepare(batch, pipeline, config, self.config.seed)
        latents = batch.latents
        generators = [sample_generator(self.config.seed, i) for i in batch.index.tolist()]
        sigma = noise_levels(latents, config, generators, self.regression)
        noise = state_noise = None
        if not self.regression:
            noise = unit_noise(generators, latents.clean) * sigma[:, :, None, None, None, None]
            state_noise = unit_noise(generators, latents.state) * sigma[:, 0, None, None]
        latents = dropped(latents, generators, config.condition_dropout, self._token_groups(latents))
        x0, x0_state, out = denoise_batch(model, pipeline.unet.noise, latents, sigma, noise, state_noise)
        gated = out.auxiliary is not None
        parts = {'video': video_loss(x0, latents, sigma, batch.masks, gated, config, pipeline.unet.noise)}
        total = parts['video']
        if gated:
            parts['mask'], parts['gate'] = auxiliary_losses(out.auxiliary.float(), batch.clips)
            total = total + config.mask * parts['mask'] + config.gate * parts['gate']
        if x0_state is not None:
            parts['state'] = state_loss(x0_state, latents, batch.expected)
            total = total + config.state * parts['state']
        return {'loss': total, **parts}

    def _token_groups(self, latents: Latents) -> list[int] | None:
        """The view whose token each stream gets, where conditions are dropped frame by frame."""
        if not self.pipeline.convention.frame_dropout:
            return None
        views = latents.clean.shape[1] // len(latents.modalities)
        routing = self.pipeline.unet.config.token_routing
        routing = 'own' if routing == 'learned' else routing
        return [token_view(s, routing, views) for s in all_streams(views, self.pipeline.unet.config.points)]

    def finish(self) -> None:
        """One step from zero after regression, Euler steps after diffusion."""
        sampler = 'regression' if self.regression else 'euler'
        self.pipeline.register_to_config(sampler=sampler, steps=1 if self.regression else 8)


def dropped(
    latents: Latents, generators: list[torch.Generator], share: float, token_views: list[int] | None = None
) -> Latents:
    """Conditions set to zero at random, for guidance: each stream's latents, and a sample's tokens, on their own.

    With `token_views`, the view whose token every stream gets, as in the release: each frame's copy of the latents
    on its own, and each view's token.
    """
    if share <= 0:
        return latents
    streams, frames = latents.clean.shape[1:3]
    rows, groups = (1, [0] * streams) if token_views is None else (frames, token_views)
    draws = [torch.rand(streams * rows + max(groups) + 1, generator=g) >= share for g in generators]
    keep = torch.stack(draws).to(latents.condition.device, latents.condition.dtype)
    condition = latents.condition[:, :, None] * keep[:, : streams * rows].view(-1, streams, rows, 1, 1, 1)
    condition = condition[:, :, 0] if token_views is None else condition
    tokens = latents.tokens
    if tokens is not None:
        tokens = tokens * keep[:, streams * rows :][:, groups, None, None]
    return replace(latents, condition=condition, tokens=tokens)


class AutoencoderStage:
    """Fine-tunes one autoencoder by L1 with a learned scale; the pointmap one starts as the RGB one.

    As in the release: |x - x'| / exp(s) + s, no perceptual, adversarial or KL term. Per clip, one
    of the views is drawn; pixels without depth count only when the config does not mask them.
    """

    step, find_unused_parameters = 0, False

    def __init__(self, pipeline: Geo4dPipeline, config: UNetTrainConfig) -> None:
        vae = pipeline.points_vae if config.autoencoder == 'points' else pipeline.rgb_vae
        require(
            not isinstance(vae, PatchAutoencoder),
            'the patch code has nothing to train; the vae stage is for presets with AutoencoderKLTemporalDecoder',
            ConfigurationError,
        )
        self.pipeline, self.config = pipeline, config
        self.model = ReconstructionLoss(vae)

    def losses(self, model: nn.Module, clips: Clips) -> Losses:
        """Reconstruction loss of one view's clip per sample."""
        points = self.config.autoencoder == 'points'
        source = clips.targets if points else clips.images[:, :, 1:]
        weight = torch.ones_like(clips.moved, dtype=torch.float32)
        if points and masks_invalid(self.pipeline, self.config.loss):
            weight = clips.valid[:, :, 1:].float()
        generators = [sample_generator(self.config.seed, i, 3) for i in clips.index.tolist()]
        views = [int(torch.randint(source.shape[1], (), generator=g)) for g in generators]
        rows = torch.arange(len(views))
        x, w = source[rows, views], weight[rows, views]
        loss, l1 = model(x, w)
        return {'loss': loss, 'l1': l1}

    def finish(self) -> None:
        """Nothing to set: the trained autoencoder is the pipeline's own."""


class DecoderStage:
    """Distils a small decoder from an autoencoder's own: L1 between what both make of the same latents."""

    step, find_unused_parameters = 0, False

    def __init__(self, pipeline: Geo4dPipeline, config: UNetTrainConfig) -> None:
        vae = pipeline.points_vae if config.autoencoder == 'points' else pipeline.rgb_vae
        require(not isinstance(vae, PatchAutoencoder), 'the patch code has no decoder to distil', ConfigurationError)
        self.pipeline, self.config, self.vae = pipeline, config, vae
        name = f'{config.autoencoder}_decoder'
        if getattr(pipeline, name) is None:
            fields = {'latent_channels': vae.config.latent_channels, 'scaling_factor': vae.config.scaling_factor}
            pipeline.register_modules(**{name: TinyTemporalDecoder(**{**fields, **config.decoder})})
        self.model = getattr(pipeline, name)

    def losses(self, model: nn.Module, clips: Clips) -> Losses:
        """L1 to the big decoder's images, and for the log to the truth; one view's clip per sample."""
        source = clips.targets if self.config.autoencoder == 'points' else clips.images[:, :, 1:]
        generators = [sample_generator(self.config.seed, i, 3) for i in clips.index.tolist()]
        views = [int(torch.randint(source.shape[1], (), generator=g)) for g in generators]
        x = source[torch.arange(len(views)), views]
        frames = x.shape[1]
        with torch.no_grad():
            quant = self.pipeline.convention.target_quant_conv
            latents = target_distribution(self.vae, x.flatten(0, 1), quant).mode()
            goal = self.vae.decode(latents, num_frames=frames).sample
        images = model(latents, frames)
        return {'loss': (images - goal).abs().mean(), 'l1': (images - x.flatten(0, 1)).abs().mean().detach()}

    def finish(self) -> None:
        """Nothing to set: the pipeline has the decoder."""


class ReconstructionLoss(nn.Module):
    """An autoencoder and its learned log scale, as one module so that both are trained and resumed."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and plain weighted L1 of clips x (B, T, 3, H, W) with pixel weights (B, T, H, W)."""
        latents = self.vae.encode(x.flatten(0, 1)).latent_dist.mode()
        decoded = self.vae.decode(latents, num_frames=x.shape[1]).sample.unflatten(0, x.shape[:2])
        error = ((decoded - x).abs().mean(2) * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp_min(1)
        l1 = error.mean()
        return l1 / self.log_scale.exp() + self.log_scale, l1.detach()


def make_stage(pipeline: Geo4dPipeline, config: UNetTrainConfig) -> Stage:
    """The stage that the config names."""
    kinds = {'vae': AutoencoderStage, 'decoder': DecoderStage, 'distillation': DistillationStage}
    return kinds.get(config.stage, DenoiserStage)(pipeline, config)
