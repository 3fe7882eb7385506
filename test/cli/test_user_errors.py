"""Whatever a user types or hands in: exit code 2 and one line that says what is wrong, never a traceback."""

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geo4d_ros.cli.main import COMMANDS, main
from geo4d_ros.errors import ConfigurationError, Geo4dError
from geo4d_ros.observation_file import load_observation, save_observation
from geo4d_ros.training.config_values import checked_config
from geo4d_ros.training.inverse_dynamics import InverseDynamicsTraining
from geo4d_ros.types import Observation


def outcome(capsys, *argv):
    """Exit code and what was said on stderr."""
    try:
        code = main(list(argv))
    except SystemExit as end:
        code = end.code
    return code, capsys.readouterr().err.strip()


@pytest.mark.parametrize('argv', [
    ['evaluate', 'faults', '--runs', '0'], ['evaluate', 'expert', '--episodes', '0'],
    ['evaluate', 'closed-loop', '--episodes', '0'], ['evaluate', 'video', '--episodes', '0', '--data', 'x'],
    ['evaluate', 'safety', '--cases', '-3'], ['benchmark', 'generator', '--repeats', '0'],
    ['evaluate', 'expert', '--jobs', '0'], ['evaluate', 'expert', '--seed-start', '-1'],
    ['collect', '--out', 'x', '--demos', '0'], ['collect', '--out', 'x', '--perturb', 'nan'],
    ['train', 'segmenter', '--data', 'x', '--out', 'y', '--minutes', '0'],
    ['train', 'opening', '--data', 'x', '--out', 'y', '--episodes', '0'],
])
def test_a_run_of_none_is_refused(capsys, tmp_path, monkeypatch, argv):
    monkeypatch.chdir(tmp_path)
    code, message = outcome(capsys, *argv)
    assert code == 2 and len(message.splitlines()) == 1 and '--' in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', sorted(COMMANDS))
@pytest.mark.parametrize('extra', [['--no-such-option'], ['--seed', 'abc'], ['--json']])
def test_every_command_says_in_one_line_what_it_does_not_understand(capsys, name, extra):
    code, message = outcome(capsys, *name.split(), *extra)
    assert code == 2 and len(message.splitlines()) == 1 and message.startswith(f'geo4d {name}: '), message


CONFIG = {'model': 'inverse_dynamics', 'minutes': 1.0}


@pytest.mark.parametrize(('change', 'word'), [
    ({'lr': 'fast'}, 'lr'), ({'lr': [1]}, 'lr'), ({'lr': float('nan')}, 'lr'), ({'lr': -1.0}, 'lr'),
    ({'lr': True}, 'lr'),
    ({'batch': 0}, 'batch'), ({'batch': 1.5}, 'batch'), ({'batch': None}, 'batch'), ({'minutes': 0}, 'minutes'),
    ({'network': 'large'}, 'network'), ({'output': 3}, 'output'), ({'sped': 1}, 'sped'), ({3: 1}, '3'),
    ({'warmup': 0}, 'warmup'), ({'seed': 'x'}, 'seed'), ({'workers': -1}, 'workers'), ({'clock': None}, 'clock'),
    ({'model': ['two_view']}, 'model'), ({'model': None}, 'model')])
@pytest.mark.parametrize('model', ['inverse_dynamics', 'two_view', 'unet'])
def test_a_wrong_config_is_named(capsys, tmp_path, monkeypatch, model, change, word):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'config.yaml'
    path.write_text(yaml.safe_dump({'model': model, 'minutes': 1.0, **change}))
    code, message = outcome(capsys, 'train', '--config', str(path))
    if model == 'unet' and 'network' in change:
        word = 'unknown'
    assert code == 2 and word in message and len(message.splitlines()) == 1, message


