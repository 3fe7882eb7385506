"""What every pixel of frame 0 is: rest, robot, or a known task's object or fixture.

A small U-Net on one view at a time, that sees colours and, from the depth and the measured robot, where every pixel
is: how high above the table, how far from the robot's base, where beside the gripper. No camera pose goes in.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional as F

from geo4d_ros.generation.two_view.layers import ResBlock

REST, ROBOT = 0, 1
FIRST_TASK_CLASS = 2  # then object and fixture of every task in turn
INPUTS = 10  # colour 3, height above the base, distance from its axis, place beside the gripper 3, depth, valid
_NEAR_GRIPPER_M = 0.25


class SceneHead(ModelMixin, ConfigMixin):
    """`tasks` names the tasks whose objects and fixtures it knows, in the order of its classes."""

    @register_to_config
    def __init__(self, tasks: tuple[str, ...] = ('apple', 'cereal', 'spatula'), channels: int = 32) -> None:
        super().__init__()
        c, deep, detail = channels, 2 * channels, 12
        self.stem = nn.Conv2d(4 * INPUTS, c, 3, padding=1)
        self.at_half = ResBlock(c)
        self.to_quarter = nn.Conv2d(c, deep, 2, stride=2)
        self.at_quarter = nn.ModuleList([ResBlock(deep) for _ in range(2)])
        self.to_eighth = nn.Conv2d(deep, 3 * c, 2, stride=2)
        self.at_eighth = nn.ModuleList([ResBlock(3 * c) for _ in range(2)])
        self.from_eighth, self.from_quarter = nn.Conv2d(3 * c, deep, 1), nn.Conv2d(deep, c, 1)
        self.quarter_out, self.half_out = ResBlock(deep), ResBlock(c)
        self.up = nn.Conv2d(c, 4 * 16, 1)
        self.detail = nn.Conv2d(INPUTS, detail, 3, padding=1)
        self.mix = nn.Conv2d(16 + detail, 24, 3, padding=1)
        self.out = nn.Conv2d(24, FIRST_TASK_CLASS + 2 * len(tasks), 1)

    def features(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """inputs (N, 10, H, W) -> what it makes of them at H/2 (N, C, ...), H/4 (N, 2 C, ...) and H/8 (N, 3 C, ...)."""
        half = self.at_half(self.stem(F.pixel_unshuffle(inputs, 2)))
        quarter = self.to_quarter(half)
        for block in self.at_quarter:
            quarter = block(quarter)
        eighth = self.to_eighth(quarter)
        for block in self.at_eighth:
            eighth = block(eighth)
        return half, quarter, eighth

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs (N, 10, H, W) as `scene_inputs` makes them -> class logits (N, 2 + 2 tasks, H, W)."""
        return self.with_features(inputs)[0]

    def with_features(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits, and the features (N, 3 C, H/8, W/8) of what is seen."""
        half, quarter, eighth = self.features(inputs)
        larger = lambda x: F.interpolate(x, scale_factor=2.0, mode='bilinear', align_corners=False)  # noqa: E731
        quarter = self.quarter_out(quarter + larger(self.from_eighth(eighth)))
        half = self.half_out(half + larger(self.from_quarter(quarter)))
        x = torch.cat([F.pixel_shuffle(self.up(F.silu(half)), 2), self.detail(inputs)], 1)
        return self.out(F.silu(self.mix(F.silu(x)))), eighth

    def object_class(self, task: int) -> int:
        """Class of a task's object; its fixture is the next one."""
        return FIRST_TASK_CLASS + 2 * task


def scene_inputs(rgb: torch.Tensor, points: torch.Tensor, depth: torch.Tensor, arm: torch.Tensor) -> torch.Tensor:
    """Inputs (N, 10, H, W) of the head.

    rgb (N, 3, H, W) in [-1, 1], points (N, H, W, 3) [m] in the gripper's frame, depth (N, H, W) [m], 0 = invalid;
    arm (N, J, 3) [m] the robot's joints in the gripper's frame, base first, the second one above it.
    """
    base = arm[:, 0]
    up = F.normalize(arm[:, 1] - base, dim=-1)[:, None, None]
    offset = points - base[:, None, None]
    height = (offset * up).sum(-1)
    radius = (offset - height[..., None] * up).norm(dim=-1)
    beside = points.clamp(-_NEAR_GRIPPER_M, _NEAR_GRIPPER_M) / _NEAR_GRIPPER_M
    maps = torch.stack([height.clamp(-0.1, 0.6) * 5 - 0.5, radius.clamp(0, 1.5) * 2 - 1, *beside.unbind(-1),
                        depth.clamp(0, 2.5) - 1, torch.ones_like(depth)], 1) * (depth > 0)[:, None]
    return torch.cat([rgb, maps], 1)


__all__ = ['FIRST_TASK_CLASS', 'INPUTS', 'REST', 'ROBOT', 'SceneHead', 'scene_inputs']
