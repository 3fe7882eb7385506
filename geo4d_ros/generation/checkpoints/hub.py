"""Checkpoints on a model hub, by huggingface_hub (optional): weights and configs with their manifest, nothing else.

What is pulled is checked against its manifest before it gets its name; files that could run code are not fetched.
The token and the hub's address are the library's own business (`HF_TOKEN`, `HF_ENDPOINT`).
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from geo4d_ros.errors import (
    BackendUnavailableError,
    CheckpointError,
    ConfigurationError,
    Geo4dError,
    PeerLostError,
    require,
)
from geo4d_ros.generation.manifest import MANIFEST, checkpoint_sha256, covered_files, verify_manifest

T = TypeVar('T')
PAGE = 'README.md'
_WANTED = ('.safetensors', '.json', '.txt', '.md', '.svg')
_NAME = re.compile(r'[\w.-]{1,96}/[\w.-]{1,96}')


def library() -> Any:
    """huggingface_hub; BackendUnavailableError with what to install where it cannot be imported."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise BackendUnavailableError(f"huggingface_hub is not installed ({error}); pip install 'geo4d_ros[hub]'"
                                      ) from error
    return huggingface_hub


def files_of(directory: Path) -> list[str]:
    """What of a checkpoint goes to a hub, after a check: weights and configs, its manifest, its model card."""
    verify_manifest(directory)
    return sorted([*covered_files(directory), MANIFEST, *([PAGE] if (directory / PAGE).is_file() else [])])


def push(directory: Path, repo: str, *, private: bool = False, revision: str | None = None, message: str = '',
         endpoint: str | None = None) -> str:
    """Upload a checkpoint as one commit; the repository is made where there is none. Returns the commit's address.

    Raises CheckpointError (damaged), ConfigurationError (name), BackendUnavailableError, PeerLostError (hub).
    """
    check_name(repo)
    names, hub = files_of(directory), library()
    api = hub.HfApi(endpoint=endpoint)
    operations = [hub.CommitOperationAdd(name, str(directory / name)) for name in names]
    _asked(lambda: api.create_repo(repo, private=private, exist_ok=True), repo)
    if revision:
        _asked(lambda: api.create_branch(repo, branch=revision, exist_ok=True), repo)
    text = message or f'{directory.resolve().name}, weights {checkpoint_sha256(directory)[:12]}'
    return str(_asked(lambda: api.create_commit(repo, operations, commit_message=text, revision=revision), repo
                      ).commit_url)


def pull(repo: str, out: Path, *, revision: str | None = None, sha256: str | None = None,
         endpoint: str | None = None) -> tuple[str, str]:
    """Download a checkpoint to the new directory `out`; returns its commit and the sha256 of its weights.

    `out` appears only when everything is there and as the manifest says. sha256: of the weights, refused when another.
    Raises ConfigurationError (name, `out` exists), CheckpointError, BackendUnavailableError, PeerLostError (hub).
    """
    check_name(repo)
    require(not out.exists(), f'{out} exists; choose another --out or remove it', ConfigurationError)
    hub = library()
    api = hub.HfApi(endpoint=endpoint)
    commit = _asked(lambda: api.model_info(repo, revision=revision), repo).sha
    names = [name for name in _asked(lambda: api.list_repo_files(repo, revision=commit), repo) if _fetched(name)]
    require(MANIFEST in names, f'{repo} has no {MANIFEST}: no checkpoint of `geo4d push`', CheckpointError)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix='.pull-') as folder:
            directory = Path(folder) / 'checkpoint'
            for name in names:
                _asked(lambda name=name: hub.hf_hub_download(  # type: ignore[misc]
                    repo, name, revision=commit, local_dir=directory, endpoint=endpoint), repo)
            shutil.rmtree(directory / '.cache', ignore_errors=True)  # the library's notes
            verify_manifest(directory)
            digest = checkpoint_sha256(directory)
            require(sha256 in (None, digest), f'{repo} holds weights {digest}, wanted were {sha256}', CheckpointError)
            os.replace(directory, out)
    except OSError as error:
        raise ConfigurationError(f'cannot write {out}: {error.strerror}; choose a writable place') from error
    return commit, digest


def check_name(repo: str) -> None:
    """ConfigurationError unless `repo` is OWNER/NAME."""
    require(_NAME.fullmatch(repo) is not None and '..' not in repo,
            f'a repository is named OWNER/NAME but got {repo!r}', ConfigurationError)


def _fetched(name: str) -> bool:
    """Whether a file of a repository belongs to a checkpoint; one that points out of its folder is refused."""
    path = PurePosixPath(name)
    require(not path.is_absolute() and '..' not in path.parts and '\\' not in name,
            f'the repository has a file named {name!r}, which points out of it', CheckpointError)
    return path.suffix in _WANTED and not any(part.startswith('.') for part in path.parts)


def _asked(ask: Callable[[], T], repo: str) -> T:
    """What the hub answers. Its library raises errors of its own, of its HTTP client and of the system."""
    try:
        return ask()
    except Geo4dError:
        raise
    except Exception as error:
        status = getattr(getattr(error, 'response', None), 'status_code', None)
        mend = {401: 'set HF_TOKEN, or log in with `hf auth login`', 403: 'the token may not do that',
                404: 'is the name right, and may the token see it?'}.get(status, 'is the hub reachable (HF_ENDPOINT)?')
        text = (str(error).strip().splitlines() or [''])[0][:200]
        raise PeerLostError(f'{repo}: the hub does not do it ({type(error).__name__}: {text}); {mend}') from error
