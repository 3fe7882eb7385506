"""A small network that names hand, fingers, arm, object and fixtures in (generated) frames; imports torch on use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from geo4d_ros.resources import share_directory
from geo4d_ros.tracking.clip import Chunk, Masks
from geo4d_ros.tracking.segmentation.landmarks import MAPS
from geo4d_ros.tracking.weights import NetworkConfig, read_config, read_weights, write_weights

CLASSES = ('rest', 'arm', 'hand', 'left_finger', 'right_finger', 'object', 'fixture')  # as the labels of episodes
WEIGHTS = 'segmenter.safetensors'
CLASS_NAME = 'GripperSegmenter'
SIZE_STEP = 16  # image sides are padded to multiples of it


def default_folder() -> Path:
    """Where the shipped weights are: models/gripper-segmenter-small."""
    return share_directory() / 'models' / 'gripper-segmenter-small'


def build_network(width: int = 32) -> Any:
    """U-Net on 2x2 pixel blocks beside a thin branch on single pixels (fingers are 2-3 px wide): (N, 4, H, W) colour
    and inverse depth -> (N, 7, H, W) logits of CLASSES and (N, 4, H/2, W/2) of the landmark maps; H, W multiples of
    16. A landmark may also be nowhere in the image: that has logit 0."""
    import torch
    from torch import nn

    def block(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))

    class SegmenterNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            a, b, c, d = width, 2 * width, 3 * width, max(width // 4, 2)
            self.fine = nn.Sequential(block(16, a), block(a, a))
            self.middle = nn.Sequential(block(a, b, 2), block(b, b))
            self.coarse = nn.Sequential(block(b, c, 2), block(c, c), block(c, c))
            self.deep = nn.Sequential(block(c, c, 2), block(c, c))
            self.up_coarse = block(2 * c, c, kernel=1)
            self.up_middle = nn.Sequential(block(b + c, b, kernel=1), block(b, b))
            self.up_fine = nn.Sequential(block(a + b, a, kernel=1), block(a, a))
            self.landmarks = nn.Sequential(block(a, a // 2), nn.Conv2d(a // 2, MAPS, 1))
            self.blocks = nn.Conv2d(a, 4 * d, 1)
            self.pixels = block(4, d)
            self.head = nn.Sequential(block(2 * d, 2 * d), nn.Conv2d(2 * d, len(CLASSES), 1))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            resize = nn.functional.interpolate
            fine = self.fine(nn.functional.pixel_unshuffle(x, 2))
            middle = self.middle(fine)
            coarse = self.coarse(middle)
            coarse = self.up_coarse(torch.cat([coarse, resize(self.deep(coarse), size=coarse.shape[2:])], 1))
            middle = self.up_middle(torch.cat([middle, resize(coarse, size=middle.shape[2:])], 1))
            fine = self.up_fine(torch.cat([fine, resize(middle, size=fine.shape[2:])], 1))
            pixels = nn.functional.pixel_shuffle(self.blocks(fine), 2)
            return self.head(torch.cat([pixels, self.pixels(x)], 1)), self.landmarks(fine)

    return SegmenterNet()


def network_input(rgb: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(N, 4, H, W) float32 from rgb (N, H, W, 3) uint8 and depth (N, H, W) [m]; invalid depth becomes 0."""
    inverse = np.where(depth > 0.1, 0.5 / np.maximum(depth, 0.1), 0).astype(np.float32)
    colour = rgb.astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
    return np.concatenate([colour, inverse[:, None]], axis=1)


class Segmenter:
    """Loaded weights; `probabilities` and `masks` run on the CPU."""

    def __init__(self, network: Any, sha256: str = '') -> None:
        self._network, self.sha256 = network, sha256

    @classmethod
    def load(cls, folder: Path | str | None = None) -> Segmenter:
        """Read `config.json` and the weights of a folder (default: the shipped ones). Raises CheckpointError."""
        network, config = load_network(Path(folder) if folder is not None else default_folder())
        return cls(_fused(network), config['sha256'])

    def probabilities(self, rgb: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """(N, 7, H, W) float32 over CLASSES for rgb (N, H, W, 3) uint8 and depth (N, H, W) float32 [m]."""
        return self.read(rgb, depth)[0]

    def read(self, rgb: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `probabilities`, and where the landmarks are: (N, 4, H/2, W/2) float32, each map sums to at most 1."""
        import torch

        height, width = depth.shape[1:]
        pad = ((0, 0), (0, 0), (0, -height % SIZE_STEP), (0, -width % SIZE_STEP))
        x = torch.from_numpy(np.pad(network_input(rgb, depth), pad, mode='edge'))
        with torch.inference_mode():
            logits, maps = self._network(x.contiguous(memory_format=torch.channels_last))
            maps = maps[..., :(height + 1) // 2, :(width + 1) // 2]
            flat = torch.cat([maps.flatten(2), maps.new_zeros(*maps.shape[:2], 1)], 2)
            share = torch.softmax(flat, 2)[..., :-1].reshape(maps.shape)
            return torch.softmax(logits[..., :height, :width], dim=1).numpy(), share.numpy()

    def logits_class(self, x: np.ndarray) -> np.ndarray:
        """Most likely class (N, H, W) of network inputs (N, 4, H, W), sizes multiples of 16."""
        import torch

        with torch.inference_mode():
            return self._network(torch.from_numpy(x))[0].argmax(1).numpy()

    def masks(self, chunk: Chunk, T_ref_gripper: np.ndarray, opening: float) -> Masks:
        """A `MaskSource`."""
        views, frames = chunk.depth.shape[:2]
        flat = (views * frames, *chunk.size)
        p, maps = self.read(chunk.rgb.reshape(*flat, 3), chunk.depth.reshape(flat))
        p = p.reshape(views, frames, len(CLASSES), *chunk.size)
        fingers = p[:, :, 3] + p[:, :, 4]
        return Masks(np.clip(p[:, :, 2] + fingers, 0, 1), 'segmenter', np.clip(fingers, 0, 1),
                     np.clip(p[:, :, 1] + p[:, :, 5], 0, 1), p[:, :, 6],
                     maps.reshape(views, frames, *maps.shape[1:]))


def load_network(folder: Path) -> tuple[Any, NetworkConfig]:
    """The network of a folder, ready to be used, and its config. Raises CheckpointError."""
    config = read_config(folder, CLASS_NAME, 'geo4d train segmenter')
    return read_weights(build_network(int(config.get('width', 32))), folder / WEIGHTS), config


def _fused(network: Any) -> Any:
    """The network for inference only: every normalisation folded into the convolution before it."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for module in network.modules():
        if isinstance(module, nn.Sequential) and len(module) == 3 and isinstance(module[1], nn.BatchNorm2d):
            module[0], module[1] = fuse_conv_bn_eval(module[0], module[1]), nn.Identity()
    return network


def save(network: Any, folder: Path, config: NetworkConfig, width: int = 32) -> None:
    """Write the weights, and `config.json` with the training record `config`."""
    write_weights(network, folder / WEIGHTS, {'_class_name': CLASS_NAME, 'classes': CLASSES, 'width': width, **config})
