"""What a predicted video shows where it matters: object, gripper, arm, what they uncover, and how crisp it is.

A blurred picture scores well in a motion-masked mean; the object can be missing from it altogether. So each region of
the truth is judged by itself, and the object by whether its own colours are where it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation

REGIONS = ('object', 'object_moved', 'gripper', 'arm', 'robot', 'uncovered', 'static')
ARM, HAND, LAST_FINGER, OBJECT = 1, 2, 4, 5
MOVED_M, MOVED_RAD = 0.02, np.deg2rad(15)  # from its pose at frame 0: the object has moved
MIN_OBJECT_PIXELS = 12  # fewer true ones say nothing about a mask
MISSED_SHARE = 0.25  # of the true pixels, below which the object counts as missing
MAX_COLOUR_DISTANCE = 40.0  # of 255, from the nearest true colour
BLOCK = 8  # px
_COLOURS = 400


def region_masks(labels: np.ndarray, object_moved: np.ndarray) -> dict[str, np.ndarray]:
    """Region -> (T, H, W) bool of frames 1..T, by the true labels of that frame and of frame 0.

    labels (T+1, H, W); object_moved (T+1,) bool. `uncovered`: robot or object at frame 0, background now.
    """
    now, first = labels[1:], labels[:1]
    robot, was_robot = (now >= ARM) & (now <= LAST_FINGER), (first >= ARM) & (first <= LAST_FINGER)
    rest, was_rest = ~robot & (now != OBJECT), ~was_robot & (first != OBJECT)
    return {
        'object': now == OBJECT, 'object_moved': (now == OBJECT) & object_moved[1:, None, None],
        'gripper': (now >= HAND) & (now <= LAST_FINGER), 'arm': now == ARM, 'robot': robot,
        'uncovered': rest & ~was_rest, 'static': rest & was_rest,
    }


def has_moved(T_object: np.ndarray) -> np.ndarray:
    """(T+1,) bool: the object is 2 cm or 15 degrees from its pose at frame 0; T_object (T+1, 4, 4)."""
    shift = np.linalg.norm(T_object[:, :3, 3] - T_object[0, :3, 3], axis=1)
    cosine = (np.einsum('ij,tij->t', T_object[0, :3, :3], T_object[:, :3, :3]) - 1) / 2
    return (shift > MOVED_M) | (np.arccos(np.clip(cosine, -1, 1)) > MOVED_RAD)


@dataclass(frozen=True)
class Colours:
    """True colours of one episode: of the object (n, 3), of the robot (m, 3), and each view's background as far as it
    is ever seen, plate (V, H, W, 3) float32, NaN where it is not."""

    objects: np.ndarray
    robot: np.ndarray
    plate: np.ndarray


def episode_colours(rgb: np.ndarray, labels: np.ndarray) -> Colours:
    """Colours of an episode's true frames: rgb (V, N, H, W, 3) uint8, labels (V, N, H, W), still cameras."""
    robot = (labels >= ARM) & (labels <= LAST_FINGER)
    rest = ~robot & (labels != OBJECT)
    seen = rest.any(axis=1)
    first = rest.argmax(axis=1)
    plate = np.take_along_axis(rgb, first[:, None, :, :, None], axis=1)[:, 0].astype(np.float32)
    return Colours(_palette(rgb[labels == OBJECT], 4), _palette(rgb[robot], 8),
                   np.where(seen[..., None], plate, np.float32('nan')))


