"""Inverse dynamics after UniPi: a small network reads the gripper's motion off pairs of generated RGB frames.

A baseline: what can be had from RGB video without geometry. The video comes from any generator; the track read
off it stands in the video's state stream, so that every evaluation can drive the loop from it (read-out `state`).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional as F

from geo4d_ros.errors import require
from geo4d_ros.generation.manifest import write_manifest
from geo4d_ros.generation.protocol import VideoGenerator
from geo4d_ros.geometry.transforms import from_rotvec, make_transform
from geo4d_ros.types import GripperTrack, Observation, TrackStatus, Video4D

MAX_OPENING_M = 0.08
STEP_M, STEP_RAD = 0.1, 0.3  # typical motion between two frames: the network's units
REACH_M, CROP_PX = 0.3, 48  # the network sees a square around the gripper, this far to every side at its depth
STATE_SIZE = 13


def state_vector(T_ref_gripper: torch.Tensor, opening: torch.Tensor) -> torch.Tensor:
    """(N, 13) of poses (N, 4, 4) in the reference optical frame and openings (N,) [m]."""
    return torch.cat([T_ref_gripper[:, :3, 3], T_ref_gripper[:, :3, :3].flatten(1), opening[:, None] * 10], 1)


def around_gripper(images: torch.Tensor, position: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Squares (N, C, CROP_PX, CROP_PX) around positions (N, 3) [m] of images (N, C, H, W) with K (N, 3, 3).

    They reach REACH_M to every side at the position's depth, so that a shift in them is a distance; outside the
    image they are 0.
    """
    height, width = images.shape[-2:]
    z = position[:, 2].clamp(min=0.1)
    focal, centre = K[:, [0, 1], [0, 1]], K[:, [0, 1], [2, 2]]
    at = (focal * position[:, :2] / z[:, None] + centre)[:, None, None]
    side = torch.linspace(-1, 1, CROP_PX, dtype=images.dtype, device=images.device)
    y, x = torch.meshgrid(side, side, indexing='ij')
    pixels = at + torch.stack([x, y], -1) * (REACH_M * focal / z[:, None])[:, None, None]
    scale = pixels.new_tensor([width - 1, height - 1])
    return F.grid_sample(images, 2 * pixels / scale - 1, align_corners=True)


class InverseDynamicsNetwork(ModelMixin, ConfigMixin):
    """Two frames of the reference view and the gripper's state at the first -> its motion to the second."""

    @register_to_config
    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        widths = [6, channels, 2 * channels, 3 * channels, 4 * channels]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 5 if a == 6 else 3, stride=2, padding=2 if a == 6 else 1)
            for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(8, b) for b in widths[1:])
        self.flat = nn.Linear(widths[-1] * (CROP_PX // 16) ** 2, 256)
        self.state = nn.Linear(STATE_SIZE, 256)
        self.out = nn.Sequential(nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 7))

    def forward(self, before: torch.Tensor, after: torch.Tensor, state: torch.Tensor,
                K: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """before, after (N, 3, H, W) in [-1, 1]; state (N, 13) at `before`; K (N, 3, 3).

        -> translation (N, 3) [m] and rotation vector (N, 3) [rad], both in the reference frame; opening (N,) [m].
        """
        x = around_gripper(torch.cat([before, after], 1), state[:, :3], K)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.silu(norm(convolution(x)))
        out = self.out(F.gelu(self.flat(x.flatten(1)) + self.state(state)))
        return STEP_M * out[:, :3], STEP_RAD * out[:, 3:6], MAX_OPENING_M * out[:, 6].sigmoid()


class InverseDynamicsPredictor:
    """A `VideoGenerator`: another one's video, with the inverse dynamics' track as its state stream."""

    def __init__(self, generator: VideoGenerator, network: InverseDynamicsNetwork) -> None:
        self.generator, self.network = generator, network.eval()
        self.name = f'{generator.name} + inverse dynamics'
        self.frames, self.dt = generator.frames, generator.dt

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> InverseDynamicsPredictor:
        """Open what `save` wrote."""
        from geo4d_ros.generation.loading import load_generator

        network = InverseDynamicsNetwork.from_pretrained(Path(directory) / 'network', local_files_only=True)
        return cls(load_generator(Path(directory) / 'generator'), network)

    def to(self, device: str) -> InverseDynamicsPredictor:
        """Move both networks."""
        self.network.to(device)
        self.generator.to(device)  # type: ignore[attr-defined]
        return self

    def predict(self, observation: Observation, seed: int = 0) -> Video4D:
        """The generator's video with the track that its RGB shows. Raises InvalidInputError without robot state."""
        require(observation.T_ref_gripper is not None and observation.opening is not None,
                'inverse dynamics starts from the measured gripper pose and opening; publish joint states')
        video = self.generator.predict(observation, seed)
        return replace(video, state=self.read(video, observation))

    @torch.no_grad()
    def read(self, video: Video4D, observation: Observation) -> GripperTrack:
        """Motions between the reference view's frames, added up from the measured pose."""
        images = torch.from_numpy(video.rgb[0]).movedim(-1, 1).float().to(self.network.device) / 127.5 - 1
        K = torch.as_tensor(video.K[:1], dtype=torch.float32, device=images.device)
        poses, openings = [observation.T_ref_gripper], [float(observation.opening)]
        for before, after in pairwise(images):
            T = torch.as_tensor(poses[-1], dtype=torch.float32, device=images.device)[None]
            opening = torch.tensor([openings[-1]], dtype=torch.float32, device=images.device)
            motion = self.network(before[None], after[None], state_vector(T, opening), K)
            move, turn, opening = (a[0].double().cpu().numpy() for a in motion)
            R = from_rotvec(turn)[:3, :3] @ poses[-1][:3, :3]
            poses.append(make_transform(R, poses[-1][:3, 3] + move))
            openings.append(float(opening))
        count = len(poses)
        return GripperTrack(np.stack(poses), np.array(openings), np.ones(count), (TrackStatus.OK,) * count)


def save(directory: Path, network: InverseDynamicsNetwork, generator: Path) -> None:
    """Write a checkpoint of `network` and a copy of the generator's checkpoint, with the sha256 manifest."""
    directory.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(directory / 'network')
    shutil.copytree(generator, directory / 'generator', dirs_exist_ok=True)
    (directory / 'model_index.json').write_text(json.dumps({'_class_name': 'InverseDynamicsPredictor'}) + '\n')
    write_manifest(directory)
