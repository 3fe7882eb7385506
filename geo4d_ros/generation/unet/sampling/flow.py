"""Flow matching as Wan uses it, told in EDM's noise levels: the share of noise is sigma / (1 + sigma)."""

from __future__ import annotations

import torch

TIMESTEPS = 1000  # the network is told the share of noise in thousandths


def share(sigma: torch.Tensor | float) -> torch.Tensor | float:
    """Share of noise in the mixture (1 - share) * clean + share * noise."""
    return sigma / (1 + sigma)


def scale_input(noisy: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
    """The mixture, of noisy = clean + sigma * noise."""
    return noisy / (1 + sigma)


def timestep(sigma: torch.Tensor) -> torch.Tensor:
    """What the network is told of the noise level."""
    return TIMESTEPS * share(sigma)


def denoised(noisy: torch.Tensor, v: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
    """Clean latents of the network's v = noise - clean."""
    return noisy / (1 + sigma) - v * share(sigma)


def loss_weight(sigma: torch.Tensor) -> torch.Tensor:
    """Turns the squared error of the clean latents into that of v."""
    return ((1 + sigma) / sigma) ** 2
