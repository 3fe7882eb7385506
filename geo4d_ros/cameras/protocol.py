"""What the rest of the package needs of any RGB-D camera, and how what is wrong with a frame is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from geo4d_ros.errors import Geo4dError
from geo4d_ros.reasons import Reason
from geo4d_ros.types import Observation, RgbdFrame


class CameraError(Geo4dError):
    """No frame that may be used; `reason` is the code that a loop refuses or faults with."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f'{reason.code}: {reason.sentence} ({detail})')
        self.reason = reason


class RecordingEnded(CameraError):
    """A recording has no further frame."""

    def __init__(self, name: str) -> None:
        super().__init__(Reason.CAMERA_SILENT, f'the recording {name} has ended')


@runtime_checkable
class Camera(Protocol):
    """One RGB-D camera. name: of the camera. depth_unit: metres per count of its sensor."""

    name: str
    depth_unit: float

    def read(self, timeout: float = 2.0) -> RgbdFrame:
        """The newest frame that was not read before: depth aligned to colour, both of one moment.

        Raises CameraError: CAMERA_SILENT (nothing within `timeout` [s], unplugged, recording over),
        OBSERVATION_FROZEN (the same picture again), OBSERVATION_INVALID (cannot be used).
        """
        ...

    def close(self) -> None:
        """Release the device or file."""
        ...


@dataclass
class FrameWatch:
    """Names what is wrong with the order of frames: dropped ones are counted, frozen ones refused.

    numbers: of the device, by one per frame. dropped, frozen: how many so far.
    """

    name: str
    dropped: int = 0
    frozen: int = 0
    read: int = 0
    remarks: list[str] = field(default_factory=list)
    _number: int | None = None
    _stamp: int | None = None

    def check(self, number: int, stamp: int) -> None:
        """Take note of a frame; CameraError OBSERVATION_FROZEN when it is the last one again, CLOCK_JUMP when it is
        older.
        """
        last_number, last_stamp = self._number, self._stamp
        self._number, self._stamp = number, stamp
        if last_number is not None and last_stamp is not None:
            if number == last_number:
                self.frozen += 1
                raise CameraError(Reason.OBSERVATION_FROZEN, f'{self.name} gave frame {number} twice')
            if stamp < last_stamp:
                raise CameraError(Reason.CLOCK_JUMP, f'{self.name}: frame {number} is {(last_stamp - stamp) / 1e6:.0f} '
                                  'ms older than the one before')
            if number > last_number + 1:
                self.dropped += number - last_number - 1
                self._remark(f'{number - last_number - 1} frames dropped before frame {number}')
        self.read += 1

    def _remark(self, text: str) -> None:
        self.remarks = [*self.remarks[-9:], text]


def observe(cameras: list[Camera], timeout: float = 2.0, slop: float = 0.034, max_age: float | None = None,
            now: int | None = None) -> Observation:
    """One look of several cameras, the first the reference; the late ones are read again until their stamps agree.

    slop [s]: largest difference of stamps. max_age [s] against `now` [ns], unchecked when None.
    Raises CameraError: OBSERVATION_SKEWED, OBSERVATION_STALE, or what a camera raises.
    """
    frames = [camera.read(timeout) for camera in cameras]
    for _ in range(8):
        stamps = np.array([frame.stamp for frame in frames], np.int64)
        behind = np.flatnonzero(stamps.max() - stamps > slop * 1e9)
        if not len(behind):
            break
        for i in behind:
            frames[i] = cameras[i].read(timeout)
    else:
        raise CameraError(Reason.OBSERVATION_SKEWED,
                          f'{cameras[int(stamps.argmin())].name} stays {np.ptp(stamps) / 1e6:.0f} ms behind, allowed '
                          f'are {slop * 1e3:.0f}; do the cameras share a clock?')
    if max_age is not None and now is not None:
        age = (now - int(stamps.min())) * 1e-9
        if age > max_age:
            raise CameraError(Reason.OBSERVATION_STALE, f'{age:.2f} s old, allowed are {max_age:g}')
    return Observation(tuple(frames))
