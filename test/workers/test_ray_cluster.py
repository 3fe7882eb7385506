"""Jobs on a local Ray cluster of two workers: the same results as one process gives, whoever dies on the way."""

import os
from pathlib import Path

import numpy as np
import pytest
from fakes import cluster_jobs

from geo4d_ros.data.collect import Recording, record
from geo4d_ros.data.episodes import Episode, list_episodes
from geo4d_ros.errors import ConfigurationError, DatasetError, SimulationError
from geo4d_ros.workers.pool import run_jobs

SEEDS = (1, 2, 3, 4)

pytestmark = pytest.mark.slow
pytest.importorskip('ray', reason="pip install 'geo4d_ros[ray]'")


@pytest.fixture(autouse=True)
def workers_find_the_fakes(monkeypatch):
    monkeypatch.setenv('PYTHONPATH', str(Path(__file__).parents[1]), prepend=os.pathsep)


def test_a_killed_worker_loses_nothing(tmp_path):
    serial, spread = (Recording(str(tmp_path / name), cameras=2, height=48, width=64) for name in ('one', 'ray'))
    expected = {(o.task, o.seed): o.result for o in (record(serial, 'apple', seed) for seed in SEEDS)}
    jobs = [(spread, 'apple', seed, str(tmp_path / 'killed')) for seed in SEEDS]
    outcomes = list(run_jobs(cluster_jobs.record_and_be_killed, jobs, 2, 'local'))
    assert (tmp_path / 'killed').exists() and {(o.task, o.seed): o.result for o in outcomes} == expected
    assert 'kept' in expected.values()
    names = [[path.name for path in list_episodes(tmp_path / folder)] for folder in ('one', 'ray')]
    assert names[0] == names[1] and len(names[0]) == list(expected.values()).count('kept')
    for name in names[0]:
        one, ray = (Episode.open(tmp_path / folder / name) for folder in ('one', 'ray'))
        assert one.attributes == ray.attributes
        for key, array in one.load().items():
            np.testing.assert_array_equal(array, ray.load()[key], err_msg=f'{name} {key}')


def test_what_goes_wrong_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sorted(run_jobs(cluster_jobs.place, [(n,) for n in range(5)], 2, 'local')) == \
        [(n, os.getcwd()) for n in range(5)]
    with pytest.raises(DatasetError, match=r'^job 7 is not wanted$'):
        list(run_jobs(cluster_jobs.refused, [(7,)], 2, 'local'))
    with pytest.raises(SimulationError, match='the job 7 lost 4 workers'):
        list(run_jobs(cluster_jobs.killed_always, [(7,)], 2, 'local'))
    with pytest.raises(ConfigurationError, match='0 GPUs; a job needs one CPU and 1 GPUs'):
        list(run_jobs(cluster_jobs.place, [(7,)], 2, 'local', gpus=1.0))


def test_no_cluster_is_said(monkeypatch):
    monkeypatch.delenv('RAY_ADDRESS', raising=False)
    with pytest.raises(ConfigurationError, match="no Ray cluster at 'auto'"):
        list(run_jobs(cluster_jobs.place, [(1,)], 2, 'auto'))
