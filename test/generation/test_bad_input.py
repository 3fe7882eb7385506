"""What users get wrong with checkpoints and observations: exit code 2 and one line that names the file, key or size."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from geo4d_ros.cli.main import main
from geo4d_ros.generation.manifest import write_manifest
from geo4d_ros.generation.unet import memory
from geo4d_ros.generation.unet.presets import build

UNET = {'block_out_channels': (32, 32, 32), 'num_attention_heads': (1, 1, 1), 'link_heads': 1}
SIZE = {'height': 32, 'width': 32, 'frames': 2, 'condition_frame': 'own'}
WEIGHTS = 'unet/diffusion_pytorch_model.safetensors'


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp('checkpoint') / 'tiny'
    build('geo4d-sim-unet', UNET, SIZE).save(directory)
    return directory


@pytest.fixture
def checkpoint(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / 'tiny')


def write_observation(path, views=2, depth=1.0):
    K = np.array([[40.0, 0, 15.5], [0, 40, 15.5], [0, 0, 1]])
    arrays = {'version': 1}
    for i in range(views):
        arrays |= {f'rgb_{i}': np.full((32, 32, 3), 90, np.uint8), f'K_{i}': K,
                   f'depth_{i}': np.full((32, 32), depth, np.float32)}
    np.savez(path, **arrays)
    return path


def refused(capsys, *arguments):
    """The one line that the command writes on its way out."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    return lines[0]


def predict(capsys, checkpoint, tmp_path, **observation):
    path = write_observation(tmp_path / 'observation.npz', **observation)
    return refused(capsys, 'predict', '--observation', path, '--out', tmp_path / 'out', '--checkpoint', checkpoint)


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_good_input_is_taken(checkpoint, tmp_path):
    path = write_observation(tmp_path / 'observation.npz')
    assert main(['predict', '--observation', str(path), '--out', str(tmp_path / 'out'),
                 '--checkpoint', str(checkpoint)]) == 0


def test_wrong_kind_of_checkpoint(checkpoint, tmp_path, capsys):
    edit_json(checkpoint / 'model_index.json', _class_name='StableVideoDiffusionPipeline')
    write_manifest(checkpoint)
    line = predict(capsys, checkpoint, tmp_path)
    assert 'StableVideoDiffusionPipeline' in line and 'geo4d import svd' in line and str(checkpoint) in line
    assert 'not a checkpoint' in predict(capsys, tmp_path, tmp_path)


def test_missing_and_misshapen_keys(checkpoint, tmp_path, capsys):
    weights = load_file(checkpoint / WEIGHTS)
    save_file({k: v for k, v in weights.items() if k != 'conv_in.bias'}, checkpoint / WEIGHTS)
    write_manifest(checkpoint)
    line = predict(capsys, checkpoint, tmp_path)
    assert 'conv_in.bias' in line and 'unet' in line
    save_file({**weights, 'conv_in.bias': torch.zeros(7)}, checkpoint / WEIGHTS)
    write_manifest(checkpoint)
    line = predict(capsys, checkpoint, tmp_path)
    assert 'conv_in.bias' in line and 'unet' in line


def test_truncated_weights(checkpoint, tmp_path, capsys):
    data = (checkpoint / WEIGHTS).read_bytes()
    (checkpoint / WEIGHTS).write_bytes(data[: len(data) // 2])
    assert 'diffusion_pytorch_model.safetensors' in predict(capsys, checkpoint, tmp_path)
    write_manifest(checkpoint)
    assert 'unet' in predict(capsys, checkpoint, tmp_path)


def test_wrong_resolution(checkpoint, tmp_path, capsys):
    edit_json(checkpoint / 'model_index.json', width=33)
    write_manifest(checkpoint)
    assert re.search('width should be a multiple of 8 .*33', predict(capsys, checkpoint, tmp_path))


def test_observations_that_cannot_be_taken(checkpoint, tmp_path, capsys):
    line = predict(capsys, checkpoint, tmp_path, depth=np.nan)
    assert 'NaN' in line and 'observation.npz' in line
    assert 'takes 2 views but the observation has 1' in predict(capsys, checkpoint, tmp_path, views=1)
    assert 'view 0 has depth at 0.0%' in predict(capsys, checkpoint, tmp_path, depth=0.0)


def test_too_little_memory(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, 'available_bytes', lambda device: 1000)
    line = predict(capsys, checkpoint, tmp_path)
    assert '4 streams of 2 frames 32x32' in line and 'GiB' in line


def test_sources_of_imports(checkpoint, tmp_path, capsys):
    out = tmp_path / 'out'
    assert str(tmp_path / 'no') in refused(capsys, 'import', 'svd', tmp_path / 'no', '--out', out)
    line = refused(capsys, 'import', 'svd', checkpoint, '--out', out)
    assert str(checkpoint) in line and 'image_encoder/config.json' in line
    assert 'does not exist' in refused(capsys, 'import', '4dgen', tmp_path / 'no.ckpt', '--out', out)
    (tmp_path / 'text.ckpt').write_text('not weights')
    assert 'text.ckpt' in refused(capsys, 'import', '4dgen', tmp_path / 'text.ckpt', '--out', out)
    line = refused(capsys, 'import', '4dgen', checkpoint / WEIGHTS, '--out', out)
    assert 'model.diffusion_model' in line
    torch.save({'state_dict': {}, 'callbacks': object}, tmp_path / 'pickle.ckpt')
    assert 'pickle.ckpt' in refused(capsys, 'import', '4dgen', tmp_path / 'pickle.ckpt', '--out', out)
    assert not out.exists()


def test_training_that_cannot_start(checkpoint, tmp_path, capsys):
    def train(**values):
        config = tmp_path / 'config.yaml'
        config.write_text(json.dumps({'model': 'unet', 'data': str(tmp_path / 'none'), 'output': str(tmp_path / 'run'),
                                      'unet': {k: list(v) if isinstance(v, tuple) else v for k, v in UNET.items()},
                                      'pipeline': SIZE, **values}))
        return refused(capsys, 'train', '--config', config)

    assert str(tmp_path / 'none') in train()
    assert "['stepz']" in train(stepz=1)
    assert 'height should be a multiple of 8' in train(pipeline={**SIZE, 'height': 30})
    assert 'does not exist' in train(init_from=str(tmp_path / 'no'), unet={})
    assert 'adamw8bit needs bitsandbytes' in train(optimizer='adamw8bit')
    assert 'cannot read' in refused(capsys, 'train', '--config', tmp_path / 'no.yaml')
