"""Image quality of predicted colour frames: PSNR and SSIM, over whole frames or over a pixel mask."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from geo4d_ros.errors import require

PSNR_CEILING_DB = 100.0


def _as_unit_float(image: np.ndarray) -> np.ndarray:
    require(image.dtype == np.uint8 and image.shape[-1] == 3,
            f'images should be (..., H, W, 3) uint8 but got {image.shape} {image.dtype}')
    return image.astype(np.float64) / 255


def psnr(predicted: np.ndarray, true: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal to noise ratio [dB] of (..., H, W, 3) uint8 images, over `mask` (..., H, W) bool.

    Identical images give `PSNR_CEILING_DB`; an empty mask gives NaN (nothing to compare).
    """
    require(predicted.shape == true.shape, f'images differ in shape: {predicted.shape}, {true.shape}')
    squared = (_as_unit_float(predicted) - _as_unit_float(true)) ** 2
    squared = squared if mask is None else squared[mask]
    if squared.size == 0:
        return float('nan')
    return float(min(PSNR_CEILING_DB, -10 * np.log10(max(squared.mean(), 1e-12))))


def ssim_map(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Structural similarity, (H, W) float64, channel mean (Wang 2004; 11x11 Gaussian, sigma 1.5)."""
    require(predicted.shape == true.shape and predicted.ndim == 3,
            f'SSIM compares two (H, W, 3) images but got {predicted.shape}, {true.shape}')
    a, b = _as_unit_float(predicted), _as_unit_float(true)

    def blur(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, sigma=(1.5, 1.5, 0), radius=(5, 5, 0))

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (similarity / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean(axis=-1)


def ssim(predicted: np.ndarray, true: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean of `ssim_map` over (T, H, W, 3) clips or (H, W, 3) images, inside `mask`; NaN if that is empty."""
    if predicted.ndim == 3:
        values = ssim_map(predicted, true)
    else:
        require(predicted.shape == true.shape, f'clips differ in shape: {predicted.shape}, {true.shape}')
        values = np.stack([ssim_map(p, t) for p, t in zip(predicted, true, strict=True)])
    values = values if mask is None else values[mask]
    return float(values.mean()) if values.size else float('nan')
