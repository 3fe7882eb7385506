"""The Gaussian reconstruction: what it draws, what it is fitted to, and that motion is found."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes.moving_square import moving_square

from geo4d_ros.evaluation.baselines.gaussians import (
    GaussianFit,
    MovingGaussians,
    View,
    optimise,
    reconstruct,
    starting_gaussians,
)
from geo4d_ros.evaluation.simulated_truth import clip_of

VIEW = View(torch.eye(4), torch.tensor([[40.0, 0, 15.5], [0, 40, 11.5], [0, 0, 1]]), 24, 32)


def gaussians(centres, colours, frames=3):
    n = len(centres)
    return MovingGaussians(torch.tensor(centres), torch.full((n,), 0.05), torch.tensor(colours), torch.zeros(n), frames)


def test_the_nearer_one_hides_the_other_whatever_their_order():
    near, far = [0.0, 0, 0.5], [0.0, 0, 1.0]
    red, blue = [0.98, 0.02, 0.02], [0.02, 0.02, 0.98]
    for centres, colours in (([near, far], [red, blue]), ([far, near], [blue, red])):
        scene = gaussians(centres, colours)
        scene.opacity.data.fill_(8.0)
        out = scene.render(VIEW, 0)
        centre = out['rgb'][11:13, 15:17].mean((0, 1))
        assert centre[0] > 0.9 and centre[2] < 0.1
        assert out['depth'][12, 16].item() == pytest.approx(0.5, abs=0.02)


def test_nothing_behind_the_camera_is_drawn():
    assert gaussians([[0.0, 0, -1.0]], [[0.9, 0.9, 0.9]]).render(VIEW, 0)['opacity'].max() == 0


def test_a_motion_is_found_from_colour_alone():
    torch.manual_seed(0)
    truth = gaussians([[0.0, 0, 0.8]], [[0.95, 0.1, 0.1]])
    truth.motion.data[0, 0, 0] = -0.03
    with torch.no_grad():
        frames = torch.stack([truth.render(VIEW, t)['rgb'] for t in range(3)])[None]
        depth0 = truth.render(VIEW, 0)['depth'] * (truth.render(VIEW, 0)['opacity'] > 0.5)
    scene = gaussians([[0.0, 0, 0.8]], [[0.95, 0.1, 0.1]])
    losses = optimise(scene, [VIEW], frames, depth0[None], GaussianFit(steps=150))
    assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:10])
    moved = torch.einsum('k,nkd->nd', scene.basis[2], scene.motion)[0]
    assert moved[0].item() == pytest.approx(0.06, abs=0.02)


def test_a_clip_comes_back_with_frame_zero_as_observed_and_later_depth_unread():
    clip = clip_of(moving_square(4, 2))
    fit = GaussianFit(count=60, steps=12)
    video = reconstruct(clip, fit)
    np.testing.assert_array_equal(video.rgb[:, 0], clip.video.rgb[:, 0])
    assert video.gripper_mask.shape == video.valid.shape
    later = clip.video.points.copy()
    later[:, 1:] += 0.3
    again = reconstruct(replace(clip, video=replace(clip.video, points=later)), fit)
    np.testing.assert_array_equal(again.points[:, 1:], video.points[:, 1:])


def test_it_starts_at_pixels_of_frame_zero():
    clip = clip_of(moving_square(4, 2))
    scene = starting_gaussians(clip.video, clip.labels, GaussianFit(count=50))
    pixels = clip.video.points[:, 0][clip.video.valid[:, 0]]
    nearest = np.linalg.norm(pixels[None] - scene.centres.detach().numpy()[:, None], axis=-1).min(1)
    assert nearest.max() < 1e-6 and 0 < scene.gripper.mean() < 1
