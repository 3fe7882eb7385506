"""From windows to what the losses need: images, pointmaps in the reference frame, masks, states, latents."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from geo4d_ros.generation.unet import pointmaps
from geo4d_ros.generation.unet.encoders.autoencoders import (
    PatchAutoencoder,
    encode_condition,
    spatial_factor,
    target_distribution,
)
from geo4d_ros.generation.unet.encoders.image_tokens import image_tokens
from geo4d_ros.generation.unet.layers.state_stream import STATE_STD, encode_states
from geo4d_ros.generation.unet.pipeline import MAX_DEPTH_M, Geo4dPipeline
from geo4d_ros.generation.unet.streams import POINTS, RGB, all_streams, token_view

MOVED_RGB, MOVED_M = 0.15, 0.02  # a pixel moves when its colour (of 2) or its point changes by more


@dataclass
class Clips:
    """A batch at pixel level. B samples, V views, T future frames."""

    index: torch.Tensor  # (B,) int64, of the windows
    images: torch.Tensor  # (B, V, T+1, 3, H, W) RGB in [-1, 1]
    targets: torch.Tensor  # (B, V, T, 3, H, W) pointmap images in the reference frame
    condition_maps: torch.Tensor  # (B, V, 3, H, W)
    valid: torch.Tensor  # (B, V, T+1, H, W) bool
    gripper: torch.Tensor  # (B, V, T+1, H, W) bool
    moved: torch.Tensor  # (B, V, T, H, W) bool
    states: torch.Tensor  # (B, T+1, 10)
    expected: torch.Tensor  # (B, T) float


@dataclass
class Latents:
    """A batch at latent level. S streams in batch order: 2V, or V where the model has no pointmaps."""

    clean: torch.Tensor  # (B, S, T, C, h, w), the diffused quantity
    condition: torch.Tensor  # (B, S, C, h, w), or (B, S, T, C, h, w) once frames were dropped
    tokens: torch.Tensor | None  # (B, S, 1, D)
    state: torch.Tensor  # (B, T, 10) clean, scaled changes
    measured: torch.Tensor  # (B, 10)
    modalities: tuple[int, ...] = (POINTS, RGB)  # of one view's streams


def sample_generator(seed: int, index: int, purpose: int = 0) -> torch.Generator:
    """Random numbers that belong to one window, whatever process or run draws them."""
    words = np.random.SeedSequence([seed, index, purpose]).generate_state(2, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))


def make_clips(
    window: dict[str, torch.Tensor],
    device: torch.device,
    condition_frame: str,
    pose_noise: tuple[float, float],
    moves_invalid_points: bool,
    seed: int,
) -> Clips:
    """Clips of a collated batch of `EpisodeWindows` items.

    moves_invalid_points: move points without depth to the reference frame like any other, as the release does.
    """
    w = {name: value.to(device) for name, value in window.items()}
    T_ref_view = w['T_ref_view'].float()
    valid = (w['depth'] > 0) & (w['depth'] <= MAX_DEPTH_M)
    depth = torch.where(valid, w['depth'], torch.zeros_like(w['depth']))
    own = pointmaps.unproject(depth, w['K'].float()[:, :, None])
    points = pointmaps.transform(own, T_ref_view[:, :, None], None if moves_invalid_points else valid)
    condition = own[:, :, 0]
    if condition_frame == 'registered':
        noisy = T_ref_view @ _pose_errors(window['index'], T_ref_view, pose_noise, seed).to(device)
        noisy[:, 0] = torch.eye(4, device=device)
        condition = pointmaps.transform(own[:, :, 0], noisy, valid[:, :, 0])
    images = w['rgb'].movedim(-1, 3).float() / 127.5 - 1
    coloured = (images[:, :, 1:] - images[:, :, :1]).abs().amax(3) > MOVED_RGB
    both = valid[:, :, 1:] & valid[:, :, :1]
    shifted = both & ((points[:, :, 1:] - points[:, :, :1]).norm(dim=-1) > MOVED_M)
    states = encode_states(window['T_ref_gripper'].numpy(), window['opening'].numpy())
    return Clips(
        window['index'],
        images,
        pointmaps.normalise(points[:, :, 1:]),
        pointmaps.normalise(condition),
        valid,
        w['gripper'],
        coloured | shifted,
        torch.from_numpy(states).to(device),
        w['expected'][:, 1:].float(),
    )


def _pose_errors(index: torch.Tensor, T: torch.Tensor, pose_noise: tuple[float, float], seed: int) -> torch.Tensor:
    """Small rigid transforms (B, V, 4, 4), one per window and view."""
    errors = torch.eye(4).repeat(*T.shape[:2], 1, 1)
    for b, i in enumerate(index.tolist()):
        draw = torch.randn((T.shape[1], 6), generator=sample_generator(seed, i, 1))
        errors[b, :, :3, 3] = draw[:, :3] * pose_noise[0]
        skew = torch.zeros(T.shape[1], 3, 3)
        r = draw[:, 3:] * np.deg2rad(pose_noise[1])
        skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = -r[:, 2], r[:, 1], -r[:, 0]
        errors[b, :, :3, :3] = torch.linalg.matrix_exp(skew - skew.transpose(1, 2))
    return errors


@torch.no_grad()
def encode_clips(clips: Clips, pipeline: Geo4dPipeline) -> tuple[Latents, torch.Tensor]:
    """Latents of all streams with the targets' means, and the targets' standard deviations (B, S, T, C, h, w)."""
    config, vaes = pipeline.unet.config, (pipeline.points_vae, pipeline.rgb_vae)
    samples, views, frames = clips.images.shape[0], clips.images.shape[1], clips.images.shape[2] - 1
    means, spreads, condition = [], [], []
    for modality, future, now in (
        (POINTS, clips.targets, clips.condition_maps),
        (RGB, clips.images[:, :, 1:], clips.images[:, :, 0]),
    ):
        if modality == POINTS and not config.points:
            continue
        vae = vaes[modality]
        base = encode_condition(vae, now.flatten(0, 1)).float().unflatten(0, (samples, views))
        target = target_distribution(vae, future.flatten(0, 2), pipeline.convention.target_quant_conv)
        scale = vae.config.scaling_factor
        mean, std = (t.float().unflatten(0, (samples, views, frames)) * scale for t in (target.mean, target.std))
        if config.predict_residual:
            mean = (mean - base[:, :, None] * scale) / config.residual_std[modality]
            std = std / config.residual_std[modality]
        means.append(mean)
        spreads.append(std)
        condition.append(base)
    tokens = None
    if config.token_routing != 'learned':
        per_view = image_tokens(pipeline.image_encoder, clips.images[:, :, 0].flatten(0, 1)).float()
        per_view = per_view.unflatten(0, (samples, views))
        tokens = per_view[:, [token_view(s, config.token_routing, views) for s in all_streams(views, config.points)]]
    change = (clips.states[:, 1:] - clips.states[:, :1]) / torch.tensor(STATE_STD, device=clips.states.device)
    # Streams are ordered view by view, pointmap then RGB.
    mean, std, base = (torch.stack(parts, 2).flatten(1, 2) for parts in (means, spreads, condition))
    kinds = (POINTS, RGB) if config.points else (RGB,)
    return Latents(mean, base, tokens, change, clips.states[:, 0], kinds), std


def draw_targets(latents: Latents, spread: torch.Tensor, index: torch.Tensor, seed: int) -> Latents:
    """Targets sampled around their means, each window (B,) by random numbers of its own."""
    generators = [sample_generator(seed, i, 2) for i in index.tolist()]
    noise = torch.stack([torch.randn(spread.shape[1:], generator=g) for g in generators])
    return replace(latents, clean=latents.clean + spread * noise.to(spread.device))


def mask_to_latents(mask: torch.Tensor, vae: torch.nn.Module, dilate: bool, pixel: str = 'centre') -> torch.Tensor:
    """A pixel mask (..., H, W) at latent resolution: (..., C, h, w) with C the latent channels, or 1.

    A lossless patch code keeps every pixel; else a latent takes its 'centre' or 'corner' (upper left) pixel and,
    with `dilate`, the mask grows by two 2x2 dilations, as the release does for the gripper.
    """
    flat = mask.float().flatten(0, -3)[:, None]
    if isinstance(vae, PatchAutoencoder) and vae.config.latent_channels is None:
        out = F.pixel_unshuffle(flat.expand(-1, 3, -1, -1), vae.config.patch)
        return out.unflatten(0, mask.shape[:-2])
    factor = spatial_factor(vae)
    first = factor // 2 if pixel == 'centre' else 0
    out = flat[:, :, first::factor, first::factor]
    if dilate:
        for _ in range(2):
            out = F.max_pool2d(F.pad(out, (1, 0, 1, 0)), 2, stride=1)
    return out.unflatten(0, mask.shape[:-2])
