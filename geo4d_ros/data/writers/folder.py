"""Episodes as plain folders of pictures, in the layout that `readers/folder.py` reads."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

from geo4d_ros.data.episodes import DEPTH_UNIT_M, RATE_HZ, Episode
from geo4d_ros.data.readers.folder import OBJECT_COLUMNS, POSE_COLUMNS
from geo4d_ros.errors import ConfigurationError, DatasetError, require
from geo4d_ros.geometry.transforms import pose_to_quaternion


def write_folder(episode: Episode, out: Path) -> None:
    """Write the new folder `out`; depth in 0.1 mm, so that nothing is lost; what the episode lacks is left out."""
    require(not out.exists(), f'{out} exists already; choose a new folder', DatasetError)
    arrays = episode.load()
    names = [f'{i:06d}' for i in range(episode.frames)]
    try:
        for c in range(episode.cameras):
            _write_camera(out / f'camera{c + 1}', arrays, c, names)
        _write_poses(out / 'poses.csv', arrays, episode.joint_names)
        about = {k: v for k, v in episode.attributes.items() if k != 'arrays'}
        (out / 'recording.json').write_text(json.dumps({**about, 'rate_hz': RATE_HZ}, indent=1) + '\n')
    except OSError as error:
        raise ConfigurationError(f'cannot write {out}: {error.strerror}; choose a writable place') from error


def _write_camera(folder: Path, arrays: dict[str, np.ndarray], c: int, names: list[str]) -> None:
    for kind in ('rgb', 'depth', 'labels'):
        if kind in arrays:
            (folder / kind).mkdir(parents=True)
            for name, picture in zip(names, arrays[kind][c], strict=True):
                Image.fromarray(picture).save(folder / kind / f'{name}.png')
    described: dict[str, object] = {'depth_unit_m': DEPTH_UNIT_M}
    described |= {name: arrays[name][c].tolist() for name in ('K', 'T_base_camera') if name in arrays}
    (folder / 'camera.json').write_text(json.dumps(described, indent=1) + '\n')
    _write_csv(folder / 'times.csv', ['name', 'time'], list(zip(names, arrays['times'].tolist(), strict=True)))


def _write_poses(path: Path, arrays: dict[str, np.ndarray], joint_names: tuple[str, ...]) -> None:
    columns: dict[str, np.ndarray] = {'time': arrays['times']}
    for name, keys in (('T_base_gripper', POSE_COLUMNS), ('object_pose', OBJECT_COLUMNS)):
        if name in arrays:
            rows = np.array([[*T[:3, 3], *pose_to_quaternion(T)] for T in arrays[name]])
            columns |= dict(zip(keys, rows.T, strict=True))
    columns |= {name: arrays[name] for name in ('opening', 'opening_command') if name in arrays}
    if 'joints' in arrays:
        columns |= dict(zip(joint_names, arrays['joints'].T, strict=True))
    if len(columns) > 1:
        _write_csv(path, list(columns), np.stack(list(columns.values()), axis=1).tolist())


def _write_csv(path: Path, header: list[str], rows: list) -> None:
    with path.open('w', newline='') as file:
        csv.writer(file).writerows([header, *rows])