@pytest.mark.parametrize('text', ['[1, 2', '- a list', '', 'model: !!python/object:os.system {}', '\x00'])
def test_a_file_that_is_no_config_is_named(capsys, tmp_path, text):
    path = tmp_path / 'config.yaml'
    path.write_text(text)
    code, message = outcome(capsys, 'train', '--config', str(path))
    assert code == 2 and len(message.splitlines()) == 1 and 'config.yaml' in message
    (tmp_path / 'binary.yaml').write_bytes(bytes(range(256)))
    assert outcome(capsys, 'train', '--config', str(tmp_path / 'binary.yaml'))[0] == 2
    assert outcome(capsys, 'train', '--config', str(tmp_path))[0] == 2


def test_overrides_that_are_no_yaml_are_named(capsys, tmp_path):
    path = tmp_path / 'config.yaml'
    path.write_text(yaml.safe_dump(CONFIG))
    for item in ('lr=[', 'lr', 'lr=fast'):
        code, message = outcome(capsys, 'train', '--config', str(path), '--set', item)
        assert code == 2 and 'lr' in message and len(message.splitlines()) == 1


def test_numbers_that_yaml_reads_as_texts_are_numbers():
    config = checked_config(InverseDynamicsTraining, yaml.safe_load('{lr: 2e-4, batch: 8.0, minutes: 3}'))
    assert config.lr == 2e-4 and config.batch == 8 and isinstance(config.batch, int) and config.minutes == 3.0


values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
                      max_leaves=4)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*InverseDynamicsTraining.__dataclass_fields__, 'other']), values, max_size=4))
def test_any_config_is_taken_or_refused(config):
    try:
        made = checked_config(InverseDynamicsTraining, config)
    except ConfigurationError as error:
        assert '\n' not in str(error)
    else:
        assert isinstance(made.lr, float) and made.batch >= 1 and isinstance(made.output, str)


@pytest.fixture(scope='module')
def observation_file(tmp_path_factory):
    path = tmp_path_factory.mktemp('observation') / 'o.npz'
    save_observation(path, Observation.example())
    return path


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9), st.binary(min_size=1, max_size=8), st.booleans())
def test_any_damage_of_an_observation_file_is_one_line(observation_file, tmp_path, place, patch, cut):
    data = bytearray(observation_file.read_bytes())
    place %= len(data)
    if cut:
        del data[place:]
    else:
        data[place:place + len(patch)] = patch
    path = tmp_path / 'damaged.npz'
    path.write_bytes(data)
    try:
        load_observation(path)
    except Geo4dError as error:
        assert '\n' not in str(error)


NAMES = ['rgb_0', 'depth_0', 'K_0', 'rgb_1', 'depth_1', 'K_1', 'stamp_0', 'frame_id_0', 'T_ref_gripper', 'opening',
         'arm_points', 'version', 'rgb_x', 'rgb_7']
arrays = st.sampled_from([
    np.zeros(()), np.zeros(3), np.zeros((0, 4)), np.full((96, 128), np.nan, np.float32),
    np.zeros((96, 128, 3), np.uint8), np.eye(3), np.eye(4), np.full((4, 4), np.inf), np.array('text'),
    np.array(['a', 'b']), np.array(1e300), np.array(2**62), np.array(1j), np.zeros((2, 2), bool),
    np.array(np.datetime64('2020-01-01'))])


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(NAMES), arrays, max_size=4))
def test_any_content_of_an_observation_file_is_one_line(observation_file, tmp_path, changes):
    with np.load(observation_file) as archive:
        content = {name: archive[name] for name in archive.files} | changes
    path = tmp_path / 'odd.npz'
    np.savez(path, **content)
    try:
        load_observation(path)
    except Geo4dError as error:
        assert '\n' not in str(error)


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04', b'\x93NUMPY\x01\x00', b'{"a": 1}'])
def test_predict_on_what_is_no_observation(capsys, tmp_path, content):
    path = tmp_path / 'x.npz'
    path.write_bytes(content)
    code, message = outcome(capsys, 'predict', '--observation', str(path), '--out', str(tmp_path / 'out'))
    assert code == 2 and len(message.splitlines()) == 1 and 'x.npz' in message
