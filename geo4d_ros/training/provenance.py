"""Where a checkpoint comes from: `training.json` in it lists every training run behind it, the newest last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from geo4d_ros.errors import CheckpointError
from geo4d_ros.generation.manifest import checkpoint_sha256, write_manifest
from geo4d_ros.resources import revision

RECORD = 'training.json'


def runs_behind(checkpoint: Path) -> list[dict[str, Any]]:
    """The runs that a checkpoint records, oldest first; none where it has no record. CheckpointError: unreadable."""
    path = checkpoint / RECORD
    if not path.is_file():
        return []
    try:
        runs = json.loads(path.read_text())['runs']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f'{path} is no training record ({error}); fetch the checkpoint again') from error
    return list(runs)


def append_run(checkpoint: Path, start: Path | None, episodes: Iterable[str], run: Mapping[str, object]) -> str:
    """Record a run in a new checkpoint, after those of the one it started from; returns the checkpoint's hash.

    run: its config and what came of it. Added: code, torch, the time it ended, what it started from, its episodes.
    """
    names = sorted(episodes)
    record = {**run, 'revision': revision(), 'torch': version('torch'),
              'ended': datetime.now(timezone.utc).isoformat(timespec='seconds'),
              'started_from': None if start is None else checkpoint_sha256(start), 'episodes': len(names),
              'episodes_sha256': hashlib.sha256('\n'.join(names).encode()).hexdigest()}
    runs = [*([] if start is None else runs_behind(start)), record]
    (checkpoint / RECORD).write_text(json.dumps({'runs': runs}, indent=1) + '\n')
    return write_manifest(checkpoint)
