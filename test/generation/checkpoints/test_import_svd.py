"""Starting from Stable Video Diffusion: what is shared is copied, what is new starts as nothing."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geo4d_ros.cli.main import main
from geo4d_ros.errors import CheckpointError
from geo4d_ros.generation.checkpoints.svd import import_svd
from geo4d_ros.generation.loading import load_generator
from geo4d_ros.types import Observation

SIZE = {'height': 32, 'width': 32, 'frames': 2, 'steps': 1}


@pytest.fixture(scope='module')
def svd(tmp_path_factory):
    """A random model in SVD's layout at 32 channels."""
    directory = tmp_path_factory.mktemp('svd')
    torch.manual_seed(0)
    UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 32), num_attention_heads=(1, 2), layers_per_block=1, cross_attention_dim=24,
        down_block_types=('CrossAttnDownBlockSpatioTemporal', 'DownBlockSpatioTemporal'),
        up_block_types=('UpBlockSpatioTemporal', 'CrossAttnUpBlockSpatioTemporal'),
        addition_time_embed_dim=16, projection_class_embeddings_input_dim=48,
    ).save_pretrained(directory / 'unet')
    AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32, 32, 32), down_block_types=('DownEncoderBlock2D',) * 4,
    ).save_pretrained(directory / 'vae')
    CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16,
        patch_size=8, projection_dim=24)).save_pretrained(directory / 'image_encoder')
    return directory


@pytest.mark.parametrize('decoders, copies', [('shared', 0), ('per_view', 1), ('per_view_points', 2)])
def test_every_decoder_starts_as_svds(svd, decoders, copies):
    pipeline, report = import_svd(svd, {'decoders': decoders}, SIZE)
    source = UNetSpatioTemporalConditionModel.from_pretrained(svd / 'unet').state_dict()
    assert set(report.used) == set(source)
    assert not report.ignored
    weights = pipeline.unet.state_dict()
    key = 'up_blocks.1.resnets.0.spatial_res_block.conv1.weight'
    assert torch.equal(weights[key], source[key])
    for i in range(copies):
        assert torch.equal(weights[f'extra_decoders.{i}.{key.split(".", 1)[1]}'], source[key])
    assert all(name.startswith('unet.link_attentions.points.') for name in report.initialised)
    assert not weights['link_attentions.points.0.to_out.weight'].any()


def test_saved_checkpoint_predicts_the_same(svd, tmp_path):
    pipeline, _ = import_svd(svd, None, SIZE)
    pipeline.save(tmp_path / 'out', shard_size='200KB')
    assert len(list((tmp_path / 'out/unet').glob('*.safetensors'))) > 1
    loaded = load_generator(tmp_path / 'out')
    observation = Observation.example()
    expected, got = pipeline.predict(observation, seed=3), loaded.predict(observation, seed=3)
    np.testing.assert_allclose(got.points, expected.points, atol=1e-4)
    assert np.abs(got.rgb.astype(int) - expected.rgb).max() <= 1


def test_command_writes_checkpoint_and_report(svd, tmp_path, capsys):
    out = tmp_path / 'model'
    assert main(['import', 'svd', str(svd), '--out', str(out), '--size', '32', '32', '--frames', '2']) == 0
    assert 'keys used' in capsys.readouterr().out
    report = json.loads((out / 'import_report.json').read_text())
    assert report['used']['conv_in.weight'] == ['unet.conv_in.weight']
    assert load_generator(out).frames == 2


def test_wrong_kinds_are_refused(svd, tmp_path):
    with pytest.raises(CheckpointError, match=r'lacks unet/config.json, vae/config.json, image_encoder/config.json'):
        import_svd(tmp_path)
    for part in ('vae', 'image_encoder'):
        (tmp_path / part).symlink_to(svd / part)
    (tmp_path / 'unet').mkdir()
    (tmp_path / 'unet/config.json').write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(CheckpointError, match="holds a 'UNet2DConditionModel'"):
        import_svd(tmp_path)


def test_width_mismatch_names_the_key(svd, tmp_path):
    for part in ('unet', 'vae', 'image_encoder'):
        (tmp_path / part).symlink_to(svd / part)
    (tmp_path / 'unet').unlink()
    (tmp_path / 'unet').mkdir()
    for file in (svd / 'unet').iterdir():
        (tmp_path / 'unet' / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / 'unet/config.json').read_text())
    (tmp_path / 'unet/config.json').write_text(json.dumps({**config, 'cross_attention_dim': 32}))
    with pytest.raises(CheckpointError, match=r'attn2\.to_k\.weight has shape \(32, 24\), expected \(32, 32\)'):
        import_svd(tmp_path, None, SIZE)


def test_folder_of_half_precision_files_only(svd, tmp_path):
    for model, part in ((UNetSpatioTemporalConditionModel, 'unet'), (AutoencoderKLTemporalDecoder, 'vae'),
                        (CLIPVisionModelWithProjection, 'image_encoder')):
        model.from_pretrained(svd / part).half().save_pretrained(tmp_path / part, variant='fp16')
    assert not list(tmp_path.glob('*/diffusion_pytorch_model.safetensors'))
    pipeline, report = import_svd(tmp_path, None, SIZE)
    whole, _ = import_svd(svd, None, SIZE)
    assert not report.ignored
    assert pipeline.unet.dtype == pipeline.image_encoder.dtype == torch.float32
    for name, weight in whole.image_encoder.state_dict().items():
        torch.testing.assert_close(pipeline.image_encoder.state_dict()[name], weight, atol=1e-3, rtol=1e-3)
