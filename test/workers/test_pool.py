"""Jobs over processes, and what is said where Ray is missing."""

import sys

import pytest

from geo4d_ros.errors import BackendUnavailableError
from geo4d_ros.workers.pool import run_jobs


def test_one_process_does_the_jobs_in_order():
    assert list(run_jobs(divmod, [(7, 2), (9, 4)], 1)) == [(3, 1), (2, 1)]


def test_two_processes_do_every_job_once():
    assert sorted(run_jobs(divmod, [(n, 3) for n in range(7)], 2)) == [divmod(n, 3) for n in range(7)]


def test_without_ray_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'geo4d_ros\[ray\]'"):
        list(run_jobs(divmod, [(7, 2)], 2, 'local'))
