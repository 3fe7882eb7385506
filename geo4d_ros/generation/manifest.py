"""`manifest.json` beside every checkpoint: file name -> sha256, so that truncated weights are never used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from geo4d_ros.errors import CheckpointError

MANIFEST = 'manifest.json'
_COVERED = ('.safetensors', '.json', '.txt')


def file_sha256(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def covered_files(directory: Path) -> list[str]:
    """Relative names of the weight and config files below `directory`, sorted, without the manifest."""
    files = (p for p in directory.rglob('*') if p.is_file() and p.suffix in _COVERED and p.name != MANIFEST)
    return sorted(str(p.relative_to(directory)) for p in files)


def write_manifest(directory: Path) -> str:
    """Write manifest.json for everything below `directory`; returns `checkpoint_sha256(directory)`."""
    digests = {name: file_sha256(directory / name) for name in covered_files(directory)}
    (directory / MANIFEST).write_text(json.dumps(digests, indent=1) + '\n')
    return checkpoint_sha256(directory)


def read_manifest(directory: Path) -> dict[str, str]:
    """file -> sha256 of a checkpoint; CheckpointError when missing or not a manifest."""
    path = directory / MANIFEST
    try:
        digests = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f'{directory} has no {MANIFEST}: not a complete checkpoint') from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{path} cannot be read ({error}); fetch the checkpoint again') from error
    if not isinstance(digests, dict) or not all(isinstance(v, str) for v in digests.values()):
        raise CheckpointError(f'{path} should map file names to sha256 strings; fetch the checkpoint again')
    return digests


def verify_manifest(directory: Path) -> None:
    """Raise CheckpointError unless every listed file is there and unchanged, and no weights are unlisted."""
    digests = read_manifest(directory)
    for name, want in digests.items():
        path = directory / name
        if not path.is_file():
            raise CheckpointError(f'{path} is missing; fetch the checkpoint again')
        got = file_sha256(path)
        if got != want:
            raise CheckpointError(
                f'{path} has sha256 {got[:12]} but {MANIFEST} says {want[:12]}: '
                'truncated or changed; fetch the checkpoint again'
            )
    unlisted = [f for f in covered_files(directory) if f.endswith('.safetensors') and f not in digests]
    if unlisted:
        raise CheckpointError(f'{directory / unlisted[0]} is not listed in {MANIFEST}; mixed checkpoints?')


def checkpoint_sha256(directory: Path) -> str:
    """The weights' digest for reports: of the one weight file, or of all their digests in order of name."""
    digests = [d for name, d in sorted(read_manifest(directory).items()) if name.endswith('.safetensors')]
    return digests[0] if len(digests) == 1 else hashlib.sha256(''.join(digests).encode()).hexdigest()
