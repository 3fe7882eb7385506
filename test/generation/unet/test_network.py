"""The multi-stream U-Net: equal to stock SVD per stream, batched equals sequential, links do what they say."""

import itertools

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel

from geo4d_ros.errors import ConfigurationError, InvalidInputError
from geo4d_ros.generation.unet.network import SVD_TIME_IDS, Geo4dUNet, decoder_blocks
from geo4d_ros.generation.unet.streams import (
    POINTS,
    RGB,
    Stream,
    all_streams,
    link_indices,
    needed_streams,
    token_view,
)

TINY = {
    'block_out_channels': (32, 64), 'num_attention_heads': (1, 2), 'layers_per_block': 1, 'cross_attention_dim': 24,
    'down_block_types': ('CrossAttnDownBlockSpatioTemporal', 'DownBlockSpatioTemporal'),
    'up_block_types': ('UpBlockSpatioTemporal', 'CrossAttnUpBlockSpatioTemporal'),
    'addition_time_embed_dim': 16, 'projection_class_embeddings_input_dim': 48,
}
LINK = {'link_heads': 2, 'link_head_dim': 16}


def make(seed=0, **options):
    torch.manual_seed(seed)
    return Geo4dUNet(**TINY, **LINK, **options).eval()


def inputs(views=2, frames=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, 2 * views, frames, 4, 4, 8, generator=generator)
    condition = torch.randn(1, 2 * views, 4, 4, 8, generator=generator)
    tokens = torch.randn(1, 2 * views, 1, 24, generator=generator)
    return latents, torch.full((1, 2 * views), 1.3), condition, tokens


@torch.no_grad()
def test_streams_equal_stock_svd_when_nothing_attends():
    unet = make(link_zero_init=True)
    stock = UNetSpatioTemporalConditionModel(**TINY).eval()
    stock.load_state_dict({k: v for k, v in unet.state_dict().items() if not k.startswith('link_attentions')})
    latents, t, condition, tokens = inputs()
    ours = unet(latents, t, condition, tokens).sample
    ids = torch.tensor([SVD_TIME_IDS])
    for s in range(4):
        x = torch.cat([latents[:, s], condition[:, s, None].expand_as(latents[:, s])], dim=2)
        theirs = stock(x, t[:, s], tokens[:, s], ids).sample
        assert (ours[:, s] - theirs).abs().max() <= 1e-4


@torch.no_grad()
@pytest.mark.parametrize('decoders', ['shared', 'per_view', 'per_view_points'])
def test_one_batched_pass_equals_sequential_passes(decoders):
    unet = make(decoders=decoders, link_zero_init=False)
    for parameter in unet.extra_decoders.parameters():  # decoders start as copies: make them differ
        parameter.mul_(1.01)
    latents, t, condition, tokens = inputs()
    together = unet(latents, t, condition, tokens).sample
    for s, stream in enumerate(all_streams(2)):
        needed = needed_streams([stream], ('points',))
        rows = [all_streams(2).index(n) for n in needed]
        alone = unet(latents[:, rows], t[:, rows], condition[:, rows], tokens[:, rows], needed).sample
        assert (alone[:, needed.index(stream)] - together[:, s]).abs().max() <= 1e-4


