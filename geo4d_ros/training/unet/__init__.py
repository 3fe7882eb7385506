"""Trains the diffusion model: autoencoder, regression, diffusion and distillation stages, on accelerate."""

from geo4d_ros.training.unet.trainer import train

__all__ = ['train']
