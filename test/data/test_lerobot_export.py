"""The LeRobot export: every value can be read back, and what is wrong is named."""

import io
import json
import sys

import numpy as np
import pyarrow.parquet as parquet
import pytest
from fakes.synthetic_episodes import episode_arrays, write_episodes
from PIL import Image

from geo4d_ros.cli.main import main
from geo4d_ros.data.episodes import encode_depth
from geo4d_ros.data.writers.lerobot import export_lerobot
from geo4d_ros.errors import BackendUnavailableError


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(BackendUnavailableError, match='pip install pyarrow'):
        export_lerobot([], tmp_path / 'out')


def test_exported_values_are_the_episodes(tmp_path, capsys):
    write_episodes(tmp_path / 'data', 2)
    out = tmp_path / 'out'
    assert main(['export', 'lerobot', str(tmp_path / 'data'), '--out', str(out), '--depth']) == 0
    assert '2 episodes, 48 frames' in capsys.readouterr().out
    info = json.loads((out / 'meta/info.json').read_text())
    assert info['features']['observation.images.camera_2']['shape'] == [32, 32, 3]
    episodes = parquet.read_table(out / 'meta/episodes/chunk-000/file-000.parquet').to_pylist()
    assert [(e['dataset_from_index'], e['dataset_to_index']) for e in episodes] == [(0, 24), (24, 48)]
    second = episodes[1]
    file = info['data_path'].format(chunk_index=second['data/chunk_index'], file_index=second['data/file_index'])
    rows, truth = parquet.read_table(out / file).to_pylist(), episode_arrays(1)
    assert set(rows[0]) == set(info['features'])
    assert [r['index'] for r in rows] == list(range(24, 48))
    picture = np.asarray(Image.open(io.BytesIO(rows[5]['observation.images.camera_1']['bytes'])))
    np.testing.assert_array_equal(picture, truth['rgb'][1, 5])
    depth = np.asarray(Image.open(io.BytesIO(rows[5]['observation.images.camera_0_depth']['bytes'])))
    np.testing.assert_array_equal(encode_depth(depth), truth['depth'][0, 5])
    assert info['features']['observation.images.camera_0_depth']['info'] == {'is_depth_map': True, 'depth_unit': 'm'}
    np.testing.assert_allclose(rows[5]['action'], [*truth['joints'][6], 0.04], rtol=1e-6)
    tasks = parquet.read_table(out / 'meta/tasks.parquet')
    assert tasks.to_pylist() == [{'task_index': 0, 'task': 'apple'}]
    assert json.loads(tasks.schema.metadata[b'pandas'])['index_columns'] == ['task']  # where LeRobot looks for it
    stats = json.loads((out / 'meta/stats.json').read_text())
    assert stats['index']['max'] == [47]
    assert main(['export', 'lerobot', str(tmp_path / 'data'), '--out', str(out)]) == 2
    assert 'exists already' in capsys.readouterr().err


def test_nothing_to_export_is_named(tmp_path, capsys):
    assert main(['export', 'lerobot', str(tmp_path), '--out', str(tmp_path / 'out')]) == 2
    assert 'geo4d collect' in capsys.readouterr().err
