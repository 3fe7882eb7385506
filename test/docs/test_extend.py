"""The page on adding generators and trackers, run block by block."""

import re
from pathlib import Path

import numpy as np
import pytest

from geo4d_ros.generation.loading import GENERATORS
from geo4d_ros.registry import Registry
from geo4d_ros.robots.registry import ROBOTS
from geo4d_ros.simulation.tasks import TASKS
from geo4d_ros.tracking.backends.registry import TRACKERS
from geo4d_ros.types import Observation

PAGE = Path(__file__).resolve().parents[2] / 'docs/how_to/extend.md'


@pytest.fixture
def names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(GENERATORS, '_added', {})
    monkeypatch.setattr(TRACKERS, '_added', {})
    found: dict = {}
    for block in re.findall(r'^```python\n(.*?)^```', PAGE.read_text(), re.S | re.M):
        exec(compile(block, PAGE.name, 'exec'), found)
    return found


def test_its_generator_and_tracker_work(names):
    observation = Observation.example()
    video = names['generator'].predict(observation)
    assert video.frames == 11 and (video.rgb[:, -1] == video.rgb[:, 0]).all()
    track = names['tracker'].track(video, observation)
    np.testing.assert_array_equal(track.T_ref_gripper[-1], observation.T_ref_gripper)


def test_it_names_every_group():
    from geo4d_ros.data.readers.registry import READERS

    registries: list[Registry] = [ROBOTS, TASKS, GENERATORS, TRACKERS, READERS]
    table = re.findall(r'^\| `(geo4d_ros\.\w+)`', PAGE.read_text(), re.M)
    assert table == [registry.group for registry in registries]
