"""The small decoder: its size, its place in the pipeline, and that distilling it works."""

import json

import pytest
import torch
from fakes.synthetic_episodes import write_episodes

from geo4d_ros.generation.loading import load_generator
from geo4d_ros.generation.unet import presets
from geo4d_ros.generation.unet.encoders.tiny_decoder import TinyTemporalDecoder
from geo4d_ros.generation.unet.kernels.fused import use_fast_kernels
from geo4d_ros.training.unet.trainer import train
from geo4d_ros.types import Observation


def test_it_is_small_and_mixes_neighbouring_frames_only():
    torch.manual_seed(0)
    decoder = TinyTemporalDecoder().eval()
    assert sum(p.numel() for p in decoder.parameters()) <= 12e6
    for level in decoder.levels:
        torch.nn.init.normal_(level[-1].mix.weight, std=0.02)
    z = torch.randn(2 * 5, 4, 4, 6)
    with torch.no_grad():
        images = decoder.decode(z, num_frames=5).sample
        other = z.clone()
        other[5:] += 1  # the second video
        again = decoder.decode(other, num_frames=5).sample
        use_fast_kernels(decoder)
        fast = decoder.decode(z, num_frames=5).sample
    assert images.shape == (10, 3, 32, 48)
    torch.testing.assert_close(again[:5], images[:5])
    assert (again[5:] - images[5:]).abs().max() > 1e-3
    torch.testing.assert_close(fast, images, atol=1e-4, rtol=0)


@pytest.fixture
def tiny_svd(monkeypatch):
    unet = {**presets.PRESETS['geo4d-svd-reduced']['unet'], **presets._SMALL_BLOCKS, 'block_out_channels': (32, 32, 32),
            'num_attention_heads': (1, 1, 1), 'layers_per_block': 1, 'token_routing': 'learned'}
    monkeypatch.setitem(presets.PRESETS, 'tiny', {
        'unet': unet, 'clip': None, 'pipeline': {'height': 64, 'width': 64, 'frames': 2, 'steps': 1},
        'vae': {'block_out_channels': (32, 32, 32, 32), 'down_block_types': ('DownEncoderBlock2D',) * 4,
                'layers_per_block': 1, 'latent_channels': 4}})


def test_distilled_decoder_is_saved_and_used(tiny_svd, tmp_path):
    write_episodes(tmp_path / 'data')
    output = train({'model': 'unet', 'stage': 'decoder', 'preset': 'tiny', 'data': str(tmp_path / 'data'), 'steps': 10,
                    'output': str(tmp_path / 'run'), 'batch': 1, 'workers': 0, 'lr': 3e-3, 'warmup': 1, 'ema': 0.5,
                    'save_every': 100, 'sample_every': 100, 'schedule': 'constant',
                    'decoder': {'widths': [32, 16, 16]}})
    losses = [json.loads(line)['loss'] for line in (output / 'losses.jsonl').read_text().splitlines()]
    assert min(losses[-3:]) < 0.8 * losses[0]
    pipeline = load_generator(output / 'model')
    assert pipeline.rgb_decoder is None
    images = pipeline.generate(Observation.example(), 0, rgb_views=()).decoded
    pipeline.register_modules(points_decoder=None)
    own = pipeline.generate(Observation.example(), 0, rgb_views=()).decoded
    assert all((images[s] - own[s]).abs().max() > 1e-3 for s in own)
