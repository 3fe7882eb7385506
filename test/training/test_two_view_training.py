"""Training of the two-view network: targets, batches and resuming."""

import numpy as np
import pytest
import torch
import zarr
from fakes.panda import HOME
from safetensors.torch import load_file

from geo4d_ros.data.episodes import encode_depth, write_episode
from geo4d_ros.data.windows import WindowSampler, undisturbed
from geo4d_ros.errors import CheckpointError, ConfigurationError
from geo4d_ros.generation.loading import load_generator
from geo4d_ros.generation.two_view.arm import ArmHead
from geo4d_ros.generation.two_view.network import TwoViewNetwork
from geo4d_ros.generation.two_view.predictor import TwoViewPredictor
from geo4d_ros.generation.two_view.weights import FILE, read_weights
from geo4d_ros.geometry.cameras import intrinsics, look_at
from geo4d_ros.geometry.transforms import invert
from geo4d_ros.robots.inverse_kinematics import shared_kinematics
from geo4d_ros.robots.registry import load_robot
from geo4d_ros.training.two_view.arm_fit import fit_arm_head, pairs
from geo4d_ros.training.two_view.batches import Augmentation, arm_in_gripper, collate, window_arrays
from geo4d_ros.training.two_view.losses import motion_target, noisy_poses, pose_loss, total_loss
from geo4d_ros.training.two_view.train import Trainer, parse_config

HEIGHT, WIDTH, FRAMES = 32, 48, 12
TINY = dict(height=HEIGHT, width=WIDTH, channels=16, dim=24, heads=2, encoder_layers=1, pointers=2, refinements=1)


