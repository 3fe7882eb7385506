"""A small network that reads the opening off pictures of the fingers, all frames together; imports torch on use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.resources import share_directory
from geo4d_ros.robots.gripper import GripperModel
from geo4d_ros.tracking.clip import Chunk
from geo4d_ros.tracking.segmentation.finger_patches import (
    CHANNELS,
    COLUMNS,
    ROWS,
    SCALARS,
    finger_patches,
    view_scalars,
)
from geo4d_ros.tracking.weights import CONFIG, NetworkConfig, read_config, read_weights, write_weights

WEIGHTS = 'opening.safetensors'
CLASS_NAME = 'OpeningReader'
READERS = ('auto', 'network', 'masks')
LEVELS = 33  # over the stroke


def default_folder() -> Path:
    """Where the shipped weights are: models/gripper-opening-small."""
    return share_directory() / 'models' / 'gripper-opening-small'


def build_network(width: int = 16) -> Any:
    """Patches (N, V, F, CHANNELS, ROWS, COLUMNS), scalars (N, V, F, SCALARS), start (N,) as a share of the stroke and
    use (N, V) of 0 and 1 -> logits (N, F, LEVELS). Each picture is coded by itself, the views are pooled, a
    recurrent layer runs over the frames both ways."""
    import torch
    from torch import nn

    def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))

    class OpeningNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            a, code = width, 4 * width
            self.picture = nn.Sequential(block(CHANNELS, a, 1), block(a, 2 * a, 2), block(2 * a, 2 * a, 1),
                                         block(2 * a, 3 * a, 2), block(3 * a, 4 * a, 2), nn.Flatten())
            cells = 4 * a * -(-ROWS // 8) * -(-COLUMNS // 8)
            self.view = nn.Sequential(nn.Linear(cells + SCALARS, code), nn.ReLU(), nn.Linear(code, code), nn.ReLU())
            self.weight = nn.Linear(code, 1)
            self.frames = nn.GRU(2 * code + 2, 3 * a, batch_first=True, bidirectional=True)
            self.head = nn.Linear(6 * a, LEVELS)

        def forward(self, patches: torch.Tensor, scalars: torch.Tensor, start: torch.Tensor, use: torch.Tensor
                    ) -> torch.Tensor:
            n, views, frames = patches.shape[:3]
            cells = self.picture(patches.flatten(0, 2)).reshape(n, views, frames, -1)
            code = self.view(torch.cat([cells, scalars], -1))
            unused = (1 - use)[:, :, None, None] * 1e4
            share = torch.softmax(self.weight(code) - unused, 1)
            pooled = torch.cat([(share * code).sum(1), (code - unused).amax(1)], -1)
            known = torch.zeros_like(pooled[..., :2])
            known[..., 0] = start[:, None]
            known[:, 0, 1] = 1
            return self.head(self.frames(torch.cat([pooled, known], -1))[0])

    return OpeningNet()


class OpeningReader:
    """Loaded weights for one gripper."""

    def __init__(self, network: Any, config: NetworkConfig) -> None:
        self._network, self.sha256 = network, str(config.get('sha256', ''))
        self.gripper_sha256 = str(config.get('gripper_sha256', ''))

    @classmethod
    def load(cls, folder: Path | str | None = None) -> OpeningReader:
        """Read `config.json` and the weights of a folder (default: the shipped ones). Raises CheckpointError."""
        return cls(*load_network(Path(folder) if folder is not None else default_folder()))

    def chances(self, chunk: Chunk, views: list[int], T_ref_gripper: np.ndarray, start: float) -> np.ndarray:
        """Chances (T+1, LEVELS) of evenly spread shares of the stroke at poses T_ref_gripper (T+1, 4, 4).

        views: those that are used; start: frame 0's opening as a share of the stroke.
        """
        import torch

        T = chunk.T_view_ref[views][:, None] @ T_ref_gripper[None]
        patches = finger_patches(chunk.rgb[views], chunk.depth[views], chunk.K[views], T)
        scalars = view_scalars(chunk.K[views], T)
        with torch.inference_mode():
            logits = self._network(torch.from_numpy(patches)[None], torch.from_numpy(scalars)[None],
                                   torch.tensor([start], dtype=torch.float32), torch.ones(1, len(views)))
            return torch.softmax(logits[0].double(), -1).numpy()


def load_network(folder: Path) -> tuple[Any, NetworkConfig]:
    """The network of a folder, ready to be used, and its config. Raises CheckpointError."""
    config = read_config(folder, CLASS_NAME, 'geo4d train opening')
    return read_weights(build_network(int(config.get('width', 16))), folder / WEIGHTS), config


def save(network: Any, folder: Path, config: NetworkConfig) -> None:
    """Write the weights, and `config.json` with the training record `config`."""
    write_weights(network, folder / WEIGHTS, {'_class_name': CLASS_NAME, **config})


def opening_reader(name: str, gripper: GripperModel) -> OpeningReader | None:
    """The reader by name: network (the shipped one), masks (None: read off the masks) or auto, which takes the network
    where it was trained for this gripper. Raises ConfigurationError, CheckpointError."""
    require(name in READERS, f'opening should be one of {READERS} but got {name!r}', ConfigurationError)
    if name == 'masks' or (name == 'auto' and not (default_folder() / CONFIG).exists()):
        return None
    reader = OpeningReader.load()
    if reader.gripper_sha256 == gripper.sha256:
        return reader
    require(name == 'auto', f'the opening network was trained for another gripper than {gripper.name}; choose opening: '
            'masks, or train it: geo4d train opening', ConfigurationError)
    return None
