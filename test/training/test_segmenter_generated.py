"""Frames painted along the true path: the generator's head is swapped for the truth and put back."""

from types import SimpleNamespace

import numpy as np
import pytest

from geo4d_ros.errors import CheckpointError
from geo4d_ros.training.segmenter.generated import joined, paint_along
from geo4d_ros.training.segmenter.train import Samples


def window():
    T = np.tile(np.eye(4), (11, 1, 1))
    T[:, 0, 3] = np.arange(11) * 0.01
    K = np.array([[30.0, 0, 15.5], [0, 30, 15.5], [0, 0, 1]])
    return {'rgb': np.zeros((2, 11, 32, 32, 3), np.uint8), 'depth': np.ones((2, 11, 32, 32), np.float32),
            'K': np.stack([K, K]), 'T_ref_gripper': T, 'opening': np.full(11, 0.08),
            'T_base_ref': np.eye(4), 'joints': np.zeros((11, 7))}


class Generator:
    name = 'test'

    def __init__(self):
        self.network = SimpleNamespace(state_head='own')

    def predict(self, observation):
        import torch

        scene = SimpleNamespace(features=torch.zeros(1))
        self.path, self.openings = self.network.state_head(scene)[-1]
        if observation.opening < 0:
            raise ValueError
        return 'video'


def test_the_true_path_goes_in_and_the_own_head_comes_back():
    generator = Generator()
    assert paint_along(generator, window()) == 'video'
    assert generator.network.state_head == 'own'
    np.testing.assert_allclose(generator.path[0, :, 0, 3].numpy(), 0.01 * np.arange(1, 11), atol=1e-6)
    assert generator.openings.shape == (1, 10)


def test_a_generator_without_a_state_stream_is_named():
    with pytest.raises(CheckpointError, match='--generator none'):
        paint_along(SimpleNamespace(name='unet'), window())


def test_joined_clips_stay_apart():
    def samples(n):
        return Samples(np.zeros((n, 4, 4, 3), np.uint8), np.zeros((n, 4, 4), np.uint16), np.zeros((n, 4, 4), np.uint8),
                       np.zeros((n, 6, 2)), np.arange(n) // 2)

    assert joined(samples(4), samples(2)).clip.tolist() == [0, 0, 1, 1, 2, 2]
