"""Episodes as a LeRobot dataset (format v3.0), for the policies and tools of that library.

One parquet file per episode, pictures inside it, so that no video codec is needed; LeRobot itself is not needed to
write it. What that library has no place for (calibration, attributes) lies in `meta/geo4d.json`, which it ignores.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from PIL import Image

from geo4d_ros.data.episodes import RATE_HZ, Episode, decode_depth
from geo4d_ros.data.readers.lerobot import (
    GRIPPER_POSE,
    LABELS,
    OBJECT_POSE,
    OWN_META,
    PICTURES,
    Feature,
    OwnCamera,
    OwnEpisode,
)
from geo4d_ros.errors import BackendUnavailableError, DatasetError, require

_FILES_PER_CHUNK = 1000
_INDEX = ('frame_index', 'episode_index', 'index', 'task_index')
Stats = dict[str, np.ndarray]  # min, max, mean, std, count

# A row of meta/episodes, beside the episode's stats.
EpisodeRow = TypedDict('EpisodeRow', {
    'episode_index': int, 'tasks': list[str], 'length': int, 'data/chunk_index': int, 'data/file_index': int,
    'dataset_from_index': int, 'dataset_to_index': int, 'meta/episodes/chunk_index': int,
    'meta/episodes/file_index': int})


class Info(TypedDict):
    """meta/info.json of format v3.0."""

    codebase_version: str
    robot_type: str
    total_episodes: int
    total_frames: int
    total_tasks: int
    chunks_size: int
    data_files_size_in_mb: int
    video_files_size_in_mb: int
    fps: int
    splits: dict[str, str]
    data_path: str
    video_path: str | None
    features: dict[str, Feature]


def export_lerobot(paths: Sequence[Path], out: Path, depth: bool = False) -> Info:
    """Write `paths` (this package's zarr episodes) to the new directory `out`; returns meta/info.json.

    Per frame at 4 Hz, as far as the episode has it: observation.images.camera_k (H, W, 3) as PNG; with `depth` also
    observation.images.camera_k_depth, float32 [m] as TIFF, 0 = invalid, and observation.labels.camera_k;
    observation.state (J + 1,): joints [rad] by their names and `opening` [m]; action (J + 1,): the joints of the next
    frame and the commanded opening; observation.gripper_pose and .object_pose (16,), row by row, in the base frame.
    The instruction, else the task's name, is the language instruction. Raises DatasetError when `out` exists or the
    episodes differ in what they have.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BackendUnavailableError(
            'the LeRobot export needs pyarrow: pip install pyarrow'
        ) from error
    require(not out.exists(), f'{out} exists already; choose a new directory', DatasetError)
    temporary = out.with_name(f'.{out.name}')
    shutil.rmtree(temporary, ignore_errors=True)
    features: dict[str, Feature] = {}
    tasks: list[str] = []
    rows: list[EpisodeRow] = []
    stats: list[dict[str, Stats]] = []
    own: dict[str, OwnEpisode] = {}
    total = 0
    robot = 'unknown'
    try:
        for number, path in enumerate(paths):
            episode = Episode.open(path)
            task = episode.instruction or episode.task
            own[str(number)] = _own_meta(episode)
            robot = str(episode.attributes.get('robot', robot))
            if task not in tasks:
                tasks.append(task)
            columns = _columns(episode, number, total, tasks.index(task), depth)
            found = _features(columns, [*episode.joint_names, 'opening'])
            features = features or found
            require(found == features, f'{path} has other cameras or sizes than {paths[0]}', DatasetError)
            chunk, file = divmod(number, _FILES_PER_CHUNK)
            target = temporary / f'data/chunk-{chunk:03d}/file-{file:03d}.parquet'
            target.parent.mkdir(parents=True, exist_ok=True)
            pyarrow.parquet.write_table(pyarrow.table({k: _stored(v) for k, v in columns.items()}), target)
            length = len(columns['index'])
            rows.append(_episode_row(number, task, total, length))
            stats.append({k: _stats(v) for k, v in columns.items()})
            total += length
        meta = temporary / 'meta'
        (meta / 'episodes/chunk-000').mkdir(parents=True)
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist([{**row, **_flat(s)} for row, s in zip(rows, stats, strict=True)]),
            meta / 'episodes/chunk-000/file-000.parquet')
        pyarrow.parquet.write_table(_task_table(tasks), meta / 'tasks.parquet')
        (temporary / OWN_META).write_text(json.dumps({'episodes': own}, indent=1) + '\n')
        info = _info(features, len(rows), total, len(tasks), robot)
        (meta / 'info.json').write_text(json.dumps(info, indent=4) + '\n')
        (meta / 'stats.json').write_text(json.dumps(_whole_stats(stats), indent=4) + '\n')
        temporary.rename(out)
    except OSError as error:
        raise DatasetError(f'cannot write {out}: {error.strerror}; choose a writable place') from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return info


