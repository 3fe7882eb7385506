"""What the models are compared with: one registry, so that each baseline is a config of the same code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict


@dataclass(frozen=True)
class Baseline:
    """One row of the comparison.

    config: training config under config/train/baselines/, None where nothing is trained. readouts: how the loop
    can be driven from it. limits: what its figures cannot say.
    """

    title: str
    config: str | None
    readouts: tuple[str, ...]
    limits: str = ''


BASELINES: dict[str, Baseline] = {
    'copy': Baseline('frame 0 repeated', None, (), 'in every video table without asking'),
    'ours': Baseline('ours, at the common budget', 'ours.yaml', ('fused', 'video', 'state')),
    'ours_no_cross_view': Baseline('ours, nothing passes between the views', 'ours_no_cross_view.yaml',
                                   ('fused', 'video', 'state')),
    'ours_no_guide': Baseline('ours without the geometric hints', 'ours_no_guide.yaml', ('fused', 'video', 'state')),
    'direct_policy': Baseline('direct policy: the encoder regresses the gripper path, no video',
                              'direct_policy.yaml', ('state',), 'its video rows are the copy of frame 0'),
    'ours_camera_pose': Baseline("ours, told the cameras' true poses (after CameraCtrl)", 'ours_camera_pose.yaml',
                                 ('fused', 'video', 'state'), 'a bound: a real cell does not give it these poses'),
    'inverse_dynamics': Baseline('RGB video of ours, motion by inverse dynamics (after UniPi)', 'inverse_dynamics.yaml',
                                 ('state',), 'trained twice: the video and, as long again, the inverse dynamics'),
    'unet': Baseline("the paper's structure", 'unet.yaml', ('fused', 'video', 'state')),
    'unet_no_cross_view': Baseline("the paper's structure without multi-view attention", 'unet_no_cross_view.yaml',
                                   ('fused', 'video', 'state')),
    'unet_rgb_cross_view': Baseline("the paper's structure with cross-view attention in the RGB stream too",
                                    'unet_rgb_cross_view.yaml', ('fused', 'video', 'state')),
    'svd': Baseline('SVD: RGB streams alone, each view for itself', 'svd.yaml', ('video', 'fused', 'state'),
                    'its depth is the copy of frame 0'),
    'svd_cross_view': Baseline('SVD with multi-view attention: RGB streams alone', 'svd_cross_view.yaml',
                               ('video', 'fused', 'state'), 'its depth is the copy of frame 0'),
    'gaussians': Baseline('4D Gaussians fitted to the true video', None, (),
                          'a reconstruction that sees the future, no prediction: evaluate video --gaussians N'),
}


class Trained(TypedDict, total=False):
    """How long a checkpoint was trained: optimiser steps, minutes."""

    steps: int
    trained_min: float


def training_of(checkpoint: Path) -> Trained:
    """`steps` and `trained_min` of the run that wrote the checkpoint; empty where it left no record."""
    for name in ('run.json', 'summary.json'):
        record = checkpoint.parent / name
        if record.is_file():
            run = json.loads(record.read_text())
            return {'steps': run['steps'], 'trained_min': round(run['trained_min'], 2)}
    return {}


def found_checkpoints(folder: Path) -> dict[str, Path]:
    """Baselines trained into `folder`/NAME (`make baselines`), in registry order: name -> checkpoint."""
    places = {name: folder / name / 'model' for name in BASELINES}
    return {name: place for name, place in places.items() if place.is_dir()}
