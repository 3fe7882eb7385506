"""The example's two replicas on this machine: cells share them, and one that is killed costs no answer."""

import importlib.util
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from geo4d_ros.errors import Geo4dError
from geo4d_ros.generation.remote.client import RemoteGenerator
from geo4d_ros.serving.server import ServerThread
from geo4d_ros.types import Observation

pytestmark = pytest.mark.slow
pytest.importorskip('ray.serve', reason="pip install 'ray[serve]'")
EXAMPLE = Path(__file__).resolve().parents[2] / 'examples' / 'ray_serve' / 'geo4d_ray_serve.py'


@pytest.fixture(scope='module')
def example():
    import ray

    spec = importlib.util.spec_from_file_location('geo4d_ray_serve', EXAMPLE)
    module = sys.modules['geo4d_ray_serve'] = importlib.util.module_from_spec(spec)
    before = dict(os.environ)
    os.environ.update(PYTHONPATH=os.pathsep.join([str(EXAMPLE.parent), os.environ.get('PYTHONPATH', '')]),
                      OMP_NUM_THREADS='1', RAY_worker_niceness='0')  # else below whatever else runs here
    ray.init('local', num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    spec.loader.exec_module(module)
    yield module
    module.serve.shutdown()
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)
    del sys.modules['geo4d_ray_serve']


@pytest.fixture(scope='module')
def fleet(example):
    made = example.Fleet(example.deploy('geo4d-sim-small', 'cpu', 2, cpus=0.5), seconds=120.0)
    with ServerThread(example.front(made, 2)) as port:
        yield made, port


def cell(port):
    return RemoteGenerator(f'remote://127.0.0.1:{port}?timeout=120')


def pids(fleet):
    return {fleet._handle.about.remote().result(timeout_s=60)['pid'] for _ in range(12)}


def test_cells_get_the_same_video_as_from_the_model_itself_whichever_replica_answers(fleet):
    from geo4d_ros.generation.loading import load_generator
    from geo4d_ros.resources import find_checkpoint

    made, port = fleet
    expected = load_generator(find_checkpoint('geo4d-sim-small'), 'cpu').predict(Observation.example())

    with ThreadPoolExecutor(6) as cells:
        videos = list(cells.map(lambda _: cell(port).predict(Observation.example()), range(6)))
    assert len(pids(made)) == 2
    for video in videos:
        np.testing.assert_allclose(video.rgb.astype(float), expected.rgb, atol=1)
        np.testing.assert_allclose(video.points, expected.points, atol=1e-3)
    assert max(made._handle.about.remote().result()['largest_batch'] for _ in range(8)) >= 2  # six on two


def test_a_killed_replica_costs_no_answer_and_is_replaced(fleet):
    made, port = fleet
    before = pids(made)
    with ThreadPoolExecutor(4) as cells:
        asked = [cells.submit(cell(port).predict, Observation.example(), n) for n in range(4)]
        os.kill(min(before), signal.SIGKILL)
        assert all(future.result().frames == made.frames + 1 for future in asked)
    deadline, after = time.monotonic() + 180.0, set()
    while len(after) < 2 or min(before) in after:
        assert time.monotonic() < deadline, f'no replacement: {before} then {after}'
        time.sleep(2.0)
        after = pids(made)


def test_what_the_model_refuses_reaches_the_cell_in_its_words(fleet):
    with pytest.raises(Geo4dError, match='gripper pose'):
        cell(fleet[1]).predict(Observation(Observation.example().views))
