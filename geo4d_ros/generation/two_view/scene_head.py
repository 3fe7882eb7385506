"""What every pixel of frame 0 is: rest, robot, or a known task's object or fixture.

A small head on the encoder's features and on the image itself: the features know what stands where, the image
where its rim is.
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
INPUTS = 7  # colour 3, height above the base, distance from the tool, depth, valid


class SceneHead(ModelMixin, ConfigMixin):
    """`tasks` names the tasks whose objects and fixtures it knows, in the order of its classes."""

    @register_to_config
    def __init__(self, tasks: tuple[str, ...] = ('apple', 'cereal', 'spatula'), features: int = 64,
                 channels: int = 32) -> None:
        super().__init__()
        self.from_features = nn.Conv2d(features, channels, 1)
        self.image = nn.Conv2d(4 * INPUTS, channels, 3, padding=1)
        self.blocks = nn.ModuleList([ResBlock(channels) for _ in range(2)])
        self.up = nn.Conv2d(channels, 64, 1)
        self.detail = nn.Conv2d(INPUTS, 8, 3, padding=1)
        self.out = nn.Conv2d(16 + 8, FIRST_TASK_CLASS + 2 * len(tasks), 3, padding=1)

    def forward(self, features: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """features (N, C, H/4, W/4) of `Scene`, inputs (N, 7, H, W) as `scene_inputs` makes them
        -> class logits (N, 2 + 2 tasks, H, W).
        """
        x = F.interpolate(self.from_features(features), scale_factor=2.0, mode='bilinear', align_corners=False)
        x = x + self.image(F.pixel_unshuffle(inputs, 2))
        for block in self.blocks:
            x = block(x)
        x = torch.cat([F.pixel_shuffle(self.up(F.silu(x)), 2), self.detail(inputs)], 1)
        return self.out(F.silu(x))

    def object_class(self, task: int) -> int:
        """Class of a task's object; its fixture is the next one."""
        return FIRST_TASK_CLASS + 2 * task


def scene_inputs(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Inputs (B V, 7, H, W) of the head: what is seen, how high above the robot's base and how far from the gripper.

    batch: rgb0, points, depth0, valid and arm0 as in training/two_view/batches.py.
    """
    base, above = batch['arm0'][:, 0], batch['arm0'][:, 1]
    up = F.normalize(above - base, dim=-1)[:, None, None, None]
    points, valid = batch['points'], batch['valid']
    height = ((points - base[:, None, None, None]) * up).sum(-1)
    maps = torch.stack([height.clamp(-0.5, 1) * 3, points.norm(dim=-1).clamp(0, 1.5),
                        batch['depth0'][:, :, 0].clamp(0, 2.5) - 1], 2) * valid[:, :, None]
    return torch.cat([batch['rgb0'], maps, valid[:, :, None].to(maps.dtype)], 2).flatten(0, 1)


__all__ = ['FIRST_TASK_CLASS', 'INPUTS', 'REST', 'ROBOT', 'SceneHead', 'scene_inputs']
