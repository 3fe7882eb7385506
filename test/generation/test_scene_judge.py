"""The judge beside the network: what it calls unfamiliar and done, on features with known answers."""

import numpy as np
import pytest

from geo4d_ros.generation.two_view.judge import SceneJudge, object_feature

C = 6


@pytest.fixture(scope='module')
def judge():
    rng = np.random.default_rng(0)
    views = rng.normal(0, [1, 2, 1, 1, 0.5, 1], (120, 2, C))
    done = np.arange(80) % 2 == 0
    objects = rng.normal(0, 1, (80, C)) + np.where(done, 4.0, 0.0)[:, None] * np.eye(C)[2]
    return SceneJudge.fit(views, np.repeat(np.arange(30), 4), objects, done)


def maps(vector, seed=0):
    """Features (2, C, 4, 8) whose mean is about the vector."""
    return np.asarray(vector)[None, :, None, None] + np.random.default_rng(seed).normal(0, 0.1, (2, C, 4, 8))


def mask(cells):
    out = np.zeros((2, 16, 32), bool)
    for view, row, column in cells:
        out[view, 4 * row:4 * row + 4, 4 * column:4 * column + 4] = True
    return out


def test_familiar_scenes_stay_below_one_and_odd_ones_do_not(judge):
    seen = np.ones(2, bool)
    usual = [judge.figures(maps(np.random.default_rng(i).normal(0, 0.7, C), i), mask([]), seen)['unfamiliar']
             for i in range(20)]
    assert np.mean(np.array(usual) < 1) > 0.9
    odd = maps(np.zeros(C))
    odd[1, 4] += 4  # eight standard deviations, in one view
    assert judge.figures(odd, mask([]), seen)['unfamiliar'] > 1.3
    assert judge.figures(odd, mask([]), np.array([True, False]))['unfamiliar'] < 1


def test_done_is_told_from_the_object_s_own_cells(judge):
    features, seen = maps(np.zeros(C)), np.ones(2, bool)
    features[0, 2, 1, 3] += 4
    assert judge.figures(features, mask([(0, 1, 3)]), seen)['done'] > 0.9
    assert judge.figures(features, mask([(0, 2, 5)]), seen)['done'] < 0.1
    assert 'done' not in judge.figures(features, mask([]), seen)


def test_an_object_s_feature_is_weighted_by_its_pixels():
    features = np.zeros((1, 1, 2, 2))
    features[0, 0, 0, 0], features[0, 0, 1, 1] = 1.0, 5.0
    objects = np.zeros((1, 8, 8), bool)
    objects[0, :4, :4], objects[0, 4, 4] = True, True
    assert object_feature(features, objects) == pytest.approx([(16 * 1 + 1 * 5) / 17])
    assert object_feature(features, np.zeros_like(objects)) is None


def test_saved_and_loaded_it_says_the_same(judge, tmp_path):
    judge.save(tmp_path)
    again = SceneJudge.load(tmp_path)
    features, seen = maps(np.ones(C)), np.ones(2, bool)
    assert again.figures(features, mask([(0, 1, 1)]), seen) == pytest.approx(
        judge.figures(features, mask([(0, 1, 1)]), seen), rel=1e-4)
    assert SceneJudge.load(tmp_path / 'nowhere') is None
