"""Depth noise like that of an active stereo camera (Intel RealSense D435), modelled in its disparity domain.

After the public descriptions of stereo depth noise (Handa et al. 2014; Chatterjee and Govindu 2015; Intel's
tuning guide: depth RMS = z^2 * subpixel / (focal * baseline)). The parameters are those of the data sheet
and of the guide; they are not fitted to one real camera.
"""

from __future__ import annotations

import numpy as np

from geo4d_ros.errors import require

NOISE_MODELS = ('none', 'd435')
BASELINE_M = 0.050  # between the infrared imagers, D435 data sheet
SENSOR_WIDTH = 640  # px; depth is matched at this width whatever the size of the image it ends up in
SUBPIXEL_RMS = 0.08  # px of disparity, Intel tuning guide
SUBPIXEL_STEP = 1 / 32  # px of disparity
RANGE_M = (0.2, 4.0)
EDGE_SHIFT = 0.25  # share of pixels that take the depth of a neighbour
EDGE_DROPOUT, GRAZING_DROPOUT, SPECKLE_DROPOUT = 0.35, 0.5, 0.002


def add_depth_noise(model: str, depth: np.ndarray, K: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Depth (H, W) float32 [m], 0 = invalid, as the named camera would report it; 'none' gives it back."""
    require(model in NOISE_MODELS, f'noise should be one of {", ".join(NOISE_MODELS)} but got {model!r}')
    return depth if model == 'none' else d435_depth(depth, K, rng)


def d435_depth(depth: np.ndarray, K: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Edge jitter, correlated disparity noise, quantisation, stereo shadow and drop-outs; 1 mm units.

    depth (H, W) float32 [m], 0 = invalid, K (3, 3) at that size; same shape, dtype and units come back.
    """
    jittered = _shift_edges(depth, rng)
    valid = (jittered > RANGE_M[0]) & (jittered < RANGE_M[1])
    safe = np.where(valid, jittered, 1.0).astype(np.float32)
    focal = np.float32(K[0, 0])
    sensor_scale = max(SENSOR_WIDTH / depth.shape[1], 1.0)
    disparity = focal * sensor_scale * BASELINE_M / safe
    valid &= ~_stereo_shadow(np.where(valid, disparity / sensor_scale, 0))
    valid &= ~_dropout(safe, valid, focal, rng)
    disparity = disparity + SUBPIXEL_RMS * _correlated_normal(depth.shape, rng)
    disparity = np.maximum(np.rint(disparity / SUBPIXEL_STEP) * SUBPIXEL_STEP, SUBPIXEL_STEP)
    noisy = np.rint(focal * sensor_scale * BASELINE_M / disparity * 1000) / 1000
    return np.where(valid, noisy, 0).astype(np.float32)


def _shift_edges(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some pixels take a horizontal or vertical neighbour's value; it only shows at depth edges."""
    draw = rng.random(depth.shape, np.float32) / EDGE_SHIFT
    out = depth.copy()
    for i, (axis, step) in enumerate(((0, 1), (0, -1), (1, 1), (1, -1))):
        take = (draw >= i / 4) & (draw < (i + 1) / 4)
        source = np.clip(np.arange(depth.shape[axis]) - step, 0, depth.shape[axis] - 1)
        np.copyto(out, depth.take(source, axis), where=take)
    return out


def _correlated_normal(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Unit normal noise with half its variance correlated over the matching window (4 px)."""
    rows, columns = (-(-s // 4) for s in shape)
    coarse = rng.standard_normal((rows, columns), np.float32).repeat(4, 0).repeat(4, 1)
    fine = rng.standard_normal(shape, np.float32)
    return (coarse[: shape[0], : shape[1]] + fine) * np.float32(np.sqrt(0.5))


def _stereo_shadow(disparity: np.ndarray) -> np.ndarray:
    """Pixels which something nearer, to their right, hides from the second imager."""
    columns = np.arange(disparity.shape[1], dtype=np.float32)
    matched = columns - disparity  # column in the second image
    from_right = np.minimum.accumulate(matched[:, ::-1], axis=1)[:, ::-1]
    hidden = np.zeros(disparity.shape, bool)
    hidden[:, :-1] = from_right[:, 1:] < matched[:, :-1] - 0.5
    return hidden


def _dropout(depth: np.ndarray, valid: np.ndarray, focal: np.float32, rng: np.random.Generator) -> np.ndarray:
    """Random losses: next to depth steps, on surfaces seen at a grazing angle, and a few specks anywhere."""
    slope = np.zeros(depth.shape, np.float32)
    for axis in (0, 1):
        step = np.abs(np.diff(np.where(valid, depth, 0), axis=axis))
        pad = [(0, 0), (0, 0)]
        pad[axis] = (0, 1)
        slope = np.maximum(slope, np.pad(step, pad))
    edge = slope > 0.03 + 0.02 * depth
    grazing = ~edge & (slope * focal / depth > 6)  # depth changes 6 times as fast as the surface's width
    draw = rng.random(depth.shape, np.float32)
    return (edge & (draw < EDGE_DROPOUT)) | (grazing & (draw < GRAZING_DROPOUT)) | (draw < SPECKLE_DROPOUT)
