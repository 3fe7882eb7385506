"""Recordings become episodes: pictures near the ticks of a 4 Hz clock, cut and scaled, states in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from geo4d_ros.data.episodes import RATE_HZ, SCHEMA, encode_depth
from geo4d_ros.data.recordings import CameraRecording, ImageStream, Recording
from geo4d_ros.errors import DatasetError, require
from geo4d_ros.geometry.resampling import nearest_indices, resize_frame
from geo4d_ros.geometry.transforms import check_transform
from geo4d_ros.types import RgbdFrame

PERIOD_NS = round(1e9 / RATE_HZ)
_STATES = ('joints', 'T_base_gripper', 'opening', 'opening_command', 'object_pose')


class ResampledAttributes(TypedDict):
    """What of a `ResampledEpisode` goes into the episode's attributes."""

    largest_skew_ms: float
    camera_rates_hz: dict[str, float]
    notes: list[str]


@dataclass(frozen=True)
class ResampledEpisode:
    """Arrays of `episodes.SCHEMA` that the recording has, what it lacks, and how well its clocks fit."""

    arrays: dict[str, np.ndarray]
    missing: tuple[str, ...]
    largest_skew_ms: float
    camera_rates_hz: dict[str, float]
    notes: tuple[str, ...]

    def attributes(self) -> ResampledAttributes:
        """As JSON."""
        return {'largest_skew_ms': self.largest_skew_ms, 'camera_rates_hz': self.camera_rates_hz,
                'notes': list(self.notes)}


def resample(recording: Recording, size: tuple[int, int] | None, max_skew_s: float = 0.05,
             max_gap_s: float = 0.5) -> ResampledEpisode:
    """The episode of a recording; `size` (height, width) of all pictures, None keeps the first camera's.

    The first camera sets the time: its pictures nearest to every tick, 1 / RATE_HZ apart, as long as all cameras run.
    DatasetError where a picture is missing for more than half a tick, another stream is further than `max_skew_s`
    from the first camera, or states have gaps beyond `max_gap_s`.
    """
    stamps, picks, skew = _choose_pictures(recording, round(max_skew_s * 1e9))
    arrays: dict[str, np.ndarray] = {'times': (stamps - stamps[0]) * 1e-9}
    clips = [_camera_arrays(camera, picks[i], size) for i, camera in enumerate(recording.cameras)]
    size = clips[0]['rgb'].shape[1:3]
    for camera, clip in zip(recording.cameras, clips, strict=True):
        require(clip['rgb'].shape[1:3] == size, f'{recording.source}: camera {camera.name} has another size than the '
                'first; give --size', DatasetError)
    for name in ('rgb', 'depth', 'labels', 'K', 'T_base_camera'):
        if all(name in clip for clip in clips):
            arrays[name] = np.stack([clip[name] for clip in clips])
    for name in _STATES:
        track = getattr(recording, name)
        if track is not None:
            values = [track.at(int(stamp), round(max_gap_s * 1e9)) for stamp in stamps]
            arrays[name] = np.stack(values).astype(np.float64)
    rates = {c.name: _rate(c.colour.stamps) for c in recording.cameras}
    missing = tuple(name for name in SCHEMA if name not in arrays)
    return ResampledEpisode(arrays, missing, skew * 1e-6, rates, recording.notes)


