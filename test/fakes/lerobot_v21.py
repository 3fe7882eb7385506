"""Turns an exported LeRobot v3.0 dataset into other forms that such datasets have in the field."""

import io
import json
import shutil

import numpy as np
import pyarrow.parquet
from PIL import Image

from geo4d_ros.evaluation.movies import write_mp4


def as_v21(root):
    """The same data in the layout of v2.1: a parquet file per episode, metadata as JSON lines."""
    info = json.loads((root / 'meta/info.json').read_text())
    rows = [row for file in sorted((root / 'meta/episodes').glob('*/*.parquet'))
            for row in pyarrow.parquet.read_table(file).to_pylist()]
    for row in rows:
        number = row['episode_index']
        old = info['data_path'].format(chunk_index=row['data/chunk_index'], file_index=row['data/file_index'])
        (root / old).rename(root / f'data/chunk-000/episode_{number:06d}.parquet')
    lines = [{key: row[key] for key in ('episode_index', 'tasks', 'length')} for row in rows]
    (root / 'meta/episodes.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    shutil.rmtree(root / 'meta/episodes')
    (root / 'meta/tasks.parquet').unlink()
    info |= {'codebase_version': 'v2.1', 'video_path': None,
             'data_path': 'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet'}
    (root / 'meta/info.json').write_text(json.dumps(info))


def with_films(root, key):
    """One camera's pictures of all episodes of a v3.0 dataset in one mp4."""
    info = json.loads((root / 'meta/info.json').read_text())
    file = root / 'meta/episodes/chunk-000/file-000.parquet'
    rows, frames = pyarrow.parquet.read_table(file).to_pylist(), []
    for row in rows:
        path = root / info['data_path'].format(chunk_index=row['data/chunk_index'], file_index=row['data/file_index'])
        table = pyarrow.parquet.read_table(path)
        row |= {f'videos/{key}/chunk_index': 0, f'videos/{key}/file_index': 0,
                f'videos/{key}/from_timestamp': len(frames) / info['fps']}
        frames += [np.asarray(Image.open(io.BytesIO(cell['bytes']))) for cell in table[key].to_pylist()]
        pyarrow.parquet.write_table(table.drop_columns([key]), path)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    info['features'][key]['dtype'] = 'video'
    info['video_path'] = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
    (root / 'meta/info.json').write_text(json.dumps(info))
    write_mp4(root / f'videos/{key}/chunk-000/file-000.mp4', frames, info['fps'])
