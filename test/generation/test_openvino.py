"""OpenVINO beside torch: the same outputs, and one line where it is not installed."""

import sys

import pytest
import torch
from test_two_view import TINY, fixed_registration, observation

from geo4d_ros.cli.benchmark.openvino import compare, differences
from geo4d_ros.errors import BackendUnavailableError, ConfigurationError
from geo4d_ros.generation.loading import load_generator
from geo4d_ros.generation.two_view.network import TwoViewNetwork
from geo4d_ros.generation.two_view.predictor import TwoViewPredictor
from geo4d_ros.generation.unet.presets import build


def checkpoint(folder, **switches):
    torch.manual_seed(0)
    network = TwoViewNetwork(**TINY, **switches)
    for parameter in network.parameters():  # zero-initialised layers would hide differences
        parameter.data += 0.02 * torch.randn_like(parameter)
    TwoViewPredictor(network).save_pretrained(folder)
    return folder


@pytest.mark.parametrize('switches', [{'arm_joints': 3}, {'cross_view': False}, {'video': False}])
def test_same_outputs(tmp_path, monkeypatch, switches):
    pytest.importorskip('openvino')
    fixed_registration(monkeypatch)
    place = checkpoint(tmp_path / 'model', **switches)
    eager, fast = (load_generator(place, device) for device in ('cpu', 'openvino'))
    for seed_views in (observation(2), observation(2), observation(1)):
        a, b = eager.predict(seed_views), fast.predict(seed_views)
        assert (a.valid == b.valid).mean() > 0.999
        largest = differences(a, b)
        assert largest['gripper_mm'] < 0.1 and largest['opening_mm'] < 0.1
        assert largest['point_mm_median'] < 0.01 and largest['points_beyond_1_mm'] < 1e-3
        assert largest['pixels_beyond_one_level'] < 1e-3


def test_without_the_package_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    place = checkpoint(tmp_path / 'model')
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'geo4d_ros\[openvino\]'"):
        load_generator(place, 'openvino')


def test_a_u_net_is_refused(tmp_path):
    small = {'block_out_channels': (32, 32, 32), 'num_attention_heads': (1, 1, 1)}
    build('geo4d-sim-unet', small, {'height': 32, 'width': 32}).save(tmp_path / 'unet')
    with pytest.raises(ConfigurationError, match='two-view models only'):
        load_generator(tmp_path / 'unet', 'openvino')


def test_ratios_compare_medians():
    seconds = {'torch': {'network': [0.2, 0.4, 0.2], 'total': [0.3, 0.3, 0.9]},
               'openvino': {'network': [0.1, 0.1, 0.4], 'total': [0.2, 0.2, 0.2]}}
    report = compare(seconds)
    assert report['speedup_network'] == 2.0 and report['speedup_total'] == 1.5
    assert report['stages_ms']['openvino']['network']['p95'] > 100
