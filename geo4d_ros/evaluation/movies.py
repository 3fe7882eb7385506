"""Writing mp4 files that every browser plays, and the small picture work around them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from geo4d_ros.errors import BackendUnavailableError, ConfigurationError, require


def write_mp4(path: Path, frames: list[np.ndarray] | np.ndarray, fps: float = 10.0) -> None:
    """Write (H, W, 3) uint8 frames as H.264 (yuv420p, fast start); odd sizes are padded by one pixel.

    Raises ConfigurationError where `path` cannot be written, BackendUnavailableError without an ffmpeg.
    """
    require(len(frames) >= 1, 'a movie needs at least one frame')
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise BackendUnavailableError('mp4 needs imageio-ffmpeg; pip install "imageio-ffmpeg"') from error
    height, width = frames[0].shape[:2]
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    size = (width + width % 2, height + height % 2)
    options = ['-pix_fmt', 'yuv420p', '-crf', '20', '-preset', 'veryfast', '-threads', '1', '-movflags', '+faststart']
    writer = imageio_ffmpeg.write_frames(str(path), size, fps=fps, codec='libx264', macro_block_size=2,
                                         ffmpeg_log_level='error', output_params=options)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer.send(None)
        for frame in frames:
            require(frame.shape == (height, width, 3) and frame.dtype == np.uint8,
                    f'movie frames should all be {(height, width, 3)} uint8 but one is {frame.shape}')
            writer.send(np.ascontiguousarray(np.pad(frame, padding, mode='edge')))
    except OSError as error:
        raise ConfigurationError(f'cannot write {path}: {error}; choose a writable place') from error
    finally:
        writer.close()


def side_by_side(images: list[np.ndarray], labels: list[str] | None = None, scale: int = 1) -> np.ndarray:
    """Images (H, W, 3) uint8 of one height in a row, enlarged by whole pixels, each with its label on top."""
    tiles = []
    for i, image in enumerate(images):
        tile = np.repeat(np.repeat(image, scale, axis=0), scale, axis=1)
        tiles.append(label_image(tile, labels[i]) if labels else tile)
    return np.concatenate(tiles, axis=1)


def stack_rows(rows: list[np.ndarray]) -> np.ndarray:
    """Rows of images on top of each other; narrower ones are padded black on the right."""
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0))) for r in rows], axis=0)


def label_image(image: np.ndarray, text: str) -> np.ndarray:
    """The image with a line of white text on a dark strip inside its top edge."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, image.shape[1], 11), fill=(20, 20, 20))
    draw.text((2, 0), text, fill=(240, 240, 240))
    return np.asarray(picture)


def depth_colours(depth: np.ndarray, near: float = 0.4, far: float = 1.6) -> np.ndarray:
    """Depth (H, W) [m] as (H, W, 3) uint8: near red, far blue, invalid black."""
    s = np.clip((depth - near) / (far - near), 0, 1)[..., None]
    stops = np.array([[200, 40, 30], [240, 200, 60], [60, 170, 120], [40, 60, 150]], np.float64)
    position = s[..., 0] * (len(stops) - 1)
    low = np.minimum(position.astype(int), len(stops) - 2)
    t = (position - low)[..., None]
    colours = (1 - t) * stops[low] + t * stops[low + 1]
    return np.where(depth[..., None] > 0, colours, 0).astype(np.uint8)
