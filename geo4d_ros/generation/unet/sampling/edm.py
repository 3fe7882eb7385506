"""EDM noise model with v-prediction, as Stable Video Diffusion and the paper use it (Karras et al. 2022).

Equal to diffusers' EulerDiscreteScheduler with v_prediction, continuous timesteps and Karras sigmas,
but for per-stream sigmas as well, which training needs.
"""

from __future__ import annotations

import math

import torch

from geo4d_ros.errors import ConfigurationError, require

SIGMA_MAX, SIGMA_MIN, RHO = 700.0, 0.002, 7.0
# Evaluation points of distilled students: 3 to 5 from an independent study of the public checkpoint; the second of 2 is
# in the middle of the training noise, where a first estimate is still mended.
STUDENT_SIGMAS = {
    1: (700.0,),
    2: (700.0, 2.27),
    3: (700.0, 70.5, 2.27),
    4: (700.0, 70.5, 2.27, 2.27),
    5: (700.0, 70.5, 70.5, 2.27, 2.27),
}


def karras_sigmas(steps: int, sigma_max: float = SIGMA_MAX, sigma_min: float = SIGMA_MIN) -> list[float]:
    """`steps` noise levels from sigma_max to sigma_min, then 0; one step goes from sigma_max to 0."""
    require(steps >= 1, f'steps should be at least 1 but got {steps}', ConfigurationError)
    top, bottom = sigma_max ** (1 / RHO), sigma_min ** (1 / RHO)
    fractions = [i / max(steps - 1, 1) for i in range(steps)]
    return [(top + f * (bottom - top)) ** RHO for f in fractions] + [0.0]


def timestep(sigma: torch.Tensor) -> torch.Tensor:
    """What the U-Net is told of the noise level: ln(sigma) / 4."""
    return 0.25 * sigma.log()


def scale_input(noisy: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
    """c_in * noisy: unit variance at every noise level. The condition latents are never scaled."""
    return noisy / (sigma**2 + 1) ** 0.5


def denoised(noisy: torch.Tensor, v: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
    """x0 of the network's v: c_skip * noisy + c_out * v."""
    return noisy / (sigma**2 + 1) - v * (sigma / (sigma**2 + 1) ** 0.5)


def v_target(clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The v whose `denoised` is `clean` when noisy = clean + sigma * noise."""
    return (noise - sigma * clean) / (sigma**2 + 1) ** 0.5


def loss_weight(sigma: torch.Tensor) -> torch.Tensor:
    """Turns the squared error of the clean latents into that of v."""
    return (sigma**2 + 1) / sigma**2


def euler_step(noisy: torch.Tensor, x0: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
    """From sigma to sigma_next along the ODE."""
    return x0 if sigma_next == 0 else x0 + (noisy - x0) * (sigma_next / sigma)


def sample_sigma(
    shape: tuple[int, ...], generator: torch.Generator | None, mean: float = 1.0, std: float = 1.6
) -> torch.Tensor:
    """Training noise levels, ln sigma ~ N(mean, std^2) (SVD's high-resolution values)."""
    return (torch.randn(shape, generator=generator) * std + mean).exp()


def initial_noise_scale(sigma_max: float) -> float:
    """Standard deviation of the first noisy latents: data and noise variance together."""
    return math.sqrt(1 + sigma_max**2)
