"""Episodes as a LeRobot dataset (format v3.0), for the policies and tools of that library.

One parquet file per episode, pictures as PNG inside it, so that no video codec is needed. Needs the
extra packages of requirements/lerobot.txt; LeRobot itself is not needed to write it.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geo4d_ros.data.episodes import DEPTH_UNIT_M, RATE_HZ, Episode
from geo4d_ros.errors import BackendUnavailableError, DatasetError, require

_FILES_PER_CHUNK = 1000
_STATE = [*(f'panda_joint{i}' for i in range(1, 8)), 'opening']
_INDEX = ('frame_index', 'episode_index', 'index', 'task_index')
Stats = dict[str, np.ndarray]  # min, max, mean, std, count


def export_lerobot(paths: Sequence[Path], out: Path, depth: bool = False) -> dict[str, Any]:
    """Write `paths` (this package's zarr episodes) to the new directory `out`; returns meta/info.json.

    Per frame at 4 Hz: observation.images.camera_k (H, W, 3); with `depth` also
    observation.images.camera_k_depth, 16-bit in 0.1 mm, 0 = invalid; observation.state (8,): seven
    joints [rad] and the opening [m]; action (8,): the joints of the next frame and the commanded
    opening. The task's name is the language instruction. Raises DatasetError when `out` exists or
    the episodes differ in cameras or size.
    """
    try:
        import pandas
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BackendUnavailableError(
            'the LeRobot export needs pyarrow and pandas: pip install -r requirements/lerobot.txt'
        ) from error
    require(not out.exists(), f'{out} exists already; choose a new directory', DatasetError)
    temporary = out.with_name(f'.{out.name}')
    shutil.rmtree(temporary, ignore_errors=True)
    features, tasks, rows, total = {}, [], [], 0
    try:
        for number, path in enumerate(paths):
            episode = Episode.open(path)
            task = str(episode.attributes['task'])
            if task not in tasks:
                tasks.append(task)
            columns = _columns(episode, number, total, tasks.index(task), depth)
            found = _features(columns)
            features = features or found
            require(found == features, f'{path} has other cameras or sizes than {paths[0]}', DatasetError)
            chunk, file = divmod(number, _FILES_PER_CHUNK)
            target = temporary / f'data/chunk-{chunk:03d}/file-{file:03d}.parquet'
            target.parent.mkdir(parents=True, exist_ok=True)
            pyarrow.parquet.write_table(pyarrow.table({k: _stored(v) for k, v in columns.items()}), target)
            length = len(columns['index'])
            rows.append(_episode_row(number, task, total, length, {k: _stats(v) for k, v in columns.items()}))
            total += length
        meta = temporary / 'meta'
        (meta / 'episodes/chunk-000').mkdir(parents=True)
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(rows), meta / 'episodes/chunk-000/file-000.parquet')
        pandas.DataFrame({'task_index': range(len(tasks))}, index=tasks).to_parquet(meta / 'tasks.parquet')
        info = _info(features, len(rows), total, len(tasks))
        (meta / 'info.json').write_text(json.dumps(info, indent=4) + '\n')
        (meta / 'stats.json').write_text(json.dumps(_whole_stats(rows, features), indent=4) + '\n')
        temporary.rename(out)
    except OSError as error:
        raise DatasetError(f'cannot write {out}: {error.strerror}; choose a writable place') from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return info


def _columns(episode: Episode, number: int, first: int, task: int, depth: bool) -> dict[str, np.ndarray]:
    """Feature name -> (N, ...) values of one episode; pictures as uint8 (N, H, W, 3) or uint16 (N, H, W)."""
    joints, opening = episode.read('joints'), episode.read('opening')
    following = np.concatenate([joints[1:], joints[-1:]])
    columns: dict[str, np.ndarray] = {}
    for k, clip in enumerate(episode.read('rgb')):
        columns[f'observation.images.camera_{k}'] = clip
    for k, clip in enumerate(episode.read('depth') if depth else ()):
        columns[f'observation.images.camera_{k}_depth'] = clip
    columns['observation.state'] = np.column_stack([joints, opening]).astype(np.float32)
    columns['action'] = np.column_stack([following, episode.read('opening_command')]).astype(np.float32)
    count = np.arange(len(joints))
    columns['timestamp'] = (count / RATE_HZ).astype(np.float32)
    indices = (count, np.full_like(count, number), first + count, np.full_like(count, task))
    return columns | {name: value.astype(np.int64) for name, value in zip(_INDEX, indices, strict=True)}


def _is_picture(value: np.ndarray) -> bool:
    return value.ndim >= 3


def _features(columns: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """info.json's description of every column."""
    features: dict[str, dict[str, Any]] = {}
    for name, value in columns.items():
        if _is_picture(value):
            shape = [*value.shape[1:3], value.shape[3] if value.ndim == 4 else 1]
            features[name] = {'dtype': 'image', 'shape': shape, 'names': ['height', 'width', 'channels']}
            if value.ndim == 3:
                features[name]['info'] = {'is_depth_map': True, 'depth_unit_m': DEPTH_UNIT_M}
        else:
            vector = value.ndim == 2
            features[name] = {
                'dtype': str(value.dtype), 'shape': list(value.shape[1:]) or [1], 'names': _STATE if vector else None}
    return features


def _stored(value: np.ndarray) -> list[Any]:
    """A column as parquet takes it: pictures as PNG bytes, vectors as lists."""
    if not _is_picture(value):
        return list(value) if value.ndim == 2 else value
    return [{'bytes': _png(picture), 'path': None} for picture in value]


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
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


def _episode_row(number: int, task: str, first: int, length: int, stats: dict[str, Stats]) -> dict[str, Any]:
    chunk, file = divmod(number, _FILES_PER_CHUNK)
    row = {
        'episode_index': number, 'tasks': [task], 'length': length,
        'data/chunk_index': chunk, 'data/file_index': file,
        'dataset_from_index': first, 'dataset_to_index': first + length,
        'meta/episodes/chunk_index': 0, 'meta/episodes/file_index': 0,
    }
    return row | {f'stats/{name}/{key}': value.tolist() for name, s in stats.items() for key, value in s.items()}


def _whole_stats(rows: list[dict[str, Any]], features: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Stats of all episodes together, from those of each."""
    whole = {}
    for name in features:
        part = {key: np.array([row[f'stats/{name}/{key}'] for row in rows])
                for key in ('min', 'max', 'mean', 'std', 'count')}
        weight = part['count'].reshape(-1, *[1] * (part['mean'].ndim - 1)) / part['count'].sum()
        mean = (weight * part['mean']).sum(0)
        variance = (weight * (part['std'] ** 2 + (part['mean'] - mean) ** 2)).sum(0)
        whole[name] = {
            'min': part['min'].min(0).tolist(), 'max': part['max'].max(0).tolist(), 'mean': mean.tolist(),
            'std': np.sqrt(variance).tolist(), 'count': [int(part['count'].sum())],
        }
    return whole


def _info(features: dict[str, Any], episodes: int, frames: int, tasks: int) -> dict[str, Any]:
    return {
        'codebase_version': 'v3.0', 'robot_type': 'panda', 'total_episodes': episodes, 'total_frames': frames,
        'total_tasks': tasks, 'chunks_size': _FILES_PER_CHUNK, 'data_files_size_in_mb': 100,
        'video_files_size_in_mb': 200, 'fps': int(RATE_HZ), 'splits': {'train': f'0:{episodes}'},
        'data_path': 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet', 'video_path': None,
        'features': features,
    }
