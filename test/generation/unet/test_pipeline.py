"""The pipeline on a tiny model: determinism, cost that is not paid, geometry put right, bad input refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geo4d_ros.errors import ConfigurationError, InvalidInputError
from geo4d_ros.generation.protocol import VideoGenerator
from geo4d_ros.generation.unet import memory, presets
from geo4d_ros.generation.unet.presets import build
from geo4d_ros.generation.unet.sampling.denoising import noise_levels, partial_levels
from geo4d_ros.types import Observation, RgbdFrame

TINY_UNET = {'block_out_channels': (32, 32, 32), 'num_attention_heads': (1, 1, 1)}
TINY_VAE = {'block_out_channels': (32, 32), 'down_block_types': ('DownEncoderBlock2D',) * 2, 'layers_per_block': 1,
            'latent_channels': 4, 'scaling_factor': 0.18215}
TINY_CLIP = {'hidden_size': 16, 'intermediate_size': 16, 'num_hidden_layers': 1, 'num_attention_heads': 2,
             'patch_size': 8, 'image_size': 16, 'projection_dim': 24}
SIZE = {'height': 32, 'width': 32, 'frames': 3}


def scene(views=2, seed=0):
    """Views of a tilted plane 1 m away, smooth enough to have one scale."""
    K = np.array([[40.0, 0, 19.5], [0, 40.0, 15.5], [0, 0, 1]])
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(views):
        depth = (0.9 + 0.005 * np.arange(40) + 0.003 * np.arange(32)[:, None]).astype(np.float32)
        frames.append(RgbdFrame(rng.integers(0, 256, (32, 40, 3), dtype=np.uint8), depth, K))
    T = np.eye(4)
    T[2, 3] = 0.8
    return Observation(tuple(frames), T, 0.05)


@pytest.fixture(scope='module')
def small():
    """The patch-code preset at 32 px, EDM sampler."""
    return build('geo4d-sim-unet', {**TINY_UNET, 'decoders': 'shared', 'predict_residual': False},
                 {**SIZE, 'sampler': 'euler', 'steps': 2, 'condition_frame': 'own'})


@pytest.fixture(scope='module')
def svd_like():
    """SVD's structure at 32 channels with temporal VAEs and image tokens."""
    parts = {
        'unet': {**TINY_UNET, 'layers_per_block': 1, 'cross_attention_dim': 24, 'link_heads': 2, 'link_head_dim': 16,
                 'addition_time_embed_dim': 16, 'projection_class_embeddings_input_dim': 48,
                 'link_zero_init': False, **presets._SMALL_BLOCKS},
        'vae': TINY_VAE, 'clip': TINY_CLIP, 'pipeline': SIZE,
    }
    presets.PRESETS['tiny-svd'] = parts
    try:
        yield build('tiny-svd', pipeline={'steps': 2})
    finally:
        del presets.PRESETS['tiny-svd']


