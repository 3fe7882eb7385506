"""The tutorial on own recordings, run block by block as it is written."""

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest

from geo4d_ros.cli.main import main
from geo4d_ros.data.episodes import Episode, list_episodes

PAGE = Path(__file__).resolve().parents[2] / 'docs/tutorials/own_data.md'


def blocks():
    return re.findall(r'^```(bash|python)\n(.*?)^```', PAGE.read_text(), re.S | re.M)


def run_bash(text):
    """`geo4d` lines in this process: the same code as the command, without its start."""
    for line in text.replace('\\\n', ' ').splitlines():
        words = shlex.split(line)
        assert words[0] == 'geo4d', line
        if '--help' in words:
            with pytest.raises(SystemExit) as stop, contextlib.redirect_stdout(io.StringIO()):
                main(words[1:])
            assert stop.value.code == 0
        else:
            assert main(words[1:]) == 0, line


def test_the_page_does_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for kind, text in blocks():
        if kind == 'bash':
            run_bash(text)
        else:
            exec(compile(text, str(PAGE), 'exec'), {})
    capsys.readouterr()
    made = Episode.open(list_episodes('made')[0])
    first, second = (Episode.open(list_episodes(name)[0]) for name in ('data', 'named'))
    assert first.missing == () and first.frames == made.frames and second.instruction == 'put the apple on the plate'
    assert json.loads(Path('check.json').read_text())['problems'] == []
    assert Episode.open(list_episodes('from_folders')[0]).missing == ()
    assert Episode.open(list_episodes('from_lerobot')[0]).missing == ()
    script = Episode.open(list_episodes('from_script')[0])
    assert script.cameras == 2 and 'T_base_camera' not in script.missing and 'joints' in script.missing
