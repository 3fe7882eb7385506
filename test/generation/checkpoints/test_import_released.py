"""The authors' checkpoints: same numbers as an independent restatement of the released forward pass."""

import argparse

import pytest
import torch
from sgm_reference import FULL, SgmUNet, random_state, unet_shapes

from geo4d_ros.errors import CheckpointError
from geo4d_ros.generation.checkpoints.released import (
    convert_unet,
    import_released,
    infer_unet_config,
    infer_vae_config,
    read_state,
)
from geo4d_ros.generation.checkpoints.report import KeyReport
from geo4d_ros.generation.unet.streams import all_streams, token_view

REDUCED = {'width': 32, 'mult': (1, 2, 2), 'blocks': 1, 'attention_levels': 2, 'context': 24, 'link_inner': 32}
HEAD_DIM = 16


@pytest.fixture(scope='module')
def released_state():
    weights = random_state(unet_shapes(**REDUCED))
    state = {f'model.diffusion_model.{k}': v for k, v in weights.items()}
    return state | {f'model.diffusion_model_2.{k}': v for k, v in weights.items()}


@torch.no_grad()
def test_imported_unet_equals_the_released_forward_pass(released_state):
    report = KeyReport()
    unet = convert_unet(released_state, 'test', report, HEAD_DIM)
    weights = {k.removeprefix('model.diffusion_model.'): v for k, v in released_state.items()
               if k.startswith('model.diffusion_model.')}
    reference = SgmUNet(weights, REDUCED['mult'], REDUCED['blocks'], HEAD_DIM)
    frames, size = 3, (4, 8)
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 4, frames, 4, *size, generator=generator)
    condition = torch.randn(1, 4, 4, *size, generator=generator)
    view_tokens = torch.randn(2, 1, 24, generator=generator)
    t = torch.tensor(1.3)

    streams = all_streams(2)
    tokens = torch.stack([view_tokens[token_view(s, 'released', 2)] for s in streams])[None]
    ours = unet(latents, t.expand(1, 4), condition, tokens).sample[0]

    x = torch.cat([latents[0], condition[0, :, None].expand(-1, frames, -1, -1, -1)], dim=2)
    steps = t.expand(frames)
    points_n, features = reference(x[0], steps, view_tokens[:1])
    rgb_n, _ = reference(x[1], steps, view_tokens[1:])  # the released routing: RGB gets the second view's token
    points_m, _ = reference(x[2], steps, view_tokens[:1], features)
    rgb_m, _ = reference(x[3], steps, view_tokens[1:])
    theirs = torch.stack([points_n, rgb_n, points_m, rgb_m])
    assert theirs.abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert not any(reason.startswith('no such part') for reason in report.ignored.values())
    assert len(report.ignored) == len(weights)  # the repeated second copy, nothing else


def test_config_is_inferred_from_full_width_shapes():
    state = {k: torch.empty(v, device='meta') for k, v in unet_shapes(**FULL).items()}
    config = infer_unet_config(state)
    assert config['block_out_channels'] == (320, 640, 1280, 1280)
    assert config['num_attention_heads'] == (5, 10, 20, 20)
    assert (config['layers_per_block'], config['cross_attention_dim'], config['link_head_dim']) == (2, 1024, 64)


def test_differing_second_decoder_is_refused(released_state):
    key = 'model.diffusion_model_2.out.2.bias'
    with pytest.raises(CheckpointError, match=r'out\.2\.bias'):
        convert_unet({**released_state, key: released_state[key] + 1}, 'test', KeyReport(), HEAD_DIM)


def test_missing_key_is_named(released_state):
    broken = {k: v for k, v in released_state.items() if not k.endswith('middle_block.0.in_layers.2.weight')}
    with pytest.raises(CheckpointError, match=r'middle_block\.0\.in_layers\.2\.weight'):
        convert_unet(broken, 'test', KeyReport(), HEAD_DIM)


