"""Convert the authors' released checkpoints (Lightning files with `sgm` key names).

Their quirks: the second decoder's keys repeat the first's (the weights are one decoder); there are no
time-ids; pointmap streams use the reference's image token and RGB streams the second view's; the
condition encoder has a 1x1 quant_conv of its own; VAE files are called color.ckpt or rgb.ckpt; paths
in the config are those of the authors' machine.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geo4d_ros.errors import CheckpointError, require
from geo4d_ros.generation.checkpoints.report import KeyReport, copy_weights
from geo4d_ros.generation.checkpoints.sgm_keys import clip_keys, unet_key, vae_key
from geo4d_ros.generation.checkpoints.svd import read_safetensors
from geo4d_ros.generation.module_config import ModuleConfig
from geo4d_ros.generation.unet.network import Geo4dUNet, decoder_blocks
from geo4d_ros.generation.unet.pipeline import Geo4dPipeline
from geo4d_ros.generation.unet.presets import RELEASED_UNET

State = dict[str, torch.Tensor]
_UNET, _UNET_2 = 'model.diffusion_model.', 'model.diffusion_model_2.'
_CLIP = 'conditioner.embedders.0.open_clip.model.visual.'
# modality -> (prefix in the main file, embedder index of its condition encoder, names of the VAE file)
_VAES = {
    'points': ('first_stage_pointmap_model.', 1, ('pointmap.ckpt', 'points.ckpt')),
    'rgb': ('first_stage_color_model.', 2, ('color.ckpt', 'rgb.ckpt')),
}


def read_state(path: Path) -> State:
    """The state dict of a Lightning checkpoint or safetensors file; nothing but tensors is unpickled."""
    require(path.is_file(), f'checkpoint {path} does not exist', CheckpointError)
    if path.suffix == '.safetensors':
        return read_safetensors(path)
    broken = f'{path} is not a torch checkpoint or is truncated; fetch it again'
    require(zipfile.is_zipfile(path), broken, CheckpointError)
    try:
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{path} holds more than tensors, which is not loaded here; where you trust it, save '
            "its 'state_dict' alone as safetensors and import that"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(broken) from error
    state = content.get('state_dict', content) if isinstance(content, dict) else None
    require(
        isinstance(state, dict) and all(isinstance(v, torch.Tensor) for v in state.values()),
        f'{path} holds no state_dict of tensors',
        CheckpointError,
    )
    return state


def take(state: State, prefix: str) -> State:
    """Entries below `prefix`, without it."""
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def infer_unet_config(state: State, head_dim: int = 64, link_heads: int = 8) -> ModuleConfig:
    """Geo4dUNet fields from the shapes of an sgm U-Net; head counts cannot be read off, hence head_dim."""
    require(
        'input_blocks.0.0.weight' in state and 'out.2.weight' in state,
        'the checkpoint holds no U-Net under model.diffusion_model: another kind of file?',
        CheckpointError,
    )
    count = 1 + max(int(k.split('.')[1]) for k in state if k.startswith('input_blocks.'))
    ends = [i for i in range(1, count) if f'input_blocks.{i}.0.op.weight' in state]
    layers = (ends[0] - 1) if ends else count - 1
    starts = [1, *(i + 1 for i in ends)]
    channels = tuple(state[f'input_blocks.{i}.0.out_layers.3.weight'].shape[0] for i in starts)
    attends = [f'input_blocks.{i}.1.proj_in.weight' in state for i in starts]
    context = next(
        v.shape[1] for k, v in state.items() if k.endswith('transformer_blocks.0.attn2.to_k.weight')
    )
    links = ('points',) if any(k.startswith('attn_layers_decoder.') for k in state) else ()
    fields: ModuleConfig = {
        'in_channels': state['input_blocks.0.0.weight'].shape[1],
        'out_channels': state['out.2.weight'].shape[0],
        'block_out_channels': channels,
        'layers_per_block': layers,
        'cross_attention_dim': context,
        'num_attention_heads': tuple(max(1, c // head_dim) for c in channels),
        'links': links,
        'down_block_types': tuple(f'{"CrossAttn" * a}DownBlockSpatioTemporal' for a in attends),
        'up_block_types': tuple(f'{"CrossAttn" * a}UpBlockSpatioTemporal' for a in reversed(attends)),
    }
    if links:
        inner = state['attn_layers_decoder.0.to_q.weight'].shape[0]
        fields |= {'link_heads': link_heads, 'link_head_dim': inner // link_heads}
    return fields


def unet_key_map(unet: Geo4dUNet) -> dict[str, str]:
    """Our weight name -> sgm's, for every weight of a U-Net in the released configuration."""
    attention = [hasattr(block, 'attentions') for block in unet.up_blocks]
    layers = unet.config.layers_per_block
    named = {name: unet_key(name, layers, attention) for name in unet.state_dict()}
    return {name: key for name, key in named.items() if key is not None}


