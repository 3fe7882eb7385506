"""What the rest of the package needs of any gripper tracker."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from geo4d_ros.types import GripperTrack, Observation, Video4D

READOUTS = ('fused', 'video', 'state')


@runtime_checkable
class Tracker(Protocol):
    """Reads the gripper's poses and opening off a predicted video.

    name: backend for reports. readout: one of `READOUTS`.
    """

    name: str
    readout: str

    def track(self, video: Video4D, observation: Observation) -> GripperTrack:
        """The gripper in every frame of the video; frame 0 is the measured state of the observation.

        Frames that cannot be read are LOST with confidence 0 and hold the last trusted pose: a track is
        never extrapolated and every frame after the first LOST one is LOST. Raises InvalidInputError when the
        inputs break the contract (no measured gripper pose, other number of views, readout `state` of a
        video without a state stream; `fused` then reads the video alone and says so in details) and
        BackendUnavailableError when the backend cannot run here.
        """
        ...

    def close(self) -> None:
        """Release processes and files; the tracker cannot be used afterwards."""
        ...
