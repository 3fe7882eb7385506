"""CLIP image tokens: the U-Net's context, one per view (SVD uses ViT-H/14 of laion2b)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers import CLIPVisionModelWithProjection

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(images: torch.Tensor, size: int) -> torch.Tensor:
    """CLIP's input (N, 3, size, size) of images (N, 3, H, W) in [-1, 1], as SVD and its descendants make it.

    A Gaussian of standard deviation (factor - 1) / 2 per axis against aliasing, then a bicubic resize with the
    corners aligned. (Torch's own antialiasing is another filter and moves the embedding by an eighth.)
    """
    smooth = _smoothed(_smoothed(images, -2, size), -1, size)
    resized = F.interpolate(smooth, (size, size), mode='bicubic', align_corners=True)
    mean, std = (torch.tensor(c, device=images.device, dtype=images.dtype)[:, None, None] for c in (_MEAN, _STD))
    return ((resized + 1) / 2 - mean) / std


def _smoothed(images: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """Images convolved along one axis; the window covers two standard deviations, three pixels at least, mirrored."""
    deviation = max((images.shape[axis] / size - 1) / 2, 0.001)
    window = max(int(4 * deviation), 3) // 2 * 2 + 1
    offsets = torch.arange(window, device=images.device, dtype=images.dtype) - window // 2
    kernel = torch.exp(-(offsets**2) / (2 * deviation**2))
    kernel = (kernel / kernel.sum())[(None, None, slice(None), None) if axis == -2 else (None, None, None)]
    margin = window // 2
    padded = F.pad(images, (0, 0, margin, margin) if axis == -2 else (margin, margin, 0, 0), mode='reflect')
    return F.conv2d(padded, kernel.expand(images.shape[1], 1, -1, -1), groups=images.shape[1])


def image_tokens(encoder: CLIPVisionModelWithProjection, images: torch.Tensor) -> torch.Tensor:
    """Tokens (N, 1, D) of images (N, 3, H, W) in [-1, 1]."""
    pixels = clip_pixels(images, encoder.config.image_size).to(encoder.dtype)
    return encoder(pixel_values=pixels).image_embeds[:, None]
