"""Which reader reads what: built-in ones, and those that other packages add by the entry point `geo4d_ros.readers`."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from geo4d_ros.data.recordings import RecordingReader
from geo4d_ros.errors import ConfigurationError, DatasetError, require

GROUP = 'geo4d_ros.readers'


def built_in() -> list[RecordingReader]:
    """This package's readers, the most particular first."""
    from geo4d_ros.data.readers.folder import FolderReader
    from geo4d_ros.data.readers.lerobot import LeRobotReader
    from geo4d_ros.data.readers.realsense import RealSenseReader
    from geo4d_ros.data.readers.rosbag import Rosbag2Reader

    return [RealSenseReader(), Rosbag2Reader(), LeRobotReader(), FolderReader()]


def readers() -> dict[str, RecordingReader]:
    """All readers by name; a package's own goes before the built-in ones. ConfigurationError when one is broken."""
    found: dict[str, RecordingReader] = {}
    for point in entry_points(group=GROUP):
        try:
            reader = point.load()()
        except Exception as error:
            raise ConfigurationError(f'the reader {point.name!r} of another package cannot be loaded ({error}); '
                                     'mend or uninstall it') from error
        found[reader.name] = reader
    return {**found, **{r.name: r for r in built_in() if r.name not in found}}


def find_reader(source: Path, name: str | None = None) -> RecordingReader:
    """The reader called `name`, or the first that accepts `source`; DatasetError lists what exists."""
    known = readers()
    names = ', '.join(known)
    require(source.exists(), f'{source} does not exist', DatasetError)
    if name is not None:
        require(name in known, f'unknown reader {name!r}; there are {names}', ConfigurationError)
        return known[name]
    for reader in known.values():
        if reader.accepts(source):
            return reader
    raise DatasetError(f'{source} is no recording that can be read; there are readers for {names}: '
                       'see docs/tutorials/own_data.md')


def find_sources(source: Path, name: str | None = None) -> list[tuple[RecordingReader, Path]]:
    """`source` itself where a reader accepts it, else every recording directly inside it, sorted by name."""
    known = readers()
    if name is not None or not source.is_dir() or any(reader.accepts(source) for reader in known.values()):
        return [(find_reader(source, name), source)]
    inside = [(reader, path) for path in sorted(source.iterdir()) if not path.name.startswith('.')
              for reader in known.values() if reader.accepts(path)]
    if not inside:
        find_reader(source)
    first: dict[Path, RecordingReader] = {}
    for reader, path in inside:
        first.setdefault(path, reader)
    return [(reader, path) for path, reader in first.items()]
