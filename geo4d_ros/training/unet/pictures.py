"""Sample pictures and films during training: truth above prediction, RGB and depth, both views."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

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
        pairs = [_truth_and_prediction(window, video, v, f) for f in frames]
        rows += [np.concatenate([p[row, kind] for kind in (0, 1) for p in pairs], axis=1) for row in (0, 1)]
    return np.concatenate(rows)


def film(window: dict, video: Video4D) -> np.ndarray:
    """(T, rows, columns, 3) uint8 of frames 1..T: per view, truth above prediction, RGB beside depth."""
    pictures = []
    for f in range(1, video.frames):
        views = [_truth_and_prediction(window, video, v, f) for v in range(video.views)]
        pictures.append(np.concatenate([np.concatenate(row, axis=1) for view in views for row in view]))
    return np.stack(pictures)


def _truth_and_prediction(window: dict, video: Video4D, view: int, frame: int) -> np.ndarray:
    """(2, 2, H, W, 3): truth and prediction, RGB and depth."""
    truth = (window['rgb'][view, frame].numpy(), _grey(window['depth'][view, frame].numpy()))
    return np.stack([truth, (video.rgb[view, frame], _grey(video.depth(view, frame)))])


def _grey(depth: np.ndarray) -> np.ndarray:
    shade = np.where(depth > 0, 255 * (1 - np.clip(depth / _FAR_M, 0, 1)), 0).astype(np.uint8)
    return np.repeat(shade[..., None], 3, axis=-1)


def gif(pictures: np.ndarray, frame_s: float) -> bytes:
    """An endless GIF of pictures (T, rows, columns, 3), which TensorBoard and browsers play."""
    images = [Image.fromarray(picture) for picture in pictures]
    out = io.BytesIO()
    images[0].save(out, 'gif', save_all=True, append_images=images[1:], duration=int(1000 * frame_s), loop=0)
    return out.getvalue()


def log_film(writer: Any, tag: str, pictures: np.ndarray, frame_s: float, step: int) -> None:
    """Put a film into a TensorBoard log; its own `add_video` needs moviepy, and makes the same summary."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    height, width = pictures.shape[1:3]
    encoded = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif(pictures, frame_s))
    writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=encoded)]), step)


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Write a PNG, making its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
