"""The faster path gives the released algorithm's output; every exact rewrite is exact."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder

from geo4d_ros.cli.main import main
from geo4d_ros.generation.unet import presets
from geo4d_ros.generation.unet.kernels.fused import use_fast_kernels
from geo4d_ros.generation.unet.kernels.prepacked import fixed_weights
from geo4d_ros.generation.unet.network import Geo4dUNet
from geo4d_ros.generation.unet.streams import all_streams

TINY_UNET = {**presets._SMALL_BLOCKS, 'block_out_channels': (32, 32, 32), 'num_attention_heads': (1, 1, 1),
             'layers_per_block': 1, 'cross_attention_dim': 24, 'link_heads': 2, 'link_head_dim': 16,
             'addition_time_embed_dim': 16, 'projection_class_embeddings_input_dim': 48}
TINY_CLIP = {'hidden_size': 16, 'intermediate_size': 16, 'num_hidden_layers': 1, 'num_attention_heads': 2,
             'patch_size': 8, 'image_size': 16, 'projection_dim': 24}


@torch.no_grad()
def test_fast_kernels_change_no_number():
    torch.manual_seed(0)
    unet = Geo4dUNet(**TINY_UNET, link_zero_init=False).eval()
    data = (torch.randn(1, 4, 3, 4, 8, 8), torch.full((1, 4), 1.0), torch.randn(1, 4, 4, 8, 8),
            torch.randn(1, 4, 1, 24))
    names = list(unet.state_dict())
    before = unet(*data).sample
    use_fast_kernels(unet)
    assert list(unet.state_dict()) == names
    torch.testing.assert_close(unet(*data).sample, before, atol=1e-4, rtol=0)
    vae = AutoencoderKLTemporalDecoder(block_out_channels=(32, 32), down_block_types=('DownEncoderBlock2D',) * 2).eval()
    z = torch.randn(3, 4, 4, 4)
    decoded = vae.decode(z, num_frames=3).sample
    use_fast_kernels(vae)
    torch.testing.assert_close(vae.decode(z, num_frames=3).sample, decoded, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize('size, streams', [((3, 5), 2), ((8, 12), 4), ((32, 40), 1)])
def test_fast_kernels_at_every_layout(size, streams):
    """Small maps keep their channels outermost, larger ones innermost; none changes a number."""
    torch.manual_seed(1)
    unet = Geo4dUNet(**TINY_UNET, links=()).eval().double()  # norms over two pixels amplify float32's rounding
    data = (torch.randn(2, streams, 3, 4, *size), torch.full((2, streams), 1.0), torch.randn(2, streams, 4, *size),
            torch.randn(2, streams, 1, 24))
    data = (*(x.double() for x in data), all_streams(2)[:streams])
    before = unet(*data).sample
    use_fast_kernels(unet)
    with fixed_weights():
        for _ in range(2):  # the second call reads what the first has prepared
            torch.testing.assert_close(unet(*data).sample, before, atol=1e-8, rtol=0)
    for parameter in unet.parameters():
        parameter.data.mul_(0.9)  # as an average of weights is put in place
    assert (unet(*data).sample - before).abs().max() > 1e-3


@torch.no_grad()
def test_rearranged_weights_of_a_frozen_model_are_kept_until_they_change():
    torch.manual_seed(1)
    unet = Geo4dUNet(**TINY_UNET, links=()).eval().requires_grad_(False)
    data = (torch.randn(1, 1, 3, 4, 16, 24), torch.full((1, 1), 1.0), torch.randn(1, 1, 4, 16, 24),
            torch.randn(1, 1, 1, 24), all_streams(2)[:1])
    use_fast_kernels(unet)
    for change in (lambda p: None, lambda p: p.mul_(1.1), lambda p: p.add_(0.01)):
        for parameter in unet.parameters():
            change(parameter)
        plain = unet(*data).sample
        for _ in range(2):
            with fixed_weights():
                torch.testing.assert_close(unet(*data).sample, plain, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_several_tokens_and_pictures_take_the_library_way():
    from diffusers.models.resnet import SpatioTemporalResBlock

    torch.manual_seed(2)
    block = SpatioTemporalResBlock(32, 32, temb_channels=8).eval()
    x, emb, pictures = torch.randn(4, 32, 8, 8), torch.randn(4, 8), torch.ones(2, 2)
    before = block(x, emb, pictures)
    model = torch.nn.ModuleList([block])
    use_fast_kernels(model)
    torch.testing.assert_close(model[0](x, emb, pictures), before)


def test_fast_kernels_keep_the_gradients():
    gradients = []
    for fast in (False, True):
        torch.manual_seed(0)
        unet = Geo4dUNet(**TINY_UNET, link_zero_init=False).double()
        if fast:
            use_fast_kernels(unet)
        torch.manual_seed(1)
        data = (torch.randn(1, 4, 2, 4, 8, 8), torch.full((1, 4), 1.0), torch.randn(1, 4, 4, 8, 8),
                torch.randn(1, 4, 1, 24))
        unet(*(x.double() for x in data)).sample.square().mean().backward()
        gradients.append(unet.conv_in.weight.grad)
        assert all(p.grad is not None for p in unet.parameters())
    torch.testing.assert_close(*gradients, atol=1e-8, rtol=1e-6)


@pytest.fixture
def tiny_svd(monkeypatch):
    vae = {'block_out_channels': (32, 32), 'down_block_types': ('DownEncoderBlock2D',) * 2, 'layers_per_block': 1,
           'latent_channels': 4}
    monkeypatch.setitem(presets.PRESETS, 'geo4d-svd-reduced', {
        'unet': TINY_UNET, 'vae': vae, 'clip': TINY_CLIP, 'pipeline': {'height': 16, 'width': 16, 'frames': 2}})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_command_reports_the_same_output_in_less_time(tiny_svd, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = tmp_path / 'report.json'
    arguments = ['benchmark', 'generator', '--preset', 'reduced-width', '--repeats', '1', '--json', str(target)]
    assert main(arguments) == 0
    report = json.loads(target.read_text())
    assert set(report) >= {'stages_ms', 'flops', 'peak_memory_mib', 'speedup_25_steps', 'speedup_8_steps',
                           'relative_output_difference', 'device', 'revision'}
    for entry in report['consumers'].values():
        assert entry['relative_output_difference'] <= 1e-3
    assert report['flops']['25'] > 2.5 * report['flops']['8']
    assert report['released_flops'] > 3.5 * report['flops']['25']
    assert report['consumer'] == 'points'
    assert report['same_output_speedup_25_steps'] == report['consumers']['everything']['speedup_25_steps'] > 0
    assert report['points_speedup_8_steps'] > report['points_speedup_25_steps'] > 0
    assert report['student_1_step_speedup'] > 0 and report['largest_output_difference'] <= 1e-3
    floor = report['floor']['h100_ms_25_steps']
    assert 0 < floor['bfloat16']['denoise'] < floor['float32']['denoise']
    assert report['released_ms']['total']['p95'] >= report['released_ms']['total']['p50'] > 0
    assert 'released algorithm' in capsys.readouterr().out
    assert np.isfinite(report['speedup_25_steps'])


def test_released_algorithm_covers_all_streams(tiny_svd):
    from geo4d_ros.bench.speed.generator import benchmark_pipeline
    from geo4d_ros.bench.speed.released_algorithm import ReleasedAlgorithm
    from geo4d_ros.types import Observation

    images, times = ReleasedAlgorithm(benchmark_pipeline('reduced-width'))(Observation.example(), 0, steps=1)
    assert list(images) == all_streams(2)
    assert set(times) == {'encode', 'denoise', 'decode'}


def test_bad_arguments(capsys):
    assert main(['benchmark', 'generator', '--repeats', '0']) == 2
    assert main(['benchmark', 'generator', '--threads', '0']) == 2
    assert main(['benchmark', 'generator', '--device', 'abacus']) == 2
    assert 'abacus' in capsys.readouterr().err
