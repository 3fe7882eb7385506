"""LeRobot datasets, formats v2.1 and v3.0, from their files alone: parquet tables, pictures in them or in mp4 films.

Such a dataset knows no camera calibration: `meta/geo4d.json`, as our export writes it, or `--calibration` gives it.
The robot is read from `observation.state` by the names of its components; a component `opening` [m] is the gripper's.
"""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from PIL import Image

from geo4d_ros.data.recordings import (
    CameraRecording,
    ImageStream,
    ImportOptions,
    Recording,
    StateTrack,
    calibrated,
    chosen_cameras,
)
from geo4d_ros.errors import BackendUnavailableError, DatasetError, require

PICTURES, LABELS = 'observation.images.', 'observation.labels.'
GRIPPER_POSE, OBJECT_POSE = 'observation.gripper_pose', 'observation.object_pose'
OWN_META = 'meta/geo4d.json'  # calibration and attributes, which LeRobot has no place for


_FeatureInfo = TypedDict('_FeatureInfo', {'is_depth_map': bool, 'video.is_depth_map': bool, 'depth_unit': str},
                         total=False)


class Feature(TypedDict, total=False):
    """A column as meta/info.json describes it; LeRobot keeps the names as a list or under one key."""

    dtype: str
    shape: list[int]
    names: list[str] | dict[str, list[str]] | None
    info: _FeatureInfo | None
    video_info: _FeatureInfo | None


class OwnCamera(TypedDict, total=False):
    """What `meta/geo4d.json` knows of a camera, matrices row by row."""

    K: list[list[float]]
    T_base_camera: list[list[float]]


