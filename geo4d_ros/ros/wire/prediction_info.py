"""geo4d_interfaces/PredictionInfo and back, total: what the image topics of a prediction cannot carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geo4d_interfaces.msg import PredictionInfo as InfoMessage

from geo4d_ros.errors import Geo4dError, require
from geo4d_ros.ros.wire.conversions import pose_message, read_pose, to_nanoseconds, to_stamp
from geo4d_ros.ros.wire.guard import Malformed
from geo4d_ros.types import GripperTrack, Observation, TrackStatus, Video4D

MOST_FRAMES, MOST_VIEWS = 256, 16
INFO_BYTES = 1 << 17  # of a message of so many frames, with room
STATUS = {status: getattr(InfoMessage, status.name) for status in TrackStatus}
_OF_NUMBER = {number: status for status, number in STATUS.items()}


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


def info_message(plan: str, observation: Observation, video: Video4D) -> InfoMessage:
    """The message of a prediction; `plan` is the id of the plan to come."""
    T, opening, state = observation.T_ref_gripper, observation.opening, video.state
    message = InfoMessage(
        id=plan, stamps=[to_stamp(stamp) for stamp in video.stamps.tolist()],
        k=video.K.astype(float).reshape(-1).tolist(), views=[pose_message(pose) for pose in video.T_ref_view],
        gripper=[] if T is None else [pose_message(T)], opening=[] if opening is None else [float(opening)],
        gripper_mask=video.gripper_mask is not None)
    message.header.stamp, message.header.frame_id = message.stamps[0], observation.views[0].frame_id
    if state is not None:
        message.state_poses = [pose_message(pose) for pose in state.T_ref_gripper]
        message.state_openings = state.opening.astype(float).tolist()
        message.state_confidences = state.confidence.astype(float).tolist()
        message.state_status = [STATUS[status] for status in state.status]
    return message


def parse_prediction_info(message: InfoMessage) -> PredictionInfo | Malformed:
    """What a message says; the first of its fields that cannot be used is named."""
    read: list[Any] = []  # in the order of _READERS, which is that of PredictionInfo's fields
    for field, reader in _READERS.items():
        try:
            read.append(reader(message))
        except Geo4dError as error:
            return Malformed(field, _shown(message, field), ' '.join(str(error).split())[:120])
    return PredictionInfo(*read)


def _shown(message: InfoMessage, field: str) -> Any:
    for name in field.split('.'):
        message = getattr(message, name)
    return message if isinstance(message, str) else f'{len(message)} values'


def _stamps(values: Any) -> tuple[int, ...]:
    require(1 < len(values) <= MOST_FRAMES, f'{len(values)} stamps, 2 to {MOST_FRAMES} are read')
    require(all(value.sec >= 0 and value.nanosec < 10**9 for value in values), 'no time of a frame')
    stamps = np.array([to_nanoseconds(value) for value in values])
    require(bool((np.diff(stamps) > 0).all()), 'the stamps do not increase')
    return tuple(stamps.tolist())


def _numbers(values: Any, n: int) -> np.ndarray:
    require(len(values) == n, f'{len(values)} numbers instead of {n}')
    out = np.array(values, np.float64)
    require(bool(np.isfinite(out).all()), 'not finite')
    return out


def _state(message: InfoMessage, frames: int) -> GripperTrack | None:
    columns = message.state_poses, message.state_openings, message.state_confidences, message.state_status
    if not any(len(column) for column in columns):
        return None
    require(all(len(column) == frames for column in columns), f'the state stream has not {frames} frames')
    require(all(number in _OF_NUMBER for number in message.state_status), 'an unknown status')
    return GripperTrack(np.array([read_pose(pose) for pose in message.state_poses]),
                        _numbers(message.state_openings, frames), _numbers(message.state_confidences, frames),
                        tuple(_OF_NUMBER[number] for number in message.state_status))


def _text(value: str) -> str:
    require(0 < len(value) <= 256, 'no text of 1 to 256 characters')
    return value


def _views(values: Any) -> np.ndarray:
    require(0 < len(values) <= MOST_VIEWS, f'{len(values)} views, 1 to {MOST_VIEWS} are read')
    return np.array([read_pose(pose) for pose in values])


def _intrinsics(message: InfoMessage) -> np.ndarray:
    K = _numbers(message.k, 9 * len(message.views)).reshape(-1, 3, 3)
    require(bool((K[:, [0, 1], [0, 1]] > 0).all()), 'a focal length that is not positive')
    return K


# In the order of PredictionInfo's fields.
_READERS: dict[str, Callable[[InfoMessage], Any]] = {
    'id': lambda m: _text(m.id),
    'header.frame_id': lambda m: _text(m.header.frame_id),
    'stamps': lambda m: _stamps(m.stamps),
    'k': _intrinsics,
    'views': lambda m: _views(m.views),
    'opening': lambda m: float(_numbers(m.opening, 1)[0]) if len(m.opening) else None,
    'gripper': lambda m: read_pose(m.gripper[0]) if len(m.gripper) else None,
    'gripper_mask': lambda m: m.gripper_mask,
    'state_poses': lambda m: _state(m, len(m.stamps)),
}
