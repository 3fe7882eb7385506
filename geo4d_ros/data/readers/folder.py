"""Plain folders of pictures, one folder a demonstration:

    demonstration/
      camera1/rgb/000000.png ...      8-bit colour (png or jpg); the folder may also be named color
      camera1/depth/000000.png ...    16-bit, same names, aligned to colour, 0 = invalid
      camera1/labels/000000.png ...   8-bit classes, optional
      camera1/camera.json             {"K": 3x3 or "fx", "fy", "cx", "cy" or Open3D's "intrinsic_matrix" (9 numbers,
                                      column by column); "depth_unit_m": 0.001; "T_base_camera": 4x4, optional}
      camera1/times.csv               columns name,time [s], optional; else names are counted at recording.json's rate
      poses.csv                       optional, columns time [s] and any of x,y,z,qx,qy,qz,qw (gripper in base),
                                      opening, opening_command [m], joint names [rad], object_x ... object_qw
      recording.json                  optional: {"task": "...", "instruction": "...", "rate_hz": 30}
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

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
from geo4d_ros.errors import DatasetError, require
from geo4d_ros.geometry.transforms import check_transform, from_quaternion

COLOUR_FOLDERS = ('rgb', 'color')
POSE_COLUMNS = ('x', 'y', 'z', 'qx', 'qy', 'qz', 'qw')
OBJECT_COLUMNS = tuple(f'object_{c}' for c in POSE_COLUMNS)
_SUFFIXES = ('.png', '.jpg', '.jpeg')


class CameraFile(TypedDict, total=False):
    """What camera.json may say, before it is checked; `--calibration` has the same by camera."""

    K: list[list[float]]
    intrinsic_matrix: list[float]  # Open3D's: 9 numbers, column by column
    fx: float
    fy: float
    cx: float
    cy: float
    depth_unit_m: float
    T_base_camera: list[list[float]] | None
    frame_id: str  # of `geo4d cameras record`


class FolderReader:
    """One folder is one demonstration."""

    name = 'folder'

    def accepts(self, source: Path) -> bool:
        """A folder of camera folders."""
        return source.is_dir() and bool(_camera_folders(source))

    def read(self, source: Path, options: ImportOptions) -> Iterator[Recording]:
        """The recording in this folder."""
        about = _read_json(source / 'recording.json') if (source / 'recording.json').is_file() else {}
        folders = {folder.name: folder for folder in _camera_folders(source)}
        cameras = tuple(calibrated(_camera(folders[name], about.get('rate_hz'), options), options)
                        for name in chosen_cameras(list(folders), options, str(source)))
        table = _read_table(source / 'poses.csv') if (source / 'poses.csv').is_file() else {}
        known = {'time', 'opening', 'opening_command', *POSE_COLUMNS, *OBJECT_COLUMNS}
        joints = tuple(name for name in table if name not in known)
        yield Recording(
            str(source), cameras, _columns(table, joints, 'joints'), joints,
            _poses(table, POSE_COLUMNS, 'gripper pose'), _column(table, 'opening'), _column(table, 'opening_command'),
            _poses(table, OBJECT_COLUMNS, 'object pose'),
            about.pop('task', None), {k: v for k, v in about.items() if k != 'rate_hz'})


def _need(condition: bool, message: str) -> None:
    require(condition, message, DatasetError)


def _camera_folders(source: Path) -> list[Path]:
    return sorted(p for p in source.iterdir() if any((p / name).is_dir() for name in COLOUR_FOLDERS))


def _camera(folder: Path, rate_hz: Any, options: ImportOptions) -> CameraRecording:
    described = cast('CameraFile', _read_json(folder / 'camera.json') if (folder / 'camera.json').is_file() else {})
    known = options.calibration.get(folder.name)
    unit = known.depth_unit_m if known and known.depth_unit_m else float(described.get('depth_unit_m', 0.001))
    _need(0 < unit <= 0.1, f'{folder}/camera.json: depth_unit_m should be metres per count but is {unit}')
    colour = next(folder / name for name in COLOUR_FOLDERS if (folder / name).is_dir())
    files = _pictures(colour)
    stamps = _stamps(folder, [f.stem for f in files], rate_hz)
    T = described.get('T_base_camera')
    return CameraRecording(
        folder.name, ImageStream(str(colour), stamps, _loader(files, _colour)),
        _stream(folder / 'depth', files, stamps, lambda path: _depth(path, unit)),
        _stream(folder / 'labels', files, stamps, _labels),
        intrinsics_of(described, f'{folder}/camera.json'), None if T is None else _transform(T, folder / 'camera.json'))


def intrinsics_of(described: CameraFile, where: str) -> np.ndarray | None:
    """K (3, 3) of the keys this package or Open3D uses; None where there are none."""
    try:
        if 'K' in described:
            K = np.array(described['K'], np.float64).reshape(3, 3)
        elif 'intrinsic_matrix' in described:
            K = np.array(described['intrinsic_matrix'], np.float64).reshape(3, 3).T
        elif 'fx' in described:
            fx, fy, cx, cy = (float(described[key]) for key in ('fx', 'fy', 'cx', 'cy'))
            K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
        else:
            return None
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f'{where}: intrinsics should be K, or fx, fy, cx, cy ({error})') from error
    _need(bool(np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0 and K[2, 2] == 1),
            f'{where}: K should be a pinhole matrix but is {K.tolist()}')
    return K


def _transform(value: Any, where: Path) -> np.ndarray:
    try:
        T = np.array(value, np.float64).reshape(4, 4)
    except (TypeError, ValueError) as error:
        raise DatasetError(f'{where}: T_base_camera should be 4x4 numbers ({error})') from error
    check_transform(f'{where}: T_base_camera', T)
    return T


def _pictures(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES)
    _need(bool(files), f'{folder} holds no png or jpg pictures')
    return files


def _stream(folder: Path, colour: list[Path], stamps: np.ndarray, read: Any) -> ImageStream | None:
    """Pictures that go by the names of the colour ones; None without the folder."""
    if not folder.is_dir():
        return None
    own = {p.stem: p for p in _pictures(folder)}
    kept = [(own[c.stem], s) for c, s in zip(colour, stamps, strict=True) if c.stem in own]
    _need(bool(kept), f'{folder}: no picture is named like a colour picture, as {colour[0].name}')
    return ImageStream(str(folder), np.array([s for _, s in kept], np.int64), _loader([p for p, _ in kept], read))


def _loader(files: list[Path], read: Any) -> Any:
    def load(indices: Sequence[int]) -> Iterator[np.ndarray]:
        for i in indices:
            try:
                yield read(files[i])
            except (OSError, SyntaxError, ValueError) as error:
                raise DatasetError(f'{files[i]} cannot be decoded ({error}); copy it again') from error
    return load


def _colour(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert('RGB'))


def _depth(path: Path, unit: float) -> np.ndarray:
    with Image.open(path) as picture:
        _need(picture.mode.startswith('I'), f'{path} is a {picture.mode} picture, depth should be 16-bit grey')
        return (np.asarray(picture).astype(np.float64) * unit).astype(np.float32)


def _labels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        _need(picture.mode in ('L', 'P'), f'{path} is a {picture.mode} picture, labels should be 8-bit grey')
        return np.asarray(picture)


def _stamps(folder: Path, names: list[str], rate_hz: Any) -> np.ndarray:
    """[ns] of the pictures: times.csv, else their place at the recording's rate."""
    table = folder / 'times.csv'
    if table.is_file():
        rows = _read_rows(table)
        try:
            times = {Path(row['name']).stem: float(row['time']) for row in rows}
            seconds = np.array([times[name] for name in names])
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f'{table}: needs columns name,time [s], a row for every picture ({error})') from error
    else:
        _need(rate_hz is not None, f'{folder} has no times.csv; write one, or rate_hz into recording.json')
        try:
            seconds = np.arange(len(names)) / float(rate_hz)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise DatasetError(f'recording.json: rate_hz should be positive but is {rate_hz!r}') from error
    return np.round(seconds * 1e9).astype(np.int64)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(f'{path} is not readable JSON ({error})') from error
    _need(isinstance(value, dict), f'{path} should be a JSON object')
    return value


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline='') as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, ValueError, csv.Error) as error:
        raise DatasetError(f'{path} is not a readable CSV table ({error})') from error
    _need(bool(rows), f'{path} has no rows')
    return rows


