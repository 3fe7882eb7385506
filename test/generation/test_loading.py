"""Checkpoints are opened by their config and never when incomplete."""

import json

import pytest

from geo4d_ros.cli.common import checkpoint_directory
from geo4d_ros.errors import CheckpointError, ConfigurationError
from geo4d_ros.generation.loading import checked_device, load_generator
from geo4d_ros.generation.manifest import checkpoint_sha256, verify_manifest, write_manifest
from geo4d_ros.resources import resource
from geo4d_ros.robots.registry import load_robot


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps({'_class_name': 'TwoViewPredictor'}))
    (tmp_path / 'unet').mkdir()
    (tmp_path / 'unet' / 'model.safetensors').write_bytes(b'12345')
    write_manifest(tmp_path)
    return tmp_path


def test_intact_checkpoint_verifies(checkpoint):
    verify_manifest(checkpoint)
    assert len(checkpoint_sha256(checkpoint)) == 64


@pytest.mark.parametrize('break_it, message', [
    (lambda d: (d / 'unet/model.safetensors').write_bytes(b'1234'), 'truncated or changed'),
    (lambda d: (d / 'unet/model.safetensors').unlink(), 'is missing'),
    (lambda d: (d / 'other.safetensors').write_bytes(b'x'), 'not listed'),
    (lambda d: (d / 'manifest.json').unlink(), 'no manifest.json'),
    (lambda d: (d / 'manifest.json').write_text('{'), 'cannot be read'),
    (lambda d: (d / 'config.json').write_text('{'), 'not readable JSON'),
    (lambda d: (d / 'config.json').write_text('{}'), 'no _class_name'),
    (lambda d: (d / 'config.json').unlink(), 'not a checkpoint'),
    (lambda d: (d / 'config.json').write_text('{"_class_name": "CLIPModel"}'), "holds a 'CLIPModel'"),
])
def test_broken_checkpoint_is_refused_in_one_line(checkpoint, break_it, message):
    break_it(checkpoint)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_generator(checkpoint)
    assert '\n' not in str(caught.value)


def test_wrong_folder_says_what_was_meant(checkpoint, tmp_path_factory):
    with pytest.raises(CheckpointError, match=rf'{checkpoint.name}.other .*it holds notes'):
        (checkpoint / 'other').mkdir()
        (checkpoint / 'other/notes.txt').write_text('')
        load_generator(checkpoint / 'other')
    run = tmp_path_factory.mktemp('run')
    (run / 'model').symlink_to(checkpoint)
    with pytest.raises(CheckpointError, match=rf'did you mean .*{run.name}/model'):
        load_generator(run)
    (checkpoint / 'model_index.json').write_text('{"_class_name": "Geo4dPipeline"}')
    with pytest.raises(CheckpointError, match=rf'a part of one: did you mean .*{checkpoint.name}'):
        load_generator(checkpoint / 'unet')


def test_missing_directory_is_named(tmp_path):
    with pytest.raises(CheckpointError, match='nowhere'):
        load_generator(tmp_path / 'nowhere')


def test_unknown_device_is_refused():
    with pytest.raises(ConfigurationError, match='abacus'):
        checked_device('abacus')


@pytest.mark.parametrize('robot', ['panda', 'ur5e_2f85'])
def test_a_robot_has_its_own_shipped_model(robot):
    directory = checkpoint_directory(None, robot)
    generator = load_generator(directory)
    assert (generator.robot or 'panda') == robot
    assert generator.network.config.max_opening == load_robot(robot).gripper.stroke
    assert checkpoint_directory('geo4d-sim-small', robot).name == 'geo4d-sim-small'


def test_a_robot_that_no_shipped_model_knows_asks_for_one():
    arm = resource('examples', 'kinova3', 'kinova3_2f85.yaml')
    with pytest.raises(ConfigurationError, match='no shipped model knows the robot kinova3_2f85; train one'):
        checkpoint_directory(None, str(arm))
