"""What every pixel of an RGB-D image is: rest, robot, or a known task's object or fixture. One view at a time."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional as F

from geo4d_ros.generation.two_view.layers import ResBlock

REST, ROBOT = 0, 1
FIRST_TASK_CLASS = 2  # then object and fixture of every task in turn
INPUTS = 7  # colour 3, height above the base, distance from the tool, depth, valid


class SceneHead(ModelMixin, ConfigMixin):
    """A small U-Net; `tasks` names the tasks whose objects and fixtures it knows, in the order of its classes."""

    @register_to_config
    def __init__(self, tasks: tuple[str, ...] = ('apple', 'cereal', 'spatula'),
                 channels: tuple[int, ...] = (32, 48, 64, 96)) -> None:
        super().__init__()
        self.enter = nn.Conv2d(4 * INPUTS, channels[0], 3, padding=1)
        self.detail = nn.Conv2d(INPUTS, 16, 3, padding=1)
        self.down = nn.ModuleList([nn.Conv2d(a, b, 2, stride=2)
                                   for a, b in zip(channels[:-1], channels[1:], strict=True)])
        self.inner = nn.ModuleList([ResBlock(c) for c in channels])
        self.up = nn.ModuleList([nn.Conv2d(b, a, 1) for a, b in zip(channels[:-1], channels[1:], strict=True)])
        self.outer = nn.ModuleList([ResBlock(c) for c in channels[:-1]])
        self.fine = nn.Conv2d(channels[0] // 4 + 16, 24, 3, padding=1)
        self.out = nn.Conv2d(24, FIRST_TASK_CLASS + 2 * len(tasks), 3, padding=1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs (N, 7, H, W) as `scene_inputs` makes them -> class logits (N, 2 + 2 tasks, H, W)."""
        x = self.enter(F.pixel_unshuffle(inputs, 2))
        skips = []
        for i, block in enumerate(self.inner):
            x = block(x)
            if i < len(self.down):
                skips.append(x)
                x = self.down[i](x)
        for i in reversed(range(len(self.up))):
            x = self.outer[i](skips[i] + F.interpolate(self.up[i](x), scale_factor=2.0))
        x = torch.cat([F.pixel_shuffle(F.silu(x), 2), F.silu(self.detail(inputs))], 1)
        return self.out(F.silu(self.fine(x)))

    def object_class(self, task: int) -> int:
        """Class of a task's object; its fixture is the next one."""
        return FIRST_TASK_CLASS + 2 * task


def scene_inputs(rgb: torch.Tensor, points: torch.Tensor, depth: torch.Tensor, valid: torch.Tensor,
                 base: torch.Tensor, up: torch.Tensor, tool: torch.Tensor) -> torch.Tensor:
    """Inputs (N, 7, H, W) of the head: what is seen, how high it is and how far from the gripper.

    rgb (N, 3, H, W) in [-1, 1]; points (N, H, W, 3) [m] and, in the same frame, the robot's base (3,), the unit vector
    up (3,) and the tool centre (3,), or one of each per image (N, 3); depth (N, H, W) [m]; valid (N, H, W) bool.
    """
    at = lambda a: a.reshape(-1, 1, 1, 3)  # noqa: E731
    height = ((points - at(base)) * at(up)).sum(-1)
    far = (points - at(tool)).norm(dim=-1)
    maps = torch.stack([height.clamp(-0.5, 1) * 3, far.clamp(0, 1.5), depth.clamp(0, 2.5) - 1], 1) * valid[:, None]
    return torch.cat([rgb, maps, valid[:, None].to(rgb.dtype)], 1)


__all__ = ['FIRST_TASK_CLASS', 'INPUTS', 'REST', 'ROBOT', 'SceneHead', 'scene_inputs']
