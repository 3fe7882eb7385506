"""Start a geo4d-svd model from Stable Video Diffusion (diffusers layout of stable-video-diffusion-img2vid)."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import CLIPVisionModelWithProjection

from geo4d_ros.errors import CheckpointError, require
from geo4d_ros.generation.checkpoints.report import KeyReport, copy_weights
from geo4d_ros.generation.module_config import ModuleConfig
from geo4d_ros.generation.unet.network import Geo4dUNet
from geo4d_ros.generation.unet.pipeline import Geo4dPipeline
from geo4d_ros.generation.unet.saved_modules import load_part, read_json

_INDEX = ('diffusion_pytorch_model.safetensors.index.json', 'diffusion_pytorch_model.safetensors.index.fp16.json')
_SINGLE = ('diffusion_pytorch_model.safetensors', 'diffusion_pytorch_model.fp16.safetensors')


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file; CheckpointError when truncated."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f'{path} cannot be read ({error}); fetch it again') from error


def read_model_weights(directory: Path) -> dict[str, torch.Tensor]:
    """Tensors of a diffusers model directory, single file, half-precision variant or shards."""
    indices = [directory / name for name in _INDEX if (directory / name).is_file()]
    if indices:
        shards = sorted(set(read_json(indices[0])['weight_map'].values()))
        return {k: v for shard in shards for k, v in read_safetensors(directory / shard).items()}
    for name in _SINGLE:
        if (directory / name).is_file():
            return read_safetensors(directory / name)
    raise CheckpointError(f'{directory} has none of {", ".join(_SINGLE)}; fetch the diffusers layout of the model')


def checked_config(directory: Path, class_name: str) -> ModuleConfig:
    """config.json of a model directory, whose class must be the expected one."""
    config = read_json(directory / 'config.json')
    got = config.get('_class_name')
    require(got == class_name, f'{directory} holds a {got!r}, expected {class_name}', CheckpointError)
    return config


def import_svd(
    directory: Path,
    unet_options: ModuleConfig | None = None,
    pipeline_options: ModuleConfig | None = None,
) -> tuple[Geo4dPipeline, KeyReport]:
    """A pipeline with SVD's weights where the parts are shared.

    Every decoder starts as a copy of SVD's, both autoencoders as SVD's, and the new cross-view
    attention as nothing (zero output) unless `unet_options` say otherwise.
    """
    report = KeyReport()
    parts = ['unet/config.json', 'vae/config.json']
    if (unet_options or {}).get('token_routing') != 'learned':
        parts.append('image_encoder/config.json')
    missing = [part for part in parts if not (directory / part).is_file()]
    require(not missing, f'{directory} lacks {", ".join(missing)}: not the diffusers layout of '
            'stable-video-diffusion-img2vid', CheckpointError)
    config = checked_config(directory / 'unet', 'UNetSpatioTemporalConditionModel')
    known = set(inspect.signature(Geo4dUNet.__init__).parameters) - {'self'}
    fields = {k: v for k, v in config.items() if k in known}
    unet = Geo4dUNet(**{**fields, **(unet_options or {})})
    source = read_model_weights(directory / 'unet')
    where = str(directory / 'unet')
    names = list(unet.state_dict())
    key_of = {}
    for name in names:
        if name.startswith('extra_decoders.'):
            key_of[name] = 'up_blocks.' + name.split('.', 2)[2]
        elif not name.startswith(('link_attentions.', 'stream_tokens', 'state.', 'conv_auxiliary.')):
            key_of[name] = name
        else:
            report.initialised[f'unet.{name}'] = 'not in SVD'
    copy_weights(unet, source, key_of, where, report, 'unet.')
    report.ignored |= {k: 'no such part in this config' for k in source if k not in report.used}

    vae_directory = directory / 'vae'
    checked_config(vae_directory, 'AutoencoderKLTemporalDecoder')
    vaes = [_load_vae(vae_directory) for _ in range(2)]
    encoder = None
    if unet.config.token_routing != 'learned':
        encoder = load_part(directory / 'image_encoder', CLIPVisionModelWithProjection, torch.float32)
    options = {'name': 'geo4d-svd', **(pipeline_options or {})}
    return Geo4dPipeline(unet.eval(), vaes[0], vaes[1], encoder, **options), report  # type: ignore[arg-type]


def _load_vae(directory: Path) -> AutoencoderKLTemporalDecoder:
    fields = {k: v for k, v in read_json(directory / 'config.json').items() if not k.startswith('_')}
    vae = AutoencoderKLTemporalDecoder(**fields)
    names = {name: name for name in vae.state_dict()}
    copy_weights(vae, read_model_weights(directory), names, str(directory), KeyReport())
    return vae.eval()
