"""CLIP image tokens: the U-Net's context, one per view (SVD uses ViT-H/14 of laion2b)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers import CLIPVisionModelWithProjection

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(images: torch.Tensor, size: int) -> torch.Tensor:
    """CLIP's input (N, 3, size, size) of images (N, 3, H, W) in [-1, 1]: bicubic, antialiased, normalised."""
    resized = F.interpolate(images, (size, size), mode='bicubic', align_corners=True, antialias=True)
    mean, std = (torch.tensor(c, device=images.device, dtype=images.dtype)[:, None, None] for c in (_MEAN, _STD))
    return ((resized + 1) / 2 - mean) / std


def image_tokens(encoder: CLIPVisionModelWithProjection, images: torch.Tensor) -> torch.Tensor:
    """Tokens (N, 1, D) of images (N, 3, H, W) in [-1, 1]."""
    pixels = clip_pixels(images, encoder.config.image_size).to(encoder.dtype)
    return encoder(pixel_values=pixels).image_embeds[:, None]
