"""Reading the parts of a saved pipeline, each with its own class; no code is taken from the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionModelWithProjection
from transformers.utils import logging as transformers_logging

from geo4d_ros.errors import CheckpointError, require
from geo4d_ros.generation.backbones.registry import AUTOENCODERS, DENOISERS
from geo4d_ros.generation.unet.encoders.tiny_decoder import TinyTemporalDecoder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; CheckpointError names the file otherwise."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{path} cannot be read ({error}); fetch the checkpoint again') from error
    require(isinstance(value, dict), f'{path} should hold a JSON object', CheckpointError)
    return value


def variant(directory: Path) -> str | None:
    """'fp16' where only half-precision files lie in a model directory, else None."""
    names = [p.name for p in directory.glob('*.safetensors*')]
    return 'fp16' if names and all('.fp16' in name for name in names) else None


def load_part(directory: Path, model_class: type, dtype: torch.dtype) -> Any:
    """One model with `from_pretrained`, local files only; missing, extra or misshapen weights are errors."""
    transformers_logging.disable_progress_bar()
    require(directory.is_dir(), f'{directory} does not exist: the checkpoint is not complete', CheckpointError)
    try:
        model, report = model_class.from_pretrained(
            str(directory),
            local_files_only=True,
            torch_dtype=dtype,
            output_loading_info=True,
            variant=variant(directory),
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0][:200]
        raise CheckpointError(f'{directory} cannot be loaded as {model_class.__name__}: {reason}') from error
    missing, extra = sorted(report['missing_keys']), sorted(report['unexpected_keys'])
    if missing or extra:
        raise CheckpointError(
            f'{directory}: {len(missing)} weights are missing and {len(extra)} unexpected for its '
            f'config, first {(missing or extra)[0]}'
        )
    return model.eval().requires_grad_(False)


def load_autoencoder(directory: Path, dtype: torch.dtype) -> Any:
    """The autoencoder that `directory`/config.json names."""
    name = read_json(directory / 'config.json').get('_class_name')
    if name not in AUTOENCODERS:
        raise CheckpointError(f'{directory} holds a {name!r}, expected one of {", ".join(AUTOENCODERS)}')
    return load_part(directory, AUTOENCODERS[name], dtype)


def load_denoiser(directory: Path, dtype: torch.dtype) -> Any:
    """The backbone that `directory`/config.json names."""
    name = read_json(directory / 'config.json').get('_class_name')
    if name not in DENOISERS:
        raise CheckpointError(f'{directory} holds a {name!r}, expected one of {", ".join(DENOISERS)}')
    return load_part(directory, DENOISERS[name], dtype)


def load_parts(directory: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Constructor arguments of the pipeline saved in `directory`."""
    index = read_json(directory / 'model_index.json')
    settings = {k: v for k, v in index.items() if not k.startswith('_') and not isinstance(v, list)}
    encoder = None
    if (directory / 'image_encoder').is_dir():
        encoder = load_part(directory / 'image_encoder', CLIPVisionModelWithProjection, dtype)
    decoders = {name: load_part(directory / name, TinyTemporalDecoder, dtype)
                for name in ('points_decoder', 'rgb_decoder') if (directory / name).is_dir()}
    return {
        **settings,
        **decoders,
        'unet': load_denoiser(directory / 'unet', dtype),
        'rgb_vae': load_autoencoder(directory / 'rgb_vae', dtype),
        'points_vae': load_autoencoder(directory / 'points_vae', dtype),
        'image_encoder': encoder,
    }