def _own_meta(episode: Episode) -> OwnEpisode:
    """Calibration and attributes of an episode."""
    cameras: dict[str, OwnCamera] = {f'camera_{k}': {} for k in range(episode.cameras)}
    names: tuple[Literal['K', 'T_base_camera'], ...] = ('K', 'T_base_camera')
    for name in names:
        for k, value in enumerate(() if name in episode.missing else episode.read(name)):
            cameras[f'camera_{k}'][name] = value.tolist()
    return {'cameras': cameras, 'attributes': {k: v for k, v in episode.attributes.items() if k != 'arrays'}}


def _task_table(tasks: list[str]) -> Any:
    """`task_index` by task; task_table.json has what makes LeRobot's data frame library take `task` for its index."""
    import pyarrow

    metadata = json.loads(Path(__file__).with_name('task_table.json').read_text())
    table = pyarrow.table({'task_index': list(range(len(tasks))), 'task': tasks})
    return table.replace_schema_metadata({library: json.dumps(text) for library, text in metadata.items()})


def _columns(episode: Episode, number: int, first: int, task: int, depth: bool) -> dict[str, np.ndarray]:
    """Feature name -> (N, ...) values of one episode; pictures uint8 (N, H, W, 3) or (N, H, W), depth float32."""
    has = {name for name in ('depth', 'labels', 'joints', 'opening', 'opening_command', 'T_base_gripper', 'object_pose')
           if name not in episode.missing}
    columns: dict[str, np.ndarray] = {f'{PICTURES}camera_{k}': clip for k, clip in enumerate(episode.read('rgb'))}
    if depth and 'depth' in has:
        columns |= {f'{PICTURES}camera_{k}_depth': decode_depth(d) for k, d in enumerate(episode.read('depth'))}
    if depth and 'labels' in has:
        columns |= {f'{LABELS}camera_{k}': clip for k, clip in enumerate(episode.read('labels'))}
    if {'joints', 'opening'} <= has:
        joints, opening = episode.read('joints'), episode.read('opening')
        command = episode.read('opening_command') if 'opening_command' in has else np.append(opening[1:], opening[-1:])
        columns['observation.state'] = np.column_stack([joints, opening]).astype(np.float32)
        columns['action'] = np.column_stack([np.concatenate([joints[1:], joints[-1:]]), command]).astype(np.float32)
    for key, name in ((GRIPPER_POSE, 'T_base_gripper'), (OBJECT_POSE, 'object_pose')):
        if name in has:
            columns[key] = episode.read(name).reshape(-1, 16)
    count = np.arange(episode.frames)
    columns['timestamp'] = (count / RATE_HZ).astype(np.float32)
    indices = (count, np.full_like(count, number), first + count, np.full_like(count, task))
    return columns | {name: value.astype(np.int64) for name, value in zip(_INDEX, indices, strict=True)}


def _is_picture(value: np.ndarray) -> bool:
    return value.ndim >= 3


