"""What the models are compared with: one registry, so that each baseline is a config of the same code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
    'ours_rgb_cross_view': Baseline('ours with cross-view attention in the RGB stream too',
                                    'ours_rgb_cross_view.yaml', ('fused', 'video', 'state')),
    'ours_no_cross_view': Baseline('ours without multi-view attention', 'ours_no_cross_view.yaml',
                                   ('fused', 'video', 'state')),
    'svd_rgb': Baseline('SVD: RGB only', 'svd_rgb.yaml', ('video',), 'depth is the copy of frame 0'),
    'svd_rgb_cross_view': Baseline('SVD with multi-view attention: RGB only', 'svd_rgb_cross_view.yaml', ('video',),
                                   'depth is the copy of frame 0'),
    'camera_conditioned': Baseline('camera poses given (after CameraCtrl)', 'camera_conditioned.yaml',
                                   ('fused', 'video', 'state'), 'upper bound: it is told what ours has to infer'),
    'direct_policy': Baseline('direct policy: the encoder regresses the gripper path, no video',
                              'direct_policy.yaml', ('state',), 'its video rows mean nothing'),
    'inverse_dynamics': Baseline('RGB video of ours, actions by learned inverse dynamics (after UniPi)',
                                 'inverse_dynamics.yaml', ('state',)),
    'gaussian4d': Baseline('4D Gaussians (own torch re-implementation)', 'gaussian4d.yaml', ('video',)),
}


def found_checkpoints(folder: Path) -> dict[str, Path]:
    """Baselines that have a trained checkpoint directory of their name in `folder`, in registry order."""
    return {name: folder / name for name in BASELINES if (folder / name).is_dir()}