def _rate(stamps: np.ndarray) -> float:
    """Median picture rate [Hz]; 0 with a single picture."""
    return float(1e9 / np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0


def _choose_pictures(recording: Recording, max_skew_ns: int) -> tuple[np.ndarray, list[dict[str, list[int]]], int]:
    """Stamps (n,) of the moments, per camera and kind of stream the indices of its pictures, the largest skew [ns]."""
    clock = recording.cameras[0].colour
    first = max(int(c.colour.stamps[0]) for c in recording.cameras) - max_skew_ns
    last = min(int(c.colour.stamps[-1]) for c in recording.cameras) + max_skew_ns
    inside = clock.stamps[(clock.stamps >= first) & (clock.stamps <= last)]
    require(len(inside) >= 1, f'{recording.source}: the cameras never run at the same time; are their clocks in step?',
            DatasetError)
    chosen: list[int] = []
    for tick in range(int(inside[0]), int(inside[-1]) + PERIOD_NS // 2, PERIOD_NS):
        index, off = clock.nearest(tick)
        require(off <= PERIOD_NS // 2, f'{recording.source}: camera {recording.cameras[0].name} has no picture for '
                f'{off * 1e-9:.2f} s around {(tick - int(clock.stamps[0])) * 1e-9:.2f} s; cut the recording there',
                DatasetError)
        if not chosen or index > chosen[-1]:
            chosen.append(index)
    stamps = clock.stamps[chosen]
    picks, skew = [], 0
    for camera in recording.cameras:
        streams = {'rgb': camera.colour, 'depth': camera.depth, 'labels': camera.labels}
        own: dict[str, list[int]] = {}
        for kind, stream in streams.items():
            if stream is not None:
                own[kind], off = _paired(stream, stamps, max_skew_ns, recording.source)
                skew = max(skew, off)
        picks.append(own)
    return stamps, picks, skew


def _paired(stream: ImageStream, stamps: np.ndarray, max_skew_ns: int, source: str) -> tuple[list[int], int]:
    found = [stream.nearest(int(stamp)) for stamp in stamps]
    worst = max(range(len(found)), key=lambda k: found[k][1])
    off = found[worst][1]
    require(off <= max_skew_ns, f'{source}: {stream.name} has no picture within {max_skew_ns * 1e-9:.3f} s of '
            f'{(int(stamps[worst]) - int(stamps[0])) * 1e-9:.2f} s, the nearest is {off * 1e-9:.3f} s off; cut the '
            'recording or raise --max-skew', DatasetError)
    return [index for index, _ in found], off


def _load(stream: ImageStream, indices: list[int], shrink: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Shrunk pictures of not falling indices, each decoded once."""
    distinct = sorted(set(indices))
    pictures = {i: shrink(picture) for i, picture in zip(distinct, stream.load(distinct), strict=True)}
    return np.stack([pictures[i] for i in indices])


def _camera_arrays(camera: CameraRecording, picks: dict[str, list[int]], size: tuple[int, int] | None,
                   ) -> dict[str, np.ndarray]:
    """The camera's arrays of SCHEMA without the leading C, as far as it has them."""
    first = next(iter(camera.colour.load(picks['rgb'][:1])))
    shape = first.shape[:2]
    height, width = size or shape
    K = np.eye(3) if camera.K is None else np.asarray(camera.K, np.float64)

    def shrink_colour(picture: np.ndarray) -> np.ndarray:
        require(picture.shape == (*shape, 3), f'camera {camera.name} changes its size in the recording', DatasetError)
        return _small_colour(picture, K, height, width).rgb

    def shrink_map(values: np.ndarray) -> np.ndarray:
        require(values.shape == shape, f'camera {camera.name}: depth or labels have {values.shape} pixels but colour '
                f'{shape}; record depth aligned to colour', DatasetError)
        rows, columns = _window(*shape, height, width)
        values = values[rows, columns]
        return values[np.ix_(nearest_indices(values.shape[0], height), nearest_indices(values.shape[1], width))]

    arrays = {'rgb': _load(camera.colour, picks['rgb'], shrink_colour)}
    if camera.depth is not None:
        arrays['depth'] = _load(camera.depth, picks['depth'], lambda metres: encode_depth(shrink_map(metres)))
    if camera.labels is not None:
        arrays['labels'] = _load(camera.labels, picks['labels'], shrink_map)
    if camera.K is not None:
        arrays['K'] = _small_colour(first, K, height, width).K
    if camera.T_base_camera is not None:
        check_transform(f'T_base_camera of {camera.name}', camera.T_base_camera)
        arrays['T_base_camera'] = np.asarray(camera.T_base_camera, np.float64)
    return arrays


def _window(height_in: int, width_in: int, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the largest middle part with the aspect of height x width."""
    rows, columns = height_in, width_in
    if width_in * height > width * height_in:
        columns = max(2, round(height_in * width / height))
    else:
        rows = max(2, round(width_in * height / width))
    top, left = (height_in - rows) // 2, (width_in - columns) // 2
    return slice(top, top + rows), slice(left, left + columns)


def _small_colour(picture: np.ndarray, K: np.ndarray, height: int, width: int) -> RgbdFrame:
    """The picture's middle at the wanted size with its K; without depth."""
    rows, columns = _window(*picture.shape[:2], height, width)
    K = K - np.array([[0, 0, columns.start], [0, 0, rows.start], [0, 0, 0]])
    rgb = np.ascontiguousarray(picture[rows, columns])
    return resize_frame(RgbdFrame(rgb, np.zeros(rgb.shape[:2], np.float32), K), height, width)
