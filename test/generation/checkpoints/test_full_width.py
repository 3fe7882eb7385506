"""The full-width model on the meta device: documented parameter counts, keys and shapes."""

import pytest
import torch
from diffusers.models.modeling_utils import no_init_weights
from sgm_reference import FULL, unet_shapes

from geo4d_ros.generation.checkpoints.released import unet_key_map
from geo4d_ros.generation.unet.network import Geo4dUNet
from geo4d_ros.generation.unet.presets import RELEASED_UNET


def build(**options):
    with torch.device('meta'), no_init_weights():
        return Geo4dUNet(**options)


def millions(module):
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.fixture(scope='module')
def full():
    return build()


def test_parameter_counts_are_the_documented_ones(full):
    attention = millions(full.link_attentions)
    assert attention == pytest.approx(21.64, abs=0.005)
    assert millions(full) - attention == pytest.approx(1524.6, abs=0.05)
    assert millions(full.up_blocks) == pytest.approx(855.2, abs=0.05)


@pytest.mark.parametrize('decoders, total', [('per_view', 2401.4), ('per_view_points', 3256.6)])
def test_separate_decoders_add_a_decoder_each(decoders, total):
    assert millions(build(decoders=decoders)) == pytest.approx(total, abs=0.1)


def test_keys_and_shapes_match_the_documented_architecture():
    unet = build(**RELEASED_UNET)
    weights = unet.state_dict()
    ours = {key: tuple(weights[name].shape) for name, key in unet_key_map(unet).items()}
    assert ours == unet_shapes(**FULL)
