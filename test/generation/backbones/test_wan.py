"""Wan 2.2 as a backbone, tiny and random: shapes, the library's own numbers, a training step, save and load."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from fakes.synthetic_episodes import write_episodes

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.generation.backbones.registry import BACKBONES, DENOISERS
from geo4d_ros.generation.backbones.wan import FrameAutoencoder, Geo4dWanTransformer
from geo4d_ros.generation.loading import load_generator
from geo4d_ros.generation.unet import presets
from geo4d_ros.generation.unet.sampling import edm, flow
from geo4d_ros.generation.unet.streams import POINTS, Stream, all_streams
from geo4d_ros.training.unet.trainer import train
from geo4d_ros.types import Observation

OWN = {'num_attention_heads': 2, 'attention_head_dim': 12, 'in_channels': 8, 'out_channels': 8, 'text_dim': 16,
       'freq_dim': 16, 'ffn_dim': 32, 'num_layers': 2}
TINY = {**OWN, 'link_every': 1, 'link_heads': 2, 'link_head_dim': 8, 'block_out_channels': (24,), 'num_frames': 3}
CODEC = {'base_dim': 8, 'z_dim': 8, 'dim_mult': [1, 1, 1, 1], 'num_res_blocks': 1,
         'temperal_downsample': [False, True, True],
         'in_channels': 12, 'out_channels': 12, 'patch_size': 2, 'is_residual': True, 'scale_factor_spatial': 16,
         'latents_mean': tuple(np.linspace(-1, 1, 8).tolist()), 'latents_std': (2.0,) * 8}


@pytest.fixture
def tiny_wan(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, 'tiny-wan', {
        'backbone': 'wan2.2-ti2v-5b', 'unet': TINY, 'frame_codec': CODEC, 'clip': None,
        'pipeline': {'height': 64, 'width': 64, 'frames': 3, 'steps': 2, 'anchor': False}})


def data(streams=4, frames=3):
    g = torch.Generator().manual_seed(0)
    return (torch.randn(2, streams, frames, 8, 4, 6, generator=g), torch.full((2, streams), 400.0),
            torch.randn(2, streams, 8, 4, 6, generator=g))


@torch.no_grad()
def test_without_our_branches_every_stream_is_the_librarys_own():
    torch.manual_seed(0)
    model = Geo4dWanTransformer(**TINY).eval()
    library = WanTransformer3DModel(**OWN).eval()
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(('link_attentions', 'stream_tokens'))}
    library.load_state_dict(own)  # the same names: weights of the public model go in as they are
    latents, timestep, condition = data()
    ours = model(latents, timestep, condition).sample
    for i in range(4):
        video = torch.cat([condition[:, i, None], latents[:, i]], 1).transpose(1, 2)
        times = torch.full((2, 4 * 6), 400.0)
        times[:, :6] = 0  # 2x3 patches of the clean frame
        expected = library(video, times, model.stream_tokens[i].expand(2, -1, -1), return_dict=False)[0]
        torch.testing.assert_close(ours[:, i], expected[:, :, 1:].transpose(1, 2), atol=1e-5, rtol=0)


@torch.no_grad()
def test_only_the_second_views_points_look_at_the_firsts():
    torch.manual_seed(0)
    model = Geo4dWanTransformer(**TINY, link_zero_init=False).eval()
    latents, timestep, condition = data()
    before = model(latents, timestep, condition).sample
    changed = latents.clone()
    changed[:, 0] += 1
    after = model(changed, timestep, condition).sample
    difference = (after - before).abs().amax((0, 2, 3, 4, 5))
    streams = all_streams(2)
    for i, stream in enumerate(streams):
        assert (difference[i] > 1e-4) == (stream in (Stream(0, POINTS), Stream(1, POINTS))), stream


def test_state_stream_and_gradients():
    torch.manual_seed(0)
    model = Geo4dWanTransformer(**TINY, link_zero_init=False, state_stream=True)
    state = (torch.randn(2, 3, 10), torch.randn(2, 10))
    out = model(*data(), state=state)
    assert out.state.shape == (2, 3, 10) and out.sample.shape == (2, 4, 3, 8, 4, 6)
    (out.sample.square().mean() + out.state.square().mean()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_noise_model_is_flow_matching():
    clean, noise, sigma = torch.randn(3, 5), torch.randn(3, 5), torch.tensor(2.27)
    noisy = clean + sigma * noise
    share = float(sigma / (1 + sigma))
    torch.testing.assert_close(flow.scale_input(noisy, sigma), (1 - share) * clean + share * noise)
    torch.testing.assert_close(flow.denoised(noisy, noise - clean, sigma), clean, atol=1e-5, rtol=1e-5)
    assert float(flow.timestep(sigma)) == pytest.approx(1000 * share)
    wrong = noise - clean + 0.1
    for scheme, v in ((flow, wrong), (edm, edm.v_target(clean, noise, sigma) + 0.1)):
        error = (scheme.denoised(noisy, v, sigma) - clean) ** 2 * scheme.loss_weight(sigma)
        torch.testing.assert_close(error, torch.full_like(error, 0.01), atol=1e-4, rtol=0)


@torch.no_grad()
def test_codec_is_the_librarys_on_single_frames():
    torch.manual_seed(0)
    vae = FrameAutoencoder(CODEC).eval()
    x = torch.rand(2, 3, 32, 48) * 2 - 1
    z = vae.encode(x).latent_dist.mode()
    assert z.shape == (2, 8, 2, 3)
    theirs = AutoencoderKLWan(**CODEC).eval()
    theirs.load_state_dict(vae.wan_vae.state_dict())
    raw = theirs.encode(x[:, :, None]).latent_dist.mode()[:, :, 0]
    torch.testing.assert_close(z, (raw - vae.mean) / 2, atol=1e-5, rtol=1e-5)
    expected = theirs.decode(raw[:, :, None]).sample[:, :, 0]
    torch.testing.assert_close(vae.decode(z, 2).sample, expected, atol=1e-4, rtol=0)


def test_trains_predicts_and_reloads(tiny_wan, tmp_path):
    write_episodes(tmp_path / 'data')
    output = train({'model': 'unet', 'stage': 'diffusion', 'preset': 'tiny-wan', 'data': str(tmp_path / 'data'),
                    'steps': 2, 'output': str(tmp_path / 'run'), 'batch': 1, 'workers': 0, 'warmup': 1,
                    'save_every': 100, 'sample_every': 100})
    pipeline = load_generator(output / 'model')
    assert isinstance(pipeline.unet, Geo4dWanTransformer)
    first, second = (pipeline.generate(Observation.example(), seed).decoded for seed in (0, 1))
    assert set(first) == set(all_streams(2))
    assert all(images.shape == (3, 3, 64, 64) and bool(images.isfinite().all()) for images in first.values())
    assert any((first[s] - second[s]).abs().max() > 1e-4 for s in first)


def test_registry_names_licences_and_full_size():
    assert set(BACKBONES) == {'svd', 'wan2.2-ti2v-5b'} and set(DENOISERS) == {'Geo4dUNet', 'Geo4dWanTransformer'}
    assert 'Apache' in BACKBONES['wan2.2-ti2v-5b'].licence
    for entry in BACKBONES.values():
        assert entry.preset in presets.PRESETS
    with torch.device('meta'):
        count = sum(p.numel() for p in Geo4dWanTransformer().parameters())
    assert 4.9e9 < count < 5.2e9
    with pytest.raises(ConfigurationError, match='one shared decoder'):
        Geo4dWanTransformer(**TINY, decoders='per_view')
