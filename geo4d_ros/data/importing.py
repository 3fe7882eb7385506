"""Own recordings become episodes: one recording, one episode, with what it lacks said."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from geo4d_ros.data.episodes import ALWAYS, SCHEMA, episode_name, write_episode
from geo4d_ros.data.recordings import ImportOptions, Recording, RecordingReader
from geo4d_ros.data.resampling import resample
from geo4d_ros.data.trainings import trainable
from geo4d_ros.errors import DatasetError, Geo4dError, require
from geo4d_ros.robots.description import RobotDescription
from geo4d_ros.robots.registry import load_robot

# Of an exported episode's attributes, those that its import sets anew.
_OWN_ATTRIBUTES = ('version', 'rate_hz', 'arrays', 'joint_names', 'largest_skew_ms', 'camera_rates_hz', 'notes')


@dataclass(frozen=True)
class ImportSettings:
    """What becomes of every recording. `size` (height, width), None keeps the pictures' own; `task` replaces its.

    `robot`: name or YAML file of the robot in it; None: what the recording says, which is nothing for one of a cell.
    """

    out: Path
    size: tuple[int, int] | None = (96, 128)
    task: str | None = None
    instruction: str | None = None
    max_skew_s: float = 0.05
    max_gap_s: float = 0.5
    seed_start: int = 0
    options: ImportOptions = field(default_factory=ImportOptions)
    robot: str | None = None


@dataclass(frozen=True)
class Imported:
    """What became of one recording; `error` says why there is no episode."""

    source: str
    path: Path | None = None
    frames: int = 0
    cameras: int = 0
    missing: tuple[str, ...] = ()
    largest_skew_ms: float = 0.0
    notes: tuple[str, ...] = ()
    error: str | None = None

    @property
    def trainable(self) -> dict[str, tuple[str, ...]]:
        """What can be trained on it -> what is lacking for that."""
        return trainable(self.missing, self.cameras)


def import_recordings(sources: Sequence[tuple[RecordingReader, Path]], settings: ImportSettings) -> Iterator[Imported]:
    """Write the episodes of all sources; a damaged one is told as an outcome and does not stop the others."""
    for reader, source in sources:
        recordings = reader.read(source, settings.options)
        while True:
            try:
                recording = next(recordings, None)
                if recording is None:
                    break
                yield import_one(recording, reader.name, settings)
            except Geo4dError as error:
                yield Imported(str(source), error=str(error))
                break


def import_one(recording: Recording, reader: str, settings: ImportSettings) -> Imported:
    """Write one recording's episode; errors become its outcome."""
    try:
        if settings.robot is not None:
            recording = of_robot(recording, load_robot(settings.robot))
        episode = resample(recording, settings.size, settings.max_skew_s, settings.max_gap_s)
        task = settings.task or recording.task
        if not task:
            raise DatasetError(f'{recording.source} does not say which task it shows; give --task')
        told = {k: v for k, v in recording.attributes.items() if k not in _OWN_ATTRIBUTES}
        attributes = {
            'success': True, 'perturbed': False, 'split': 'train', **told, **episode.attributes(), 'task': slug(task),
            'source': recording.source, 'reader': reader, **({'robot': settings.robot} if settings.robot else {})}
        if settings.instruction or 'instruction' not in told:
            attributes['instruction'] = settings.instruction or task
        if 'joints' in episode.arrays:
            attributes['joint_names'] = list(recording.joint_names)
        attributes['seed'] = free_seed(settings.out, attributes['task'], attributes.get('seed', settings.seed_start))
        path = write_episode(settings.out, episode.arrays, attributes)
    except Geo4dError as error:
        return Imported(recording.source, error=str(error))
    cameras, frames = episode.arrays['rgb'].shape[:2]
    missing = tuple(name for name in SCHEMA if name not in episode.arrays and name not in ALWAYS)
    return Imported(recording.source, path, frames, cameras, missing, episode.largest_skew_ms, episode.notes)


def of_robot(recording: Recording, robot: RobotDescription) -> Recording:
    """The recording with the joints of that robot's arm alone, in its order: drivers publish them in one of their own.

    DatasetError where some are missing.
    """
    if recording.joints is None:
        return recording
    names = list(recording.joint_names)
    absent = [name for name in robot.joints if name not in names]
    require(not absent, f'{recording.source} has no joint {", ".join(absent)} of {robot.name}, it has '
            f'{", ".join(names)}; is it another --robot?', DatasetError)
    columns = [names.index(name) for name in robot.joints]
    joints = replace(recording.joints, values=recording.joints.values[:, columns])
    return replace(recording, joints=joints, joint_names=robot.joints)


def slug(task: str) -> str:
    """A task's name as it goes into names of files."""
    return re.sub(r'[^a-z0-9]+', '-', task.lower()).strip('-')[:60] or 'task'


def free_seed(directory: Path, task: str, wanted: int) -> int:
    """`wanted`, or the next number that no episode of the task has: an import never overwrites."""
    while (directory / episode_name(task, wanted)).exists():
        wanted += 1
    return wanted