def _read_table(path: Path) -> dict[str, np.ndarray]:
    """Columns of numbers."""
    rows = _read_rows(path)
    try:
        table = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    except (TypeError, ValueError) as error:
        raise DatasetError(f'{path} should hold numbers in every cell ({error})') from error
    _need('time' in table, f'{path} needs a column time [s]; it has {", ".join(table)}')
    return table


def _columns(table: dict[str, np.ndarray], names: Sequence[str], what: str) -> StateTrack | None:
    if not names or any(name not in table for name in names):
        return None
    stamps = np.round(table['time'] * 1e9).astype(np.int64)
    return StateTrack(what, stamps, np.stack([table[name] for name in names], axis=1))


def _column(table: dict[str, np.ndarray], name: str) -> StateTrack | None:
    track = _columns(table, [name], name)
    return track and StateTrack(name, track.stamps, track.values[:, 0])


def _poses(table: dict[str, np.ndarray], names: Sequence[str], what: str) -> StateTrack | None:
    track = _columns(table, names, what)
    if track is None:
        return None
    lengths = np.linalg.norm(track.values[:, 3:], axis=1)
    _need(bool((np.abs(lengths - 1) < 0.01).all()), f'{what}: quaternions in poses.csv are not of unit length')
    return StateTrack(what, track.stamps, np.stack([from_quaternion(row[3:], row[:3]) for row in track.values]))
