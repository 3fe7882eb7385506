"""`geo4d train` without a config: set by how many demonstrations there are, from the shipped model."""

import argparse

import pytest
import zarr
from fakes.synthetic_episodes import write_episodes

from geo4d_ros.cli.train.generator import add_arguments, chosen_config
from geo4d_ros.errors import DatasetError
from geo4d_ros.training import defaults
from geo4d_ros.training.two_view.train import parse_config


def chosen(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return chosen_config(parser.parse_args(words))


@pytest.mark.parametrize(('count', 'minutes', 'frozen'), [(5, 4, ['encoder.blocks']), (50, 20, ['encoder.blocks']),
                                                          (500, 60, [])])
def test_more_demonstrations_train_longer(tmp_path, monkeypatch, count, minutes, frozen):
    write_episodes(tmp_path / 'mine', 1)
    monkeypatch.setattr(defaults, 'list_episodes', lambda data: [data] * count)
    config = parse_config(chosen('--data', str(tmp_path / 'mine')))
    assert (config.minutes, config.frozen, config.start) == (minutes, frozen, 'geo4d-sim-small')
    assert config.output == 'outputs/train/mine' and config.lr < 1e-3
    new = parse_config(chosen('--data', str(tmp_path / 'mine'), '--start', 'none'))
    assert new.minutes > minutes and not new.start and not new.frozen


def test_shipped_is_the_model_of_the_datas_robot(tmp_path):
    write_episodes(tmp_path, 1)
    zarr.open_group(next(tmp_path.glob('*.zarr')), mode='r+').attrs['robot'] = 'ur5e_2f85'
    assert chosen('--data', str(tmp_path))['start'] == 'geo4d-sim-ur5e-2f85'


def test_what_is_given_goes_first(tmp_path):
    write_episodes(tmp_path, 1)
    config = chosen('--data', str(tmp_path), '--minutes', '2', '--set', 'lr=1.0e-4', 'frozen=[]', '--output', 'there')
    assert (config['minutes'], config['lr'], config['frozen'], config['output']) == (2, 1e-4, [], 'there')


def test_a_config_takes_a_start_too(tmp_path):
    (tmp_path / 'c.yaml').write_text('model: two_view\nstart: geo4d-sim-small\n')
    assert chosen('--config', str(tmp_path / 'c.yaml'), '--start', 'none')['start'] == ''
    assert chosen('--config', str(tmp_path / 'c.yaml'), '--start', 'shipped')['start'] == 'geo4d-sim-small'


def test_no_demonstrations_are_said(tmp_path):
    with pytest.raises(DatasetError, match='holds no episode; run `geo4d collect`'):
        chosen('--data', str(tmp_path))
