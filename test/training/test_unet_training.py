"""Training of the diffusion model: falls, stages chain, survives a kill exactly, two processes equal one."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fakes.synthetic_episodes import episode_arrays, write_episodes
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from geo4d_ros.data.episodes import write_episode
from geo4d_ros.errors import CheckpointError, ConfigurationError, DatasetError
from geo4d_ros.generation.loading import load_generator
from geo4d_ros.generation.manifest import checkpoint_sha256
from geo4d_ros.generation.unet.streams import RGB
from geo4d_ros.training.provenance import runs_behind
from geo4d_ros.training.unet.batches import Latents, make_clips, mask_to_latents, sample_generator
from geo4d_ros.training.unet.config import LossConfig, parse_config
from geo4d_ros.training.unet.data import EpisodeWindows, list_data
from geo4d_ros.training.unet.losses import modality_weights, weighted_mean
from geo4d_ros.training.unet.pictures import comparison, observation_of
from geo4d_ros.training.unet.trainer import learning_rate, train

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    'preset': 'geo4d-sim-unet',
    'unet': {'block_out_channels': [32, 32, 32], 'num_attention_heads': [1, 1, 1], 'link_heads': 1},
    'pipeline': {'height': 32, 'width': 32, 'frames': 3, 'condition_frame': 'own'},
}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp('episodes')
    write_episodes(directory)
    return directory


def settings(data, output, **changes):
    values = {'model': 'unet', 'stage': 'regression', **TINY, 'data': str(data), 'output': str(output), 'steps': 4,
              'batch': 2, 'workers': 0, 'lr': 3e-3, 'warmup': 1, 'save_every': 2, 'sample_every': 100}
    return {**values, **changes}


def losses_of(output):
    lines = (Path(output) / 'losses.jsonl').read_text().splitlines()
    return {entry['step']: entry['loss'] for entry in map(json.loads, lines)}


def test_regression_loss_falls_and_the_model_predicts(data, tmp_path):
    output = train(settings(data, tmp_path / 'run', steps=24, save_every=24, sample_every=24, schedule='constant',
                            ema=0.9))
    losses = losses_of(output)
    first, last = (np.mean([losses[s] for s in steps]) for steps in (range(1, 7), range(19, 25)))
    assert last < 0.8 * first
    assert (output / 'samples/0000024.png').is_file()
    log = EventAccumulator(str(next(output.rglob('events.*')).parent))
    log.Reload()
    with Image.open(io.BytesIO(log.Images('film')[0].encoded_image_string)) as film:
        assert film.format == 'GIF' and film.n_frames == 3 and film.size == (64, 128)  # truth above prediction, 2 views
    summary = json.loads((output / 'summary.json').read_text())
    assert summary['steps'] == 24
    generator = load_generator(output / 'model')
    window = EpisodeWindows(list_data(data, 'zarr'), 'zarr', 2, 3, (32, 32), 7)[0]
    video = generator.predict(observation_of(window))
    assert comparison(window, video).shape[2] == 3

    # The diffusion stage starts from these weights, with gate, mask and state off, and samples with Euler steps.
    second = train({k: v for k, v in settings(
        data, tmp_path / 'second', stage='diffusion', init_from=str(output / 'model'), steps=1, pipeline={},
        loss={'condition_dropout': 0.5, 'max_noise_share': 0.3}).items() if k != 'unet'})
    assert load_generator(second / 'model').config.sampler == 'euler'
    student = train({k: v for k, v in settings(
        data, tmp_path / 'student', stage='distillation', init_from=str(second / 'model'), steps=1, batch=1,
        pipeline={}).items() if k != 'unet'})
    assert load_generator(student / 'model').config.sampler == 'renoise'
    runs = runs_behind(student / 'model')
    assert [run['config']['stage'] for run in runs] == ['regression', 'diffusion', 'distillation']
    assert [run['steps'] for run in runs] == [24, 1, 1] and runs[0]['started_from'] is None
    assert runs[2]['started_from'] == checkpoint_sha256(second / 'model')
    assert runs[0]['episodes'] == len(list_data(data, 'zarr'))
    (second / 'model' / 'training.json').write_text('[]')
    with pytest.raises(CheckpointError, match='no training record'):
        runs_behind(second / 'model')
    with pytest.raises(ConfigurationError, match='unet fields'):
        train(settings(data, tmp_path / 'third', init_from=str(output / 'model')))


def test_validation_is_the_same_windows_and_noise_every_time(data, tmp_path):
    options = {'validation': str(data), 'validation_windows': 2, 'sample_every': 1, 'stage': 'diffusion', 'lr': 1e-12,
               'weight_decay': 0.0}
    output = train(settings(data, tmp_path / 'run', steps=2, batch=1, **options))
    rows = [json.loads(line) for line in (output / 'validation.jsonl').read_text().splitlines()]
    assert [row['step'] for row in rows] == [1, 2]
    assert rows[0]['video'] == pytest.approx(rows[1]['video'], rel=1e-6) and rows[0]['video'] > 0  # nothing was learnt
    losses = losses_of(output)
    assert losses[1] != pytest.approx(losses[2], rel=1e-6)  # whereas training windows differ


def test_aids_are_trained_too(data, tmp_path):
    unet = {**TINY['unet'], 'auxiliary_upscale': 8, 'state_stream': True}
    output = train(settings(data, tmp_path / 'run', unet=unet, steps=2))
    last = json.loads((output / 'losses.jsonl').read_text().splitlines()[-1])
    assert {'video', 'mask', 'gate', 'state', 'loss'} <= set(last)
    assert all(np.isfinite(v) for v in last.values())


def test_recordings_without_labels_and_robot_train_the_video_but_no_aids(tmp_path):
    kept = ('rgb', 'depth', 'K', 'T_base_camera', 'times')
    (tmp_path / 'data').mkdir()
    write_episode(tmp_path / 'data', {k: v for k, v in episode_arrays(0).items() if k in kept},
                  {'task': 'own', 'seed': 0, 'success': True, 'perturbed': False})
    output = train(settings(tmp_path / 'data', tmp_path / 'run', steps=1))
    assert np.isfinite(losses_of(output)[1])
    unet = {**TINY['unet'], 'auxiliary_upscale': 8, 'state_stream': True}
    with pytest.raises(DatasetError, match='has no labels, T_base_gripper, opening, which this training needs'):
        train(settings(tmp_path / 'data', tmp_path / 'aided', unet=unet, steps=1))


def test_rgb_alone_trains_and_copies_the_depth(data, tmp_path, monkeypatch):
    unet = {**TINY['unet'], 'points': False, 'links': ['rgb'], 'auxiliary_upscale': 8, 'decoders': 'shared'}
    output = train(settings(data, tmp_path / 'run', unet=unet, steps=2,
                            pipeline={**TINY['pipeline'], 'condition_frame': 'registered'}))
    generator = load_generator(output / 'model')
    monkeypatch.setattr(generator, 'registered_poses', lambda frames: np.tile(np.eye(4), (2, 1, 1)))
    window = EpisodeWindows(list_data(data, 'zarr'), 'zarr', 2, 3, (32, 32), 7)[0]
    video = generator.predict(observation_of(window))
    assert (video.points == video.points[:, :1]).all() and (video.valid == video.valid[:, :1]).all()
    assert video.gripper_mask.shape == video.valid.shape


def run_training(config_path, *launcher):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': '',
                   'ACCELERATE_USE_CPU': 'true'}
    command = [sys.executable, '-m', *launcher, 'geo4d_ros.cli.main', 'train', '--config', str(config_path)]
    return subprocess.Popen(command, cwd=config_path.parent, env=environment, stderr=subprocess.PIPE, text=True)


def test_killed_run_continues_with_the_same_losses(data, tmp_path):
    whole = losses_of(train(settings(data, tmp_path / 'whole', steps=6)))
    config = tmp_path / 'killed.yaml'
    values = settings(data, tmp_path / 'killed', steps=6)
    config.write_text(yaml.safe_dump({**values, 'steps': 6}))
    process = run_training(config)
    log = tmp_path / 'killed/losses.jsonl'
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not (log.is_file() and len(log.read_text().splitlines()) >= 3):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / 'killed/model').exists()
    train(values)
    resumed = losses_of(tmp_path / 'killed')
    assert resumed.keys() == whole.keys()
    np.testing.assert_allclose([resumed[s] for s in whole], list(whole.values()), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_two_processes_equal_one_with_the_doubled_batch(data, tmp_path):
    one = losses_of(train(settings(data, tmp_path / 'one', steps=4, batch=2)))
    config = tmp_path / 'two.yaml'
    config.write_text(yaml.safe_dump(settings(data, tmp_path / 'two', steps=4, batch=1)))
    # `accelerate launch --cpu` alone starts one process; the multi-process launcher starts two, which find no GPU.
    process = run_training(config, 'accelerate.commands.launch', '--multi_gpu', '--num_processes', '2',
                           '--num_machines', '1', '--mixed_precision', 'no', '--dynamo_backend', 'no',
                           '--main_process_port', '0', '--module')
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-2000:]
    two = losses_of(tmp_path / 'two')
    # Same data and weights: the first loss agrees to rounding; Adam's first steps amplify rounding to about 1 %,
    # whereas one process alone, or gradients that are not averaged, are off by 10 % and more.
    assert two[1] == pytest.approx(one[1], rel=1e-4)
    np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=0.03)


def test_accumulated_batches_equal_one_large_batch(data, tmp_path):
    large = losses_of(train(settings(data, tmp_path / 'large', steps=2, batch=2)))
    small = losses_of(train(settings(data, tmp_path / 'small', steps=2, batch=1, accumulation=2)))
    np.testing.assert_allclose(list(small.values()), list(large.values()), rtol=5e-3)


def test_autoencoder_stage_lowers_the_l1(data, tmp_path):
    from geo4d_ros.generation.unet import presets

    vae = {'block_out_channels': (32, 32), 'down_block_types': ('DownEncoderBlock2D',) * 2, 'layers_per_block': 1,
           'latent_channels': 4}
    presets.PRESETS['tiny-vae'] = {
        'unet': {**presets.PRESETS['geo4d-sim-unet']['unet'], 'in_channels': 8, 'out_channels': 4},
        'vae': vae, 'clip': None, 'pipeline': {}}
    try:
        output = train(settings(data, tmp_path / 'run', stage='vae', preset='tiny-vae', steps=12, schedule='constant'))
    finally:
        del presets.PRESETS['tiny-vae']
    l1 = [json.loads(line)['l1'] for line in (output / 'losses.jsonl').read_text().splitlines()]
    assert l1[-1] < 0.7 * l1[0]
    with pytest.raises(ConfigurationError, match='nothing to train'):
        train(settings(data, tmp_path / 'patch', stage='vae'))


def test_windows_depend_on_their_index_only(data):
    windows = EpisodeWindows(list_data(data, 'zarr'), 'zarr', 2, 3, (32, 32), 0)
    first, again, other = windows[5], windows[5], windows[6]
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first if k != 'index')


def test_damaged_episode_is_skipped_and_named(data, tmp_path, caplog):
    write_episodes(tmp_path, 2)
    (tmp_path / 'apple-000000.zarr/rgb/zarr.json').write_text('{')
    windows = EpisodeWindows(list_data(tmp_path, 'zarr'), 'zarr', 2, 3, (32, 32), 0)
    for i in range(8):
        assert windows[i]['rgb'].shape == (2, 4, 32, 32, 3)
    assert 'apple-000000' in caplog.text
    with pytest.raises(DatasetError, match='holds no episode'):
        list_data(tmp_path / 'apple-000001.zarr', 'zarr')


def test_unmasked_invalid_points_are_moved_as_in_the_release(data):
    window = EpisodeWindows(list_data(data, 'zarr'), 'zarr', 2, 3, (32, 32), 0)[0]
    window['depth'][:, :, :4] = 0
    batch = {k: v[None] for k, v in window.items()}
    masked, released = (make_clips(batch, torch.device('cpu'), 'own', (0, 0), move, 0) for move in (False, True))
    sentinel = -1 / 3
    assert torch.allclose(masked.targets[0, 1, :, :, :4], torch.tensor(sentinel))
    assert (released.targets[0, 1, :, :, :4] - sentinel).abs().max() > 0.01
    assert torch.equal(masked.targets[0, 0], released.targets[0, 0])
    assert not masked.valid[..., :4, :].any()
    assert masked.moved.any() and masked.gripper.any()


def test_registered_condition_lies_in_the_reference_frame(data):
    window = EpisodeWindows(list_data(data, 'zarr'), 'zarr', 2, 3, (32, 32), 0)[0]
    batch = {k: v[None] for k, v in window.items()}
    exact = make_clips(batch, torch.device('cpu'), 'registered', (0.0, 0.0), False, 0)
    noisy = make_clips(batch, torch.device('cpu'), 'registered', (0.01, 1.0), False, 0)
    static = ~exact.moved[0, 1, 0]
    difference = (exact.condition_maps[0, 1] - exact.targets[0, 1, 0]).abs().amax(0)[static]
    assert difference.max() < 1e-5
    assert 1e-3 < (noisy.condition_maps[0, 1] - exact.condition_maps[0, 1]).abs().max() < 0.1
    assert torch.equal(noisy.condition_maps[0, 0], exact.condition_maps[0, 0])


def test_masks_at_latent_resolution():
    from geo4d_ros.generation.unet.encoders.autoencoders import PatchAutoencoder

    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[0, 3, 5] = True
    exact = mask_to_latents(mask, PatchAutoencoder(patch=8), True)
    assert exact.shape == (2, 192, 2, 2)
    assert exact.sum() == 3  # one pixel in each of the three colour channels
    coarse = mask_to_latents(mask, PatchAutoencoder(patch=8, latent_channels=4), False)
    assert coarse.shape == (2, 1, 2, 2)


def test_weighted_mean_is_per_sample():
    values = torch.tensor([[1.0, 3.0], [5.0, 100.0]])
    weights = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert weighted_mean(values, weights) == pytest.approx((2 + 5) / 2)
    both = Latents(torch.zeros(1, 4), None, None, None, None)
    assert modality_weights(both, LossConfig(points=3.0)).flatten().tolist() == pytest.approx([1.5, 0.5, 1.5, 0.5])
    rgb = Latents(torch.zeros(1, 2), None, None, None, None, (RGB,))
    assert modality_weights(rgb, LossConfig(points=3.0)).flatten().tolist() == [1, 1]


def test_random_numbers_belong_to_the_window():
    a, b, c = (torch.randn(3, generator=sample_generator(0, i, p)) for i, p in ((4, 0), (4, 0), (4, 1)))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize('changes, message', [
    ({'stage': 'magic'}, 'stage should be one of'), ({'stepz': 3}, r"unknown training keys \['stepz'\]"),
    ({'loss': {'gripers': 1}}, r"unknown loss keys \['gripers'\]"), ({'batch': 0}, 'batch should be at least 1'),
])
def test_config_mistakes_are_named(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_config({'model': 'unet', **changes})


def test_every_shipped_config_is_readable():
    folder = ROOT / 'config/train'
    for path in sorted([*folder.glob('geo4d_*.yaml'), *folder.glob('distill/*.yaml')]):
        config = parse_config(yaml.safe_load(path.read_text()))
        assert 0 < learning_rate(config, 0) <= config.lr


def test_wrong_checkpoint_kind_is_named(data, tmp_path):
    with pytest.raises(CheckpointError, match='does not exist'):
        train(settings(data, tmp_path / 'run', init_from=str(tmp_path / 'nothing'), unet={}))


def test_accelerate_reads_the_sharding_config():
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(ROOT / 'config/train/accelerate_fsdp.yaml'))
    assert config.distributed_type == 'FSDP'
    assert config.fsdp_config['fsdp_state_dict_type'] == 'FULL_STATE_DICT'  # what the trainer gathers and saves
