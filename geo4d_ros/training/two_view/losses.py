"""Losses of the two-view network; the balance follows what limited the gripper's error in early runs."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from geo4d_ros.generation.two_view.network import TwoViewNetwork, one_view_each

# Points on the gripper [m] whose displacement measures a pose error in one unit: tip, sides, palm.
KEYPOINTS = torch.tensor([[0, 0, 0], [0, 0.06, 0], [0, -0.06, 0], [0.06, 0, 0], [0, 0, -0.1]])
CHANGED_DEPTH_M, CHANGED_RGB = 0.015, 0.1  # a pixel beyond either has changed since frame 0


def pose_loss(T: torch.Tensor, T_true: torch.Tensor) -> torch.Tensor:
    """Huber-like mean distance of the gripper's keypoints, per frame (B, T), in units of 10 cm."""
    points = KEYPOINTS.to(T)
    move = lambda P: points @ P[..., :3, :3].transpose(-1, -2) + P[..., None, :3, 3]  # noqa: E731
    squared = (move(T) - move(T_true)).square().sum(-1)
    return (squared + 0.005**2).sqrt().mean(-1) * 10


def state_loss(states: list[tuple[torch.Tensor, torch.Tensor]], poses: torch.Tensor, openings: torch.Tensor,
               expected: torch.Tensor) -> torch.Tensor:
    """Pose and opening error of the coarse and refined states; frames that get executed count more,
    those after a disturbance (`expected` (B, T) false) not at all.
    """
    frames = poses.shape[1]
    weight = torch.where(torch.arange(frames, device=poses.device) < 5, 1.4, 0.6) * expected
    total = poses.new_zeros(())
    for i, (T, opening) in enumerate(states):
        share = 1.0 if i == len(states) - 1 else 0.4
        error = pose_loss(T, poses) + 8 * F.smooth_l1_loss(opening, openings, beta=0.004, reduction='none')
        total = total + share * (weight * error).sum() / expected.sum().clamp(min=1)
    return total


def motion_target(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Class per pixel (B, K, V, H, W): 0 static, 1 hand, 2 changed otherwise; and where depth is valid."""
    depth0, depth = batch['true_depth0'][:, None, :, 0], batch['depth'][:, :, :, 0]
    change = (depth - depth0).abs() > CHANGED_DEPTH_M
    change |= (batch['rgb'] - batch['rgb0'][:, None]).abs().amax(3) > CHANGED_RGB
    hand = (batch['labels'] >= 2) & (batch['labels'] <= 4)
    return torch.where(hand, 1, change.long() * 2), depth > 0


def video_loss(out: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Motion classes by cross-entropy; colour and depth by smooth L1 where something moves, hand pixels more.

    Colour is all but squared error: where the arm will be is not certain to the pixel, and the mean is the best guess.
    """
    target, valid = motion_target(batch)
    seen = batch['seen'][:, None, :, None, None].expand_as(target).float()
    classes = F.cross_entropy(out['motion'].movedim(3, 1), target, reduction='none',
                              weight=out['motion'].new_tensor([1.0, 3.0, 1.5]))
    weight = out['motion'].new_tensor([0.02, 5.0, 1.0])[target] * seen
    rgb = F.smooth_l1_loss(out['rgb'], batch['rgb'], beta=1.0, reduction='none').mean(3)
    depth = F.smooth_l1_loss(out['depth'], batch['depth'], beta=0.02, reduction='none')[:, :, :, 0]
    depth_weight = weight * valid
    rgb_weight = out['motion'].new_tensor([0.02, 2.0, 1.0])[target] * seen
    return {'motion': (classes * seen).sum() / seen.sum().clamp(min=1),
            'rgb': 5 * (rgb * rgb_weight).sum() / rgb_weight.sum().clamp(min=1),
            'depth': 5 * (depth * depth_weight).sum() / depth_weight.sum().clamp(min=1)}


def noisy_poses(poses: torch.Tensor, sigma_m: float = 0.004, sigma_rad: float = 0.02) -> torch.Tensor:
    """Poses with small random errors: what the decoder is guided by in training, as at inference."""
    noise = torch.randn(*poses.shape[:-2], 3, device=poses.device) * sigma_rad
    skew = torch.zeros_like(poses[..., :3, :3])
    skew[..., 0, 1], skew[..., 0, 2], skew[..., 1, 2] = -noise[..., 2], noise[..., 1], -noise[..., 0]
    skew = skew - skew.transpose(-1, -2)
    out = poses.clone()
    out[..., :3, :3] = poses[..., :3, :3] @ torch.linalg.matrix_exp(skew)
    out[..., :3, 3] = poses[..., :3, 3] + torch.randn_like(poses[..., :3, 3]) * sigma_m
    return out


def total_loss(network: TwoViewNetwork, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All terms and their sum under 'total'; without the video's terms for a direct policy."""
    if not network.config.cross_view:
        batch = one_view_each(batch)
    scene = network.encode(batch['rgb0'], batch['points'], batch['valid'], batch['T_g0_view'],
                           batch['opening0'], batch['seen'])
    terms = {'state': state_loss(network.state_head(scene), batch['poses'], batch['openings'],
                                 batch['expected'])}
    segments = network.segment_logits(scene)
    class_weight = segments.new_tensor([0.4, 1.0, 2.0, 3.0, 2.0])
    seen = batch['seen'].float()
    per_view = F.cross_entropy(segments.movedim(2, 1), batch['segments'], reduction='none', weight=class_weight)
    terms['segment'] = 0.5 * (per_view.mean((-1, -2)) * seen).sum() / seen.sum()
    if network.config.video:
        rows = torch.arange(len(batch['steps']))[:, None]
        poses, openings = noisy_poses(batch['poses'][rows, batch['steps']]), batch['openings'][rows, batch['steps']]
        out = network.paint(scene, batch, batch['segments'], scene.queries[rows, batch['steps']], poses, openings)
        terms |= video_loss(out, batch)
    terms['total'] = sum(terms.values())
    return terms
