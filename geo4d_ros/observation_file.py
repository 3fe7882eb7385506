"""One observation as a file: what `geo4d predict` reads and a cell can be asked to keep.

A NumPy .npz without pickled objects. For the views i = 0, 1, ... (0 is the reference):
`rgb_i` (H, W, 3) uint8; `depth_i` (H, W) float32 [m] with 0 = invalid; `K_i` (3, 3) float64 [px]; optional
`stamp_i` int64 [ns] and `frame_id_i`. Optional robot state: `T_ref_gripper` (4, 4) float64 (tool centre point in
the reference optical frame), `opening` float64 [m] and `arm_points` (J, 3) float64 [m] (`types.Observation`).
`version` is 1.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from geo4d_ros.errors import ConfigurationError, InvalidInputError, require
from geo4d_ros.types import Observation, RgbdFrame

VERSION = 1


def save_observation(path: Path, observation: Observation) -> None:
    """Write `observation`; ConfigurationError where `path` is not writable."""
    arrays: dict[str, Any] = {'version': VERSION}
    for i, view in enumerate(observation.views):
        arrays |= {f'rgb_{i}': view.rgb, f'depth_{i}': view.depth, f'K_{i}': view.K,
                   f'stamp_{i}': np.int64(view.stamp), f'frame_id_{i}': view.frame_id}
    if observation.T_ref_gripper is not None:
        arrays['T_ref_gripper'] = observation.T_ref_gripper
    if observation.opening is not None:
        arrays['opening'] = np.float64(observation.opening)
    if observation.arm_points is not None:
        arrays['arm_points'] = observation.arm_points
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **arrays)
    except OSError as error:
        raise ConfigurationError(f'cannot write {path}: {error.strerror}; choose a writable place') from error


def load_observation(path: Path) -> Observation:
    """Read and check an observation file; InvalidInputError names what is wrong with it."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InvalidInputError(f'observation file {path} does not exist') from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise InvalidInputError(f'{path} is not an observation file (.npz without objects): {error}') from error
    version = int(arrays.get('version', 0))
    require(version == VERSION, f'{path} has format version {version}, expected {VERSION}')
    count = sum(name.startswith('rgb_') for name in arrays)
    require(count >= 1, f'{path} has no rgb_0: it needs at least one view')
    try:
        views = tuple(RgbdFrame(arrays[f'rgb_{i}'], arrays[f'depth_{i}'], arrays[f'K_{i}'],
                                int(arrays.get(f'stamp_{i}', 0)), str(arrays.get(f'frame_id_{i}', f'view_{i}')))
                      for i in range(count))
        opening = arrays.get('opening')
        return Observation(views, arrays.get('T_ref_gripper'), None if opening is None else float(opening),
                           arm_points=arrays.get('arm_points'))
    except KeyError as error:
        raise InvalidInputError(f'{path} lacks {error.args[0]}') from None
    except InvalidInputError as error:
        raise InvalidInputError(f'{path}: {error}') from None
