"""Where the package's files lie: in a checkout, after `pip install` and after `colcon build` alike."""

from __future__ import annotations

import subprocess
from pathlib import Path

from geo4d_ros.errors import ConfigurationError

NAME = 'geo4d_ros'


def share_directory() -> Path:
    """Folder that holds config/, launch/ and models/: the checkout, else share/geo4d_ros of the install."""
    here = Path(__file__).resolve()
    if (here.parents[1] / 'package.xml').is_file():
        return here.parents[1]
    for parent in here.parents:
        if (parent / 'share' / NAME / 'package.xml').is_file():
            return parent / 'share' / NAME
    raise ConfigurationError(f'share/{NAME} was not found above {here}; install the package again')


def resource(*parts: str) -> Path:
    """Path of a shipped file such as resource('config', 'geo4d.yaml'); raises when it is missing."""
    path = share_directory().joinpath(*parts)
    if not path.exists():
        raise ConfigurationError(f'{path} is missing; install the package again')
    return path


def find_checkpoint(name: str) -> Path:
    """Directory of a checkpoint: a path of its own, or a name under the shipped models/."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    shipped = share_directory() / 'models'
    if (shipped / name).is_dir():
        return shipped / name
    names = sorted(p.name for p in shipped.iterdir() if p.is_dir()) if shipped.is_dir() else []
    raise ConfigurationError(f'checkpoint {name!r} is neither a directory nor one of the shipped models '
                             f'({", ".join(names) or "none"}); give a path')


def revision() -> str:
    """Git revision of the source tree, with `-dirty` when it has changes; 'unknown' outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    try:
        out = subprocess.run(['git', '-C', str(root), 'describe', '--always', '--dirty', '--abbrev=12', '--match='],
                             capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return 'unknown'
    return out.stdout.strip() or 'unknown'
