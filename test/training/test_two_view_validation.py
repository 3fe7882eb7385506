"""Validation of a two-view run: what is held out stays out, the clips are the same each time, the best weights stay."""

import json

import numpy as np
import pytest
from fakes.synthetic_episodes import episode_arrays, write_episodes
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from geo4d_ros.data.episodes import list_episodes, write_episode
from geo4d_ros.data.windows import HORIZON, WindowSampler
from geo4d_ros.errors import DatasetError
from geo4d_ros.generation.loading import load_generator
from geo4d_ros.generation.two_view.network import TwoViewNetwork
from geo4d_ros.generation.two_view.predictor import TwoViewPredictor
from geo4d_ros.training.two_view.train import Trainer, parse_config
from geo4d_ros.training.two_view.validation import Validation, as_gif, held_out_episodes

TINY = dict(height=32, width=32, channels=16, dim=24, heads=2, encoder_layers=1, pointers=2, refinements=1)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp('data')
    write_episodes(directory, 6)
    return directory


def test_what_is_held_out_stays_so_while_the_data_grows(data, tmp_path):
    first = held_out_episodes(str(data), tmp_path, 'auto')
    assert len(first) == 1
    (tmp_path / 'held_out.json').write_text(json.dumps([p.name for p in list_episodes(data)[:2]]))
    assert held_out_episodes(str(data), tmp_path, 'auto') == list_episodes(data)[:2]
    assert held_out_episodes(str(data), tmp_path, 'none') == []
    assert held_out_episodes('elsewhere', tmp_path, str(data)) == list_episodes(data)


def test_of_few_episodes_none_is_held_out(tmp_path):
    write_episodes(tmp_path / 'few', 2)
    assert held_out_episodes(str(tmp_path / 'few'), tmp_path, 'auto') == []
    assert not Validation([], tmp_path)


def test_the_sampler_never_reads_what_is_held_out(data):
    names = [path.name for path in list_episodes(data)]
    sampler = WindowSampler(data, np.random.default_rng(0), exclude=names[1:])
    assert len(sampler) == 1
    with pytest.raises(DatasetError, match='no usable episode'):
        WindowSampler(data, np.random.default_rng(0), exclude=names)


def test_an_episode_that_lacks_something_is_left_out_of_it(tmp_path, caplog):
    arrays = episode_arrays(0)
    del arrays['labels']
    write_episode(tmp_path, arrays, {'task': 'own', 'seed': 0, 'success': True, 'perturbed': False})
    assert not Validation(list_episodes(tmp_path), tmp_path)
    assert 'left out of the validation' in caplog.text and 'labels' in caplog.text


def test_it_looks_at_the_same_clips_each_time(data, tmp_path):
    network = TwoViewNetwork(**TINY)
    looks = [Validation(list_episodes(data)[:2], tmp_path).look(network, '', step, 0.1) for step in (1, 2)]
    assert looks[0] == looks[1] and looks[0]['path_error_cm'] > 0
    rows = [json.loads(line) for line in (tmp_path / 'validation.jsonl').read_text().splitlines()]
    assert [row['step'] for row in rows] == [1, 2]


def test_a_run_keeps_the_best_weights_and_draws_its_curves(data, tmp_path):
    values = {'data': str(data), 'output': str(tmp_path / 'run'), 'network': TINY, 'batch': 2, 'workers': 0}
    Trainer(parse_config({**values, 'minutes': 0.03})).run()
    rows = [json.loads(line) for line in (tmp_path / 'run/validation.jsonl').read_text().splitlines()]
    best = json.loads((tmp_path / 'run/best.json').read_text())
    assert best['total'] == pytest.approx(min(row['total'] for row in rows), abs=1e-3)
    load_generator(tmp_path / 'run/best')
    events = EventAccumulator(str(tmp_path / 'run/tensorboard'))
    events.Reload()
    assert 'validation/path_error_cm' in events.Tags()['scalars']


def test_a_tuned_run_looks_at_its_start_first(data, tmp_path):
    TwoViewPredictor(TwoViewNetwork(**TINY)).save_pretrained(tmp_path / 'start')
    values = {'data': str(data), 'output': str(tmp_path / 'run'), 'network': TINY, 'batch': 2, 'workers': 0}
    Trainer(parse_config({**values, 'minutes': 0.005, 'start': str(tmp_path / 'start')})).run()
    rows = [json.loads(line) for line in (tmp_path / 'run/validation.jsonl').read_text().splitlines()]
    assert rows[0]['step'] == 0 and rows[-1]['step'] > 0


def test_a_film_is_an_animation_that_tensorboard_shows(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (HORIZON + 1, 8, 10, 3), dtype=np.uint8)
    (tmp_path / 'film.gif').write_bytes(as_gif(frames))
    with Image.open(tmp_path / 'film.gif') as film:
        assert (film.n_frames, film.size) == (HORIZON + 1, (10, 8))
