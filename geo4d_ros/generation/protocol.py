"""What the rest of the package needs of any 4D video generator."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from geo4d_ros.types import Observation, Video4D


@runtime_checkable
class VideoGenerator(Protocol):
    """Predicts the next seconds of every view from one observation.

    name: for reports. frames: predicted frames T (the video has T+1, frame 0 is the observation).
    dt: seconds between frames.
    """

    name: str
    frames: int
    dt: float

    def predict(self, observation: Observation, seed: int = 0) -> Video4D:
        """The video of the next `frames * dt` seconds; the same seed gives the same video.

        Views of another size than the generator's are resized; the result's K belong to its own size.
        Raises InvalidInputError when the observation lacks a view or state that the model needs.
        """
        ...
