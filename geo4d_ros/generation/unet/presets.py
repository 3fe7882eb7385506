"""Model sizes, each a plain config: `build(preset)` gives a pipeline with fresh weights.

geo4d-svd: the paper's size, 256x320. geo4d-svd-reduced: the same structure at a width for tests and
CPU benchmarks. geo4d-sim-unet: the paper's structure on 96x128 with a lossless patch code, trainable
on a CPU from the simulated cell.
"""

from __future__ import annotations

from typing import TypedDict

import torch
from diffusers import AutoencoderKLTemporalDecoder
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.generation.backbones.registry import BACKBONES
from geo4d_ros.generation.backbones.wan import FrameAutoencoder
from geo4d_ros.generation.module_config import ModuleConfig
from geo4d_ros.generation.unet.encoders.autoencoders import PatchAutoencoder
from geo4d_ros.generation.unet.pipeline import Geo4dPipeline

_CLIP_VIT_H: ModuleConfig = {
    'hidden_size': 1280,
    'intermediate_size': 5120,
    'num_hidden_layers': 32,
    'num_attention_heads': 16,
    'patch_size': 14,
    'image_size': 224,
    'projection_dim': 1024,
    'hidden_act': 'gelu',
}
_SVD_VAE: ModuleConfig = {
    'block_out_channels': (128, 256, 512, 512),
    'down_block_types': ('DownEncoderBlock2D',) * 4,
    'layers_per_block': 2,
    'latent_channels': 4,
    'sample_size': 768,
    'scaling_factor': 0.18215,
}
# Wan 2.2's codec of the 5B model: 16 pixels per latent, 48 channels.
_WAN_VAE: ModuleConfig = {
    'base_dim': 160,
    'decoder_base_dim': 256,
    'z_dim': 48,
    'dim_mult': (1, 2, 4, 4),
    'num_res_blocks': 2,
    'temperal_downsample': (False, True, True),
    'is_residual': True,
    'in_channels': 12,
    'out_channels': 12,
    'patch_size': 2,
    'scale_factor_temporal': 4,
    'scale_factor_spatial': 16,
    'latents_mean': (0.0,) * 48,  # the published statistics come with the weights
    'latents_std': (1.0,) * 48,
}
# As released: shared decoder, no time-ids, quirky routing, default initialisation.
RELEASED_UNET: ModuleConfig = {
    'decoders': 'shared',
    'time_ids': None,
    'token_routing': 'released',
    'link_zero_init': False,
    'resnet_eps': 1e-5,
}
_SMALL_BLOCKS: ModuleConfig = {
    'down_block_types': ('DownBlockSpatioTemporal', *('CrossAttnDownBlockSpatioTemporal',) * 2),
    'up_block_types': (*('CrossAttnUpBlockSpatioTemporal',) * 2, 'UpBlockSpatioTemporal'),
}


class Preset(TypedDict, total=False):
    """The parts of a pipeline; one of vae, frame_codec and patch says which autoencoder it has."""

    unet: ModuleConfig
    clip: ModuleConfig | None
    pipeline: ModuleConfig
    backbone: str  # of backbones.registry, svd without it
    vae: ModuleConfig
    frame_codec: ModuleConfig
    patch: ModuleConfig


PRESETS: dict[str, Preset] = {
    'geo4d-svd': {
        'unet': {},
        'vae': _SVD_VAE,
        'clip': _CLIP_VIT_H,
        'pipeline': {'height': 256, 'width': 320, 'steps': 8},
    },
    'geo4d-wan': {
        'backbone': 'wan2.2-ti2v-5b',
        'unet': {},
        'frame_codec': _WAN_VAE,
        'clip': None,
        'pipeline': {'height': 256, 'width': 320, 'steps': 8},
    },
    'geo4d-svd-reduced': {
        'unet': {
            'block_out_channels': (32, 64, 128, 128),
            'num_attention_heads': (1, 1, 2, 2),
            'cross_attention_dim': 64,
            'addition_time_embed_dim': 16,
            'projection_class_embeddings_input_dim': 48,
            'link_heads': 1,
            'link_head_dim': 64,
        },
        'vae': {**_SVD_VAE, 'block_out_channels': (32, 32, 64, 64), 'layers_per_block': 1},
        'clip': {
            **_CLIP_VIT_H,
            'hidden_size': 128,
            'intermediate_size': 512,
            'num_hidden_layers': 6,
            'num_attention_heads': 4,
            'projection_dim': 64,
        },
        'pipeline': {'height': 96, 'width': 128, 'steps': 8},
    },
    'geo4d-sim-unet': {
        'unet': {
            **_SMALL_BLOCKS,
            'in_channels': 384,
            'out_channels': 192,
            'block_out_channels': (32, 64, 64),
            'num_attention_heads': (1, 2, 2),
            'layers_per_block': 1,
            'cross_attention_dim': 64,
            'addition_time_embed_dim': 32,
            'projection_class_embeddings_input_dim': 96,
            'link_heads': 4,
            'link_head_dim': 32,
            'decoders': 'per_view_points',
            'token_routing': 'learned',
            'time_ids': None,
            'predict_residual': True,
            'residual_std': (0.15, 0.3),
        },
        'patch': {'patch': 8},
        'clip': None,
        'pipeline': {
            'height': 96,
            'width': 128,
            'steps': 1,
            'sampler': 'regression',
            'condition_frame': 'registered',
        },
    },
}


def build(
    preset: str, unet: ModuleConfig | None = None, pipeline: ModuleConfig | None = None, seed: int = 0
) -> Geo4dPipeline:
    """A pipeline of the named preset with freshly initialised weights; overrides change single config fields."""
    require(preset in PRESETS, f'unknown preset {preset!r}; known: {", ".join(PRESETS)}', ConfigurationError)
    parts = PRESETS[preset]
    torch.manual_seed(seed)
    if 'patch' in parts:
        rgb_vae, points_vae = (PatchAutoencoder(**parts['patch']) for _ in range(2))
    elif 'frame_codec' in parts:
        rgb_vae, points_vae = (FrameAutoencoder(parts['frame_codec']) for _ in range(2))
    else:
        rgb_vae, points_vae = (AutoencoderKLTemporalDecoder(**parts['vae']) for _ in range(2))
    encoder = None
    if parts['clip'] is not None and (unet or {}).get('token_routing') != 'learned':
        encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**parts['clip']))
    model = BACKBONES[parts.get('backbone', 'svd')].denoiser(**{**parts['unet'], **(unet or {})})
    settings = {'name': preset, **parts['pipeline'], **(pipeline or {})}
    return _frozen(Geo4dPipeline(model, rgb_vae, points_vae, encoder, **settings))  # type: ignore[arg-type]


def _frozen(pipeline: Geo4dPipeline) -> Geo4dPipeline:
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    return pipeline
