"""Robots by name: the shipped ones, those of other packages (entry points `geo4d_ros.robots`), and YAML files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.registry import Registry
from geo4d_ros.resources import resource
from geo4d_ros.robots.description import RobotDescription
from geo4d_ros.robots.reading import read_robot

DEFAULT = 'panda'


def _shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted(resource('config', 'robots').glob('*.yaml'))}


# An entry point gives the path of a YAML file (or a function that does).
ROBOTS: Registry[Path] = Registry('geo4d_ros.robots', 'robot', _shipped)


@lru_cache(maxsize=32)
def _read(path: Path) -> RobotDescription:
    return read_robot(path)


def load_robot(name: str | Path | None = None) -> RobotDescription:
    """The robot of that name (None: the default one), or of that YAML file; the same object every time.

    Raises ConfigurationError: an unknown name lists what exists, a faulty file says what is wrong.
    """
    text = str(name or DEFAULT)
    if text.endswith(('.yaml', '.yml')):
        path = Path(text).expanduser().resolve()
        require(path.is_file(), f'robot description {path} does not exist', ConfigurationError)
        return _read(path)
    found = ROBOTS.get(text)
    return _read(Path(found() if callable(found) else found).resolve())
