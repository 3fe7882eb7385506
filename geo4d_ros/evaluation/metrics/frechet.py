"""Frechet distance between sets of clips, on a fixed encoder of our own.

The published Frechet video distance uses I3D features, whose weights no package registry carries. The default
here is a fixed, hand-built encoder; its name goes with every figure so that nobody compares it with published
FVD. A TorchScript I3D given by path is used in its place, and named so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.stats import ortho_group

from geo4d_ros.errors import ConfigurationError, require

OWN_ENCODER = 'geo4d-gradient-energy-v1 (not comparable with published FVD)'
I3D_ENCODER = 'I3D TorchScript supplied by the user'
FEATURES = 32


def own_features(clip: np.ndarray) -> np.ndarray:
    """Features (FEATURES,) float64 of a clip (T, H, W, 3) uint8: what moves where and when, and how it looks.

    Local means of brightness, spatial gradients and frame differences on a 3x4 grid over three thirds of the
    clip, rotated by a fixed orthogonal matrix and cut to FEATURES numbers.
    """
    require(clip.ndim == 4 and len(clip) >= 4 and min(clip.shape[1:3]) >= 12,
            f'a clip should be (T>=4, H>=12, W>=12, 3) but got {clip.shape}')
    grey = clip.astype(np.float64).mean(-1) / 255
    grad_y, grad_x = np.gradient(grey, axis=(1, 2))
    motion = np.abs(np.diff(grey, axis=0, prepend=grey[:1]))
    channels = [grey, np.abs(grad_x), np.abs(grad_y), motion]
    parts = []
    for third in np.array_split(np.arange(len(clip)), 3):
        for channel in channels:
            parts.append(_grid_means(channel[third].mean(0)))
    raw = np.concatenate(parts)
    return _rotation(len(raw))[:FEATURES] @ raw


def _grid_means(image: np.ndarray) -> np.ndarray:
    """Block means on 3 rows x 4 columns, (12,)."""
    height, width = image.shape
    smooth = uniform_filter(image, (height // 3, width // 4), mode='nearest')
    rows = ((np.arange(3) + 0.5) * height / 3).astype(int)
    columns = ((np.arange(4) + 0.5) * width / 4).astype(int)
    return smooth[np.ix_(rows, columns)].ravel()


_ROTATIONS: dict[int, np.ndarray] = {}


def _rotation(size: int) -> np.ndarray:
    if size not in _ROTATIONS:
        _ROTATIONS[size] = ortho_group.rvs(size, random_state=np.random.default_rng(20250701))
    return _ROTATIONS[size]


def i3d_features(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Feature function of an I3D TorchScript file (clips (T, H, W, 3) uint8 -> (F,) float64)."""
    import torch

    if not path.is_file():
        raise ConfigurationError(f'no I3D TorchScript at {path}; give the file of the StyleGAN-V evaluation')
    try:
        net = torch.jit.load(str(path), map_location='cpu').eval()
    except RuntimeError as error:
        raise ConfigurationError(f'{path} is not a TorchScript file: {str(error).splitlines()[0]}') from error

    def features(clip: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(clip.astype(np.float32)).permute(3, 0, 1, 2)[None] / 127.5 - 1
        tensor = torch.nn.functional.interpolate(tensor, size=(tensor.shape[2], 224, 224))
        with torch.inference_mode():
            return net(tensor, rescale=False, resize=False, return_features=True)[0].double().numpy()

    return features


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Squared Frechet distance of Gaussians fitted to (N, F) and (M, F) features; needs N, M >= 2.

    |mu_a - mu_b|^2 + tr(A + B - 2 (A B)^1/2) (Heusel et al. 2017); the root by
    eigenvalues of a symmetric form.
    """
    require(min(len(features_a), len(features_b)) >= 2, 'a Frechet distance needs two clips or more per side')
    cov_a, cov_b = (np.atleast_2d(np.cov(f, rowvar=False)) for f in (features_a, features_b))
    values, vectors = np.linalg.eigh(cov_a)
    root_a = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root_a @ cov_b @ root_a), 0)).sum()
    shift = features_a.mean(0) - features_b.mean(0)
    return float(max(0.0, shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * cross))