def convert_unet(state: State, where: str, report: KeyReport, head_dim: int = 64) -> Geo4dUNet:
    """The U-Net below model.diffusion_model, with the repeated second copy checked to be the same."""
    source = take(state, _UNET)
    unet = Geo4dUNet(**{**infer_unet_config(source, head_dim), **RELEASED_UNET})
    local = KeyReport()
    copy_weights(unet, source, unet_key_map(unet), where, local, 'unet.')
    report.used |= {_UNET + k: v for k, v in local.used.items()}
    report.ignored |= {_UNET + k: 'no such part in the released model' for k in source if k not in local.used}
    differing = [
        k for k, v in take(state, _UNET_2).items() if k not in source or not torch.equal(v, source[k])
    ]
    if differing:
        raise CheckpointError(
            f'{where}: {len(differing)} weights of diffusion_model_2 differ from diffusion_model, '
            f'first {differing[0]}; only checkpoints with one shared decoder are known'
        )
    report.ignored |= {_UNET_2 + k: 'repeats diffusion_model' for k in take(state, _UNET_2)}
    require(len(list(decoder_blocks(unet.up_blocks))) > 0, f'{where} has no decoder blocks', CheckpointError)
    return unet.eval()


def infer_vae_config(state: State) -> ModuleConfig:
    """AutoencoderKLTemporalDecoder fields from the shapes of an sgm autoencoder."""
    require(
        'encoder.conv_in.weight' in state and 'decoder.conv_in.weight' in state,
        'the file holds no autoencoder (encoder.*, decoder.*): another kind of file?',
        CheckpointError,
    )
    levels = 1 + max(int(m[1]) for k in state if (m := re.match(r'encoder\.down\.(\d+)\.block', k)))
    layers = 1 + max(int(m[1]) for k in state if (m := re.match(r'encoder\.down\.0\.block\.(\d+)', k)))
    channels = tuple(state[f'encoder.down.{i}.block.0.conv2.weight'].shape[0] for i in range(levels))
    return {
        'block_out_channels': channels,
        'down_block_types': ('DownEncoderBlock2D',) * levels,
        'layers_per_block': layers,
        'latent_channels': state['decoder.conv_in.weight'].shape[1],
        'scaling_factor': 0.18215,
    }


def convert_vae(
    state: State, quant: State, where: str, report: KeyReport, prefix: str
) -> AutoencoderKLTemporalDecoder:
    """One autoencoder; `quant` is the condition encoder's quant_conv, the identity where there is none."""
    vae = AutoencoderKLTemporalDecoder(**infer_vae_config(state))
    levels = len(vae.config.block_out_channels)
    key_of = {n: k for n in vae.state_dict() if (k := vae_key(n, levels)) is not None}
    local = KeyReport()
    copy_weights(vae, state, key_of, where, local)
    report.used |= {prefix + k: v for k, v in local.used.items()}
    unused = 'training state' if prefix else 'not part of the autoencoder'
    report.ignored |= {prefix + k: unused for k in state if k not in local.used}
    with torch.no_grad():
        channels = vae.quant_conv.weight.shape[0]
        identity = torch.eye(channels)[..., None, None]
        vae.quant_conv.weight.copy_(quant.get('weight', identity))
        vae.quant_conv.bias.copy_(quant.get('bias', torch.zeros(channels)))
    if 'weight' not in quant:
        report.initialised[prefix + 'quant_conv'] = 'identity: the file has none'
    return vae.eval()


