"""The check for a machine with a GPU runs dry on the CPU, reports every part, and a failing part does not end it."""

import json

import pytest
from PIL import Image

from geo4d_ros.bench.speed import gpu_check
from geo4d_ros.generation.unet import presets


@pytest.fixture
def tiny_svd(monkeypatch):
    own = presets.PRESETS['geo4d-svd-reduced']
    unet = {**own['unet'], **presets._SMALL_BLOCKS, 'block_out_channels': (32, 32, 32), 'layers_per_block': 1,
            'num_attention_heads': (1, 1, 1), 'cross_attention_dim': 24}
    vae = {'block_out_channels': (32, 32, 32, 32), 'down_block_types': ('DownEncoderBlock2D',) * 4,
           'layers_per_block': 1, 'latent_channels': 4}
    clip = {'hidden_size': 16, 'intermediate_size': 16, 'num_hidden_layers': 1, 'num_attention_heads': 2,
            'patch_size': 8, 'image_size': 16, 'projection_dim': 24}
    monkeypatch.setitem(presets.PRESETS, 'geo4d-svd-reduced', {
        'unet': unet, 'vae': vae, 'clip': clip, 'pipeline': {'height': 64, 'width': 64, 'frames': 2}})


@pytest.mark.slow
def test_dry_run_reports_every_part(tiny_svd, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, 'STAGES', (*gpu_check.STAGES, 'no such stage'))
    assert gpu_check.main(['--dry', '--out', str(tmp_path)]) == 3  # the stage that does not exist
    report = json.loads((tmp_path / 'gpu_check.json').read_text())
    assert list(report['failed']) == ['train no such stage'] and 'stage should be' in report['failed'].popitem()[1]
    assert report['dry'] is True and report['device'] == 'cpu' and report['correctness']['float32'] == 0
    assert 0 < report['correctness']['bfloat16'] < 1  # random weights at four pixels amplify rounding
    for stage in gpu_check.STAGES[:4]:
        assert report[f'train {stage}']['second'] != report[f'train {stage}']['first']
    rows = report['switches']['rows']
    assert {'guidance off', 'bfloat16', 'channels last', 'points only'} <= set(rows)
    assert rows['points only']['gain'] == pytest.approx(rows['channels last']['total'] / rows['points only']['total'])
    assert not report['switches']['skipped']
    assert Image.open(tmp_path / 'gpu_check.png').size[0] == 900


def test_nothing_starts_when_the_time_is_over(tmp_path):
    report = gpu_check.check('cpu', 'reduced-width', -1.0, tmp_path)
    assert len(report['skipped']) == 6 and not report['failed']