class OwnEpisode(TypedDict, total=False):
    """What `meta/geo4d.json` knows of an episode; attributes: those of the zarr episode it was."""

    cameras: dict[str, OwnCamera]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class _Episode:
    """Where an episode is. table: chunk and file of its rows; films: camera -> chunk, file and where it begins [s]
    (both of version 3)."""

    number: int
    tasks: tuple[str, ...]
    table: tuple[int, int] = (0, 0)
    films: dict[str, tuple[int, int, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, row: dict[str, Any], v3: bool) -> _Episode:
        """Parse a row of meta/; KeyError, TypeError or ValueError for a bad one."""
        number, tasks = int(row['episode_index']), tuple(row.get('tasks') or ())
        if not v3:
            return cls(number, tasks)
        keys = [name.removeprefix('videos/').removesuffix('/chunk_index') for name in row
                if name.startswith('videos/') and name.endswith('/chunk_index')]
        films = {key: (int(row[f'videos/{key}/chunk_index']), int(row[f'videos/{key}/file_index']),
                       float(row[f'videos/{key}/from_timestamp'])) for key in keys}
        return cls(number, tasks, (int(row['data/chunk_index']), int(row['data/file_index'])), films)


@dataclass
class _States:
    """What a table says of the robot; names: of the joints."""

    joints: StateTrack | None = None
    names: tuple[str, ...] = ()
    opening: StateTrack | None = None
    command: StateTrack | None = None


class LeRobotReader:
    """Every episode of the dataset is one demonstration."""

    name = 'lerobot'

    def accepts(self, source: Path) -> bool:
        """A folder with meta/info.json."""
        return (source / 'meta/info.json').is_file()

    def read(self, source: Path, options: ImportOptions) -> Iterator[Recording]:
        """The episodes in order."""
        dataset = _Dataset(source)
        for episode in dataset.episodes:
            yield _recording(dataset, episode, options)


class _Dataset:
    """Tables and paths of either version."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.info = _read_json(root / 'meta/info.json')
        version = str(self.info.get('codebase_version', ''))
        require(version in ('v2.0', 'v2.1', 'v3.0'), f'{root} has LeRobot version {version or "none"}, expected '
                'v2.1 or v3.0', DatasetError)
        self.v3 = version == 'v3.0'
        for key in ('features', 'fps', 'data_path'):
            require(key in self.info, f'{root}/meta/info.json has no {key}', DatasetError)
        self.fps = float(self.info['fps'])
        self.features: dict[str, Feature] = dict(self.info['features'])
        require(self.fps > 0, f'{root}/meta/info.json: fps should be positive but is {self.fps}', DatasetError)
        self.own = _read_json(root / OWN_META) if (root / OWN_META).is_file() else {}
        self.episodes = self._episodes()

    def _episodes(self) -> list[_Episode]:
        if not self.v3:
            rows = _read_lines(self.root / 'meta/episodes.jsonl')
        else:
            files = sorted((self.root / 'meta/episodes').glob('*/*.parquet'))
            rows = [row for file in files for row in self._metadata(file)]
        require(bool(rows), f'{self.root} lists no episodes in meta/', DatasetError)
        try:
            episodes = [_Episode.of(row, self.v3) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f'{self.root}: an episode in meta/ lacks {error}; copy the dataset again') from error
        return sorted(episodes, key=lambda episode: episode.number)

    def _metadata(self, file: Path) -> list[dict[str, Any]]:
        table = read_table(file)
        names = [n for n in table.column_names if not n.startswith('stats/')]
        return table.select(names).to_pylist()

    def rows(self, episode: _Episode) -> Any:
        """The episode's frames as a pyarrow table."""
        if not self.v3:
            chunk = episode.number // int(self.info.get('chunks_size', 1000))
            return read_table(self.root / self.info['data_path'].format(episode_chunk=chunk,
                                                                        episode_index=episode.number))
        path = self.info['data_path'].format(chunk_index=episode.table[0], file_index=episode.table[1])
        table = read_table(self.root / path)
        return table.filter(np.asarray(table['episode_index']) == episode.number)

    def film(self, episode: _Episode, key: str) -> tuple[Path, float]:
        """The mp4 of a camera, and where in it the episode begins [s]."""
        if not self.v3:
            chunk = episode.number // int(self.info.get('chunks_size', 1000))
            return self.root / self.info['video_path'].format(
                episode_chunk=chunk, video_key=key, episode_index=episode.number), 0.0
        require(key in episode.films, f'{self.root} episode {episode.number} has no film of {key}', DatasetError)
        chunk, file, begin = episode.films[key]
        return self.root / self.info['video_path'].format(video_key=key, chunk_index=chunk, file_index=file), begin


def _recording(dataset: _Dataset, episode: _Episode, options: ImportOptions) -> Recording:
    where = f'{dataset.root} episode {episode.number}'
    try:
        table = dataset.rows(episode)
        require(table.num_rows >= 1, f'{where} has no frames', DatasetError)
        seconds = np.asarray(table['timestamp'], np.float64)
    except KeyError as error:
        raise DatasetError(f'{where}: {error} is missing in its tables') from error
    stamps = np.round(seconds * dataset.fps) / dataset.fps  # float32 seconds on disk
    stamps = np.round(stamps * 1e9).astype(np.int64)
    own: OwnEpisode = dataset.own.get('episodes', {}).get(str(episode.number), {})
    depths = {name for name in dataset.features if _is_depth(dataset.features[name])}
    names = {name.removeprefix(PICTURES): name for name in dataset.features
             if name.startswith(PICTURES) and name not in depths}
    notes: list[str] = []
    cameras = tuple(
        calibrated(_camera(dataset, table, episode, names[name], stamps, own.get('cameras', {}).get(name, {})), options)
        for name in chosen_cameras(list(names), options, where))
    states = _states(dataset, table, stamps, notes)
    tasks = episode.tasks
    attributes = dict(own.get('attributes', {}))
    task = attributes.pop('task', None) or (tasks[0] if tasks else None)
    if tasks:
        attributes.setdefault('instruction', tasks[0])
    return Recording(where, cameras, states.joints, states.names, _poses(table, stamps, GRIPPER_POSE),
                     states.opening, states.command, _poses(table, stamps, OBJECT_POSE), task, attributes,
                     tuple(notes))


def _is_depth(feature: Feature) -> bool:
    return any(bool(info and (info.get('is_depth_map') or info.get('video.is_depth_map')))
               for info in (feature.get('info'), feature.get('video_info')))


def _camera(dataset: _Dataset, table: Any, episode: _Episode, key: str, stamps: np.ndarray,
            own: OwnCamera) -> CameraRecording:
    name = key.removeprefix(PICTURES)
    depth = next((d for d in (f'{key}_depth', f'{PICTURES}depth.{name}') if d in dataset.features), None)
    labels = f'{LABELS}{name}' if f'{LABELS}{name}' in dataset.features else None
    K, T = own.get('K'), own.get('T_base_camera')
    return CameraRecording(
        name, _stream(dataset, table, episode, key, stamps, lambda p: np.asarray(p.convert('RGB'))),
        None if depth is None else _stream(dataset, table, episode, depth, stamps, _depth_of(dataset.features[depth])),
        None if labels is None else _stream(dataset, table, episode, labels, stamps, np.asarray),
        None if K is None else np.array(K, np.float64), None if T is None else np.array(T, np.float64))


def _depth_of(feature: Feature) -> Callable[[Image.Image], np.ndarray]:
    info = feature.get('info')
    unit = {'m': 1.0, 'mm': 0.001}.get(info.get('depth_unit', '') if info else '')

    def decode(picture: Image.Image) -> np.ndarray:
        require(picture.mode.startswith(('I', 'F')), f'a depth picture has mode {picture.mode}, expected 16-bit or '
                'float; depth films are not read', DatasetError)
        scale = unit or (1.0 if picture.mode == 'F' else 0.001)
        return np.asarray(picture).astype(np.float32) * np.float32(scale)
    return decode


def _stream(dataset: _Dataset, table: Any, episode: _Episode, key: str, stamps: np.ndarray,
            decode: Callable[[Image.Image], np.ndarray]) -> ImageStream:
    where = f'{dataset.root} {key}'
    if dataset.features[key].get('dtype') == 'video':
        film, begin = dataset.film(episode, key)

        def load_film(indices: Sequence[int]) -> Iterator[np.ndarray]:
            times = [begin + int(stamps[i]) * 1e-9 for i in indices]
            yield from film_frames(film, times, dataset.fps)
        return ImageStream(where, stamps, load_film)
    require(key in table.column_names, f'{where} is listed in info.json but not in the tables', DatasetError)
    column = table[key]

    def load(indices: Sequence[int]) -> Iterator[np.ndarray]:
        for i in indices:
            cell = column[i].as_py()
            data = cell.get('bytes') if isinstance(cell, dict) else None
            try:
                with Image.open(io.BytesIO(data) if data else dataset.root / cell['path']) as picture:
                    yield decode(picture)
            except (OSError, TypeError, KeyError, SyntaxError, ValueError) as error:
                raise DatasetError(f'{where}: picture {i} cannot be decoded ({error})') from error
    return ImageStream(where, stamps, load)


def film_frames(film: Path, times: Sequence[float], fps: float) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 frames of an mp4 of constant rate `fps` at rising times [s]."""
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise BackendUnavailableError('films need imageio-ffmpeg: pip install imageio-ffmpeg') from error
    require(film.is_file(), f'{film} is missing; copy the dataset again', DatasetError)
    try:
        reader = imageio_ffmpeg.read_frames(str(film), output_params=['-fps_mode', 'passthrough'])
        size = next(reader)['size']
        wanted = [round(t * fps) for t in times]
        place = 0
        for number, raw in enumerate(reader):
            while place < len(wanted) and wanted[place] == number:
                yield np.frombuffer(raw, np.uint8).reshape(size[1], size[0], 3)
                place += 1
            if place == len(wanted):
                break
    except (OSError, RuntimeError, StopIteration, subprocess.SubprocessError) as error:
        raise DatasetError(f'{film} cannot be decoded ({" ".join(str(error).split())[:120]})') from error
    finally:
        if 'reader' in locals():
            reader.close()
    require(place == len(wanted), f'{film} ends before frame {wanted[min(place, len(wanted) - 1)]}; copy the dataset '
            'again', DatasetError)


def _states(dataset: _Dataset, table: Any, stamps: np.ndarray, notes: list[str]) -> _States:
    """Joints and opening of observation.state, and the commanded opening of action, by component names."""
    found = _States()
    if 'observation.state' not in table.column_names:
        return found
    names = _names(dataset.features['observation.state'])
    values = np.array(table['observation.state'].to_pylist(), np.float64).reshape(len(stamps), -1)
    if len(names) != values.shape[1]:
        notes.append('observation.state has no names for its components: taken as joints')
        names = [f'state_{i}' for i in range(values.shape[1])]
    arm = [i for i, name in enumerate(names) if name != 'opening']
    if arm:
        found.joints = StateTrack('observation.state', stamps, values[:, arm])
        found.names = tuple(names[i] for i in arm)
    if 'opening' in names:
        found.opening = StateTrack('opening', stamps, values[:, names.index('opening')])
    else:
        notes.append('observation.state has no component named opening [m]')
    if 'action' in table.column_names and 'opening' in _names(dataset.features['action']):
        actions = np.array(table['action'].to_pylist(), np.float64).reshape(len(stamps), -1)
        column = _names(dataset.features['action']).index('opening')
        found.command = StateTrack('commanded opening', stamps, actions[:, column])
    return found


def _names(feature: Feature) -> list[str]:
    """Component names, which LeRobot keeps as a list or under one key."""
    names = feature.get('names') or []
    if isinstance(names, dict):
        names = next((v for v in names.values() if isinstance(v, list)), [])
    return [str(n).removesuffix('.pos') for n in names]


def _poses(table: Any, stamps: np.ndarray, key: str) -> StateTrack | None:
    if key not in table.column_names:
        return None
    values = np.array(table[key].to_pylist(), np.float64)
    require(values.shape == (len(stamps), 16), f'{key} should be 16 numbers a frame, a 4x4 pose', DatasetError)
    return StateTrack(key, stamps, values.reshape(-1, 4, 4))


def read_table(path: Path) -> Any:
    """A parquet file; DatasetError of one line when it is damaged or missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BackendUnavailableError('LeRobot datasets need pyarrow: pip install pyarrow') from error
    try:
        return pyarrow.parquet.read_table(path, partitioning=None)
    except (OSError, pyarrow.ArrowException) as error:
        raise DatasetError(f'{path} cannot be read ({" ".join(str(error).split())[:120]}); copy it again') from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(f'{path} is not readable JSON ({error})') from error
    require(isinstance(value, dict), f'{path} should be a JSON object', DatasetError)
    return value


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DatasetError(f'{path} is not readable, one JSON object a line ({error})') from error
