"""Whatever happens to a collector, its folder holds whole episodes of one recording, and the next one goes on."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fakes.synthetic_episodes import episode_arrays, write_episodes

from geo4d_ros.cli.main import main
from geo4d_ros.data import collect
from geo4d_ros.data.collect import Recording, existing, record, sole_writer
from geo4d_ros.data.episodes import Episode, list_episodes, write_episode
from geo4d_ros.errors import ConfigurationError, DatasetError

SAME = {'cameras': 3, 'height': 32, 'width': 32}
WRITER = '''
import sys
from pathlib import Path
from fakes.synthetic_episodes import episode_arrays
from geo4d_ros.data.episodes import write_episode
print('ready', flush=True)
for i in range(10**6):
    write_episode(Path(sys.argv[1]), episode_arrays(i % 4),
                  {'task': 'apple', 'seed': i % 4, 'success': True, 'perturbed': False})
'''


@pytest.fixture
def folder(tmp_path):
    write_episodes(tmp_path, 2)
    return tmp_path


def chunk_of(path):
    return next(p for p in (path / 'depth' / 'c').rglob('*') if p.is_file())


def test_a_good_episode_counts_as_done(folder):
    assert existing(Recording(str(folder), **SAME), list_episodes(folder)[0], 'apple', 0, whole=True)
    assert record(Recording(str(folder), **SAME), 'apple', 1).result == 'existing'


@pytest.mark.parametrize('changes', [{'split': 'held-out'}, {'cameras': 2}, {'height': 48}, {'width': 64},
                                     {'noise': 'd435'}])
def test_an_episode_recorded_otherwise_is_an_error_and_stays(folder, changes):
    before = chunk_of(list_episodes(folder)[0]).read_bytes()
    with pytest.raises(DatasetError, match=f'{next(iter(changes))} .* choose another --out'):
        record(Recording(str(folder), **{**SAME, **changes}), 'apple', 0)
    assert chunk_of(list_episodes(folder)[0]).read_bytes() == before


def test_another_task_or_seed_under_the_name_is_an_error(folder):
    path = list_episodes(folder)[0]
    for task, seed, word in (('cereal', 0, 'task'), ('apple', 9, 'seed')):
        with pytest.raises(DatasetError, match=f'recorded with {word}'):
            existing(Recording(str(folder), **SAME), path, task, seed, whole=False)


def test_a_newer_version_and_a_failure_are_not_replaced(folder):
    path = list_episodes(folder)[0] / 'zarr.json'
    plain = json.loads(path.read_text())
    for change, word in (({'version': 99}, 'version 99'), ({'success': False}, '--keep-failures')):
        path.write_text(json.dumps({**plain, 'attributes': {**plain['attributes'], **change}}))
        with pytest.raises(DatasetError, match=word):
            record(Recording(str(folder), **SAME), 'apple', 0)


@pytest.mark.parametrize('damage', ['truncated', 'absent', 'flipped', 'no description'])
def test_a_damaged_episode_is_recorded_again(folder, monkeypatch, damage):
    """Found by its checksums, also where the chunk is there but shorter."""
    from geo4d_ros.simulation import rollout

    path = list_episodes(folder)[0]
    chunk = path / 'zarr.json' if damage == 'no description' else chunk_of(path)
    if damage == 'flipped':
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 0xFF
        chunk.write_bytes(data)
    elif damage == 'absent':
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:-7])
    monkeypatch.setattr(rollout, 'rollout', lambda *a, **k: rollout.RolloutResult(False, 0.0, [], 'tried again'))
    outcome = record(Recording(str(folder), **SAME), 'apple', 0)
    assert outcome.result == 'failed' and outcome.message in ('tried again', 'failed')


def test_the_folder_is_for_one_collector(folder, capsys):
    with open(folder / '.lock', 'a') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(['collect', '--task', 'apple', '--demos', '1', '--jobs', '1', '--out', str(folder)]) == 2
        assert 'another collector' in capsys.readouterr().err
        with pytest.raises(ConfigurationError), sole_writer(folder, Recording(str(folder), **SAME), []):
            pass
    with sole_writer(folder, Recording(str(folder), **SAME), [('apple', 0), ('apple', 5)]):
        pass


def test_a_mismatch_is_found_before_anything_is_recorded(folder, capsys, monkeypatch):
    monkeypatch.setattr(collect, 'record', lambda *a: pytest.fail('recorded'))
    assert main(['collect', '--task', 'apple', '--demos', '3', '--jobs', '1', '--out', str(folder), '--split',
                 'held-out', '--size', '32x32']) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'split train, not held-out' in message


def test_what_a_killed_collector_left_is_cleared_away(folder):
    left = folder / '.apple-000007.zarr.new.123'
    left.mkdir()
    (left / 'zarr.json').write_text('{')
    with sole_writer(folder, Recording(str(folder), **SAME), []):
        assert not left.exists() and len(list_episodes(folder)) == 2


def writer(folder, **options):
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, '-c', WRITER, str(folder)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=environment, **options)
    assert process.stdout.readline() == 'ready\n'
    return process


def test_killed_at_any_moment_it_leaves_whole_episodes(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(4):
        process = writer(tmp_path)
        time.sleep(float(rng.uniform(0.05, 0.6)))
        process.kill()
        process.communicate()
        for path in list_episodes(tmp_path):
            assert set(Episode.open(path).load()) == set(episode_arrays(0))


def test_a_full_disk_leaves_whole_episodes_and_one_line(tmp_path):
    import resource

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))  # the pictures do not fit

    process = writer(tmp_path, preexec_fn=small_files)
    message = process.communicate(timeout=120)[1]
    assert process.returncode == 1 and 'DatasetError: cannot write' in message.splitlines()[-1]
    assert list_episodes(tmp_path) == [] and not list(tmp_path.glob('.*.zarr.*'))


def test_replacing_keeps_the_old_one_until_the_new_one_is_whole(folder, monkeypatch):
    from geo4d_ros.data import episodes

    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(episodes, '_write_group', full)
    with pytest.raises(DatasetError, match='No space left'):
        write_episode(folder, episode_arrays(0), {'task': 'apple', 'seed': 0, 'success': True, 'perturbed': False})
    assert len(list_episodes(folder)) == 2 and Episode.open(list_episodes(folder)[0]).load()


def test_told_to_end_it_takes_its_workers_along(tmp_path):
    command = [sys.executable, '-m', 'geo4d_ros.cli.main', 'collect', '--task', 'apple', '--demos', '40', '--cameras',
               '1', '--size', '48x64', '--jobs', '2', '--out', str(tmp_path / 'data')]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path,
                               start_new_session=True, env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})
    try:
        assert until(lambda: len(members(process.pid)) >= 3, 120), 'no workers'
        process.terminate()
        assert process.wait(60) != 0
        assert until(lambda: not members(process.pid), 60), members(process.pid)
    finally:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def members(session):
    """Ids of the processes of a session that still run."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != 'Z':
            found.append(int(pid))
    return found


def until(condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False
