"""Open any checkpoint of this package as a `VideoGenerator`; its config names the class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from geo4d_ros.errors import CheckpointError, ConfigurationError
from geo4d_ros.generation.manifest import MANIFEST, verify_manifest
from geo4d_ros.generation.protocol import VideoGenerator
from geo4d_ros.registry import Registry, references

# `_class_name` of a checkpoint's config -> class with `from_pretrained(path)` and `to(device)`; a package adds its own
# by an entry point of this group (docs/how_to/extend.md).
GENERATORS: Registry[Any] = Registry('geo4d_ros.generators', 'generator', lambda: references('geo4d_ros.generators', {
    'TwoViewPredictor': 'geo4d_ros.generation.two_view.predictor:TwoViewPredictor',
    'ComposedPredictor': 'geo4d_ros.generation.two_view.composed:ComposedPredictor',
    'InverseDynamicsPredictor': 'geo4d_ros.generation.inverse_dynamics:InverseDynamicsPredictor',
    'Geo4dPipeline': 'geo4d_ros.generation.unet.pipeline:Geo4dPipeline',
}), CheckpointError)


def class_name_of(directory: Path) -> str:
    """The `_class_name` in model_index.json (pipelines) or config.json (single models).

    Raises CheckpointError when neither exists or names a class.
    """
    for name in ('model_index.json', 'config.json'):
        path = directory / name
        if not path.is_file():
            continue
        try:
            config = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(f'{path} is not readable JSON ({error}); fetch it again') from error
        if isinstance(config, dict) and isinstance(config.get('_class_name'), str):
            return config['_class_name']
        raise CheckpointError(f'{path} has no _class_name, so it is not a model config')
    missing = 'neither model_index.json nor config.json'
    raise CheckpointError(f'{directory} holds {missing}: not a checkpoint{_hint(directory)}')


def _hint(directory: Path) -> str:
    """What may have been meant: a checkpoint one folder deeper or higher, or files that first have to be imported."""
    deeper = sorted(p.parent for name in ('model_index.json', 'config.json') for p in directory.glob(f'*/{name}'))
    if (directory.parent / 'model_index.json').is_file():
        return f'; it is a part of one: did you mean {directory.parent}?'
    if any((path / MANIFEST).is_file() for path in deeper):
        return f'; did you mean {next(path for path in deeper if (path / MANIFEST).is_file())}?'
    if any(directory.glob('*.ckpt')):
        return '; its .ckpt file can be converted with `geo4d import 4dgen`'
    return f'; it holds {", ".join(sorted(p.name for p in directory.iterdir())[:5]) or "nothing"}'


def load_generator(path: str | Path, device: str = 'cpu') -> VideoGenerator:
    """The generator stored in the directory `path`, on `device`: one of torch's, or 'openvino' (two-view models).

    Raises CheckpointError (one line) for a missing, truncated, changed or wrong-kind checkpoint and
    ConfigurationError for a device that this machine lacks.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise CheckpointError(f'checkpoint directory {directory} does not exist; check --checkpoint')
    name = class_name_of(directory)
    if name not in GENERATORS:
        raise CheckpointError(
            f'{directory} holds a {name!r}, expected one of {", ".join(GENERATORS)}; '
            'convert it with `geo4d import svd` or `geo4d import 4dgen`'
        )
    verify_manifest(directory)
    if device == 'openvino' and name not in ('TwoViewPredictor', 'ComposedPredictor'):
        raise ConfigurationError(f'device openvino runs two-view models only, {directory} holds a {name}; use cpu')
    return GENERATORS.get(name).from_pretrained(directory).to(checked_device(device))


def read_by(generator: VideoGenerator, readout: str) -> VideoGenerator:
    """The generator whose video a read-out is measured on: for `video` one that draws no robot into its pictures."""
    pure = getattr(generator, 'pure_video', None)
    return pure() if readout == 'video' and pure is not None else generator


def open_generator(name: str, device: str = 'cpu') -> VideoGenerator:
    """A generator by name: `remote://host:port` (see `remote.address`), a checkpoint's directory or a shipped model.

    A remote one connects when it is first asked. Raises as `load_generator`, ConfigurationError for no such name.
    """
    from geo4d_ros.generation.remote.address import is_remote
    from geo4d_ros.resources import find_checkpoint

    if is_remote(name):
        from geo4d_ros.generation.remote.client import RemoteGenerator

        return RemoteGenerator(name)
    return load_generator(find_checkpoint(name), device)


def model_sha256(name: str) -> str:
    """`checkpoint_sha256` of what `open_generator` opens; a remote one is asked (PeerLostError where there is none)."""
    from geo4d_ros.generation.manifest import checkpoint_sha256
    from geo4d_ros.generation.remote.address import is_remote
    from geo4d_ros.resources import find_checkpoint

    if not is_remote(name):
        return checkpoint_sha256(find_checkpoint(name))
    from geo4d_ros.generation.remote.client import RemoteGenerator

    remote = RemoteGenerator(name)
    try:
        return remote.metadata.model_sha256
    finally:
        remote.close()


def picture_size(generator: VideoGenerator) -> tuple[int, int]:
    """Height and width [px] that the generator resizes every view to; (0, 0) where it does not say."""
    config = getattr(getattr(generator, 'network', generator), 'config', None)
    return int(getattr(config, 'height', 0)), int(getattr(config, 'width', 0))


def checked_device(device: str) -> str:
    """`device` itself when torch can use it here; ConfigurationError otherwise, BackendUnavailableError for
    'openvino' without the package."""
    import torch

    if device == 'openvino':
        from geo4d_ros.generation.two_view.openvino import require_openvino

        require_openvino()
        return device

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f'device {device!r} cannot be used here ({reason}); use cpu') from error
    return device
