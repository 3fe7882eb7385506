"""Names of the same weights in Stability's `sgm` code and in diffusers, worked out from the architectures."""

from __future__ import annotations

import re

_RESNET = {
    'norm1': 'in_layers.0',
    'conv1': 'in_layers.2',
    'time_emb_proj': 'emb_layers.1',
    'norm2': 'out_layers.0',
    'conv2': 'out_layers.3',
    'conv_shortcut': 'skip_connection',
}
_VAE_ATTENTION = {'group_norm': 'norm', 'to_q': 'q', 'to_k': 'k', 'to_v': 'v', 'to_out.0': 'proj_out'}
_UNET_ENDS = {
    'time_embedding.linear_1': 'time_embed.0',
    'time_embedding.linear_2': 'time_embed.2',
    'add_embedding.linear_1': 'label_emb.0.0',
    'add_embedding.linear_2': 'label_emb.0.2',
    'conv_in': 'input_blocks.0.0',
    'conv_norm_out': 'out.0',
    'conv_out': 'out.2',
}


def _replace_prefix(name: str, table: dict[str, str]) -> str:
    for ours, theirs in table.items():
        if name == ours or name.startswith(ours + '.'):
            return theirs + name[len(ours) :]
    return name


def _inside_resnet(name: str) -> str:
    """A name inside a SpatioTemporalResBlock of the U-Net."""
    if name.startswith('spatial_res_block.'):
        return _replace_prefix(name[len('spatial_res_block.') :], _RESNET)
    if name.startswith('temporal_res_block.'):
        return 'time_stack.' + _replace_prefix(name[len('temporal_res_block.') :], _RESNET)
    return name  # time_mixer.mix_factor


def _inside_attention(name: str) -> str:
    """A name inside a TransformerSpatioTemporalModel."""
    name = name.replace('temporal_transformer_blocks.', 'time_stack.')
    return name.replace('time_pos_embed.linear_1', 'time_pos_embed.0').replace(
        'time_pos_embed.linear_2', 'time_pos_embed.2'
    )


def _inside_block(kind: str, name: str) -> str:
    return _inside_resnet(name) if kind == 'resnets' else _inside_attention(name)


def unet_key(name: str, layers: int, attention_in_up: list[bool]) -> str | None:
    """sgm's name of a U-Net weight; None for weights that only this package has.

    layers: resnets per down block; attention_in_up[b]: whether up block b has transformers.
    """
    if match := re.fullmatch(r'link_attentions\.points\.(\d+)\.(to_[qkv]|to_out)\.(\w+)', name):
        layer, part, leaf = match.groups()
        return f'attn_layers_decoder.{layer}.{part}{".0" if part == "to_out" else ""}.{leaf}'
    if match := re.fullmatch(r'down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)', name):
        level, kind, j, rest = match.groups()
        index = 1 + int(level) * (layers + 1) + int(j)
        return f'input_blocks.{index}.{int(kind == "attentions")}.{_inside_block(kind, rest)}'
    if match := re.fullmatch(r'down_blocks\.(\d+)\.downsamplers\.0\.conv\.(\w+)', name):
        return f'input_blocks.{(int(match[1]) + 1) * (layers + 1)}.0.op.{match[2]}'
    if match := re.fullmatch(r'mid_block\.(resnets|attentions)\.(\d+)\.(.+)', name):
        kind, j, rest = match.groups()
        index = 2 * int(j) if kind == 'resnets' else 1
        return f'middle_block.{index}.{_inside_block(kind, rest)}'
    if match := re.fullmatch(r'up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)', name):
        level, kind, j, rest = match.groups()
        index = int(level) * (layers + 1) + int(j)
        return f'output_blocks.{index}.{int(kind == "attentions")}.{_inside_block(kind, rest)}'
    if match := re.fullmatch(r'up_blocks\.(\d+)\.upsamplers\.0\.conv\.(\w+)', name):
        level = int(match[1])
        place = 2 if attention_in_up[level] else 1
        return f'output_blocks.{level * (layers + 1) + layers}.{place}.conv.{match[2]}'
    renamed = _replace_prefix(name, _UNET_ENDS)
    return renamed if renamed != name else None


