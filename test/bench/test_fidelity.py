"""The released convention is reproduced, deviation by deviation, and the corrected one differs where it says so."""

import json

from geo4d_ros.cli.main import main

SAME = {'clip_input', 'static_windows', 'validation_split'}  # nothing to correct


def test_every_deviation_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['evaluate', 'fidelity', '--seed', '5', '--json', str(tmp_path / 'f.json')]) == 0
    deviations = json.loads((tmp_path / 'f.json').read_text())['deviations']
    assert len(deviations) >= 13
    for name, row in deviations.items():
        assert row['released'] <= 1e-4, name
        assert (row['corrected'] <= 1e-4) == (name in SAME), name
    assert deviations['mask_view_2']['corrected'] == 1  # every invalid pixel would count as surface
    assert 'mask_view_2' in capsys.readouterr().out
