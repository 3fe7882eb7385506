"""Folders of shipped network weights: `config.json`, one safetensors file in half precision, a sha256 manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from geo4d_ros.errors import CheckpointError, require
from geo4d_ros.generation.manifest import checkpoint_sha256, verify_manifest, write_manifest

CONFIG = 'config.json'


class NetworkConfig(TypedDict, total=False):
    """config.json: what the network is and how it was trained; `sha256` of the weights is added when it is read."""

    _class_name: str
    classes: Sequence[str]  # of the segmenter
    width: int  # channels
    gripper_sha256: str  # that the opening was learnt for
    labels: str  # where the segmenter's come from: episode or kinematics
    predictions: int  # windows that a generator painted
    init_sha256: str  # weights it was fine-tuned from
    init_steps: int | None
    training: dict[str, float]  # its settings
    steps: int
    images: int
    windows: int
    final_loss: float
    sha256: str


def read_config(folder: Path, class_name: str, command: str) -> NetworkConfig:
    """A folder's config with the `sha256` of its weights. Raises CheckpointError; `command` trains what is missing."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f'{folder} has no {CONFIG}, so no {class_name}; train one: {command}') from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{path} cannot be read ({error}); fetch it again') from error
    require(isinstance(config, dict) and config.get('_class_name') == class_name,
            f'{path} is not the config of a {class_name} (_class_name should be {class_name})', CheckpointError)
    verify_manifest(folder)
    return cast(NetworkConfig, {**config, 'sha256': checkpoint_sha256(folder)})


def read_weights(network: Any, path: Path) -> Any:
    """The network with the weights of a file, ready to be used. Raises CheckpointError where they do not fit."""
    from safetensors.torch import load_file

    state = load_file(path)
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(f'{path} does not fit the network ({first}); fetch it again') from error
    return network.eval()


def write_weights(network: Any, path: Path, config: NetworkConfig) -> None:
    """Write a network's weights in half precision, its config beside them, and the manifest of both."""
    import torch
    from safetensors.torch import save_file

    half = {k: v.to(torch.float16).contiguous() if v.is_floating_point() else v
            for k, v in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(half, path)
    (path.parent / CONFIG).write_text(json.dumps(config, indent=1) + '\n')
    write_manifest(path.parent)
