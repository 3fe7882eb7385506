"""Distillation: whose step it is, what the student sees, and the comparison of students."""

import json

import pytest
import torch
from fakes.synthetic_episodes import write_episodes

from geo4d_ros.bench import distillation
from geo4d_ros.cli.main import main
from geo4d_ros.errors import DatasetError
from geo4d_ros.generation.unet.presets import build
from geo4d_ros.training.unet.batches import Latents
from geo4d_ros.training.unet.config import parse_config
from geo4d_ros.training.unet.data import EpisodeWindows, list_data
from geo4d_ros.training.unet.distillation import Distillation, Draws
from geo4d_ros.training.unet.latent_cache import CachedWindows, identity, write_cache
from geo4d_ros.training.unet.stages import make_stage
from geo4d_ros.training.unet.trainer import Trainer, train

UNET = {'block_out_channels': [32, 32], 'num_attention_heads': [1, 1], 'link_heads': 1, 'decoders': 'shared',
        'down_block_types': ['DownBlockSpatioTemporal', 'CrossAttnDownBlockSpatioTemporal'],
        'up_block_types': ['CrossAttnUpBlockSpatioTemporal', 'UpBlockSpatioTemporal']}
SIZE = {'height': 32, 'width': 32, 'frames': 4, 'condition_frame': 'own', 'sampler': 'euler'}


def batch():
    g = torch.Generator().manual_seed(0)
    clean = torch.randn(1, 4, 2, 192, 4, 4, generator=g)
    latents = Latents(clean, torch.randn(1, 4, 192, 4, 4, generator=g), None, torch.zeros(1, 2, 10), torch.zeros(1, 10))
    noises = [torch.randn(clean.shape, generator=g) for _ in range(3)]
    return latents, Draws(noises[:2], 1, torch.full((1, 4), 2.0), noises[2])


@pytest.fixture(scope='module')
def networks():
    unet = build('geo4d-sim-unet', {k: tuple(v) if isinstance(v, list) else v for k, v in UNET.items()}).unet
    return unet, lambda simulate: Distillation(unet, [700.0, 2.0], simulate, 0.01)


def test_each_turn_trains_its_own_networks(networks):
    unet, make = networks
    model = make(True)
    latents, draws = batch()
    for turn in ('student', 'fake'):
        model.zero_grad()
        losses = model(turn, unet, latents, draws)
        losses['loss'].backward()
        with_gradient = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
        names = {'student': 'student.', 'fake': ('fake.', 'discriminator.')}[turn]
        assert with_gradient and all(name.startswith(names) for name in with_gradient)
        assert all(torch.isfinite(value) for value in losses.values())


@torch.no_grad()
def test_backward_simulation_never_sees_the_real_clip(networks):
    latents, draws = batch()
    other = Latents(latents.clean + 1, *(getattr(latents, f) for f in ('condition', 'tokens', 'state', 'measured')))
    simulated, noised = networks[1](True), networks[1](False)
    assert torch.equal(simulated.sample(latents, draws), simulated.sample(other, draws))
    assert not torch.allclose(noised.sample(latents, draws), noised.sample(other, draws))


def settings(data, output, **changes):
    return {'model': 'unet', 'preset': 'geo4d-sim-unet', 'unet': UNET, 'pipeline': SIZE, 'stage': 'diffusion',
            'data': str(data), 'output': str(output), 'steps': 3, 'batch': 2, 'workers': 0, 'warmup': 1,
            'save_every': 100, 'sample_every': 100, **changes}


def test_cached_windows_give_the_losses_of_pixels(tmp_path):
    write_episodes(tmp_path / 'data')
    plain = train(settings(tmp_path / 'data', tmp_path / 'plain'))
    cached = train(settings(tmp_path / 'data', tmp_path / 'cached', latent_cache=str(tmp_path / 'cache'),
                            cached_windows=6))
    lines = [(path / 'losses.jsonl').read_text().splitlines() for path in (plain, cached)]
    for a, b in zip(*lines, strict=True):
        assert json.loads(a)['loss'] == pytest.approx(json.loads(b)['loss'], rel=1e-4)
    with pytest.raises(DatasetError, match='other encoders, sizes or data'):
        train(settings(tmp_path / 'data', tmp_path / 'other', latent_cache=str(tmp_path / 'cache'),
                       pipeline={**SIZE, 'convention': 'released'}))


def test_spread_of_the_targets_is_kept(tmp_path):
    write_episodes(tmp_path / 'data')
    pipeline = build('geo4d-svd-reduced', None, {'height': 32, 'width': 32, 'frames': 2})
    windows = EpisodeWindows(list_data(tmp_path / 'data', 'zarr'), 'zarr', 2, 2, (32, 32), 0)
    config = parse_config(settings(tmp_path / 'data', tmp_path / 'run', unet={}, preset='geo4d-svd-reduced',
                                   pipeline={'height': 32, 'width': 32, 'frames': 2}))
    trainer = Trainer(config)
    write_cache(tmp_path / 'cache', windows, 2, trainer._clips, pipeline, config.loss)
    item = CachedWindows(tmp_path / 'cache', identity(pipeline, windows, config.loss))[3]
    assert item['index'] == 3 and item['spread'].shape == item['mean'].shape and bool((item['spread'] > 0).all())
    assert item['tokens'].shape == (4, 1, 64)
    assert make_stage(pipeline, config).find_unused_parameters is False


def test_students_are_compared_on_the_same_clips(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_episodes(tmp_path / 'data')
    teacher = train(settings(tmp_path / 'data', tmp_path / 'teacher', steps=1)) / 'model'
    changes = {'stage': 'distillation', 'student_steps': 2, 'fake_updates': 1, 'init_from': str(teacher), 'steps': 2,
               'fake_lr': 1e-3, 'unet': {}, 'pipeline': {}}
    student = train(settings(tmp_path / 'data', tmp_path / 'student', **changes)) / 'model'
    lines = (tmp_path / 'student/losses.jsonl').read_text().splitlines()
    assert set(json.loads(lines[0])) >= {'fake', 'discriminator'} and set(json.loads(lines[1])) >= {'match', 'fool'}
    arguments = ['--teacher', str(teacher), '--student', str(student), '--noised-real', str(teacher),
                 '--data', str(tmp_path / 'data'), '--clips', '2', '--seeds', '2', '--json', str(tmp_path / 'f.json')]
    assert main(['evaluate', 'distillation', *arguments]) == 0
    rows = json.loads((tmp_path / 'f.json').read_text())['rows']
    assert set(rows) == {'teacher_25', 'teacher_25_until_10', 'teacher_25_until_2', 'student_1', 'student_2',
                         'noised_real_1', 'noised_real_2', 'copy'}
    assert 1 < rows['teacher_25_until_10']['calls'] < rows['teacher_25_until_2']['calls'] < 25
    assert rows['teacher_25']['diversity'] == 1 and rows['copy']['diversity'] == 0
    assert rows['teacher_25']['frechet_to_teacher'] < 1e-6
    assert 'student_1' in capsys.readouterr().out


def test_without_students_the_teacher_is_stopped_early():
    assert list(distillation._plans({'teacher': object()})) == ['teacher_25', 'teacher_25_until_10',
                                                               'teacher_25_until_2']
