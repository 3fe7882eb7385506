"""What a recording of any kind looks like here: streams with their own stamps, before they become an episode.

Readers (`data/readers`) turn bags, folders and datasets into `Recording`s; `data/resampling.py` makes episodes of them.
What a source does not have is None. Units m, rad, ns; optical frames are OpenCV's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from geo4d_ros.errors import DatasetError, require
from geo4d_ros.geometry.transforms import interpolate


def _check_stamps(name: str, stamps: np.ndarray) -> None:
    require(stamps.ndim == 1 and stamps.dtype == np.int64, f'{name}: stamps should be (n,) int64 ns', DatasetError)
    require(len(stamps) >= 1, f'{name} is empty', DatasetError)
    require(bool((np.diff(stamps) > 0).all()), f'{name}: stamps do not rise; is the clock reset in the recording?',
            DatasetError)


@dataclass(frozen=True)
class ImageStream:
    """Pictures over time: stamps (n,) int64 [ns], rising; `load` yields those of rising indices, each once."""

    name: str
    stamps: np.ndarray
    load: Callable[[Sequence[int]], Iterator[np.ndarray]]

    def __post_init__(self) -> None:
        _check_stamps(self.name, self.stamps)

    def nearest(self, stamp: int) -> tuple[int, int]:
        """Index of the picture nearest to `stamp`, and how far off it is [ns]."""
        right = int(np.clip(np.searchsorted(self.stamps, stamp), 1, max(1, len(self.stamps) - 1)))
        i = min((right - 1, min(right, len(self.stamps) - 1)), key=lambda k: abs(int(self.stamps[k]) - stamp))
        return i, abs(int(self.stamps[i]) - stamp)


@dataclass(frozen=True)
class StateTrack:
    """A measured quantity over time: stamps (n,) int64 [ns], values (n, ...) float64; (n, 4, 4) are poses."""

    name: str
    stamps: np.ndarray
    values: np.ndarray

    def __post_init__(self) -> None:
        _check_stamps(self.name, self.stamps)
        require(len(self.values) == len(self.stamps) and bool(np.isfinite(self.values).all()),
                f'{self.name}: values should be finite, one per stamp', DatasetError)

    def at(self, stamp: int, max_gap_ns: int) -> np.ndarray:
        """The value at `stamp`, between its neighbours; DatasetError where they are more than `max_gap_ns` away."""
        right = int(np.searchsorted(self.stamps, stamp))
        if right < len(self.stamps) and self.stamps[right] == stamp:
            return self.values[right]
        low, high = max(right - 1, 0), min(right, len(self.stamps) - 1)
        off = max(stamp - int(self.stamps[low]), int(self.stamps[high]) - stamp)
        require(off <= max_gap_ns, f'{self.name} has a gap of {off * 1e-9:.2f} s around {stamp * 1e-9:.2f} s; cut the '
                'recording there', DatasetError)
        if low == high:
            return self.values[low]
        s = (stamp - int(self.stamps[low])) / (int(self.stamps[high]) - int(self.stamps[low]))
        if self.values.shape[1:] == (4, 4):
            return interpolate(self.values[low], self.values[high], np.array([s]))[0]
        return (1 - s) * self.values[low] + s * self.values[high]


@dataclass(frozen=True)
class CameraRecording:
    """One camera: colour (H, W, 3) uint8, aligned to it depth (H, W) float32 [m], labels (H, W) uint8; K of colour."""

    name: str
    colour: ImageStream
    depth: ImageStream | None = None
    labels: ImageStream | None = None
    K: np.ndarray | None = None
    T_base_camera: np.ndarray | None = None


@dataclass(frozen=True)
class Recording:
    """One demonstration. `opening` [m] is measured between the pads; `notes` say what a reader had to assume."""

    source: str
    cameras: tuple[CameraRecording, ...]
    joints: StateTrack | None = None
    joint_names: tuple[str, ...] = ()
    T_base_gripper: StateTrack | None = None
    opening: StateTrack | None = None
    opening_command: StateTrack | None = None
    object_pose: StateTrack | None = None
    task: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(len(self.cameras) >= 1, f'{self.source} has no camera: no colour pictures were found', DatasetError)


@dataclass(frozen=True)
class CameraCalibration:
    """What a user knows of a camera that the source does not say; overrides what it says."""

    K: np.ndarray | None = None
    T_base_camera: np.ndarray | None = None
    depth_unit_m: float | None = None


@dataclass(frozen=True)
class ImportOptions:
    """How to read a source. Frames and joints are ROS names; opening = offset + scale * sum of `gripper_joints`.

    `calibration` is by camera name; `cameras` picks cameras and their order, the first is the reference.
    """

    base_frame: str = 'base_link'
    gripper_frame: str = 'tool0'
    gripper_joints: tuple[str, ...] = ()
    opening_scale: float = 1.0
    opening_offset: float = 0.0
    cameras: tuple[str, ...] = ()
    calibration: Mapping[str, CameraCalibration] = field(default_factory=dict)


class RecordingReader(Protocol):
    """Reads one kind of source. Registered by name: built in, or by entry points of the group `geo4d_ros.readers`."""

    name: str

    def accepts(self, source: Path) -> bool:
        """Whether `source` looks like this kind; must not raise."""
        ...

    def read(self, source: Path, options: ImportOptions) -> Iterator[Recording]:
        """The demonstrations in `source`; DatasetError with one line on what is wrong with it."""
        ...


def calibrated(camera: CameraRecording, options: ImportOptions) -> CameraRecording:
    """The camera with the user's calibration in place of the source's."""
    known = options.calibration.get(camera.name)
    if known is None:
        return camera
    return CameraRecording(camera.name, camera.colour, camera.depth, camera.labels,
                           camera.K if known.K is None else known.K,
                           camera.T_base_camera if known.T_base_camera is None else known.T_base_camera)


def chosen_cameras(names: Sequence[str], options: ImportOptions, source: str) -> list[str]:
    """The cameras asked for, in that order; all of them, sorted, when none is asked for."""
    missing = [name for name in options.cameras if name not in names]
    require(not missing, f'{source} has no camera {", ".join(missing)}; it has {", ".join(sorted(names)) or "none"}',
            DatasetError)
    return list(options.cameras) or sorted(names)