@pytest.fixture
def episodes(tmp_path):
    """Two short made-up episodes with a hand that moves over a plane."""
    rng = np.random.default_rng(0)
    directory = tmp_path / 'episodes'
    directory.mkdir()
    for seed in range(2):
        depth = np.full((2, FRAMES, HEIGHT, WIDTH), 1.0, np.float32)
        labels = np.zeros(depth.shape, np.uint8)
        for t in range(FRAMES):
            depth[:, t, 8:14, 5 + 2 * t:11 + 2 * t], labels[:, t, 8:14, 5 + 2 * t:11 + 2 * t] = 0.8, 2
        T_gripper = np.tile(np.diag([1.0, -1, -1, 1]), (FRAMES, 1, 1))
        T_gripper[:, 0, 3] = 0.02 * np.arange(FRAMES)
        cameras = np.stack([look_at(np.array([1.0, y, 0.8]), np.array([0.1, 0, 0])) for y in (-0.3, 0.4)])
        write_episode(directory, {
            'rgb': rng.integers(0, 256, (2, FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8), 'depth': encode_depth(depth),
            'labels': labels, 'K': np.tile(intrinsics(50, WIDTH, HEIGHT), (2, 1, 1)), 'T_base_camera': cameras,
            'T_base_gripper': T_gripper, 'joints': np.zeros((FRAMES, 7)), 'opening': np.full(FRAMES, 0.08),
            'opening_command': np.full(FRAMES, 0.08), 'object_pose': np.tile(np.eye(4), (FRAMES, 1, 1)),
            'times': 0.25 * np.arange(FRAMES),
        }, {'task': 'apple', 'seed': seed, 'success': True, 'perturbed': False})
    return directory


def batch_of(episodes, noise=None, size=2):
    rng = np.random.default_rng(1)
    windows = iter(WindowSampler(episodes, rng, 2, buffer=4))
    return collate([window_arrays(next(windows), rng, noise) for _ in range(size)])


def test_points_are_in_the_gripper_frame(episodes):
    """A pixel of the plane, lifted by hand through base coordinates, lands where the batch says."""
    batch = batch_of(episodes)
    T = batch['T_g0_view'][0, 1].double().numpy()
    K = batch['K'][0, 1].double().numpy()
    row, column = 20, 30
    z = batch['depth0'][0, 1, 0, row, column].item()
    point = np.array([(column - K[0, 2]) / K[0, 0] * z, (row - K[1, 2]) / K[1, 1] * z, z, 1])
    np.testing.assert_allclose((T @ point)[:3], batch['points'][0, 1, row, column], atol=1e-4)


def test_targets_are_never_disturbed_by_the_augmentation(episodes):
    clean, noisy = batch_of(episodes), batch_of(episodes, Augmentation())
    assert not torch.equal(clean['T_g0_view'], noisy['T_g0_view'])
    for batch in (clean, noisy):
        torch.testing.assert_close(batch['poses'][:, :, :3, :3], torch.eye(3).expand(2, 10, 3, 3), atol=1e-6, rtol=0)


def test_motion_target_marks_the_hand_and_what_it_uncovers(episodes):
    batch = batch_of(episodes)
    batch['rgb'] = batch['rgb0'][:, None].expand_as(batch['rgb'])  # made-up colours are noise: compare depth only
    target, _ = motion_target(batch)
    hand = (batch['labels'] == 2)
    assert bool((target[hand] == 1).all())
    hand0 = (batch['segments'] == 2)[:, None].expand_as(hand)
    assert bool((target[hand0 & ~hand] == 2).all())
    assert bool((target[~hand0 & ~hand] == 0).all())


def test_pose_loss_is_near_zero_only_at_the_truth():
    T = torch.eye(4).expand(1, 3, 4, 4)
    off = T.clone()
    off[..., 0, 3] = 0.05
    assert pose_loss(T, T).max() < 0.06
    torch.testing.assert_close(pose_loss(off, T), torch.full((1, 3), 0.5), atol=0.01, rtol=0)


def test_noisy_poses_stay_rigid():
    noisy = noisy_poses(torch.eye(4).expand(4, 2, 4, 4))
    R = noisy[..., :3, :3]
    torch.testing.assert_close(R @ R.transpose(-1, -2), torch.eye(3).expand_as(R), atol=1e-5, rtol=0)
    assert (noisy[..., :3, 3].norm(dim=-1) > 0).all()


@pytest.mark.parametrize(('ablation', 'unused'), [
    ({}, set()), ({'arm_joints': 7}, set()), ({'video': False}, set()),
    ({'cross_view': False}, {'decoder.plate.weight'}),
    ({'guide': False}, {'decoder.plate.weight', 'decoder.hint.weight'}),
])
def test_every_parameter_gets_a_gradient(episodes, ablation, unused):
    torch.manual_seed(0)
    network = TwoViewNetwork(**TINY, **ablation)
    for parameter in network.parameters():  # zero-initialised outputs would hide what lies behind them
        torch.nn.init.normal_(parameter, std=0.05)
    total_loss(network, batch_of(episodes))['total'].backward()
    missing = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    missing = [n for n in missing if not n.startswith('arm_head.')]  # fitted on its own: arm_fit.py
    assert set(missing) == unused


def config(episodes, out, **more):
    return parse_config(dict(data=str(episodes), output=str(out), network=TINY, batch=2, workers=0, **more))


def test_a_resumed_run_continues_exactly(episodes, tmp_path):
    batch = batch_of(episodes)
    straight = Trainer(config(episodes, tmp_path / 'a'))
    for _ in range(3):
        torch.manual_seed(0)
        expected = straight._train_step(batch, 0.1)
        straight.step += 1
    first = Trainer(config(episodes, tmp_path / 'b'))
    for _ in range(2):
        torch.manual_seed(0)
        first._train_step(batch, 0.1)
        first.step += 1
    first.save()
    resumed = Trainer(config(episodes, tmp_path / 'b'))
    assert resumed.step == 2
    torch.manual_seed(0)
    assert resumed._train_step(batch, 0.1) == pytest.approx(expected, rel=1e-5)
    for a, b in zip(straight.ema.shadow_params[:5], first.ema.shadow_params[:5], strict=True):
        assert a.shape == b.shape


def test_a_short_run_writes_loadable_weights(episodes, tmp_path):
    Trainer(config(episodes, tmp_path / 'run', minutes=0.02)).run()
    assert (tmp_path / 'run' / 'run.json').is_file()
    load_generator(tmp_path / 'run' / 'model')


def test_frozen_parts_stay_and_a_tuned_model_leaves_them_out(episodes, tmp_path):
    torch.manual_seed(1)
    base, tuned = tmp_path / 'base', tmp_path / 'tuned'
    TwoViewPredictor(TwoViewNetwork(**TINY)).save_pretrained(base)
    trainer = Trainer(config(episodes, tmp_path / 'run', start=str(base), frozen=['encoder.blocks']))
    trainer._train_step(batch_of(episodes), 0.5)
    trainer.step = 1
    trainer.save()
    before, whole = read_weights(base), read_weights(tmp_path / 'run' / 'model')
    kept = {name for name, value in whole.items() if torch.equal(value, before[name])}
    assert any(n.startswith('encoder.blocks') for n in before) and len(kept) < len(before)
    assert {n for n in before if n.startswith('encoder.blocks')} <= kept

    load_generator(tmp_path / 'run' / 'model').save_pretrained(tuned, base)
    assert {n for n in load_file(tuned / 'network' / FILE)} == set(before) - kept
    found = load_generator(tuned).network.state_dict()
    assert all(torch.equal(found[name], value.float()) for name, value in whole.items())

    TwoViewPredictor(TwoViewNetwork(**TINY)).save_pretrained(base)
    with pytest.raises(CheckpointError, match='other weights'):
        load_generator(tuned)


def test_a_part_to_freeze_that_is_not_there_is_named(episodes, tmp_path):
    with pytest.raises(ConfigurationError, match=r"'encoder\.block_s'.*decoder"):
        Trainer(config(episodes, tmp_path / 'run', frozen=['encoder.block_s']))


def test_a_model_is_as_wide_as_the_gripper_of_its_data_and_says_whose_that_is(episodes, tmp_path):
    for path in episodes.glob('*.zarr'):
        zarr.open_group(path, mode='r+').attrs['robot'] = 'ur5e_2f85'
    trainer = Trainer(config(episodes, tmp_path / 'run'))
    assert trainer.network.config.max_opening == load_robot('ur5e_2f85').gripper.stroke
    trainer.save()
    assert load_generator(tmp_path / 'run' / 'model').robot == 'ur5e_2f85'
    zarr.open_group(next(episodes.glob('*.zarr')), mode='r+').attrs['robot'] = 'panda'
    with pytest.raises(ConfigurationError, match='several robots'):
        Trainer(config(episodes, tmp_path / 'other'))


def test_the_arm_ends_at_the_gripper(episodes):
    """The base's distance to the gripper is that in the robot's frame, the hand is 103.4 mm behind the tool centre."""
    window = next(iter(WindowSampler(episodes, np.random.default_rng(0), 2, buffer=4)))
    q = np.random.default_rng(1).uniform(-0.5, 0.5, (11, 7)) + HOME
    T_base_gripper = np.stack([shared_kinematics().forward(x) for x in q])
    window |= {'joints': q, 'T_ref_gripper': invert(window['T_base_ref']) @ T_base_gripper}
    arm = arm_in_gripper(window)
    np.testing.assert_allclose(np.linalg.norm(arm[0]), np.linalg.norm(T_base_gripper[0, :3, 3]), atol=1e-9)
    np.testing.assert_allclose(arm[-1], [0, 0, -0.1034], atol=1e-9)


def test_the_arm_head_learns_where_the_joints_go(tmp_path):
    """Joints of random motions; the wrist follows the hand exactly, the elbow is learned better than by staying."""
    rng = np.random.default_rng(0)
    directory = tmp_path / 'motions'
    directory.mkdir()
    images = {'rgb': np.zeros((1, 40, 8, 8, 3), np.uint8), 'depth': np.ones((1, 40, 8, 8), np.uint16),
              'labels': np.zeros((1, 40, 8, 8), np.uint8), 'K': intrinsics(50, 8, 8)[None],
              'T_base_camera': np.eye(4)[None], 'object_pose': np.tile(np.eye(4), (40, 1, 1))}
    for seed in range(3):
        q = HOME + np.linspace(-1, 1, 40)[:, None] * rng.uniform(-0.5, 0.5, 7)
        write_episode(directory, {**images, 'joints': q, 'opening': np.zeros(40), 'opening_command': np.zeros(40),
                                  'T_base_gripper': np.stack([shared_kinematics().forward(x) for x in q]),
                                  'times': 0.25 * np.arange(40)},
                      {'task': 'apple', 'seed': seed, 'success': True, 'perturbed': False})
    torch.manual_seed(0)
    head = ArmHead(32, 7)
    joints0, poses, joints = (torch.from_numpy(np.concatenate(a)).float() for a in zip(*pairs(directory), strict=True))
    still = (joints0 - joints).norm(dim=-1).mean(0)
    fit_arm_head(head, directory, 400)
    with torch.no_grad():
        error = (head(poses[:, None], joints0)[:, 0] - joints).norm(dim=-1).mean(0)
    assert error[-1] < 0.01 and error[0] < 0.01 and error[3] < 0.4 * still[3]


def test_a_run_starts_from_weights_that_lack_its_new_parts_only(episodes, tmp_path):
    torch.manual_seed(0)
    TwoViewPredictor(TwoViewNetwork(**TINY)).save_pretrained(tmp_path / 'old')
    old = load_generator(tmp_path / 'old').network.state_dict()
    more = config(episodes, tmp_path / 'run', start=str(tmp_path / 'old'))
    more.network = {**TINY, 'arm_joints': 3}
    new = Trainer(more).network.state_dict()
    assert all(torch.equal(new[k], v) for k, v in old.items()) and any('arm_head' in k for k in new)
    TwoViewPredictor(TwoViewNetwork(**TINY, arm_joints=3)).save_pretrained(tmp_path / 'richer')
    with pytest.raises(ConfigurationError, match='lacks'):
        Trainer(config(episodes, tmp_path / 'other', start=str(tmp_path / 'richer')))


def test_unknown_keys_are_named(episodes):
    with pytest.raises(ConfigurationError, match='minuts'):
        parse_config({'minuts': 3})


def test_frames_after_a_push_are_no_target():
    times = 0.25 * np.arange(40)
    np.testing.assert_array_equal(undisturbed(times, 4, [(2.1, 2.6)]), np.arange(11) <= 2)
    assert undisturbed(times, 12, [(2.1, 2.6)]).all()
    assert undisturbed(times, 0, []).all()
