"""The scene head learns from labels of single observations, and goes on where it was stopped."""

import numpy as np
import pytest
import torch

from geo4d_ros.errors import DatasetError
from geo4d_ros.generation.two_view.scene_head import INPUTS, ROBOT, SceneHead
from geo4d_ros.training.two_view import scene_fit
from geo4d_ros.training.two_view.scene_fit import SceneFitConfig, classes_of, fit_scene_head, scene_loss


def test_labels_become_classes_of_their_task():
    labels = np.array([0, 1, 4, 5, 6, 10, 13, 15], np.uint8)
    assert classes_of(labels, 1, 3).tolist() == [0, ROBOT, ROBOT, 4, 5, 2, 5, 7]


class Squares:
    """Pictures with a square of class 2, that their first channel shows."""

    def __init__(self, *_):
        pass

    def random(self, size, rng):
        while True:
            classes = torch.zeros(size, 16, 16, dtype=torch.long)
            for i in range(size):
                row = int(rng.integers(8))
                classes[i, row:row + 6, 4:10] = 2
            inputs = torch.randn(size, INPUTS, 16, 16) * 0.1
            inputs[:, 0] += (classes == 2).float()
            yield inputs, classes


def test_a_head_learns_what_its_inputs_show_and_goes_on(monkeypatch, tmp_path):
    monkeypatch.setattr(scene_fit, 'Views', Squares)
    config = SceneFitConfig('', steps=40, lr=1e-2, channels=8, save_every=40)
    head = fit_scene_head(config, tmp_path)
    inputs, classes = next(Squares().random(8, np.random.default_rng(1)))
    with torch.no_grad():
        found = head(inputs).argmax(1)
    assert ((found == 2) & (classes == 2)).sum() / ((found == 2) | (classes == 2)).sum() > 0.7
    again = fit_scene_head(config, tmp_path)  # nothing left to do
    torch.testing.assert_close(again.state_dict()['out.weight'], head.state_dict()['out.weight'])


def test_a_missing_thing_costs_more_than_a_leaking_one_pixel_thin():
    classes = torch.zeros(1, 16, 16, dtype=torch.long)
    classes[0, 4:8, 4:8] = 2
    good = torch.nn.functional.one_hot(classes, 8).movedim(-1, 1).float() * 12
    absent = torch.zeros_like(good)
    absent[:, 0] = 12
    assert scene_loss(good, classes) < 0.01 < 0.4 < scene_loss(absent, classes)


def test_squares_hold_a_thing_mostly():
    classes = np.zeros((96, 128), np.uint8)
    classes[10:14, 100:104] = 2
    rng = np.random.default_rng(0)
    corners = [scene_fit._square(classes, rng) for _ in range(100)]
    assert all(0 <= r <= 96 - scene_fit.CROP and 0 <= c <= 128 - scene_fit.CROP for r, c in corners)
    held = [(classes[r:r + scene_fit.CROP, c:c + scene_fit.CROP] == 2).any() for r, c in corners]
    assert np.mean(held) > 0.8


def test_a_folder_without_observations_says_how_to_make_some(tmp_path):
    with pytest.raises(DatasetError, match='--observations'):
        fit_scene_head(SceneFitConfig(str(tmp_path), steps=1, channels=8))


def test_a_head_tells_one_task_from_another_by_its_class():
    head = SceneHead(channels=8)
    assert [head.object_class(t) for t in range(3)] == [2, 4, 6]
    assert head(torch.zeros(1, INPUTS, 48, 64)).shape == (1, 8, 48, 64)
