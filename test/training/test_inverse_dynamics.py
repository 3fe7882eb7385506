"""The inverse-dynamics baseline: its targets, its integration, and a run from episodes to a loaded checkpoint."""

import json

import numpy as np
import pytest
import torch

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.generation.inverse_dynamics import (
    REACH_M,
    InverseDynamicsNetwork,
    InverseDynamicsPredictor,
    around_gripper,
)
from geo4d_ros.generation.loading import load_generator
from geo4d_ros.generation.two_view.network import TwoViewNetwork
from geo4d_ros.generation.two_view.predictor import TwoViewPredictor
from geo4d_ros.geometry.transforms import from_rotvec
from geo4d_ros.training.inverse_dynamics import loss_of, pairs_of, train
from geo4d_ros.types import GripperTrack, Observation, Video4D

T_0 = from_rotvec(np.array([0.2, 2.8, 0.1]), np.array([0.1, -0.05, 0.8]))


def curved_path(frames=11):
    """Poses that turn about their own moving axis, and a closing gripper."""
    step = from_rotvec(np.array([0.05, -0.02, 0.1]), np.array([0.01, 0.02, -0.03]))
    poses = [T_0]
    for _ in range(frames - 1):
        poses.append(poses[-1] @ step)
    return np.stack(poses), np.linspace(0.08, 0.02, frames)


def window():
    T, opening = curved_path()
    rng = np.random.default_rng(0)
    return {'rgb': rng.integers(0, 256, (1, 11, 96, 128, 3), dtype=np.uint8), 'T_ref_gripper': T, 'opening': opening,
            'K': np.array([[[128.0, 0, 63.5], [0, 128, 47.5], [0, 0, 1]]])}


class Teacher(torch.nn.Module):
    """Gives one window's true motions, one pair after the other."""

    def __init__(self, pairs):
        super().__init__()
        self.pairs, self.calls, self.device = pairs, 0, torch.device('cpu')

    def forward(self, before, after, state, K):
        i, self.calls = self.calls, self.calls + 1
        return tuple(torch.as_tensor(self.pairs[k][i:i + 1]) for k in ('move', 'turn', 'opening'))


class Still:
    """A generator of a still video."""

    name, frames, dt = 'still', 10, 0.5

    def predict(self, observation, seed=0):
        return Video4D.example(views=1)


def test_true_motions_add_up_to_the_true_path():
    truth = window()
    teacher = Teacher(pairs_of(truth, np.random.default_rng(0)))
    observation = Observation(Observation.example(1).views, T_0, 0.08)
    track = InverseDynamicsPredictor(Still(), teacher).predict(observation).state
    assert isinstance(track, GripperTrack)
    np.testing.assert_allclose(track.T_ref_gripper, truth['T_ref_gripper'], atol=1e-9)
    np.testing.assert_allclose(track.opening, truth['opening'], atol=1e-9)


def test_the_crop_is_centred_on_the_gripper_and_measures_metres():
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing='ij')
    K = torch.tensor([[[100.0, 0, 63.5], [0, 100, 47.5], [0, 0, 1]]])
    crop = around_gripper(torch.stack([columns, rows])[None], torch.tensor([[0.1, -0.05, 1.0]]), K)
    assert crop.mean((0, 2, 3)).tolist() == pytest.approx([73.5, 42.5], abs=1e-3)
    assert (crop[0, 0, 0, -1] - crop[0, 0, 0, 0]).item() == pytest.approx(2 * 100 * REACH_M, abs=1e-3)


def test_the_network_can_learn_a_window():
    torch.manual_seed(0)
    network = InverseDynamicsNetwork(channels=8)
    batch = {k: torch.from_numpy(v).float() for k, v in pairs_of(window(), np.random.default_rng(0)).items()}
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    first = loss_of(network, batch).item()
    for _ in range(25):
        optimizer.zero_grad()
        loss = loss_of(network, batch)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3 * first


def test_a_run_from_episodes_to_a_checkpoint(tmp_path):
    from fakes.synthetic_episodes import write_episodes

    write_episodes(tmp_path / 'data')
    size = {'height': 32, 'width': 32}
    tiny = dict(**size, channels=16, dim=24, heads=2, encoder_layers=1, pointers=2, refinements=1, given_poses=True)
    TwoViewPredictor(TwoViewNetwork(**tiny)).save_pretrained(tmp_path / 'generator')
    values = {'model': 'inverse_dynamics', 'data': str(tmp_path / 'data'), 'output': str(tmp_path / 'run'),
              'generator': str(tmp_path / 'generator'), 'minutes': 0.002, 'workers': 0, 'batch': 1,
              'network': {'channels': 8}}
    output = train(values)
    assert json.loads((output / 'summary.json').read_text())['steps'] >= 1
    observation = Observation.example()
    observation = Observation(observation.views, observation.T_ref_gripper, 0.04, np.tile(np.eye(4), (2, 1, 1)))
    video = load_generator(output / 'model').predict(observation)
    assert len(video.state) == 11 and video.state.opening[0] == 0.04
    with pytest.raises(ConfigurationError, match='no generator checkpoint'):
        train({**values, 'generator': str(tmp_path)})
    with pytest.raises(ConfigurationError, match='typo'):
        train({**values, 'typo': 1})
