"""The training losses; every one is a mean per sample first, so that processes and batches average alike."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from geo4d_ros.generation.backbones.protocol import NoiseModel
from geo4d_ros.generation.unet.pipeline import Geo4dPipeline
from geo4d_ros.generation.unet.sampling import edm
from geo4d_ros.generation.unet.streams import POINTS, RGB
from geo4d_ros.training.unet.batches import Clips, Latents, mask_to_latents
from geo4d_ros.training.unet.config import LossConfig


def weighted_mean(values: torch.Tensor, weights: torch.Tensor, counts: torch.Tensor | None = None) -> torch.Tensor:
    """Per-sample sum(weights * values) / sum(counts), averaged over samples; both broadcast to values."""
    counts = weights if counts is None else counts
    weights, counts = weights.expand_as(values), counts.expand_as(values)
    per_sample = (weights * values).flatten(1).sum(1) / counts.flatten(1).sum(1).clamp_min(1.0)
    return per_sample.mean()


def masks_invalid(pipeline: Geo4dPipeline, config: LossConfig) -> bool:
    """Whether pixels without depth are left out of the losses."""
    own = not pipeline.convention.counts_invalid_pixels
    return own if config.mask_invalid is None else config.mask_invalid


def stream_masks(clips: Clips, pipeline: Geo4dPipeline, config: LossConfig) -> tuple[torch.Tensor, ...]:
    """Latent-level masks (B, S, T, C or 1, h, w): counted, gripper, moved."""
    frames, pixel = clips.expected[:, None, :, None, None].bool(), pipeline.convention.gripper_pixel
    counted, gripper, moved = [], [], []
    for modality, vae in ((POINTS, pipeline.points_vae), (RGB, pipeline.rgb_vae)):
        if modality == POINTS and not pipeline.unet.config.points:
            continue
        keep = frames.expand_as(clips.moved)
        if modality == POINTS and masks_invalid(pipeline, config):
            keep = keep & clips.valid[:, :, 1:]
        counted.append(mask_to_latents(keep, vae, False, pixel))
        gripper.append(mask_to_latents(clips.gripper[:, :, 1:], vae, True, pixel))
        moved.append(mask_to_latents(clips.moved | clips.gripper[:, :, 1:], vae, True, pixel))
    return tuple(torch.stack(masks, 2).flatten(1, 2) for masks in (counted, gripper, moved))


def modality_weights(latents: Latents, config: LossConfig) -> torch.Tensor:
    """(1, S, 1, 1, 1, 1): lambda for pointmaps, 1 for RGB, mean 1."""
    kinds = latents.modalities
    weights = torch.tensor([config.points if m == POINTS else 1.0 for m in kinds], device=latents.clean.device)
    return (weights / weights.mean()).repeat(latents.clean.shape[1] // len(kinds))[None, :, None, None, None, None]


def video_loss(
    x0: torch.Tensor,
    latents: Latents,
    sigma: torch.Tensor,
    masks: tuple[torch.Tensor, ...],
    gated: bool,
    config: LossConfig,
    scheme: NoiseModel = edm,
) -> torch.Tensor:
    """The x0 loss weighted to be the v-MSE of the noise model, times 1 + gripper * M * s^2 / (s^2 + 1).

    x0 (B, S, T, C, h, w) and sigma (B, S). Gated models count what does not move by `static` only.
    """
    counted, gripper, moved = masks
    s2 = (sigma**2)[:, :, None, None, None, None]
    error = (x0 - latents.clean) ** 2 * scheme.loss_weight(s2.sqrt())
    weights = counted * (1 + config.gripper * gripper * (s2 / (s2 + 1)))
    if gated:
        counted = counted * (moved + config.static * (1 - moved))
        weights = weights * (moved + config.static * (1 - moved))
    weights = weights * modality_weights(latents, config)
    return weighted_mean(error, weights, counted)


def auxiliary_losses(logits: torch.Tensor, clips: Clips) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropies of gripper mask and motion gate; logits (B, S, T, 2, H', W') at any resolution."""
    samples, streams, frames = logits.shape[:3]
    size = logits.shape[-2:]
    keep = clips.expected[:, None, :, None, None]
    losses = []
    for channel, truth in ((0, clips.gripper[:, :, 1:]), (1, clips.moved | clips.gripper[:, :, 1:])):
        resized = F.interpolate(truth.float().flatten(0, 1), size, mode='nearest')
        target = resized.unflatten(0, truth.shape[:2]).repeat_interleave(streams // truth.shape[1], 1)
        values = F.binary_cross_entropy_with_logits(logits[:, :, :, channel], target, reduction='none')
        losses.append(weighted_mean(values, keep.expand(samples, streams, frames, *size)))
    return losses[0], losses[1]


def state_loss(x0: torch.Tensor, latents: Latents, expected: torch.Tensor) -> torch.Tensor:
    """Huber loss of the clean state changes (B, T, 10); expected (B, T)."""
    values = F.smooth_l1_loss(x0, latents.state, reduction='none', beta=0.5)
    return weighted_mean(values, expected[:, :, None])


def noise_levels(
    latents: Latents, config: LossConfig, generators: list[torch.Generator], regression: bool
) -> torch.Tensor:
    """Sigma (B, S): one per view clip, shared by its modalities; the highest for regression."""
    streams = latents.clean.shape[1]
    if regression:
        return torch.full((len(generators), streams), edm.SIGMA_MAX, device=latents.clean.device)
    rows = []
    for generator in generators:
        sigma = edm.sample_sigma((streams // len(latents.modalities),), generator)
        if torch.rand((), generator=generator) < config.max_noise_share:
            sigma = torch.full_like(sigma, edm.SIGMA_MAX)
        rows.append(sigma.repeat_interleave(len(latents.modalities)))
    return torch.stack(rows).to(latents.clean.device)
