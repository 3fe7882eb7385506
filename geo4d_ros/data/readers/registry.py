"""Which reader reads what: built-in ones, and those that other packages add by the entry point `geo4d_ros.readers`."""

from __future__ import annotations

import logging
from pathlib import Path

from geo4d_ros.data.recordings import RecordingReader
from geo4d_ros.errors import ConfigurationError, DatasetError, require
from geo4d_ros.registry import Registry, references

log = logging.getLogger(__name__)
HERE = 'geo4d_ros.data.readers'
# Classes, made without arguments; the most particular first.
READERS: Registry[type[RecordingReader]] = Registry('geo4d_ros.readers', 'reader', lambda: references(
    'geo4d_ros.readers', {
        'realsense': f'{HERE}.realsense:RealSenseReader',
        'rosbag2': f'{HERE}.rosbag:Rosbag2Reader',
        'lerobot': f'{HERE}.lerobot:LeRobotReader',
        'folder': f'{HERE}.folder:FolderReader',
    }))


def readers() -> list[RecordingReader]:
    """All readers in the order in which they are asked; other packages' before the built-in ones.

    A broken one of another package is left out with a warning.
    """
    others, made = READERS.others(), []
    for name in [*others, *(name for name in READERS if name not in others)]:
        try:
            made.append(READERS.get(name)())
        except ConfigurationError as error:
            log.warning('left out: %s', error)
    return made


def find_reader(source: Path, name: str | None = None) -> RecordingReader:
    """The reader called `name`, or the first that accepts `source`; an unknown one lists what exists."""
    require(source.exists(), f'{source} does not exist', DatasetError)
    if name is not None:
        return READERS.get(name)()
    for reader in readers():
        if reader.accepts(source):
            return reader
    raise DatasetError(f'{source} is no recording that can be read; there are readers for {", ".join(READERS)}: '
                       'see docs/tutorials/own_data.md')


def find_sources(source: Path, name: str | None = None) -> list[tuple[RecordingReader, Path]]:
    """`source` itself where a reader accepts it, else every recording directly inside it, sorted by name."""
    known = readers()
    if name is not None or not source.is_dir() or any(reader.accepts(source) for reader in known):
        return [(find_reader(source, name), source)]
    inside = [(reader, path) for path in sorted(source.iterdir()) if not path.name.startswith('.')
              for reader in known if reader.accepts(path)]
    if not inside:
        find_reader(source)
    first: dict[Path, RecordingReader] = {}
    for reader, path in inside:
        first.setdefault(path, reader)
    return [(reader, path) for path, reader in first.items()]
