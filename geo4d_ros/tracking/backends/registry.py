"""Trackers by name: built-in ones, and those that other packages add by the entry point `geo4d_ros.trackers`."""

from __future__ import annotations

from typing import Any, Protocol

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.registry import Registry, references
from geo4d_ros.tracking.protocol import Tracker


class TrackerMaker(Protocol):
    """What a name stands for: makes a tracker of one gripper (docs/how_to/extend.md)."""

    def __call__(self, gripper: Any, masks: Any, readout: str, config: Any, **options: Any) -> Tracker:
        """gripper: `robots.gripper.GripperModel`. masks: `tracking.segmentation.masks.MaskSource`. readout: fused or
        video. config: `tracking.model_tracker.ModelTrackerConfig`. options: the backend's own.

        Raises ConfigurationError for an option that it does not know, BackendUnavailableError where it cannot run.
        """
        ...


TRACKERS: Registry[TrackerMaker] = Registry('geo4d_ros.trackers', 'tracker', lambda: references(
    'geo4d_ros.trackers', {
        'model': 'geo4d_ros.tracking.model_tracker:ModelTracker',
        'foundationpose': 'geo4d_ros.tracking.backends.external:foundationpose_tracker',
        'isaac': 'geo4d_ros.tracking.backends.external:isaac_tracker',
    }), ConfigurationError)
