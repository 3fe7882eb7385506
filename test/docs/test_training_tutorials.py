"""The tutorials on fine-tuning and on comparing models, run block by block as they are written."""

import json
import re
import shlex
from pathlib import Path

import pytest

from geo4d_ros.cli.main import main
from geo4d_ros.generation.loading import load_generator

PAGES = Path(__file__).resolve().parents[2] / 'docs/tutorials'


def run(page):
    names: dict = {}
    for kind, text in re.findall(r'^```(bash|python)\n(.*?)^```', (PAGES / page).read_text(), re.S | re.M):
        if kind == 'python':
            exec(compile(text, page, 'exec'), names)
        else:
            for line in text.splitlines():
                assert main(shlex.split(line)[1:]) == 0, line
    return names


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_on_fine_tuning_does_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run('fine_tune.md')
    said = capsys.readouterr().out
    assert 'demonstrations: geo4d-sim-small tuned for' in said and 'path off by' in said
    trained = tmp_path / 'outputs/train/demonstrations'
    load_generator(trained / 'best')
    assert len(json.loads((trained / 'held_out.json').read_text())) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_on_comparing_does_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run('compare_models.md')
    assert set(names['shipped']) == set(names['tuned']) == {500_000}
    assert 'scenes more' in capsys.readouterr().out