@torch.no_grad()
def test_batch_rows_do_not_mix():
    unet = make(link_zero_init=False)
    pairs = zip(inputs(seed=1), inputs(seed=2), strict=True)
    both = unet(*(torch.cat(pair) for pair in pairs)).sample
    single = unet(*inputs(seed=2)).sample
    torch.testing.assert_close(both[1:], single, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('link, changed', [
    ('points', {Stream(1, POINTS), Stream(2, POINTS)}), ('rgb', {Stream(1, RGB), Stream(2, RGB)}),
    ('rgb_from_points', {Stream(v, RGB) for v in range(3)}), ('points_from_rgb', {Stream(v, POINTS) for v in range(3)}),
])
def test_a_link_changes_only_the_streams_that_attend(link, changed):
    silent, talking = make(links=(link,), link_zero_init=True), make(links=(link,), link_zero_init=False)
    talking.load_state_dict({**talking.state_dict(), **{
        k: v for k, v in silent.state_dict().items() if not k.startswith('link_attentions')}})
    data = inputs(views=3)
    difference = (silent(*data).sample - talking(*data).sample).abs().amax((0, 2, 3, 4, 5))
    streams = all_streams(3)
    assert {s for s, d in zip(streams, difference, strict=True) if d > 1e-6} == changed


@torch.no_grad()
def test_swapping_views_changes_only_what_attends():
    unet = make(link_zero_init=False)
    latents, t, condition, tokens = inputs()
    swap = [2, 3, 0, 1]
    straight = unet(latents, t, condition, tokens).sample
    swapped = unet(latents[:, swap], t, condition[:, swap], tokens[:, swap]).sample[:, swap]
    difference = (straight - swapped).abs().amax((0, 2, 3, 4, 5))
    assert (difference[[1, 3]] < 1e-5).all()  # RGB streams never attend
    assert (difference[[0, 2]] > 1e-6).all()  # the pointmaps have exchanged their roles


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        unet = make(link_zero_init=False).train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        unet(*inputs()).sample.square().mean().backward()
        gradients.append(unet.conv_in.weight.grad)
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_every_switch_gets_a_gradient():
    unet = make(links=('points', 'rgb', 'rgb_from_points', 'points_from_rgb'), link_norm=True, link_zero_init=False,
                decoders='per_view_points', token_routing='learned', time_ids=None, state_stream=True,
                auxiliary_upscale=2).train()
    latents, t, condition, _ = inputs()
    out = unet(latents, t, condition, state=(torch.randn(1, 3, 10), torch.randn(1, 10)))
    assert out.auxiliary.shape == (1, 4, 3, 2, 8, 16)
    assert out.state.shape == (1, 3, 10)
    (out.sample.square().mean() + out.auxiliary.square().mean() + out.state.square().mean()).backward()
    silent = [n for n, p in unet.named_parameters() if p.grad is None]
    assert not silent


def test_decoder_blocks_of_svd_are_twelve():
    with torch.device('meta'):
        stock = UNetSpatioTemporalConditionModel(
            block_out_channels=(32, 64, 64, 64), num_attention_heads=(1, 2, 2, 2), cross_attention_dim=24,
            addition_time_embed_dim=16, projection_class_embeddings_input_dim=48)
    blocks = list(decoder_blocks(stock.up_blocks))
    assert len(blocks) == 12
    assert [i for i, b in enumerate(blocks) if b.upsampler is not None] == [2, 5, 8]
    assert [i for i, b in enumerate(blocks) if b.attention is None] == [0, 1, 2]


def test_released_token_routing_and_needed_streams():
    views = [token_view(s, 'released', 2) for s in all_streams(2)]
    assert views == [0, 1, 0, 1]
    assert [token_view(s, 'own', 2) for s in all_streams(2)] == [0, 0, 1, 1]
    assert needed_streams([Stream(1, POINTS)], ('points',)) == [Stream(0, POINTS), Stream(1, POINTS)]
    assert needed_streams([Stream(1, RGB)], ('points',)) == [Stream(1, RGB)]
    assert len(needed_streams([Stream(1, RGB)], ('points', 'rgb_from_points'))) == 3
    with pytest.raises(InvalidInputError, match='not in the batch'):
        link_indices([Stream(1, POINTS)], 'points')


@pytest.mark.parametrize('options, message', [
    ({'links': ('thoughts',)}, 'thoughts'), ({'decoders': 'many'}, 'many'), ({'token_routing': 'none'}, 'none'),
])
def test_unknown_switches_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        make(**options)


def test_impossible_width_is_refused():
    with pytest.raises(ConfigurationError, match='multiples of 32'):
        Geo4dUNet(**{**TINY, 'block_out_channels': (48, 64)})


def test_odd_latent_sizes_are_taken():
    unet = make()
    latents, t, condition, tokens = inputs()
    with torch.no_grad():
        out = unet(latents[..., :3, :7], t, condition[..., :3, :7], tokens).sample
    assert out.shape[-2:] == (3, 7)


def test_all_streams_order():
    assert all_streams(2) == [Stream(*s) for s in itertools.product((0, 1), (POINTS, RGB))]
