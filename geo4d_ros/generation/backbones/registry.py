"""Backbones by name: what they are called in configs, what they may be used for, and their classes."""

from __future__ import annotations

from dataclasses import dataclass

from geo4d_ros.generation.backbones.wan import FrameAutoencoder, Geo4dWanTransformer
from geo4d_ros.generation.unet.encoders.autoencoders import AUTOENCODERS as SVD_AUTOENCODERS
from geo4d_ros.generation.unet.network import Geo4dUNet


@dataclass(frozen=True)
class BackboneEntry:
    """One backbone: the preset of its full size, its denoiser and its licence."""

    preset: str
    denoiser: type
    licence: str


BACKBONES = {
    'svd': BackboneEntry('geo4d-svd', Geo4dUNet, 'Stability AI Community License: free below 1 M$ of annual revenue'),
    'wan2.2-ti2v-5b': BackboneEntry('geo4d-wan', Geo4dWanTransformer, 'Apache-2.0'),
}
# Class names in a checkpoint's config.json -> classes.
DENOISERS: dict[str, type] = {entry.denoiser.__name__: entry.denoiser for entry in BACKBONES.values()}
AUTOENCODERS: dict[str, type] = {**SVD_AUTOENCODERS, FrameAutoencoder.__name__: FrameAutoencoder}
