"""One interface for both autoencoders; the lossless code loses nothing; pointmaps survive the round trip."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.generation.unet import pointmaps
from geo4d_ros.generation.unet.encoders.autoencoders import (
    PatchAutoencoder,
    decode_video,
    encode_condition,
    encode_target,
    spatial_factor,
)
from geo4d_ros.geometry.cameras import unproject


def test_lossless_patch_code():
    vae = PatchAutoencoder(patch=4)
    x = torch.rand(3, 3, 8, 12) * 2 - 1
    z = encode_target(vae, x)
    assert z.shape == (3, 48, 2, 3)
    assert torch.equal(z, encode_condition(vae, x))
    assert torch.equal(decode_video(vae, z, chunk=2), x)


def test_linear_patch_code_keeps_the_principal_components(tmp_path):
    torch.manual_seed(0)
    vae = PatchAutoencoder(patch=4, latent_channels=6)
    mixing = torch.randn(6, 3, 4, 4)
    images = torch.einsum('nhwk,kcij->nchiwj', torch.randn(20, 2, 3, 6), mixing).reshape(20, 3, 8, 12)
    vae.fit(images)
    torch.testing.assert_close(decode_video(vae, encode_target(vae, images)), images, atol=1e-3, rtol=0)
    vae.save_pretrained(tmp_path)
    loaded = PatchAutoencoder.from_pretrained(tmp_path)
    assert torch.equal(loaded.basis, vae.basis)


def test_temporal_vae_has_the_same_interface():
    torch.manual_seed(0)
    vae = AutoencoderKLTemporalDecoder(block_out_channels=(32, 32), down_block_types=('DownEncoderBlock2D',) * 2)
    x = torch.rand(4, 3, 16, 24) * 2 - 1
    assert spatial_factor(vae) == 2
    with torch.no_grad():
        condition = encode_condition(vae, x)
        assert condition.shape == (4, 4, 8, 12)
        assert decode_video(vae, condition * vae.config.scaling_factor, chunk=4).shape == x.shape
        target = encode_target(vae, x, torch.Generator().manual_seed(0))
        again = encode_target(vae, x, torch.Generator().manual_seed(0))
    assert torch.equal(target, again)
    assert not torch.allclose(target, condition * vae.config.scaling_factor)


def test_impossible_code_is_refused():
    with pytest.raises(ConfigurationError, match=r'1\.\.48'):
        PatchAutoencoder(patch=4, latent_channels=49)


def test_unprojection_agrees_with_numpy():
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.3, 1.5, (6, 8)).astype(np.float32)
    K = np.array([[9.0, 0, 3.5], [0, 8.0, 2.5], [0, 0, 1]])
    ours = pointmaps.unproject(torch.from_numpy(depth), torch.from_numpy(K)).numpy()
    np.testing.assert_allclose(ours, unproject(depth, K), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_normalisation_round_trip_and_rigid_motion_of_valid_points_only(seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(5, 7, 3, generator=generator) * 2.9 - 0.95
    torch.testing.assert_close(pointmaps.denormalise(pointmaps.normalise(points)), points, atol=1e-5, rtol=0)
    assert pointmaps.normalise(points).abs().max() <= 1
    valid = torch.rand(5, 7, generator=generator) > 0.3
    T = torch.eye(4)
    T[:3, :3], _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    T[:3, 3] = torch.randn(3, generator=generator)
    moved = pointmaps.transform(points, T, valid)
    assert not moved[~valid].any()
    back = pointmaps.transform(moved, torch.linalg.inv(T), valid)
    torch.testing.assert_close(back[valid], points[valid], atol=1e-4, rtol=0)
