"""`evaluate closed-loop --baselines`: which checkpoints run, read out how, and what the report says of them."""

import argparse
import json
from pathlib import Path

import pytest

from geo4d_ros.cli.evaluate import closed_loop as command
from geo4d_ros.errors import InvalidInputError
from geo4d_ros.evaluation.closed_loop.runs import EpisodeOptions, EpisodeReport


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(command, 'weights_sha256', lambda path, device: f'hash of {Path(path).parent.name}')
    for name in ('direct_policy', 'svd', 'ours', 'stranger'):
        (tmp_path / name / 'model').mkdir(parents=True)
    (tmp_path / 'svd' / 'summary.json').write_text(json.dumps({'steps': 7, 'trained_min': 2.004, 'loss': 1}))
    return tmp_path


@pytest.mark.parametrize(('asked', 'used'), [
    (None, {'ours': 'fused', 'direct_policy': 'state', 'svd': 'video'}),
    ('video', {'ours': 'video', 'direct_policy': 'state', 'svd': 'video'}),
    ('state', {'ours': 'state', 'direct_policy': 'state', 'svd': 'state'}),
])
def test_each_is_read_out_as_asked_or_as_it_can(folder, asked, used):
    args = argparse.Namespace(baselines=folder, readout=asked, device='cpu')
    rows = command.baseline_options(args, EpisodeOptions('model', films='films', executed_poses=4))
    assert {name: options.readout for name, (options, _) in rows.items()} == used
    options, digest = rows['svd']
    assert options.checkpoint == str(folder / 'svd/model') and digest == 'hash of svd'
    assert options.films == 'films/svd' and options.executed_poses == 4


def test_an_empty_folder_is_refused_and_none_is_no_row(tmp_path):
    with pytest.raises(InvalidInputError, match='holds none of'):
        command.baseline_options(argparse.Namespace(baselines=tmp_path, readout=None, device='cpu'), None)
    assert command.baseline_options(argparse.Namespace(baselines=None), None) == {}


def test_rows_of_the_report(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, 'checkpoint_directory', lambda path, robot: tmp_path / 'shipped' / 'model')

    def episodes(args, options, tasks, name):
        return [EpisodeReport(task, seed, name == 'ours', '', None if name == 'ours' else 'prediction', [], 1.0)
                for task in tasks for seed in range(args.episodes)]

    monkeypatch.setattr(command, 'run_episodes', episodes)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = ['--baselines', str(folder), '--episodes', '2', '--task', 'apple', '--json', 'r.json']
    command.run(parser.parse_args(words))
    report = json.loads((tmp_path / 'r.json').read_text())
    assert report['success_rate'] == 0
    rows = report['baselines']
    assert list(rows) == ['ours', 'direct_policy', 'svd'] and rows['ours']['success_rate'] == 1
    assert rows['svd']['steps'] == 7 and rows['svd']['trained_min'] == 2.0 and rows['svd']['readout'] == 'video'
    assert rows['svd']['tasks']['apple']['failures'] == {'prediction': 2}
    assert 'svd, video' in capsys.readouterr().out