def _palette(pixels: np.ndarray, step: int) -> np.ndarray:
    """The distinct colours, rounded to `step`, thinned evenly to a few hundred."""
    colours = np.unique(pixels.astype(np.int64) // step, axis=0) * step + step / 2
    index = np.linspace(0, len(colours) - 1, min(len(colours), _COLOURS)).astype(int)
    return colours[index].astype(np.float32)


def object_pixels(rgb: np.ndarray, view: int, colours: Colours) -> np.ndarray:
    """(H, W) bool: pixels of a predicted picture (H, W, 3) uint8 that show the object.

    Their colour is nearer to the object's true colours than to the robot's and to the true background's within one
    pixel, and near enough. The truth itself reaches an IoU of about 0.9 by it.
    """
    image = rgb.astype(np.float32)
    plate = colours.plate[view]
    to_object = _nearest(image.reshape(-1, 3), colours.objects).reshape(rgb.shape[:2])
    mine = to_object < MAX_COLOUR_DISTANCE
    if not mine.any():
        return mine
    to_robot = np.full(mine.shape, np.inf, np.float32)
    to_robot[mine] = _nearest(image[mine], colours.robot)
    height, width = mine.shape
    padded = np.pad(plate, ((1, 1), (1, 1), (0, 0)), mode='edge')
    to_rest = np.full(mine.shape, np.inf, np.float32)
    for y in range(3):
        for x in range(3):
            distance = np.linalg.norm(image - padded[y:y + height, x:x + width], axis=-1)
            to_rest = np.fmin(to_rest, distance)
    return mine & (to_object < to_robot) & (to_object < to_rest)


def _nearest(pixels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Distance (n,) of pixels (n, 3) from the nearest of the colours (m, 3); infinite without any."""
    if len(colours) == 0:
        return np.full(len(pixels), np.inf, np.float32)
    squared = (pixels**2).sum(1)[:, None] + (colours**2).sum(1) - 2 * pixels @ colours.T
    return np.sqrt(np.maximum(squared.min(axis=1), 0))


def gradients(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brightness differences to the right and downwards, (T, H, W) float32, of pictures (T, H, W, 3) uint8."""
    grey = rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.diff(grey, axis=2, append=grey[:, :, -1:]), np.diff(grey, axis=1, append=grey[:, -1:])


def sharpness_sums(predicted: np.ndarray, true: np.ndarray, robot: np.ndarray) -> dict[str, float]:
    """Sums behind gradient energy, gradient cosine and block ratio on the robot and one pixel around it.

    predicted, true (T, H, W, 3) uint8; robot (T, H, W) bool.
    """
    near = np.stack([binary_dilation(m) for m in robot])
    (px, py), (tx, ty) = gradients(predicted), gradients(true)
    border = near & (np.arange(robot.shape[2]) % BLOCK == BLOCK - 1)
    inside = near & ~border
    return {
        'energy': float((px**2 + py**2)[near].sum()), 'true_energy': float((tx**2 + ty**2)[near].sum()),
        'product': float((px * tx + py * ty)[near].sum()),
        'border': float(np.abs(px)[border].sum()), 'inside': float(np.abs(px)[inside].sum()),
        'true_border': float(np.abs(tx)[border].sum()), 'true_inside': float(np.abs(tx)[inside].sum()),
    }


def sharpness(sums: dict[str, float]) -> dict[str, float]:
    """gradient_energy (over the truth's), gradient_cosine, block_ratio (steps at 8-px borders over others, over the
    truth's same ratio) from pooled `sharpness_sums`; NaN where the truth has none."""
    def ratio(a: float, b: float) -> float:
        return a / b if b > 0 else float('nan')

    return {
        'gradient_energy': ratio(sums['energy'], sums['true_energy']),
        'gradient_cosine': ratio(sums['product'], float(np.sqrt(sums['energy'] * sums['true_energy']))),
        'block_ratio': ratio(ratio(sums['border'], sums['inside']), ratio(sums['true_border'], sums['true_inside'])),
    }


def motion_error_cm(points: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> float:
    """Mean distance [cm] between the object's frame-0 points (N, 3) under two motions (4, 4); NaN without points."""
    if len(points) == 0:
        return float('nan')
    moved = [points @ T[:3, :3].T + T[:3, 3] for T in (predicted, true)]
    return float(100 * np.linalg.norm(moved[0] - moved[1], axis=1).mean())


__all__ = ['REGIONS', 'Colours', 'episode_colours', 'gradients', 'has_moved', 'motion_error_cm',
           'object_pixels', 'region_masks', 'sharpness', 'sharpness_sums']
