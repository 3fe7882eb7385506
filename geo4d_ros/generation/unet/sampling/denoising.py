"""The denoising loop: all streams (and the state) from noise to clean, one network call per step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.generation.unet.kernels.prepacked import fixed_weights
from geo4d_ros.generation.unet.layers.state_stream import STATE_STD
from geo4d_ros.generation.unet.network import Geo4dUNet
from geo4d_ros.generation.unet.sampling import edm
from geo4d_ros.generation.unet.streams import Stream

SAMPLERS = ('euler', 'renoise', 'regression')


@dataclass
class Condition:
    """What the denoiser sees of the observation. S streams, C latent channels."""

    streams: list[Stream]
    latents: torch.Tensor  # (1, S, C, h, w), unscaled
    tokens: torch.Tensor | None  # (1, S, 1, D)
    state: torch.Tensor | None  # (1, 10), measured


def noise_levels(settings: Any, steps: int | None, sigmas: Sequence[float] | None) -> list[float]:
    """Sigmas to evaluate at, then 0, for a pipeline's settings and a caller's wishes."""
    if settings.sampler == 'regression':
        alone = steps in (None, 1) and sigmas is None
        require(alone, 'a one-step regression model takes neither steps nor sigmas', ConfigurationError)
        return [edm.SIGMA_MAX, 0.0]
    if sigmas is not None:
        falling = len(sigmas) > 0 and min(sigmas) > 0 and list(sigmas) == sorted(sigmas, reverse=True)
        require(falling, f'sigmas should be positive and falling but got {list(sigmas)}', ConfigurationError)
        return [*sigmas, 0.0]
    steps = settings.steps if steps is None else steps
    if settings.sampler == 'renoise' and steps in edm.STUDENT_SIGMAS:
        return [*edm.STUDENT_SIGMAS[steps], 0.0]
    return edm.karras_sigmas(steps)


def partial_levels(levels: list[float], until: float) -> list[float]:
    """The levels above `until`, then 0: the last step is the network's estimate of the clean latents there.

    A plan can be read from such an estimate before the film is finished; 0 finishes it.
    """
    kept = [level for level in levels if level > until]
    require(bool(kept), f'until should be below the first noise level {levels[0]} but is {until}', ConfigurationError)
    return [*kept, 0.0]


@fixed_weights()
def denoise(
    unet: Geo4dUNet,
    condition: Condition,
    noise: tuple[torch.Tensor, torch.Tensor | None],
    levels: list[float],
    sampler: str,
    guidance: float,
    generator: torch.Generator,
    progress: Callable[[list], Iterable],
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Clean latents (1, S, T, C, h, w), clean states (1, T, 10) and the last auxiliary logits.

    noise: unit noise of the latents and of the states; levels: sigmas to evaluate at, then 0.
    sampler: 'euler' follows the ODE, 'renoise' puts fresh noise on every estimate, 'regression'
    starts from zero. progress wraps the list of steps, e.g. in a progress bar.
    """
    start = 0.0 if sampler == 'regression' else edm.initial_noise_scale(levels[0])
    x, s = noise[0] * start, None if noise[1] is None else noise[1] * start
    auxiliary = None
    for sigma, sigma_next in progress(list(itertools.pairwise(levels))):
        x0, s0, auxiliary = estimate(unet, x, s, sigma, condition, guidance)
        if sampler == 'renoise' and sigma_next > 0:
            x = x0 + sigma_next * torch.randn(x.shape, generator=generator).to(x.device)
        else:
            x = edm.euler_step(x, x0, sigma, sigma_next)
        if s is not None:
            s = edm.euler_step(s, s0, sigma, sigma_next)
    if s is not None:
        s = condition.state[:, None].float() + s * torch.tensor(STATE_STD, device=s.device)
    return x, s, auxiliary


def estimate(
    unet: Geo4dUNet,
    x: torch.Tensor,
    s: torch.Tensor | None,
    sigma: float,
    condition: Condition,
    guidance: float,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """The network's estimate of the clean latents (and states) at noise level sigma."""
    scheme, dtype = unet.noise, condition.latents.dtype
    level = torch.full(condition.latents.shape[:2], sigma, device=x.device)
    scaled = scheme.scale_input(x, sigma).to(dtype)
    state = None if s is None else (scheme.scale_input(s, sigma).to(dtype), condition.state)
    arguments = {'timestep': scheme.timestep(level), 'streams': condition.streams, 'state': state}
    out = unet(scaled, condition=condition.latents, tokens=condition.tokens, **arguments)
    x0 = scheme.denoised(x, out.sample.float(), sigma)
    if guidance != 1.0:
        tokens = None if condition.tokens is None else torch.zeros_like(condition.tokens)
        blank = unet(scaled, condition=torch.zeros_like(condition.latents), tokens=tokens, **arguments)
        x0_blank = scheme.denoised(x, blank.sample.float(), sigma)
        weights = torch.linspace(1.0, guidance, x.shape[2], device=x.device)[:, None, None, None]
        x0 = x0_blank + weights * (x0 - x0_blank)
    s0 = None if s is None else scheme.denoised(s, out.state.float(), sigma)
    return x0, s0, out.auxiliary