def test_is_a_video_generator_and_deterministic_by_seed(svd_like):
    assert isinstance(svd_like, VideoGenerator)
    first, again, other = (svd_like.predict(scene(), seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.points, again.points)
    np.testing.assert_array_equal(first.rgb, again.rgb)
    assert np.abs(first.points - other.points).max() > 1e-3
    assert first.rgb.shape == (2, 4, 32, 32, 3)
    assert set(first.timings) == {'prepare', 'encode', 'denoise', 'decode', 'assemble'}


def test_frame_zero_is_the_observation(small):
    observation = scene()
    video = small.predict(observation)
    assert video.K[0, 0, 0] == pytest.approx(40 * 32 / 40)
    np.testing.assert_allclose(video.depth(0, 0)[video.valid[0, 0]], 1.0, atol=0.2)
    assert np.diff(video.stamps).tolist() == [500_000_000] * 3


def test_unwanted_rgb_is_not_denoised_and_changes_nothing_else(svd_like, monkeypatch):
    counts = []
    forward = type(svd_like.unet).forward
    monkeypatch.setattr(type(svd_like.unet), 'forward', lambda self, latents, *args, **kwargs: (
        counts.append(latents.shape[1]), forward(self, latents, *args, **kwargs))[1])
    everything = svd_like(scene(), seed=5)
    points_only = svd_like(scene(), seed=5, rgb_views=())
    one_view = svd_like(scene(), seed=5, rgb_views=(0,))
    assert counts == [4, 4, 2, 2, 3, 3]
    np.testing.assert_allclose(points_only.points, everything.points, atol=2e-4)
    assert not points_only.rgb[:, 1:].any()
    assert np.abs(one_view.rgb[0].astype(int) - everything.rgb[0]).max() <= 1


def test_guidance_one_is_none_and_more_changes_the_result(svd_like):
    plain, guided = svd_like(scene(), seed=1), svd_like(scene(), seed=1, guidance_scale=3.0)
    assert np.abs(plain.points - guided.points).max() > 1e-3


def test_anchor_brings_the_first_frame_to_the_observed_depth(small):
    video = small(scene(), seed=0, anchor=True)
    z, now = video.points[0, 1, ..., 2], video.points[0, 0, ..., 2]
    both = video.valid[0, 1] & (z > 0)
    assert np.median(now[both] / z[both]) == pytest.approx(1.0, abs=1e-3)


def test_auxiliary_maps_gate_the_motion():
    pipeline = build('geo4d-sim-unet', {**TINY_UNET, 'auxiliary_upscale': 8, 'state_stream': True,
                                        'predict_residual': False},
                     {**SIZE, 'sampler': 'euler', 'steps': 1, 'condition_frame': 'own'})
    with torch.no_grad():
        pipeline.unet.conv_auxiliary.weight.zero_()
        pipeline.unet.conv_auxiliary.bias.fill_(-5.0)
    video = pipeline.predict(scene())
    np.testing.assert_allclose(video.points[0, 1], video.points[0, 0])  # nothing moves: everything as observed
    np.testing.assert_array_equal(video.rgb[0, 3], video.rgb[0, 0])
    assert video.gripper_mask.max() < 0.01
    assert len(video.state) == 4
    with pytest.raises(InvalidInputError, match='T_ref_gripper and opening'):
        pipeline.predict(replace(scene(), T_ref_gripper=None))


def test_residual_regression_starts_from_the_observation():
    pipeline = build('geo4d-sim-unet', TINY_UNET, {**SIZE, 'condition_frame': 'own', 'anchor': False})
    with torch.no_grad():
        pipeline.unet.conv_out.weight.zero_()
        pipeline.unet.conv_out.bias.zero_()
    video = pipeline.predict(scene())
    np.testing.assert_allclose(video.points[0, 2], video.points[0, 0], atol=1e-5)
    assert np.abs(video.rgb[1, 2].astype(int) - video.rgb[1, 0]).max() <= 1
    np.testing.assert_allclose(video.T_ref_view[1], np.eye(4), atol=1e-4)


@pytest.mark.parametrize('arguments, message', [
    ({'steps': -1}, 'at least 1'), ({'sigmas': (1.0, 2.0)}, 'positive and falling'),
])
def test_impossible_settings_are_refused(small, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        small(scene(), **arguments)


def test_wrong_view_count_and_empty_depth_are_named(small):
    with pytest.raises(InvalidInputError, match='takes 2 views but the observation has 1'):
        small.predict(scene(views=1))
    blind = scene()
    dark = replace(blind.views[1], depth=np.zeros_like(blind.views[1].depth))
    with pytest.raises(InvalidInputError, match='view 1 has depth at'):
        small.predict(replace(blind, views=(blind.views[0], dark)))


def test_nan_depth_never_reaches_the_model():
    frame = scene().views[0]
    with pytest.raises(InvalidInputError, match='NaN'):
        replace(frame, depth=np.full_like(frame.depth, np.nan))


def test_wrong_resolution_is_named():
    with pytest.raises(ConfigurationError, match='width should be a multiple of 8'):
        build('geo4d-sim-unet', TINY_UNET, {**SIZE, 'width': 33})


def test_too_little_memory_is_said_before_it_fails(small, monkeypatch):
    monkeypatch.setattr(memory, 'available_bytes', lambda device: 1000)
    with pytest.raises(ConfigurationError, match=r'4 streams of 3 frames 32x32 needs about .* GiB are free') as caught:
        small.predict(scene())
    assert '\n' not in str(caught.value)


def test_three_views_attend_to_the_reference():
    pipeline = build('geo4d-sim-unet', {**TINY_UNET, 'predict_residual': False},
                     {**SIZE, 'views': 3, 'sampler': 'euler', 'steps': 1, 'condition_frame': 'own'})
    assert pipeline.predict(scene(views=3)).views == 3


def test_unknown_preset_is_named():
    with pytest.raises(ConfigurationError, match='geo4d-sim-unet'):
        build('gpt')


def test_one_step_student_starts_at_the_highest_noise():
    student = build('geo4d-sim-unet', {**TINY_UNET, 'predict_residual': False},
                    {**SIZE, 'sampler': 'renoise', 'steps': 1, 'condition_frame': 'own'})
    assert noise_levels(student.config, None, None) == [700.0, 0.0]
    assert noise_levels(student.config, 2, None) == [700.0, 2.27, 0.0]
    assert student.predict(scene()).views == 2


def test_rgb_of_views_that_are_not_there_is_refused(small):
    with pytest.raises(ConfigurationError, match=r'rgb_views should be in 0\.\.1 but got \[2\]'):
        small(scene(), rgb_views=(2,))


def test_denoising_can_stop_at_a_noise_level():
    levels = [700.0, 70.0, 2.0, 0.1, 0.0]
    assert partial_levels(levels, 0.0) == levels
    assert partial_levels(levels, 2.0) == [700.0, 70.0, 0.0]
    with pytest.raises(ConfigurationError, match='until'):
        partial_levels(levels, 700.0)


def test_a_pipeline_can_be_set_to_stop_early(small):
    settings = {**SIZE, 'sampler': 'euler', 'steps': 2, 'condition_frame': 'own'}
    early = build('geo4d-sim-unet', {**TINY_UNET, 'decoders': 'shared', 'predict_residual': False},
                  {**settings, 'until': 1.0})
    np.testing.assert_array_equal(early.predict(scene(), 3).points, small(scene(), 3, until=1.0).points)
    assert not np.array_equal(early.predict(scene(), 3).points, small(scene(), 3).points)