def vae_state(seed=0):
    """A random autoencoder in sgm's layout: (32, 64) channels, one block per level, 4 latent channels."""
    shapes = {}

    def put(name, *shape):
        shapes[name + '.weight'], shapes[name + '.bias'] = shape, (shape[0],)

    def block(name, c_in, c_out, temporal):
        for i, c in ((1, c_in), (2, c_out)):
            put(f'{name}.norm{i}', c)
            put(f'{name}.conv{i}', c_out, c, 3, 3)
        if c_in != c_out:
            put(f'{name}.nin_shortcut', c_out, c_in, 1, 1)
        if temporal:
            for layer in ('in_layers', 'out_layers'):
                put(f'{name}.time_stack.{layer}.0', c_out)
            put(f'{name}.time_stack.in_layers.2', c_out, c_out, 3, 1, 1)
            put(f'{name}.time_stack.out_layers.3', c_out, c_out, 3, 1, 1)
            shapes[f'{name}.mix_factor'] = (1,)

    def middle(side, temporal):
        for i in (1, 2):
            block(f'{side}.mid.block_{i}', 64, 64, temporal)
        put(f'{side}.mid.attn_1.norm', 64)
        for part in ('q', 'k', 'v', 'proj_out'):
            put(f'{side}.mid.attn_1.{part}', 64, 64, 1, 1)

    put('encoder.conv_in', 32, 3, 3, 3)
    block('encoder.down.0.block.0', 32, 32, False)
    put('encoder.down.0.downsample.conv', 32, 32, 3, 3)
    block('encoder.down.1.block.0', 32, 64, False)
    middle('encoder', False)
    put('encoder.norm_out', 64)
    put('encoder.conv_out', 8, 64, 3, 3)
    put('decoder.conv_in', 64, 4, 3, 3)
    middle('decoder', True)
    for j in range(2):
        block(f'decoder.up.1.block.{j}', 64, 64, True)
        block(f'decoder.up.0.block.{j}', 64 if j == 0 else 32, 32, True)
    put('decoder.up.1.upsample.conv', 64, 64, 3, 3)
    put('decoder.norm_out', 32)
    put('decoder.conv_out', 3, 32, 3, 3)
    put('decoder.conv_out.time_mix_conv', 3, 3, 3, 1, 1)
    return random_state(shapes, seed)


def clip_state():
    """A random open_clip image tower: width 16, 2 layers, patch 4, 8 px, projecting to 24."""
    shapes = {'class_embedding': (16,), 'positional_embedding': (5, 16), 'conv1.weight': (16, 3, 4, 4)}
    shapes['proj'] = (16, 24)
    for name in ('ln_pre', 'ln_post'):
        shapes |= {f'{name}.weight': (16,), f'{name}.bias': (16,)}
    for i in range(2):
        layer = f'transformer.resblocks.{i}'
        shapes |= {f'{layer}.attn.in_proj_weight': (48, 16), f'{layer}.attn.in_proj_bias': (48,)}
        for part, shape in (('attn.out_proj', (16, 16)), ('mlp.c_fc', (32, 16)), ('mlp.c_proj', (16, 32)),
                            ('ln_1', (16,)), ('ln_2', (16,))):
            shapes |= {f'{layer}.{part}.weight': shape, f'{layer}.{part}.bias': (shape[0],)}
    return random_state(shapes, 3)


@pytest.fixture(scope='module')
def whole_state(released_state):
    state = dict(released_state)
    for prefix, seed in (('first_stage_pointmap_model.', 1), ('first_stage_color_model.', 2)):
        state |= {prefix + k: v for k, v in vae_state(seed).items()}
    for embedder in (1, 2):
        state[f'conditioner.embedders.{embedder}.encoder.quant_conv.weight'] = torch.eye(8)[..., None, None] * 2
        state[f'conditioner.embedders.{embedder}.encoder.quant_conv.bias'] = torch.zeros(8)
    state |= {f'conditioner.embedders.0.open_clip.model.visual.{k}': v for k, v in clip_state().items()}
    return state