def convert_clip(
    state: State, where: str, report: KeyReport, heads: int = 16
) -> CLIPVisionModelWithProjection:
    """The frozen open_clip image tower as transformers' model."""
    visual = take(state, _CLIP)
    require(
        'conv1.weight' in visual, f'{where} holds no image encoder; pass --image-encoder', CheckpointError
    )
    width, _, patch, _ = visual['conv1.weight'].shape
    side = round((len(visual['positional_embedding']) - 1) ** 0.5)
    layers = 1 + max(int(m[1]) for k in visual if (m := re.match(r'transformer\.resblocks\.(\d+)', k)))
    model = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=visual['transformer.resblocks.0.mlp.c_fc.weight'].shape[0],
            num_hidden_layers=layers,
            num_attention_heads=heads,
            image_size=side * patch,
            patch_size=patch,
            projection_dim=visual['proj'].shape[1],
            hidden_act='gelu',
        )
    )
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            place = clip_keys(name)
            if place is None:
                continue  # position_ids, a constant
            key, third = place
            require(key in visual, f'{where} lacks {_CLIP + key}', CheckpointError)
            value = visual[key] if third is None else visual[key].chunk(3)[third]
            weight.copy_(value.T if key == 'proj' else value)
            report.used.setdefault(_CLIP + key, []).append(f'image_encoder.{name}')
    return model.eval()


def find_vae_state(state: State, modality: str, vae: Path | None) -> tuple[State, str, str]:
    """(weights, where, key prefix) of a modality: from the main file, else from a VAE file in `vae`."""
    prefix, _, names = _VAES[modality]
    inside = take(state, prefix)
    if inside:
        return inside, 'the checkpoint', prefix
    require(
        vae is not None,
        f'the checkpoint has no {prefix}* weights; pass --vae with {" or ".join(names)}',
        CheckpointError,
    )
    found = [vae / name for name in names if (vae / name).is_file()]
    require(bool(found), f'{vae} has neither {" nor ".join(names)}', CheckpointError)
    return read_state(found[0]), str(found[0]), ''


def check_encoder_copy(state: State, weights: State, embedder: int, report: KeyReport) -> None:
    """The condition encoder's copy of an autoencoder, checked to be that autoencoder: CheckpointError otherwise.

    One encoder serves condition and targets here, so a copy of its own cannot be honoured and must not be ignored.
    """
    prefix = f'conditioner.embedders.{embedder}.encoder.'
    for key, value in take(state, prefix).items():
        if key.startswith('quant_conv.'):
            continue
        own = weights.get(key)
        if own is None:
            require(not key.startswith(('encoder.', 'decoder.')), f'{prefix}{key}: the autoencoder has no such weight',
                    CheckpointError)
            report.ignored[prefix + key] = 'training state'
            continue
        if own.shape != value.shape or not torch.equal(own.float(), value.float()):
            raise CheckpointError(
                f'{prefix}{key} differs from the autoencoder that belongs to it: the condition was encoded with other '
                'weights than the targets; pass the autoencoders of this very checkpoint with --vae'
            )
        report.ignored[prefix + key] = 'repeats the autoencoder'


def import_released(
    checkpoint: Path,
    vae: Path | None = None,
    image_encoder: Path | None = None,
    head_dim: int = 64,
    clip_heads: int = 16,
) -> tuple[Geo4dPipeline, KeyReport]:
    """The released model as a faithful pipeline: 25 Euler steps, no anchor, released token routing."""
    from geo4d_ros.generation.unet.saved_modules import load_part

    state, report = read_state(checkpoint), KeyReport()
    unet = convert_unet(state, str(checkpoint), report, head_dim)
    vaes = {}
    for modality, (_, embedder, _) in _VAES.items():
        weights, where, prefix = find_vae_state(state, modality, vae)
        quant_prefix = f'conditioner.embedders.{embedder}.encoder.quant_conv.'
        quant = take(state, quant_prefix)
        vaes[modality] = convert_vae(weights, quant, where, report, prefix)
        report.used |= {quant_prefix + k: [f'{modality}_vae.quant_conv.{k}'] for k in quant}
        check_encoder_copy(state, weights, embedder, report)
    if image_encoder is not None:
        encoder = load_part(image_encoder, CLIPVisionModelWithProjection, torch.float32)
    else:
        encoder = convert_clip(state, str(checkpoint), report, clip_heads)
    for key in state:
        if key not in report.used and key not in report.ignored:
            report.ignored[key] = 'training state'
    report.notes.append(
        'convention released: quant_conv belongs to the condition encoder only, targets of further training do not '
        'pass it; pixels without depth are predicted in the centre of their camera'
    )
    settings = {'name': 'geo4d-released', 'steps': 25, 'anchor': False, 'convention': 'released'}
    return Geo4dPipeline(unet, vaes['rgb'], vaes['points'], encoder, **settings), report
