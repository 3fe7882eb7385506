"""The two-view network: encode once, predict the gripper's path, paint any subset of the future frames."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional as F

from geo4d_ros.generation.two_view.decoder import Decoder
from geo4d_ros.generation.two_view.encoder import PATCH, Encoder, Scene
from geo4d_ros.generation.two_view.state_head import StateHead

# Frame-0 segmentation the network predicts for its own guide: rest, arm, hand, finger, object.
SEGMENT_CLASSES = 5


class TwoViewNetwork(ModelMixin, ConfigMixin):
    """Encoder, state head, frame-0 segmentation and decoder; every switch is a config field.

    cross_view: attention between the views (off = ablation). guide: rigid hand guide for the decoder.
    """

    @register_to_config
    def __init__(self, height: int = 96, width: int = 128, frames: int = 10, dt: float = 0.5, channels: int = 64,
                 dim: int = 192, encoder_layers: int = 4, decoder_layers: int = 1, heads: int = 6, pointers: int = 6,
                 refinements: int = 2, cross_view: bool = True, guide: bool = True) -> None:
        super().__init__()
        self.encoder = Encoder(frames, channels, dim, encoder_layers, heads, cross_view)
        self.segment = nn.Conv2d(channels, PATCH**2 * SEGMENT_CLASSES, 1)
        self.state_head = StateHead(channels, dim, pointers, refinements)
        self.decoder = Decoder(channels, dim, decoder_layers, heads, cross_view)

    def encode(self, rgb: torch.Tensor, points: torch.Tensor, valid: torch.Tensor, T_g0_view: torch.Tensor,
               opening: torch.Tensor, seen: torch.Tensor) -> Scene:
        """See `Encoder.forward`."""
        return self.encoder(rgb, points, valid, T_g0_view, opening, seen)

    def segment_logits(self, scene: Scene) -> torch.Tensor:
        """Frame-0 class logits (B, V, 5, H, W)."""
        b, v = scene.features.shape[:2]
        return F.pixel_shuffle(self.segment(scene.features.flatten(0, 1)), PATCH).unflatten(0, (b, v))
