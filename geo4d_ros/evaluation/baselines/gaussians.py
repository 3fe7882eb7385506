"""4D Gaussians: a reconstruction reference in pure torch, fitted to one clip at a time. It is no prediction.

A few hundred round Gaussians, each with a colour, an opacity and its own motion (a short cosine series). What they
are fitted to: the TRUE colours of all frames of both views (so they see the future), the depth of frame 0 only, and
the true camera poses. They start at frame 0's pixels. Later depth, and how well both views agree, are what the
fit makes of it. Fitted at half size and scaled up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from geo4d_ros.evaluation.simulated_truth import GRIPPER_CLASSES, TruthClip
from geo4d_ros.geometry.cameras import scale_intrinsics, unproject
from geo4d_ros.geometry.resampling import nearest_indices
from geo4d_ros.geometry.transforms import invert, transform_points
from geo4d_ros.types import Video4D

BLUR_PX = 0.5  # every Gaussian is at least this wide in the image
BACKGROUND = 0.5
COVERED = 0.5  # a pixel has a surface where the Gaussians are at least this opaque


@dataclass(frozen=True)
class GaussianFit:
    """How the fit is done; a step renders one frame of every view."""

    count: int = 300
    steps: int = 200
    lr: float = 0.02
    terms: int = 4
    shrink: int = 2
    seed: int = 0


@dataclass(frozen=True)
class View:
    """A camera: T_view_ref (4, 4) and K (3, 3) of (height, width) images, as tensors."""

    T_view_ref: torch.Tensor
    K: torch.Tensor
    height: int
    width: int


class MovingGaussians(nn.Module):
    """centres (N, 3) in the reference frame [m], radii (N,) [m] and colours (N, 3) in 0..1 to start from; gripper (N,)
    0 or 1 goes along unchanged. `frames` moments; the motion of moment 0 is zero."""

    def __init__(self, centres: torch.Tensor, radii: torch.Tensor, colours: torch.Tensor, gripper: torch.Tensor,
                 frames: int, terms: int = 4) -> None:
        super().__init__()
        self.centres, self.log_radii = nn.Parameter(centres.clone()), nn.Parameter(radii.log())
        self.colours = nn.Parameter(torch.logit(colours.clamp(0.02, 0.98)))
        self.opacity = nn.Parameter(torch.full((len(centres),), 2.0))
        self.motion = nn.Parameter(torch.zeros(len(centres), terms, 3))
        self.register_buffer('gripper', gripper)
        phase = math.pi * torch.arange(frames)[:, None] * torch.arange(1, terms + 1) / max(frames - 1, 1)
        self.register_buffer('basis', phase.cos() - 1)

    def render(self, view: View, frame: int) -> dict[str, torch.Tensor]:
        """rgb (H, W, 3) in 0..1, depth (H, W) [m], gripper (H, W) in 0..1 and opacity (H, W) of one moment."""
        moved = self.centres + torch.einsum('k,nkd->nd', self.basis[frame], self.motion)
        p = moved @ view.T_view_ref[:3, :3].T + view.T_view_ref[:3, 3]
        order = p[:, 2].argsort()
        p, z = p[order], p[order, 2].clamp(min=0.05)
        u = view.K[0, 0] * p[:, 0] / z + view.K[0, 2]
        v = view.K[1, 1] * p[:, 1] / z + view.K[1, 2]
        variance = (view.K[0, 0] * self.log_radii[order].exp() / z) ** 2 + BLUR_PX**2
        column, row = torch.arange(view.width), torch.arange(view.height)
        far = ((column - u[:, None]) ** 2)[:, None] + ((row - v[:, None]) ** 2)[:, :, None]  # (N, H, W) [px^2]
        alpha = self.opacity[order].sigmoid()[:, None, None] * (-0.5 * far / variance[:, None, None]).exp()
        alpha = (alpha * (p[:, 2] > 0.05)[:, None, None]).clamp(max=0.99)
        passed = torch.cumprod(1 - alpha, 0)
        weight = alpha * torch.cat([torch.ones_like(passed[:1]), passed[:-1]])
        total = weight.sum(0)
        mean = lambda a: torch.einsum('nhw,n->hw', weight, a) / total.clamp(min=1e-3)  # noqa: E731
        rgb = torch.einsum('nhw,nc->hwc', weight, self.colours[order].sigmoid()) + (1 - total)[..., None] * BACKGROUND
        return {'rgb': rgb, 'depth': mean(z), 'gripper': mean(self.gripper[order]), 'opacity': total}


def starting_gaussians(video: Video4D, labels: np.ndarray, fit: GaussianFit) -> MovingGaussians:
    """Gaussians at randomly drawn pixels of frame 0 (every second one on what is gripper or may move with it).

    labels (V, T+1, H, W) classes of the truth, of which frame 0 is used.
    """
    rng = np.random.default_rng(fit.seed)
    seen = np.argwhere(video.valid[:, 0])
    kinds = labels[:, 0][tuple(seen.T)]
    special = (kinds > 0).astype(float)
    share = special.mean()
    odds = np.where(special > 0, 0.5 / max(share, 1e-6), 0.5 / max(1 - share, 1e-6)) if 0 < share < 1 else special + 1
    count = min(fit.count, len(seen))
    chosen = seen[rng.choice(len(seen), count, replace=False, p=odds / odds.sum())]
    index = (chosen[:, 0], np.zeros(count, int), chosen[:, 1], chosen[:, 2])
    points = video.points[index].astype(np.float32)
    depth = np.stack([video.depth(v, 0) for v in range(video.views)])[tuple(chosen.T)]
    pixels = np.sqrt(video.valid[:, 0].sum() / count * np.where(labels[index] > 0, share, 1 - share) * 2)
    radii = 0.5 * pixels * depth / video.K[chosen[:, 0], 0, 0]
    tensor = lambda a: torch.from_numpy(np.asarray(a, np.float32))  # noqa: E731
    return MovingGaussians(tensor(points), tensor(radii).clamp(min=1e-3), tensor(video.rgb[index] / 255),
                           tensor(np.isin(labels[index], GRIPPER_CLASSES)), video.frames, fit.terms)


def reconstruct(clip: TruthClip, fit: GaussianFit | None = None) -> Video4D:
    """The clip as the Gaussians fitted to it show it; frame 0 is the observation itself."""
    fit = fit or GaussianFit()
    video = clip.video
    height, width = (n // fit.shrink for n in video.rgb.shape[2:4])
    rows, columns = (nearest_indices(n, m) for n, m in zip(video.rgb.shape[2:4], (height, width), strict=True))
    small = lambda a: torch.from_numpy(a[:, :, rows[:, None], columns])  # noqa: E731
    rgb = small(video.rgb).float() / 255
    depth = small(np.stack([video.depth(v, 0) for v in range(video.views)])[:, None])
    views = [View(torch.from_numpy(invert(T)).float(),
                  torch.from_numpy(scale_intrinsics(K, 1 / fit.shrink, 1 / fit.shrink)).float(), height, width)
             for T, K in zip(video.T_ref_view, video.K, strict=True)]
    gaussians = starting_gaussians(video, clip.labels, fit)
    optimise(gaussians, views, rgb, depth[:, 0], fit)
    return _as_video(gaussians, views, video)


def optimise(gaussians: MovingGaussians, views: list[View], rgb: torch.Tensor, depth0: torch.Tensor,
             fit: GaussianFit) -> list[float]:
    """Adam on |colour| of every view at random moments, and on |depth| [m] at moment 0; the loss of every step.

    rgb (V, T+1, H, W, 3) in 0..1, depth0 (V, H, W) [m], 0 = unknown.
    """
    groups = [{'params': [gaussians.centres, gaussians.motion], 'lr': 0.1 * fit.lr},
              {'params': [gaussians.colours, gaussians.opacity, gaussians.log_radii], 'lr': fit.lr}]
    optimizer = torch.optim.Adam(groups)
    draw = torch.Generator().manual_seed(fit.seed)
    losses = []
    for step in range(fit.steps):
        frame = 0 if step % 4 == 0 else int(torch.randint(rgb.shape[1], (), generator=draw))
        loss = torch.zeros(())
        for v, view in enumerate(views):
            out = gaussians.render(view, frame)
            loss = loss + (out['rgb'] - rgb[v, frame]).abs().mean()
            if frame == 0:
                known = depth0[v] > 0
                loss = loss + ((out['depth'] - depth0[v]).abs() * known).sum() / known.sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def _as_video(gaussians: MovingGaussians, views: list[View], like: Video4D) -> Video4D:
    """Rendered, scaled up to the truth's size (colour bilinear, the rest nearest), lifted to points."""
    size, frames = like.rgb.shape[2:4], range(1, like.frames)
    rgb, points, valid = like.rgb.copy(), like.points.copy(), like.valid.copy()
    mask = np.zeros(valid.shape, np.float32)
    mask[:, 0] = like.gripper_mask[:, 0]
    for v, view in enumerate(views):
        drawn = [gaussians.render(view, t) for t in frames]
        colour = torch.stack([d['rgb'] for d in drawn]).movedim(-1, 1)
        colour = F.interpolate(colour, size, mode='bilinear').movedim(1, -1).clamp(0, 1)
        rest = torch.stack([torch.stack([d[k] for k in ('depth', 'gripper', 'opacity')]) for d in drawn])
        depth, gripper, opacity = F.interpolate(rest, size, mode='nearest').numpy().transpose(1, 0, 2, 3)
        rgb[v, 1:] = (colour * 255).round().to(torch.uint8).numpy()
        valid[v, 1:] = opacity > COVERED
        points[v, 1:] = np.stack([transform_points(like.T_ref_view[v], unproject(d, like.K[v])) for d in depth])
        mask[v, 1:] = np.where(valid[v, 1:], gripper, 0)
    return Video4D(rgb, points, valid, like.stamps, like.K, like.T_ref_view, mask)
