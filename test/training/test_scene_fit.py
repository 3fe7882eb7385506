"""The scene head learns from episode labels; pasted things keep their task's class."""

import numpy as np
import torch

from geo4d_ros.generation.two_view.scene_head import ROBOT, SceneHead
from geo4d_ros.training.two_view.scene_fit import Encoded, SceneFitConfig, classes_of, fit_scene_head, pasted

TASKS = ('apple', 'cereal', 'spatula')


def test_labels_become_classes_of_their_task():
    labels = np.array([0, 1, 4, 5, 6, 10, 13, 15], np.uint8)
    assert classes_of(labels, 1, 3).tolist() == [0, ROBOT, ROBOT, 4, 5, 2, 5, 7]


def window(task, label, depth):
    return {'task': task, 'rgb': np.full((2, 2, 4, 4, 3), label, np.uint8),
            'depth': np.full((2, 2, 4, 4), depth, np.float32), 'labels': np.full((2, 2, 4, 4), label, np.uint8)}


def test_pasting_keeps_what_is_nearer_and_the_robot():
    mine, theirs = window('apple', 0, 1.0), window('cereal', 5, 0.8)
    mine['labels'][0, 0, 0, 0] = 1
    mine['depth'][0, 0, 1, 1] = 0.5
    out = pasted(mine, theirs, TASKS)
    put = out['labels'][:, 0] == 12
    assert put.sum() == 2 * 16 - 2 and not put[0, 0, 0] and not put[0, 1, 1]
    assert (out['rgb'][:, 0][put] == 5).all() and (out['labels'][:, 1] == 0).all()
    assert (mine['labels'][:, 0] != 12).all()  # the window itself is left as it was
    assert pasted(mine, window('apple', 5, 0.8), TASKS) is mine


def test_a_head_learns_what_its_inputs_show():
    torch.manual_seed(0)
    classes = torch.zeros(40, 16, 16, dtype=torch.uint8)
    for i in range(40):
        classes[i, i % 8:i % 8 + 6, 4:10] = 2
    inputs = torch.randn(40, 7, 16, 16) * 0.1
    inputs[:, 0] += (classes == 2).float()
    data = Encoded(torch.randn(40, 8, 4, 4).half(), inputs.half(), classes)
    config = SceneFitConfig('', steps=120, lr=1e-2)
    _, report = fit_scene_head(None, config, SceneHead(features=8, channels=16), data)
    assert report['apple object'] > 0.7
