"""A small network that names hand, fingers, arm, object and fixtures in (generated) frames; imports torch on use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from geo4d_ros.errors import CheckpointError, require
from geo4d_ros.resources import share_directory
from geo4d_ros.tracking.chunk import Chunk, Masks

CLASSES = ('rest', 'arm', 'hand', 'left_finger', 'right_finger', 'object', 'fixture')  # as the labels of episodes
CONFIG, WEIGHTS = 'config.json', 'segmenter.safetensors'
CLASS_NAME = 'GripperSegmenter'


def default_folder() -> Path:
    """Where the shipped weights are: models/gripper-segmenter-small."""
    return share_directory() / 'models' / 'gripper-segmenter-small'


def build_network(width: int = 24) -> Any:
    """U-Net on 2x2 pixel blocks, (N, 4, H, W) colour and inverse depth -> (N, 7, H, W) logits; H, W multiples of 8."""
    import torch
    from torch import nn

    def block(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))

    class SegmenterNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            a, b, c = width, 2 * width, 4 * width
            self.fine = nn.Sequential(block(16, a), block(a, a))
            self.middle = nn.Sequential(block(a, b, 2), block(b, b))
            self.coarse = nn.Sequential(block(b, c, 2), block(c, c), block(c, c))
            self.up_middle = nn.Sequential(block(b + c, b, kernel=1), block(b, b))
            self.up_fine = nn.Sequential(block(a + b, a, kernel=1), block(a, a))
            self.head = nn.Conv2d(a, 4 * len(CLASSES), 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            resize = nn.functional.interpolate
            fine = self.fine(nn.functional.pixel_unshuffle(x, 2))
            middle = self.middle(fine)
            coarse = self.coarse(middle)
            middle = self.up_middle(torch.cat([middle, resize(coarse, size=middle.shape[2:])], 1))
            fine = self.up_fine(torch.cat([fine, resize(middle, size=fine.shape[2:])], 1))
            return nn.functional.pixel_shuffle(self.head(fine), 2)

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
        return cls(network, config['sha256'])

    def probabilities(self, rgb: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """(N, 7, H, W) float32 over CLASSES for rgb (N, H, W, 3) uint8 and depth (N, H, W) float32 [m]."""
        import torch

        height, width = depth.shape[1:]
        pad = ((0, 0), (0, 0), (0, -height % 8), (0, -width % 8))
        x = torch.from_numpy(np.pad(network_input(rgb, depth), pad, mode='edge'))
        with torch.inference_mode():
            logits = self._network(x.contiguous(memory_format=torch.channels_last))
            return torch.softmax(logits[..., :height, :width], dim=1).numpy()

    def logits_class(self, x: np.ndarray) -> np.ndarray:
        """Most likely class (N, H, W) of network inputs (N, 4, H, W), sizes multiples of 8."""
        import torch

        with torch.inference_mode():
            return self._network(torch.from_numpy(x)).argmax(1).numpy()

    def masks(self, chunk: Chunk, T_ref_gripper: np.ndarray, opening: float) -> Masks:
        """A `MaskSource`."""
        views, frames = chunk.depth.shape[:2]
        flat = (views * frames, *chunk.size)
        p = self.probabilities(chunk.rgb.reshape(*flat, 3), chunk.depth.reshape(flat))
        p = p.reshape(views, frames, len(CLASSES), *chunk.size)
        fingers = p[:, :, 3] + p[:, :, 4]
        return Masks(np.clip(p[:, :, 2] + fingers, 0, 1), 'segmenter', np.clip(fingers, 0, 1),
                     np.clip(p[:, :, 1] + p[:, :, 5], 0, 1), p[:, :, 6])


def load_network(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The network of a folder, ready to be used, and its config. Raises CheckpointError."""
    config = _read_config(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f'{weights} is missing; fetch it again or train one: geo4d train segmenter')
    data = weights.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    require(digest == config.get('sha256'),
            f'{weights} has sha256 {digest[:12]} but {CONFIG} says {str(config.get("sha256"))[:12]}: truncated or '
            'changed; fetch it again', CheckpointError)
    from safetensors.torch import load

    network = build_network(int(config.get('width', 24)))
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load(data).items()})
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(f'{weights} does not fit the network ({first}); fetch it again') from error
    return network.eval(), config


def save(network: Any, folder: Path, config: dict[str, Any], width: int = 24) -> None:
    """Write fp16 weights and `config.json` with their sha256 and the training record `config`."""
    import torch
    from safetensors.torch import save as to_bytes

    state = network.state_dict()
    half = {k: v.to(torch.float16).contiguous() if v.is_floating_point() else v for k, v in state.items()}
    data = to_bytes(half)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(data)
    record = {'_class_name': CLASS_NAME, 'classes': CLASSES, 'width': width,
              'sha256': hashlib.sha256(data).hexdigest(), **config}
    (folder / CONFIG).write_text(json.dumps(record, indent=1) + '\n')


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f'{folder} has no {CONFIG}, so no segmenter; train one: geo4d train segmenter') from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{path} cannot be read ({error}); fetch it again') from error
    require(isinstance(config, dict) and config.get('_class_name') == CLASS_NAME,
            f'{path} is not a segmenter config (_class_name should be {CLASS_NAME})', CheckpointError)
    return config
