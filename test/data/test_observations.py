"""Pictures of single moments of expert runs, with the states of the whole run."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from geo4d_ros.data.collect import Recording, record
from geo4d_ros.data.observations import SUFFIX, _moments, read_observations, record_observations
from geo4d_ros.errors import DatasetError


def test_most_pictures_show_a_moment_before_the_object_moves():
    position = np.zeros((200, 3))
    position[100:, 0] = 0.2
    chosen = _moments(position, 200, np.random.default_rng(0))
    lively = (chosen >= 80) & (chosen < 100)
    assert 0.5 < lively.mean() < 0.8 and chosen.min() >= 0 and chosen.max() < 200


def test_a_run_without_motion_is_pictured_too():
    assert len(_moments(np.zeros((9, 3)), 12, np.random.default_rng(0))) == 12


def test_damaged_and_missing_observations_are_named(tmp_path):
    with pytest.raises(DatasetError, match='geo4d collect --observations'):
        next(read_observations(tmp_path))
    (tmp_path / ('apple-000001' + SUFFIX)).write_bytes(b'broken')
    with pytest.raises(DatasetError, match='apple-000001'):
        next(read_observations(tmp_path))


def test_a_file_made_otherwise_is_not_taken_for_the_wanted_one(tmp_path):
    path = tmp_path / ('apple-000001' + SUFFIX)
    save_file({'rgb': np.zeros((3, 2, 96, 128, 3), np.uint8), 'held_out': np.array([True])}, path)
    held_out = Recording(str(tmp_path), observations=3, split='held-out')
    assert record_observations(held_out, 'apple', 1) == path
    for other in (replace(held_out, split='train'), replace(held_out, observations=4)):
        with pytest.raises(DatasetError, match='apple-000001'):
            record_observations(other, 'apple', 1)


@pytest.mark.slow
def test_a_seed_gives_pictures_that_agree_with_its_states(tmp_path):
    outcome = record(Recording(str(tmp_path), observations=3), 'apple', 30000)
    assert outcome.result == 'kept' and outcome.frames == 6
    (run,) = read_observations(tmp_path)
    assert run['rgb'].shape == (3, 2, 96, 128, 3) and run['depth'].dtype == np.float32
    assert (run['index'] < len(run['times'])).all() and len(run['times']) == len(run['T_base_gripper'])
    for picture, moment in enumerate(run['index']):
        T = np.linalg.inv(run['T_base_view'][picture, 0]) @ run['object_pose'][moment]
        x = run['K'][picture, 0] @ T[:3, 3]
        column, row = np.rint(x[:2] / x[2]).astype(int)
        near = run['labels'][picture, 0][max(row - 4, 0):row + 5, max(column - 4, 0):column + 5]
        assert (near == 5).any() or ((near >= 1) & (near <= 4)).any()
