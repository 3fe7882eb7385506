"""Films of closed-loop runs: what happened above, what was predicted below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geo4d_ros.evaluation.movies import label_image, side_by_side, stack_rows
from geo4d_ros.types import Video4D


def film_frame(real: Sequence[np.ndarray], predicted: Sequence[np.ndarray], caption: str,
               scale: int = 2) -> np.ndarray:
    """One picture: the real views over the predicted ones, all (H, W, 3) uint8 of one size; caption on top."""
    names = ['reference camera', 'second camera'] + [f'camera {i + 1}' for i in range(2, len(real))]
    top = side_by_side(list(real), [f'{name}: real' for name in names[:len(real)]], scale)
    bottom = side_by_side(list(predicted), [f'{name}: predicted' for name in names[:len(predicted)]], scale)
    strip = label_image(np.full((14, max(top.shape[1], bottom.shape[1]), 3), 20, np.uint8), caption)
    return stack_rows([strip, top, bottom])


def predicted_views(video: Video4D | None, progress: float, executed: int, like: np.ndarray) -> list[np.ndarray]:
    """The predicted frame of every view at `progress` (0..1) of the executed poses; black before a prediction."""
    if video is None:
        return [np.zeros_like(view) for view in like]
    frame = min(round(progress * executed), video.frames - 1)
    return list(video.rgb[:, frame])
