"""geo4d/prediction/info -> `PredictionInfo`, total: what the image topics of a prediction cannot carry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from std_msgs.msg import String

from geo4d_ros.errors import Geo4dError, require
from geo4d_ros.ros.wire.guard import Malformed
from geo4d_ros.types import GripperTrack, TrackStatus

MOST_FRAMES = 256


def track_to_json(track: GripperTrack) -> dict[str, Any]:
    """Plain values of a track."""
    return {'T_ref_gripper': track.T_ref_gripper.tolist(), 'opening': track.opening.tolist(),
            'confidence': track.confidence.tolist(), 'status': [s.value for s in track.status]}


def track_from_json(values: dict[str, Any]) -> GripperTrack:
    """The track of `track_to_json`."""
    return GripperTrack(np.array(values['T_ref_gripper'], float), np.array(values['opening'], float),
                        np.array(values['confidence'], float), tuple(TrackStatus(s) for s in values['status']))


@dataclass(frozen=True)
class PredictionInfo:
    """What the image topics cannot carry; stamps (T+1,) [ns], K (V, 3, 3), T_ref_view (V, 4, 4)."""

    plan: str
    frame_id: str
    stamps: tuple[int, ...]
    K: np.ndarray
    T_ref_view: np.ndarray
    opening: float | None
    T_ref_gripper: np.ndarray | None
    gripper_mask: bool
    state: GripperTrack | None


def parse_prediction_info(message: String) -> PredictionInfo | Malformed:
    """Total reader of `prediction_info` as JSON; the first field that cannot be used is named."""
    try:
        values = json.loads(message.data, parse_constant=lambda name: name)
    except (ValueError, RecursionError) as error:
        return Malformed('data', message.data, f'no JSON ({str(error)[:60]})')
    if not isinstance(values, dict):
        return Malformed('data', message.data, 'no JSON object')
    field = 'plan'
    try:
        plan, frame_id = _text(values['plan']), _text(values[field := 'frame_id'])
        stamps = _stamps(values[field := 'stamps'])
        K = _array(values[field := 'K'], (None, 3, 3))
        T_ref_view = _array(values[field := 'T_ref_view'], (len(K), 4, 4))
        opening, T = values[field := 'opening'], values[field := 'T_ref_gripper']
        opening = None if opening is None else float(_array(opening, ()))
        T = None if T is None else _array(T, (4, 4))
        mask = values[field := 'gripper_mask']
        require(isinstance(mask, bool), 'no boolean')
        state = values[field := 'state']
        track = None if state is None else track_from_json(state)
        require(track is None or len(track) == len(stamps), 'another number of frames')
    except (KeyError, TypeError, ValueError, OverflowError, Geo4dError) as error:
        missing = isinstance(error, KeyError) and field not in values
        return Malformed(field, None if missing else values.get(field), 'missing' if missing else
                         ' '.join(str(error).split())[:120])
    return PredictionInfo(plan, frame_id, stamps, K, T_ref_view, opening, T, mask, track)


def _text(value: Any) -> str:
    require(isinstance(value, str) and 0 < len(value) <= 256, 'no text of 1 to 256 characters')
    return value


def _stamp(value: Any) -> int:
    require(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62, f'no stamp: {value!r:.40}')
    return value


def _stamps(value: Any) -> tuple[int, ...]:
    require(isinstance(value, list) and 1 < len(value) <= MOST_FRAMES, f'no list of 2 to {MOST_FRAMES} stamps')
    stamps = tuple(_stamp(item) for item in value)
    require(all(a < b for a, b in pairwise(stamps)), 'the stamps do not increase')
    return stamps


def _array(value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    out = np.array(value, np.float64)
    good = out.ndim == len(shape) and all(w is None or w == n for w, n in zip(shape, out.shape, strict=True))
    require(good and out.size <= 4096, f'shape {out.shape} instead of {shape}')
    require(bool(np.isfinite(out).all()), 'not finite')
    return out
