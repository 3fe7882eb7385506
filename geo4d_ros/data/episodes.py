"""Demonstration episodes on disk: one zarr v3 group each, written atomically, read with checksums.

Layout `<directory>/<task>-<seed>.zarr`, schema version 2. C cameras, N frames at 4 Hz, H x W pixels, J joints;
arrays of `SCHEMA`, attributes `version, task, seed, success, perturbed, rate_hz, split, noise, segments, disturbances`,
and optionally `joint_names`, `instruction` (text), `target` (present, absent, done) and `others` (tasks whose things
stand there too). Pictures and times are always there; an own recording may lack any other array, which is then absent,
never filled in. Version 1, always complete and with seven joints, is read too.
One chunk per camera holds its whole clip (zstd with bit shuffling, CRC32C), other arrays are one chunk.
Units m, rad, s; the base frame is the robot's, optical frames are OpenCV's.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from geo4d_ros.errors import DatasetError, require
from geo4d_ros.types import RgbdFrame

log = logging.getLogger(__name__)

VERSION = 2
READABLE_VERSIONS = (1, 2)
RATE_HZ = 4.0
DEPTH_UNIT_M = 1e-4
MAX_DEPTH_M = 2.5  # farther depth is stored as 0, invalid
# name -> dtype and dimensions (C cameras, N frames, H rows, W columns, J joints)
SCHEMA: dict[str, tuple[str, tuple[str | int, ...]]] = {
    'rgb': ('uint8', ('C', 'N', 'H', 'W', 3)),
    'depth': ('uint16', ('C', 'N', 'H', 'W')),  # in 0.1 mm, 0 = invalid
    'labels': ('uint8', ('C', 'N', 'H', 'W')),  # 0 rest 1 arm 2 hand 3, 4 fingers 5 object 6 fixture; 10.. other tasks'
    'K': ('float64', ('C', 3, 3)),
    'T_base_camera': ('float64', ('C', 4, 4)),
    'T_base_gripper': ('float64', ('N', 4, 4)),  # tool centre point
    'joints': ('float64', ('N', 'J')),
    'opening': ('float64', ('N',)),  # measured, between the pads
    'opening_command': ('float64', ('N',)),
    'object_pose': ('float64', ('N', 4, 4)),  # T_base_object
    'times': ('float64', ('N',)),
}
ALWAYS = ('rgb', 'times')  # what every episode has; the rest of SCHEMA may be missing in own recordings
REQUIRED_ATTRIBUTES = ('version', 'task', 'seed', 'success', 'perturbed', 'rate_hz')


def encode_depth(depth: np.ndarray) -> np.ndarray:
    """float32 [m] to uint16 [0.1 mm]; beyond MAX_DEPTH_M (or not positive) becomes 0."""
    good = (depth > 0) & (depth <= MAX_DEPTH_M)
    return np.where(good, np.rint(depth / DEPTH_UNIT_M), 0).astype(np.uint16)


def decode_depth(depth: np.ndarray) -> np.ndarray:
    """uint16 [0.1 mm] to float32 [m], 0 = invalid."""
    return depth * np.float32(DEPTH_UNIT_M)


def episode_name(task: str, seed: int) -> str:
    """Directory name of an episode."""
    return f'{task}-{seed:06d}.zarr'


def _check_arrays(arrays: Mapping[str, np.ndarray | zarr.Array], where: str, needed: Iterable[str] = ALWAYS) -> None:
    sizes: dict[str, int] = {}
    for name, (dtype, dims) in SCHEMA.items():
        require(name in arrays or name not in needed, f'{where}: array {name} is missing', DatasetError)
        if name not in arrays:
            continue
        shape, got = arrays[name].shape, arrays[name].dtype
        for dim, size in zip(dims, shape, strict=False):
            expected = dim if isinstance(dim, int) else sizes.setdefault(dim, size)
            require(expected == size, f'{where}: {name} should have dimensions {dims} but has {shape}',
                    DatasetError)
        require(len(shape) == len(dims) and got == dtype,
                f'{where}: {name} should be {dtype} {dims} but is {got} {shape}', DatasetError)
    require(min(sizes.values()) >= 1, f'{where}: an episode has no frames or cameras', DatasetError)


def _check_joint_names(arrays: Mapping[str, Any], attributes: Mapping[str, Any], where: str) -> None:
    """As many distinct names as columns of `joints`, where there are names; version 1 had none."""
    names = attributes.get('joint_names')
    if 'joints' not in arrays or names is None:
        return
    good = isinstance(names, (list, tuple)) and len(set(names)) == arrays['joints'].shape[1]
    require(good, f'{where}: joint_names should be {arrays["joints"].shape[1]} distinct names but is {names}',
            DatasetError)


def write_episode(directory: Path, arrays: dict[str, np.ndarray], attributes: dict[str, Any]) -> Path:
    """Write one episode and return its path; it appears under its name only when complete.

    The attribute `joint_names` names the columns of `joints`. Raises DatasetError when an array breaks SCHEMA, one
    of ALWAYS is missing or the directory cannot be written. An episode of the same name is replaced.
    """
    attributes = {'version': VERSION, 'rate_hz': RATE_HZ, **attributes, 'arrays': sorted(arrays)}
    missing = [name for name in REQUIRED_ATTRIBUTES if name not in attributes]
    require(not missing, f'episode attributes lack {", ".join(missing)}', DatasetError)
    path = directory / episode_name(attributes['task'], attributes['seed'])
    unknown = sorted(set(arrays) - set(SCHEMA))
    require(not unknown, f'{path.name}: unknown arrays {", ".join(unknown)}, expected some of {", ".join(SCHEMA)}',
            DatasetError)
    _check_arrays(arrays, path.name)
    _check_joint_names(arrays, attributes, path.name)
    temporary, replaced = (directory / f'.{path.name}.{name}.{os.getpid()}' for name in ('new', 'old'))
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        _write_group(temporary, arrays, attributes)
        if path.exists():
            os.rename(path, replaced)
        os.rename(temporary, path)
    except OSError as error:
        raise DatasetError(f'cannot write {path}: {error.strerror}; choose a writable place') from error
    finally:
        for left in (temporary, replaced):
            shutil.rmtree(left, ignore_errors=True)
    return path


def _write_group(path: Path, arrays: dict[str, np.ndarray], attributes: dict[str, Any]) -> None:
    group = zarr.create_group(store=path, zarr_format=3, attributes=attributes)
    for name, values in arrays.items():
        value = np.ascontiguousarray(values)
        dims = SCHEMA[name][1]
        is_clip = dims[:2] == ('C', 'N')
        blosc = BloscCodec(cname='zstd', clevel=3, shuffle='bitshuffle', typesize=value.dtype.itemsize)
        array = group.create_array(
            name, shape=value.shape, dtype=value.dtype,
            chunks=(1, *value.shape[1:]) if is_clip else value.shape,
            compressors=[blosc, Crc32cCodec()], config={'write_empty_chunks': True},
        )
        array[...] = value


@dataclass(frozen=True)
class Episode:
    """A readable episode; arrays are read on demand, every failure is a DatasetError naming the path."""

    path: Path
    group: zarr.Group

    @classmethod
    def open(cls, path: Path | str) -> Episode:
        """Check version, attributes, array shapes and that no chunk is missing."""
        path = Path(path)
        try:
            group = zarr.open_group(store=path, mode='r', zarr_format=3)
            arrays = dict(group.arrays())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f'{path} is not a readable episode ({error}); collect it again') from error
        version = group.attrs.get('version')
        require(version in READABLE_VERSIONS, f'{path} has schema version {version}, expected one of '
                f'{READABLE_VERSIONS}', DatasetError)
        missing = [name for name in REQUIRED_ATTRIBUTES if name not in group.attrs]
        require(not missing, f'{path} lacks attributes {", ".join(missing)}', DatasetError)
        _check_arrays(arrays, str(path), SCHEMA if version == 1 else group.attrs.get('arrays', ALWAYS))
        _check_joint_names(arrays, dict(group.attrs), str(path))
        for name in arrays:
            require(arrays[name].nchunks_initialized == arrays[name].nchunks,
                    f'{path}: {name} has missing chunks; collect the episode again', DatasetError)
        return cls(path, group)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The attributes as plain values."""
        return dict(self.group.attrs)

    @property
    def task(self) -> str:
        """Task name."""
        return self.attributes['task']

    @property
    def seed(self) -> int:
        """Scene seed."""
        return self.attributes['seed']

    @property
    def instruction(self) -> str | None:
        """What the robot was told to do; None in episodes without it."""
        return self.attributes.get('instruction')

    @property
    def robot(self) -> str | None:
        """Name of the robot (`robots.registry`); None in older episodes, which are of the default one."""
        return self.attributes.get('robot')

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the columns of `joints`; () where the episode has no joints."""
        if 'joints' not in self.group:
            return ()
        count = self.group['joints'].shape[1]
        return tuple(self.attributes.get('joint_names') or [f'joint{i + 1}' for i in range(count)])

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Arrays of SCHEMA that this episode lacks, as own recordings may."""
        return tuple(name for name in SCHEMA if name not in self.group)

    def need(self, names: Iterable[str], purpose: str) -> None:
        """DatasetError that says what is missing for `purpose`."""
        lacking = [name for name in names if name in self.missing]
        require(not lacking, f'{self.path} has no {", ".join(lacking)}, which {purpose} needs; `geo4d data check` says '
                'what can be trained on it', DatasetError)

    @property
    def cameras(self) -> int:
        """Number of cameras C."""
        return self.group['rgb'].shape[0]

    @property
    def frames(self) -> int:
        """Number of frames N."""
        return self.group['rgb'].shape[1]

    def read(self, name: str, camera: int | None = None) -> np.ndarray:
        """One array of SCHEMA as stored, or one camera of it; raises DatasetError when it is damaged or missing."""
        require(name not in self.missing, f'{self.path} has no {name}; `geo4d data check` says what can be trained '
                'without', DatasetError)
        try:
            return self.group[name][... if camera is None else camera]
        except Exception as error:  # codecs raise many types; all of them mean damage here
            raise DatasetError(f'{self.path}: {name} is damaged ({error}); collect it again') from error

    def load(self) -> dict[str, np.ndarray]:
        """All arrays of SCHEMA that the episode has."""
        return {name: self.read(name) for name in SCHEMA if name not in self.missing}

    def frame(self, camera: int, index: int) -> RgbdFrame:
        """One camera's image at one time, stamped with the episode time."""
        rgb, depth = self.read('rgb', camera)[index], self.read('depth', camera)[index]
        stamp = round(float(self.read('times')[index]) * 1e9)
        return RgbdFrame(rgb, decode_depth(depth), self.read('K', camera), stamp, f'camera{camera + 1}')


def list_episodes(directory: Path | str, limit: int | None = None) -> list[Path]:
    """Paths of finished episodes, sorted by name, not opened; at most `limit` of them, spread evenly."""
    directory = Path(directory)
    require(directory.is_dir(), f'{directory} is not a directory of episodes; run `geo4d collect` first',
            DatasetError)
    paths = sorted(p for p in directory.glob('*.zarr') if not p.name.startswith('.'))
    if limit is None or limit >= len(paths):
        return paths
    return [paths[i] for i in np.linspace(0, len(paths) - 1, limit).astype(int)]


def iter_episodes(directory: Path | str) -> Iterator[Episode]:
    """Open every episode; a damaged one is named in a warning and left out."""
    for path in list_episodes(directory):
        episode = open_or_warn(path)
        if episode is not None:
            yield episode


def stored_version(path: Path) -> int | None:
    """The schema version that an episode says it has; None when it cannot be read."""
    try:
        return int(json.loads((path / 'zarr.json').read_text())['attributes']['version'])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def open_or_warn(path: Path) -> Episode | None:
    """The episode, or None after a warning that names what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', UserWarning)
            return Episode.open(path)
    except DatasetError as error:
        log.warning('skipped: %s', error)
        return None
