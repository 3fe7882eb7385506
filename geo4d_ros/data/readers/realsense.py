"""Recordings of the RealSense SDK and viewer: ROS 1 bags (`.bag`) with the SDK's own topics.

`/device_0/sensor_<s>/<Stream>_<i>/image/data` and `.../info/camera_info`; `.../tf/<group>` maps points of the group's
reference stream into the stream; `/device_0/sensor_<s>/option/Depth_Units/value` [m per count]. Depth is not aligned in
such a file: it is drawn into the colour picture here. There is no robot in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geo4d_ros.data.readers.bag_file import BagFile
from geo4d_ros.data.readers.ros_images import distortion, read_colour, read_depth, read_intrinsics
from geo4d_ros.data.recordings import CameraRecording, ImageStream, ImportOptions, Recording, calibrated, chosen_cameras
from geo4d_ros.errors import DatasetError, require
from geo4d_ros.geometry.transforms import from_quaternion, invert, transform_points

_DATA, _INFO = '/image/data', '/info/camera_info'
_DEPTH_UNITS = '/option/Depth_Units/value'


class RealSenseReader:
    """One file is one camera's demonstration."""

    name = 'realsense'

    def accepts(self, source: Path) -> bool:
        """A `.bag` file."""
        return source.suffix == '.bag' and source.is_file()

    def read(self, source: Path, options: ImportOptions) -> Iterator[Recording]:
        """The camera, named after the file; `--calibration` places it in the robot's base frame."""
        with BagFile(source) as bag:
            yield self._recording(bag, source, options)

    def _recording(self, bag: BagFile, source: Path, options: ImportOptions) -> Recording:
        colour, depth = (_stream_prefix(bag, kind) for kind in ('Color', 'Depth'))
        require(colour is not None, f'{source} has no colour stream of the RealSense SDK; it has topics '
                f'{", ".join(sorted(bag.types)[:6])}', DatasetError)
        name = source.stem
        chosen_cameras([name], options, str(source))
        facts = _Facts(bag, colour, depth)
        colours = bag.pictures(colour + _DATA, read_colour)
        known = options.calibration.get(name)
        unit = known.depth_unit_m if known and known.depth_unit_m else facts.depth_unit
        notes = list(facts.notes)
        aligned = None
        if depth is not None:
            aligned = _aligned(bag, depth, colours, facts, unit, str(source))
        camera = calibrated(CameraRecording(name, colours, aligned, None, facts.K.get(colour)), options)
        return Recording(str(source), (camera,), notes=tuple(notes))


def _stream_prefix(bag: BagFile, kind: str) -> str | None:
    topics = sorted(t for t in bag.types if t.endswith(_DATA) and t.split('/')[-3].startswith(f'{kind}_'))
    return topics[0].removesuffix(_DATA) if topics else None


class _Facts:
    """Intrinsics, extrinsics and unit of the two streams."""

    def __init__(self, bag: BagFile, colour: str, depth: str | None) -> None:
        self.K: dict[str, np.ndarray] = {}
        self.depth_unit, self.notes = 0.001, []
        T_stream_group: dict[str, np.ndarray] = {}
        streams = [s for s in (colour, depth) if s is not None]
        topics = [t for t in bag.types if any(t == s + _INFO or t.startswith(f'{s}/tf/') for s in streams)]
        sensor = '' if depth is None else depth.rsplit('/', 1)[0]
        topics += [t for t in bag.types if t == sensor + _DEPTH_UNITS]
        for topic, _, message in bag.messages(topics):
            stream = next((s for s in streams if topic.startswith(s + '/')), '')
            if topic.endswith(_INFO):
                self.K[stream] = read_intrinsics(message)
                if distortion(message) > 1e-6:
                    self.notes.append(f'{stream}: the lens distortion in camera_info is not taken out')
            elif topic.endswith(_DEPTH_UNITS):
                self.depth_unit = float(message.data)
            else:
                T_stream_group[stream] = _matrix(message)
        self.T_colour_depth: np.ndarray | None = None
        if depth is not None and {colour, depth} <= set(T_stream_group):
            self.T_colour_depth = T_stream_group[colour] @ invert(T_stream_group[depth])


def _matrix(transform: Any) -> np.ndarray:
    q, t = transform.rotation, transform.translation
    return from_quaternion(np.array([q.x, q.y, q.z, q.w]), np.array([t.x, t.y, t.z]))


def _aligned(bag: BagFile, depth: str, colours: ImageStream, facts: _Facts, unit: float, source: str) -> ImageStream:
    """The depth stream as the colour camera would see it."""
    require(len(facts.K) == 2, f'{source}: camera_info of colour or depth is missing; record again', DatasetError)
    require(facts.T_colour_depth is not None, f'{source}: how depth and colour lie to each other is missing; record '
            'both streams of one camera', DatasetError)
    T, K_depth = facts.T_colour_depth, facts.K[depth]
    K_colour = next(K for stream, K in facts.K.items() if stream != depth)
    shape = next(iter(colours.load([0]))).shape[:2]
    raw = bag.pictures(depth + _DATA, lambda message: read_depth(message, unit))

    def load(indices: Sequence[int]) -> Iterator[np.ndarray]:
        for picture in raw.load(indices):
            yield align_depth(picture, K_depth, T, K_colour, shape)

    return ImageStream(raw.name, raw.stamps, load)


def align_depth(depth: np.ndarray, K_depth: np.ndarray, T_colour_depth: np.ndarray, K_colour: np.ndarray,
                shape: tuple[int, int]) -> np.ndarray:
    """Depth (H, W) float32 [m] of one camera drawn into another's picture of `shape`: the nearest surface wins.

    Every depth pixel covers the rectangle between its corners, so that a coarser depth leaves no holes in colour;
    0 where nothing was measured.
    """
    rows, columns = np.nonzero(depth > 0)
    z = depth[rows, columns].astype(np.float64)
    corners = []
    for shift in (-0.5, 0.5):
        pixels = np.stack([columns + shift, rows + shift, np.ones(len(rows))])
        points = transform_points(T_colour_depth, ((np.linalg.inv(K_depth) @ pixels) * z).T)
        seen = K_colour @ points.T
        corners.append((seen[:2] / np.maximum(seen[2], 1e-9), points[:, 2]))
    (low, far), (high, _) = corners
    out = np.full(shape, np.inf)
    keep = far > 0
    left, top = (np.ceil(v[keep] - 1e-6).astype(np.int64) for v in low)
    right, bottom = (np.maximum(np.ceil(v[keep] - 1e-6).astype(np.int64), least + 1)
                     for v, least in zip(high, (left, top), strict=True))
    values = far[keep]
    for dy in range(int((bottom - top).max(initial=0))):
        for dx in range(int((right - left).max(initial=0))):
            y, x = top + dy, left + dx
            inside = (y < bottom) & (x < right) & (y >= 0) & (x >= 0) & (y < shape[0]) & (x < shape[1])
            np.minimum.at(out, (y[inside], x[inside]), values[inside])
    return np.where(np.isfinite(out), out, 0).astype(np.float32)
