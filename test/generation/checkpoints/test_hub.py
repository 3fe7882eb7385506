"""Checkpoints to a hub and back, over HTTP to a double; what is damaged, foreign or absent is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

pytest.importorskip('huggingface_hub')

from fakes.hub import Hub

from geo4d_ros.cli.main import main
from geo4d_ros.errors import CheckpointError, ConfigurationError, PeerLostError
from geo4d_ros.generation.checkpoints.hub import pull, push
from geo4d_ros.generation.manifest import checkpoint_sha256, write_manifest

REPO = 'lab/cell-model'


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / 'model'
    (folder / 'network').mkdir(parents=True)
    save_file({'w': np.arange(6, dtype=np.float32)}, folder / 'network' / 'weights.safetensors')
    (folder / 'network' / 'config.json').write_text('{"width": 6}')
    (folder / 'README.md').write_text('# A model\n')
    write_manifest(folder)
    (folder / 'optimizer.pt').write_bytes(b'not for others')
    return folder


@pytest.fixture
def pushed(checkpoint, monkeypatch):
    """(hub, its address) with the checkpoint on it."""
    monkeypatch.setenv('HF_TOKEN', 'secret')
    hub = Hub()
    with hub as address:
        url = push(checkpoint, REPO, endpoint=address)
        assert url.startswith(f'{address}/{REPO}/commit/')
        yield hub, address


def test_what_was_pushed_comes_back_the_same(pushed, checkpoint, tmp_path):
    hub, address = pushed
    assert set(hub.repositories[REPO]) == {'README.md', 'manifest.json', 'network/config.json',
                                           'network/weights.safetensors'}
    commit, digest = pull(REPO, tmp_path / 'back', sha256=checkpoint_sha256(checkpoint), endpoint=address)
    assert commit == hub.commit(REPO) and digest == checkpoint_sha256(checkpoint)
    for name, content in hub.repositories[REPO].items():
        assert (tmp_path / 'back' / name).read_bytes() == content == (checkpoint / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / 'back').iterdir()) == ['README.md', 'manifest.json', 'network']


def test_files_that_could_run_code_are_not_fetched(pushed, tmp_path):
    hub, address = pushed
    hub.repositories[REPO] |= {'modeling.py': b'print()', 'weights.bin': b'\x80\x04', '.git/config.json': b'{}'}
    hub.asked.clear()
    pull(REPO, tmp_path / 'back', endpoint=address)
    assert not any(path.endswith(('.py', '.bin')) or '.git' in path for path in hub.asked)


@pytest.mark.parametrize('name, content, message', [
    ('network/weights.safetensors', b'changed', 'truncated or changed'),
    ('other.safetensors', b'unlisted', 'not listed in manifest.json'),
    ('../outside.json', b'{}', 'points out of it')])
def test_what_does_not_fit_leaves_nothing_behind(pushed, tmp_path, name, content, message):
    hub, address = pushed
    hub.repositories[REPO][name] = content
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(CheckpointError, match=message):
        pull(REPO, tmp_path / 'back', endpoint=address)
    assert sorted(tmp_path.rglob('*')) == before


def test_other_weights_than_the_wanted_ones_and_no_checkpoint_are_refused(pushed, tmp_path):
    hub, address = pushed
    with pytest.raises(CheckpointError, match='wanted were abc'):
        pull(REPO, tmp_path / 'back', sha256='abc', endpoint=address)
    hub.repositories['lab/other'] = {'model.safetensors': b'x'}
    with pytest.raises(CheckpointError, match=r'no manifest\.json'):
        pull('lab/other', tmp_path / 'back', endpoint=address)


def test_a_wrong_token_an_unknown_repository_and_a_damaged_checkpoint_are_named(pushed, checkpoint, tmp_path,
                                                                                monkeypatch):
    address = pushed[1]
    with pytest.raises(PeerLostError, match='is the name right'):
        pull('lab/nothing', tmp_path / 'back', endpoint=address)
    monkeypatch.setenv('HF_TOKEN', 'wrong')
    with pytest.raises(PeerLostError, match='set HF_TOKEN'):
        push(checkpoint, 'lab/new', endpoint=address)
    (checkpoint / 'network' / 'config.json').write_text('{}')
    with pytest.raises(CheckpointError, match='truncated or changed'):
        push(checkpoint, REPO, endpoint=address)


@pytest.mark.parametrize('argv, text', [
    (['push', 'geo4d-sim-small', 'nameless'], 'OWNER/NAME'), (['pull', '../x/y'], 'OWNER/NAME'),
    (['push', 'nowhere', REPO], "'nowhere' is neither")])
def test_commands_end_in_one_line(argv, text, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert text in error and error.count('\n') == 1


def test_a_dry_run_says_what_would_go(checkpoint, tmp_path, capsys):
    report = tmp_path / 'push.json'
    assert main(['push', str(checkpoint), REPO, '--dry-run', '--json', str(report)]) == 0
    assert 'network/weights.safetensors' in capsys.readouterr().out
    said = json.loads(report.read_text())
    assert said['commit'] is None and 'optimizer.pt' not in said['files']


def test_an_existing_directory_is_not_touched(tmp_path):
    with pytest.raises(ConfigurationError, match='exists'):
        pull(REPO, tmp_path)
