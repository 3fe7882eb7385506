"""One place that turns parameters into a tracker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.robots.gripper import GripperModel, gripper_of, load_gripper
from geo4d_ros.tracking.backends.registry import TRACKERS
from geo4d_ros.tracking.protocol import READOUTS, Tracker


def create_tracker(backend: str = 'model', *, readout: str = 'fused', gripper: GripperModel | dict | None = None,
                   masks: str = 'auto', segmenter: Path | str | None = None, mask_folder: Path | None = None,
                   views: int | None = None, expected_step_m: float | None = None,
                   expected_step_rad: float | None = None, opening: str = 'auto', **options: Any) -> Tracker:
    """The tracker by name; what cannot run here raises, nothing is replaced by something else.

    backend: one of `backends.registry.TRACKERS`. readout: video (the generated video only), state (the state stream
    only), fused (the state stream where the video shows the gripper there, elsewhere and without a stream the video;
    `solver.Motion`). gripper: a model, a description for `load_gripper`
    or None for the default robot's. masks: auto (the segmenter; the generator's mask where no weights are shipped) |
    generator | segmenter | colour | files. segmenter: weights folder, None for the shipped one. views: use the
    first so many. expected_step_m, expected_step_rad: usual motion between frames. opening: network | masks | auto
    (the network where it knows the gripper); tracks say in `details` which it was. options: the backend's own
    (`FoundationPoseOptions`; `client` for isaac).
    Raises ConfigurationError, BackendUnavailableError, CheckpointError.
    """
    require(readout in READOUTS, f'readout should be one of {READOUTS} but got {readout!r}', ConfigurationError)
    make = TRACKERS.get(backend)
    if readout == 'state':
        from geo4d_ros.tracking.readout import StateTracker

        return StateTracker()
    from geo4d_ros.tracking.model_tracker import ModelTrackerConfig
    from geo4d_ros.tracking.opening_network import opening_reader
    from geo4d_ros.tracking.segmentation.masks import mask_source

    model = load_gripper(gripper) if isinstance(gripper, dict) else gripper or gripper_of()
    config = ModelTrackerConfig(views=views, reader=opening_reader(opening, model))
    steps = {'step_m': expected_step_m, 'step_rad': expected_step_rad}
    config = replace(config, motion=replace(config.motion, **{k: v for k, v in steps.items() if v is not None}))
    source = mask_source(masks, model, segmenter, mask_folder)
    require(backend != 'model' or not options, f'the model tracker has no option {next(iter(options), "")!r}',
            ConfigurationError)
    return make(model, source, readout, config, **options)
