"""Bad input of the evaluation commands ends in one line and exit code 2, before any work."""

import os

import pytest

from geo4d_ros.cli.main import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(('argv', 'words'), [
    (['evaluate', 'closed-loop', '--checkpoint', 'nowhere'], "'nowhere' is neither"),
    (['evaluate', 'closed-loop', '--generator', 'oracle', '--task', 'juggle'], 'unknown task juggle'),
    (['evaluate', 'closed-loop', '--generator', 'oracle', '--readout', 'state'], 'state stream'),
    (['evaluate', 'closed-loop', '--generator', 'oracle', '--episodes', '0'], 'proves nothing'),
    (['evaluate', 'closed-loop', '--generator', 'oracle', '--checkpoint', 'x'], 'exclude each other'),
    (['evaluate', 'video', '--checkpoint', 'nowhere'], "'nowhere' is neither"),
    (['evaluate', 'video', '--task', 'juggle'], 'unknown task juggle'),
    (['evaluate', 'video', '--windows', '0'], 'proves nothing'),
    (['evaluate', 'video', '--i3d', 'nowhere.pt'], 'no I3D file'),
    (['evaluate', 'video', '--lpips', 'nowhere.pt'], 'no LPIPS file'),
])
def test_bad_input_is_named(argv, words, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize('command', ['closed-loop', 'video'])
def test_unwritable_report_is_refused_before_the_run(command, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    extra = ['--generator', 'oracle'] if command == 'closed-loop' else []
    assert main(['evaluate', command, *extra, '--json', str(tmp_path / 'file' / 'x.json')]) == 2
    assert 'choose a writable place' in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_read_only_outputs_are_refused(tmp_path, capsys):
    (tmp_path / 'outputs').mkdir(mode=0o500)
    assert main(['evaluate', 'closed-loop', '--generator', 'oracle', '--episodes', '1']) == 2
    assert 'choose a writable place' in capsys.readouterr().err
