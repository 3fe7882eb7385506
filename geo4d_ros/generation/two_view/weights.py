"""The files of a two-view network: all of its weights, or those that differ from the checkpoint it was tuned from.

`model_index.json` beside `network/` says more of it: `robot`, the arm whose data trained it, and `base`, the checkpoint
(relative to this one) that holds what this one leaves out, with `base_sha256`.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from geo4d_ros.errors import CheckpointError
from geo4d_ros.generation.manifest import checkpoint_sha256, verify_manifest
from geo4d_ros.generation.two_view.network import TwoViewNetwork

FOLDER, FILE = 'network', 'diffusion_pytorch_model.safetensors'


def read_index(directory: Path) -> dict[str, Any]:
    """`model_index.json`. Raises CheckpointError where there is none to read."""
    path = directory / 'model_index.json'
    try:
        index = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{path} cannot be read ({error}); fetch the checkpoint again') from error
    if not isinstance(index, dict):
        raise CheckpointError(f'{path} should be a JSON object; fetch the checkpoint again')
    return index


def base_of(directory: Path) -> Path | None:
    """The checkpoint that holds what `directory` leaves out, checked; None where that is nothing."""
    index = read_index(directory)
    if 'base' not in index:
        return None
    base = directory / str(index['base'])
    if not base.is_dir():
        raise CheckpointError(f'{directory} takes part of its weights from {base}, which is missing; fetch it too')
    verify_manifest(base)
    if checkpoint_sha256(base) != index.get('base_sha256'):
        raise CheckpointError(f'{directory} was tuned from other weights than {base} holds; fetch both again')
    return base


def read_weights(directory: Path) -> dict[str, torch.Tensor]:
    """All tensors of the network in `directory`, those of its base included."""
    base = base_of(directory)
    return ({} if base is None else read_weights(base)) | load_file(directory / FOLDER / FILE)


def read_network(directory: Path) -> TwoViewNetwork:
    """The network in single precision; CheckpointError where weights and config do not fit together."""
    network = TwoViewNetwork.from_config(TwoViewNetwork.load_config(directory / FOLDER, local_files_only=True))
    try:
        network.load_state_dict(read_weights(directory))
    except RuntimeError as error:
        raise CheckpointError(f'{directory / FOLDER}: weights and config do not fit together ('
                              f'{" ".join(str(error).split())[:200]}); fetch the checkpoint again') from error
    return network.float()


def write_network(network: TwoViewNetwork, directory: Path, base: Path | None = None) -> dict[str, str]:
    """Write config and half-precision weights, without those that `base` has; returns what the index has to say."""
    half = copy.deepcopy(network).half()
    half.save_pretrained(directory / FOLDER)
    if base is None:
        return {}
    verify_manifest(base)
    known = read_weights(base)
    own = {name: value.contiguous() for name, value in half.state_dict().items()
           if name not in known or not torch.equal(value.cpu(), known[name].half())}
    save_file(own, directory / FOLDER / FILE, {'format': 'pt'})
    return {'base': os.path.relpath(base.resolve(), directory.resolve()), 'base_sha256': checkpoint_sha256(base)}
