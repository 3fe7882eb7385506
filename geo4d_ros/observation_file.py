"""One observation as a file: what `geo4d predict` reads and a cell can be asked to keep.

A NumPy .npz without pickled objects. For the views i = 0, 1, ... (0 is the reference):
`rgb_i` (H, W, 3) uint8; `depth_i` (H, W) float32 [m] with 0 = invalid; `K_i` (3, 3) float64 [px]; optional
`stamp_i` int64 [ns] and `frame_id_i`. Optional robot state: `T_ref_gripper` (4, 4) float64 (tool centre point in
the reference optical frame), `opening` float64 [m] and `arm_points` (J, 3) float64 [m] (`types.Observation`).
`version` is 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from geo4d_ros.errors import ConfigurationError, InvalidInputError, require
from geo4d_ros.types import Observation, RgbdFrame

VERSION = 1
Number = TypeVar('Number', int, float)


def save_observation(path: Path, observation: Observation) -> None:
    """Write `observation`; ConfigurationError where `path` is not writable."""
    arrays: dict[str, ArrayLike] = {'version': VERSION}
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
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # `allow_pickle` is none of the names
    except OSError as error:
        raise ConfigurationError(f'cannot write {path}: {error.strerror}; choose a writable place') from error


def _scalar(path: Path, arrays: dict[str, np.ndarray], name: str, default: Number) -> Number:
    """One number of the file, as an int or float like the default."""
    try:
        return type(default)(arrays.get(name, default))
    except (TypeError, ValueError, OverflowError):
        raise InvalidInputError(f'{path}: {name} should be one number but is {arrays[name].dtype} '
                                f'{arrays[name].shape}') from None


def load_observation(path: Path) -> Observation:
    """Read and check an observation file; InvalidInputError names what is wrong with it."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InvalidInputError(f'observation file {path} does not exist') from None
    except Exception as error:  # damaged archives make zipfile, zlib and NumPy raise whatever they like
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidInputError(f'{path} is not an observation file (.npz without objects): {reason}') from error
    version = _scalar(path, arrays, 'version', 0)
    require(version == VERSION, f'{path} has format version {version}, expected {VERSION}')
    count = sum(name.startswith('rgb_') for name in arrays)
    require(count >= 1, f'{path} has no rgb_0: it needs at least one view')
    try:
        views = tuple(RgbdFrame(arrays[f'rgb_{i}'], arrays[f'depth_{i}'], arrays[f'K_{i}'],
                                _scalar(path, arrays, f'stamp_{i}', 0), str(arrays.get(f'frame_id_{i}', f'view_{i}')))
                      for i in range(count))
        opening = None if 'opening' not in arrays else _scalar(path, arrays, 'opening', 0.0)
        return Observation(views, arrays.get('T_ref_gripper'), opening,
                           arm_points=arrays.get('arm_points'))
    except KeyError as error:
        raise InvalidInputError(f'{path} lacks {error.args[0]}') from None
    except InvalidInputError as error:
        raise InvalidInputError(f'{path}: {error}') from None
