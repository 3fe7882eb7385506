"""Loader rates and the training-cost table: every figure is there, and the computed ones agree with known counts."""

import json

import pytest
import yaml
from fakes.synthetic_episodes import write_episodes

from geo4d_ros.bench.speed import training_cost
from geo4d_ros.bench.speed.loader import H100_BF16_PEAK, MFU, clip_flops
from geo4d_ros.cli.main import main


def test_loader_rates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_episodes(tmp_path / 'data')
    config = {'model': 'unet', 'preset': 'geo4d-sim-unet', 'data': str(tmp_path / 'data'), 'batch': 2,
              'unet': {'block_out_channels': [32, 32, 32], 'num_attention_heads': [1, 1, 1], 'link_heads': 1},
              'pipeline': {'height': 32, 'width': 32, 'frames': 3, 'condition_frame': 'own'}}
    (tmp_path / 'c.yaml').write_text(yaml.safe_dump(config))
    arguments = ['benchmark', 'loader', '--config', str(tmp_path / 'c.yaml'), '--clips', '6', '--workers', '0']
    assert main([*arguments, '--json', str(tmp_path / 'f.json')]) == 0
    report = json.loads((tmp_path / 'f.json').read_text())
    assert report['clips_per_s']['cached'] > 0 and report['clips_per_s']['uncached'] > 0
    assert 0 < report['processor_ms_per_clip']['cached'] < report['processor_ms_per_clip']['uncached']
    assert report['needed_for_8_h100'] == pytest.approx(
        8 * H100_BF16_PEAK * MFU / (4 * report['forward_flops_per_clip']))
    assert main(['benchmark', 'loader', '--config', str(tmp_path / 'none.yaml')]) == 2


def test_cost_of_training_at_full_size():
    report = training_cost.table()
    assert report['parameters']['unet'] == pytest.approx(1546.2e6, rel=1e-3)
    assert report['parameters']['points decoder'] <= 12e6
    assert report['activations_gib_per_clip']['checkpointed'] < 0.5 * report['activations_gib_per_clip']['plain']
    stages = report['stages']
    assert stages['diffusion']['states_gib_adamw'] == pytest.approx(1546.2e6 * 20 / 2**30, rel=1e-3)
    assert stages['distillation, 1 step']['needs_gib_one_gpu'] > stages['diffusion']['needs_gib_one_gpu']
    assert stages['pointmap vae']['smallest_gpu'] == 'L40S' and stages['points decoder']['smallest_gpu'] == 'RTX 4060'
    assert report['inference_smallest_gpu'] == {'svd': 'RTX 4060'}
    assert 1e12 < clip_flops() == report['forward_flops_per_clip'] < 5e13