def test_whole_checkpoint_converts_and_every_key_is_accounted_for(whole_state, tmp_path):
    path = tmp_path / 'last.ckpt'
    torch.save({'state_dict': {**whole_state, 'loss.unused': torch.zeros(1)}, 'epoch': 26}, path)
    pipeline, report = import_released(path, head_dim=HEAD_DIM, clip_heads=2)
    assert set(report.used) | set(report.ignored) == {*whole_state, 'loss.unused'}
    assert report.ignored['loss.unused'] == 'training state'
    assert not report.initialised
    assert pipeline.unet.config.token_routing == 'released'
    assert (pipeline.config.steps, pipeline.config.anchor, pipeline.config.convention) == (25, False, 'released')
    key = 'first_stage_color_model.decoder.up.1.block.0.mix_factor'
    assert torch.equal(pipeline.rgb_vae.decoder.up_blocks[0].resnets[0].time_mixer.mix_factor, whole_state[key])
    tower = 'conditioner.embedders.0.open_clip.model.visual.'
    q = whole_state[tower + 'transformer.resblocks.1.attn.in_proj_weight'][:16]
    weights = pipeline.image_encoder.state_dict()
    assert torch.equal(weights['vision_model.encoder.layers.1.self_attn.q_proj.weight'], q)
    assert torch.equal(weights['visual_projection.weight'], whole_state[tower + 'proj'].T)


def test_copies_of_the_condition_encoder_are_checked(whole_state, tmp_path):
    copy = {k: v for k, v in vae_state(1).items() if k.startswith('encoder.')}
    state = whole_state | {f'conditioner.embedders.1.encoder.{k}': v for k, v in copy.items()}
    torch.save({'state_dict': state}, tmp_path / 'same.ckpt')
    _, report = import_released(tmp_path / 'same.ckpt', head_dim=HEAD_DIM, clip_heads=2)
    key = 'conditioner.embedders.1.encoder.encoder.conv_in.weight'
    assert report.ignored[key] == 'repeats the autoencoder'
    torch.save({'state_dict': {**state, key: state[key] + 1e-3}}, tmp_path / 'other.ckpt')
    with pytest.raises(CheckpointError, match=r'encoder\.conv_in\.weight differs from the autoencoder'):
        import_released(tmp_path / 'other.ckpt', head_dim=HEAD_DIM, clip_heads=2)


def test_vae_files_are_found_under_either_name(whole_state, tmp_path):
    main = {k: v for k, v in whole_state.items() if not k.startswith('first_stage_')}
    torch.save({'state_dict': main}, tmp_path / 'last.ckpt')
    vae = tmp_path / 'vae'
    vae.mkdir()
    torch.save({'state_dict': vae_state(1)}, vae / 'pointmap.ckpt')
    with pytest.raises(CheckpointError, match=r'neither color.ckpt nor rgb.ckpt'):
        import_released(tmp_path / 'last.ckpt', vae, head_dim=HEAD_DIM, clip_heads=2)
    torch.save({'state_dict': vae_state(2)}, vae / 'rgb.ckpt')
    pipeline, _ = import_released(tmp_path / 'last.ckpt', vae, head_dim=HEAD_DIM, clip_heads=2)
    assert pipeline.rgb_vae.config.block_out_channels == (32, 64)


def test_inferred_vae_config():
    assert infer_vae_config(vae_state())['block_out_channels'] == (32, 64)


@pytest.mark.parametrize('size', [0, 100, 2000])
def test_truncated_checkpoint_is_named(tmp_path, size):
    path = tmp_path / 'bad.ckpt'
    torch.save({'state_dict': {'a': torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r'bad.ckpt is not a torch checkpoint or is truncated'):
        read_state(path)


def test_pickled_objects_are_not_loaded(tmp_path):
    path = tmp_path / 'objects.ckpt'
    torch.save({'state_dict': {'a': torch.zeros(1)}, 'callback': argparse.Namespace()}, path)
    with pytest.raises(CheckpointError, match='more than tensors'):
        read_state(path)


def test_wrong_kind_of_file_is_named(tmp_path):
    torch.save({'state_dict': {'a': torch.zeros(1)}}, tmp_path / 'other.ckpt')
    with pytest.raises(CheckpointError, match='holds no U-Net'):
        import_released(tmp_path / 'other.ckpt')
