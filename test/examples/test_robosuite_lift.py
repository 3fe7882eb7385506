"""The example with robosuite's Lift: the expert lifts by robosuite's own measure, and what is recorded is complete."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from geo4d_ros.data.collect import Recording, record
from geo4d_ros.data.episodes import list_episodes, open_or_warn
from geo4d_ros.simulation.cell import make_cell
from geo4d_ros.simulation.tasks import TASKS

FOLDER = Path(__file__).parents[2] / 'examples' / 'robosuite_lift'
pytestmark = [pytest.mark.slow, pytest.mark.skipif(importlib.util.find_spec('robosuite') is None,
                                                   reason='make assets-ur5e')]


@pytest.fixture
def lift(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from geo4d_robosuite.lift import LiftTask

    TASKS.add('lift', LiftTask)
    yield LiftTask
    TASKS.remove('lift')
    for name in [n for n in sys.modules if n.startswith('geo4d_robosuite')]:
        del sys.modules[name]


def test_the_expert_lifts_the_cube_and_an_episode_is_recorded(lift, tmp_path):
    outcome = record(Recording(str(tmp_path), cameras=2), 'lift', 1)
    assert outcome.result == 'kept', outcome.message
    episode = open_or_warn(list_episodes(tmp_path)[0])
    arrays = episode.load()
    assert episode.task == 'lift' and episode.instruction in lift.instructions
    assert {1, 2, 3, 4, 5} <= set(np.unique(arrays['labels']))
    assert arrays['object_pose'][-1, 2, 3] - arrays['object_pose'][0, 2, 3] > 0.04


def test_a_state_is_restored_and_the_fingers_are_where_the_kinematics_has_them(lift):
    cell = make_cell('lift', 2)
    site = cell.data.site('gripper0_right_grip_site')
    off = np.linalg.inv(cell.T_base_gripper) @ [*site.xpos, 1]
    np.testing.assert_allclose(off[:3], [0, 0, -0.0064], atol=1e-3)
    before, q = cell.save_state(), cell.joint_positions
    cell.set_joint_target(q + 0.05)
    cell.step(100)
    assert np.abs(cell.joint_positions - q).max() > 0.02 and not cell.succeeded()
    cell.restore_state(before)
    np.testing.assert_array_equal(cell.joint_positions, q)
