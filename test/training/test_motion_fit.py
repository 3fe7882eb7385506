"""The motion model: what a future is written as, what it is conditioned on, and that it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geo4d_ros.generation.two_view.motion_model import (
    POINTS,
    SHIFT_M,
    Future,
    MotionModel,
    condition_of,
    decoded,
    encoded,
    level_frame,
    stacked,
)
from geo4d_ros.geometry.transforms import from_rotvec, invert, make_transform, transform_points
from geo4d_ros.training.two_view import motion_fit
from geo4d_ros.training.two_view.motion_fit import MotionFitConfig, Run, Windows, fit_motion_model, held_out_errors

DOWN = make_transform(np.diag([1.0, -1.0, -1.0]), np.array([0.4, 0.2, 0.3]))


def run(rng, moments=30):
    """A gripper that goes straight to an object, takes it and lifts it; seen at every third moment."""
    place = np.array([rng.uniform(0.35, 0.6), rng.uniform(-0.2, 0.2), 0.02])
    start = DOWN.copy()
    start[:3, 3] = place + rng.uniform(-0.1, 0.1, 3) + [0, 0, 0.2]
    T = np.tile(start, (moments, 1, 1))
    share = np.clip(np.arange(moments) / 10, 0, 1)[:, None]
    T[:, :3, 3] = start[:3, 3] * (1 - share) + place * share
    T[15:, 2, 3] += 0.01 * np.arange(moments - 15)
    thing = np.tile(make_transform(None, place), (moments, 1, 1))
    thing[15:, 2, 3] += 0.01 * np.arange(moments - 15)
    opening = np.where(np.arange(moments) < 12, 0.08, 0.04)
    index = np.arange(0, moments, 3)
    points, beside = [], []
    for i in index:
        cloud = rng.uniform(-0.02, 0.02, (80, 3)) + thing[i, :3, 3]
        points.append(((cloud.astype(np.float32), np.arange(80) % 2),
                       (rng.uniform(0, 0.1, (50, 3)).astype(np.float32), np.zeros(50, int))))
        beside.append(cloud[:5].astype(np.float32) + 0.02)
    return Run(0, T, thing, opening, 0.25 * np.arange(moments), np.zeros((0, 2)), index, points, beside,
               np.zeros(moments, bool))


@pytest.fixture
def windows():
    out = Windows.__new__(Windows)
    rng = np.random.default_rng(0)
    out.runs = [run(rng) for _ in range(12)]
    return out


def test_a_future_survives_its_numbers():
    rng = np.random.default_rng(0)
    T = torch.from_numpy(np.stack([[from_rotvec(rng.normal(size=3), rng.normal(size=3)) for _ in range(10)]
                                   for _ in range(2)])).float()
    opening = torch.full((2, 10), 0.03)
    scene = stacked([condition_of(rng.uniform(size=(POINTS, 3)), np.zeros((0, 3)), DOWN, 0.03, 0, rng)
                     for _ in range(2)])
    found = decoded(encoded(Future(T, opening, T), scene), scene)
    for ours, theirs in ((found.gripper, T), (found.object, T), (found.opening, opening)):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_where_the_robot_stands_and_looks_changes_nothing():
    points = np.random.default_rng(0).uniform(0, 0.1, (POINTS, 3)) + np.array([0.5, 0, 0])
    turn = from_rotvec(np.array([0, 0, 0.7]), np.zeros(3))
    one = condition_of(points, points, DOWN, 0.05, 0, np.random.default_rng(1))
    other = condition_of(*(transform_points(turn, points),) * 2, turn @ DOWN, 0.05, 0, np.random.default_rng(1))
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], atol=1e-9, err_msg=name)
    np.testing.assert_allclose(invert(level_frame(DOWN))[:3, :3] @ [0, 0, 1], [0, 0, 1], atol=1e-12)


def test_a_mirrored_window_is_the_window_of_the_mirrored_cell(windows):
    scene, truth = windows.window(windows.runs[0], 3, 1, None)
    mirrored, its_truth = windows.window(windows.runs[0], 3, 1, None, mirror=True)
    np.testing.assert_allclose(mirrored['object'], scene['object'] * [1, -1, 1], atol=1e-9)
    flip = motion_fit.MIRROR
    np.testing.assert_allclose(its_truth['gripper'], flip @ truth['gripper'] @ flip, atol=1e-9)
    assert np.linalg.det(its_truth['gripper'][0, :3, :3]) == pytest.approx(1)


def test_points_of_another_moment_go_where_the_object_is(windows):
    run = windows.runs[0]
    scene, _ = windows.window(run, 29, 0, None)
    middle = transform_points(level_frame(run.T_gripper[29]), scene['object']).mean(0)
    np.testing.assert_allclose(middle, run.T_object[29, :3, 3], atol=0.008)


def test_no_object_is_said_so_and_still_gives_a_future():
    scene = stacked([condition_of(np.zeros((0, 3)), np.zeros((0, 3)), DOWN, 0.08, 2, np.random.default_rng(0))])
    assert not scene.seen.any()
    future = MotionModel(width=16, layers=1, points=8).eval().sample(scene, 3, steps=2)
    assert future.gripper.shape == (3, 10, 4, 4) and torch.isfinite(future.gripper).all()


def test_the_first_future_is_the_same_for_every_seed_the_others_differ(windows):
    torch.manual_seed(0)
    model = MotionModel(width=16, layers=1, points=8).eval()
    scene = stacked([windows.window(windows.runs[0], 0, 0, None)[0]])
    one, other = model.sample(scene, 3, seed=1), model.sample(scene, 3, seed=2)
    torch.testing.assert_close(one.gripper[0], other.gripper[0])
    assert (one.gripper[1] - other.gripper[1]).abs().max() > 1e-3
    torch.testing.assert_close(one.gripper, model.sample(scene, 3, seed=1).gripper)


def test_it_learns_a_simple_motion(windows, monkeypatch):
    monkeypatch.setattr(motion_fit, 'POOL', 200)
    before = held_out_errors(MotionModel(width=48, layers=2, points=16).eval(), windows)
    config = MotionFitConfig('', steps=100, batch=24, width=48, lr=3e-3)
    after = held_out_errors(fit_motion_model(config, windows=windows), windows)
    assert after['path_all_mean_cm'] < 0.6 * before['path_all_mean_cm']


def test_a_path_may_follow_the_object_and_the_object_the_gripper(windows):
    torch.manual_seed(0)
    model = MotionModel(width=16, layers=1, points=8).eval()
    scene = stacked([windows.window(windows.runs[0], 0, 0, None)[0]])
    code = model.encode(scene)
    with torch.no_grad():
        model.out[1].weight.zero_()
        model.out[1].bias.zero_()
        weights = torch.zeros(10, 5, 3)
        weights[:, 0], weights[:, 4] = 1, 1  # the gripper at the object's middle, the object where the gripper is
        model.follow.bias.copy_(weights.flatten())
        numbers = model.best_guess(code)
    middle = scene.object.mean(1)
    torch.testing.assert_close(numbers[:, :, :3] * SHIFT_M, middle[:, None].expand(1, 10, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(numbers[:, :, 10:13], torch.zeros(1, 10, 3), atol=1e-5, rtol=0)
    assert (model.encode(replace(scene, seen=torch.zeros(1, 2, dtype=torch.bool))).anchors == 0).all()
