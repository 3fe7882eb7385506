"""CLIP sees what SVD's own pipeline shows it."""

import pytest
import torch
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing

from geo4d_ros.generation.unet.encoders.image_tokens import _MEAN, _STD, clip_pixels


@pytest.mark.parametrize('height, width', [(256, 320), (96, 128), (480, 640), (224, 224)])
def test_pixels_are_those_of_the_svd_pipeline(height, width):
    images = torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = (torch.tensor(c)[:, None, None] for c in (_MEAN, _STD))
    expected = ((_resize_with_antialiasing(images, (224, 224)) + 1) / 2 - mean) / std
    torch.testing.assert_close(clip_pixels(images, 224), expected, atol=1e-5, rtol=0)