def vae_key(name: str, levels: int) -> str | None:
    """sgm's name of a weight of AutoencoderKLTemporalDecoder; None for quant_conv, which `sgm` keeps elsewhere."""
    side, _, rest = name.partition('.')
    if side not in ('encoder', 'decoder'):
        return None
    if match := re.fullmatch(r'(down|up)_blocks\.(\d+)\.resnets\.(\d+)\.(.+)', rest):
        direction, level, j, inner = match.groups()
        index = int(level) if direction == 'down' else levels - 1 - int(level)
        return f'{side}.{direction}.{index}.block.{j}.{_inside_vae_resnet(inner)}'
    if match := re.fullmatch(r'down_blocks\.(\d+)\.downsamplers\.0\.(.+)', rest):
        return f'{side}.down.{match[1]}.downsample.{match[2]}'
    if match := re.fullmatch(r'up_blocks\.(\d+)\.upsamplers\.0\.(.+)', rest):
        return f'{side}.up.{levels - 1 - int(match[1])}.upsample.{match[2]}'
    if match := re.fullmatch(r'mid_block\.resnets\.(\d+)\.(.+)', rest):
        return f'{side}.mid.block_{int(match[1]) + 1}.{_inside_vae_resnet(match[2])}'
    if match := re.fullmatch(r'mid_block\.attentions\.0\.(.+)', rest):
        return f'{side}.mid.attn_1.{_replace_prefix(match[1], _VAE_ATTENTION)}'
    ends = {'conv_norm_out': 'norm_out', 'time_conv_out': 'conv_out.time_mix_conv'}
    return f'{side}.{_replace_prefix(rest, ends)}'


def _inside_vae_resnet(name: str) -> str:
    """A name inside a plain or spatio-temporal residual block of the VAE."""
    if name.startswith('temporal_res_block.'):
        return 'time_stack.' + _replace_prefix(name[len('temporal_res_block.') :], _RESNET)
    if name.startswith('time_mixer.'):
        return name[len('time_mixer.') :]
    name = name.removeprefix('spatial_res_block.')
    return _replace_prefix(name, {'conv_shortcut': 'nin_shortcut'})


def clip_keys(name: str) -> tuple[str, int | None] | None:
    """open_clip's name of a CLIPVisionModelWithProjection weight and which third of it (q, k, v), if split.

    None for names that open_clip does not have; 'visual_projection.weight' is stored transposed there.
    """
    if match := re.fullmatch(
        r'vision_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)', name
    ):
        layer, part, leaf = match.groups()
        return f'transformer.resblocks.{layer}.attn.in_proj_{leaf}', 'qkv'.index(part)
    if match := re.fullmatch(r'vision_model\.encoder\.layers\.(\d+)\.(.+)', name):
        inner = _replace_prefix(
            match[2],
            {
                'self_attn.out_proj': 'attn.out_proj',
                'layer_norm1': 'ln_1',
                'layer_norm2': 'ln_2',
                'mlp.fc1': 'mlp.c_fc',
                'mlp.fc2': 'mlp.c_proj',
            },
        )
        return f'transformer.resblocks.{match[1]}.{inner}', None
    table = {
        'vision_model.embeddings.class_embedding': 'class_embedding',
        'vision_model.embeddings.patch_embedding.weight': 'conv1.weight',
        'vision_model.embeddings.position_embedding.weight': 'positional_embedding',
        'vision_model.pre_layrnorm': 'ln_pre',
        'vision_model.post_layernorm': 'ln_post',
        'visual_projection.weight': 'proj',
    }
    renamed = _replace_prefix(name, table)
    return (renamed, None) if renamed != name else None
