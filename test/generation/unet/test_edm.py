"""The noise model: equal to diffusers' Euler scheduler, inverse of itself, exact for a perfect denoiser."""

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.generation.unet.sampling import edm


@pytest.mark.parametrize('steps', [25, 8, 4])
def test_sampler_equals_diffusers(steps):
    scheduler = EulerDiscreteScheduler(
        prediction_type='v_prediction', timestep_type='continuous', use_karras_sigmas=True, sigma_max=700.0,
        sigma_min=0.002, timestep_spacing='leading')
    scheduler.set_timesteps(steps)
    levels = edm.karras_sigmas(steps)
    torch.testing.assert_close(torch.tensor(levels), scheduler.sigmas, rtol=1e-4, atol=0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 3, generator=generator) * edm.initial_noise_scale(700.0)
    theirs = x.clone()
    for i, t in enumerate(scheduler.timesteps):
        sigma = levels[i]
        torch.testing.assert_close(edm.timestep(torch.tensor(sigma)), t, rtol=1e-4, atol=1e-5)
        scaled = scheduler.scale_model_input(theirs, t)
        torch.testing.assert_close(edm.scale_input(x, sigma), scaled, rtol=1e-3, atol=1e-4)
        v = torch.sin(3 * scaled) + float(t)
        theirs = scheduler.step(v, t, theirs).prev_sample
        x = edm.euler_step(x, edm.denoised(x, v, sigma), sigma, levels[i + 1])
    torch.testing.assert_close(x, theirs, rtol=1e-3, atol=1e-3)


def test_v_target_is_inverted_by_denoised():
    clean, noise = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    sigma = torch.tensor([0.01, 300.0])[:, None, None]
    noisy = clean + sigma * noise
    back = edm.denoised(noisy, edm.v_target(clean, noise, sigma), sigma)
    torch.testing.assert_close(back, clean, atol=1e-3, rtol=0)


def test_one_step_goes_straight_to_zero():
    assert edm.karras_sigmas(1) == [pytest.approx(700.0), 0.0]
    x = torch.randn(4)
    assert torch.equal(edm.euler_step(x, x * 0.5, 700.0, 0.0), x * 0.5)


def test_no_steps_are_refused():
    with pytest.raises(ConfigurationError, match='at least 1'):
        edm.karras_sigmas(0)
