"""Sample pictures during training: truth above prediction, RGB and depth, both views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from geo4d_ros.types import Observation, RgbdFrame, Video4D

_FAR_M = 2.0


def observation_of(window: dict) -> Observation:
    """The observation that one `EpisodeWindows` item starts from."""
    views = tuple(
        RgbdFrame(window['rgb'][v, 0].numpy(), window['depth'][v, 0].numpy(), window['K'][v].numpy())
        for v in range(len(window['K']))
    )
    opening = float(np.clip(window['opening'][0], 0.0, 0.5))
    return Observation(views, window['T_ref_gripper'][0].numpy().astype(np.float64), opening)


def comparison(window: dict, video: Video4D, frames: tuple[int, ...] = (1, 4, 7, 10)) -> np.ndarray:
    """(rows, columns, 3) uint8: per view, truth and prediction of RGB and depth at some frames."""
    frames = tuple(f for f in frames if f < video.frames)
    rows = []
    for v in range(video.views):
        truth_z, z = window['depth'][v].numpy(), [video.depth(v, f) for f in frames]
        rows.append([window['rgb'][v, f].numpy() for f in frames] + [_grey(truth_z[f]) for f in frames])
        rows.append([video.rgb[v, f] for f in frames] + [_grey(d) for d in z])
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _grey(depth: np.ndarray) -> np.ndarray:
    shade = np.where(depth > 0, 255 * (1 - np.clip(depth / _FAR_M, 0, 1)), 0).astype(np.uint8)
    return np.repeat(shade[..., None], 3, axis=-1)


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Write a PNG, making its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
