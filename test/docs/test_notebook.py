"""The notebook's cells run one after the other and show what they say."""

import json
from pathlib import Path

import pytest

from geo4d_ros.cli.main import main

NOTEBOOK = Path(__file__).resolve().parents[2] / 'docs' / 'examples' / 'predict_from_file.ipynb'


@pytest.mark.slow
def test_a_prediction_from_a_file_is_shown_and_tracked(tmp_path, monkeypatch, capsys):
    pytest.importorskip('matplotlib', reason='the notebook draws with matplotlib').use('Agg')
    monkeypatch.chdir(tmp_path)
    assert main(['observation', 'make', '--from-sim', 'apple', '--out', 'look.npz']) == 0
    names = {}
    for cell in json.loads(NOTEBOOK.read_text())['cells']:
        if cell['cell_type'] == 'code':
            exec(compile(''.join(cell['source']), 'cell', 'exec'), names)
    video, track = names['video'], names['track']
    assert video.views == 2 and video.frames == 11 and track.trusted >= 2
    assert sum(len(axis.images) for axis in names['axes'].ravel()) == 12
    assert capsys.readouterr().out.count('mm') >= len(track)