def _features(columns: dict[str, np.ndarray], state_names: list[str]) -> dict[str, Feature]:
    """info.json's description of every column."""
    features: dict[str, Feature] = {}
    for name, value in columns.items():
        if _is_picture(value):
            shape = [*value.shape[1:3], value.shape[3] if value.ndim == 4 else 1]
            features[name] = {'dtype': 'image', 'shape': shape, 'names': ['height', 'width', 'channels']}
            if value.dtype == np.float32:
                features[name]['info'] = {'is_depth_map': True, 'depth_unit': 'm'}
        else:
            vector = name in ('observation.state', 'action')
            features[name] = {'dtype': str(value.dtype), 'shape': list(value.shape[1:]) or [1],
                              'names': state_names if vector else None}
    return features


def _stored(value: np.ndarray) -> list[Any] | np.ndarray:
    """A column as parquet takes it: pictures as PNG bytes, vectors as lists."""
    if not _is_picture(value):
        return list(value) if value.ndim == 2 else value
    return [{'bytes': _encoded(picture), 'path': None} for picture in value]


def _encoded(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    if picture.dtype == np.float32:
        Image.fromarray(picture).save(buffer, 'TIFF', compression='tiff_adobe_deflate')
    else:
        Image.fromarray(picture).save(buffer, 'PNG')
    return buffer.getvalue()


def _stats(value: np.ndarray) -> Stats:
    """Per component; of pictures per channel, in [0, 1] for colour, shape (channels, 1, 1)."""
    flat = value.astype(np.float64)
    if _is_picture(value):
        flat = flat[::4, ::4, ::4]  # every fourth frame and pixel tells enough
        flat = flat / 255 if flat.ndim == 4 else flat[..., None]
        flat = flat.reshape(-1, flat.shape[-1])
    flat = flat.reshape(len(flat), -1)
    shape = (-1, 1, 1) if _is_picture(value) else (-1,)
    parts = {'min': flat.min(0), 'max': flat.max(0), 'mean': flat.mean(0), 'std': flat.std(0)}
    return {k: v.reshape(shape) for k, v in parts.items()} | {'count': np.array([len(value)])}


def _episode_row(number: int, task: str, first: int, length: int) -> EpisodeRow:
    chunk, file = divmod(number, _FILES_PER_CHUNK)
    return {
        'episode_index': number, 'tasks': [task], 'length': length,
        'data/chunk_index': chunk, 'data/file_index': file,
        'dataset_from_index': first, 'dataset_to_index': first + length,
        'meta/episodes/chunk_index': 0, 'meta/episodes/file_index': 0,
    }


def _flat(stats: dict[str, Stats]) -> dict[str, list[Any]]:
    """Stats of an episode as columns of its row."""
    return {f'stats/{name}/{key}': value.tolist() for name, s in stats.items() for key, value in s.items()}


def _whole_stats(stats: list[dict[str, Stats]]) -> dict[str, dict[str, list[Any]]]:
    """Stats of all episodes together, from those of each."""
    whole = {}
    for name in stats[0] if stats else ():
        part = {key: np.array([s[name][key] for s in stats]) for key in ('min', 'max', 'mean', 'std', 'count')}
        weight = part['count'].reshape(-1, *[1] * (part['mean'].ndim - 1)) / part['count'].sum()
        mean = (weight * part['mean']).sum(0)
        variance = (weight * (part['std'] ** 2 + (part['mean'] - mean) ** 2)).sum(0)
        whole[name] = {
            'min': part['min'].min(0).tolist(), 'max': part['max'].max(0).tolist(), 'mean': mean.tolist(),
            'std': np.sqrt(variance).tolist(), 'count': [int(part['count'].sum())],
        }
    return whole


def _info(features: dict[str, Feature], episodes: int, frames: int, tasks: int, robot: str) -> Info:
    return {
        'codebase_version': 'v3.0', 'robot_type': robot, 'total_episodes': episodes, 'total_frames': frames,
        'total_tasks': tasks, 'chunks_size': _FILES_PER_CHUNK, 'data_files_size_in_mb': 100,
        'video_files_size_in_mb': 200, 'fps': int(RATE_HZ), 'splits': {'train': f'0:{episodes}'},
        'data_path': 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet', 'video_path': None,
        'features': features,
    }
