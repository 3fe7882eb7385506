"""Few-step students by distribution matching (DMD2, arXiv 2405.14867), on all streams of the 4D model at once.

Three networks start as the teacher: the teacher itself, the student, and a model of the score of the student's
samples ("fake"). Two kinds of steps alternate: `fake_updates` times the fake model and its discriminator learn what
the student makes now (denoising loss; GAN loss against real latents, on the fake model's middle features), then once
the student follows the difference of the two scores and the discriminator.

With backward simulation the student is trained on what it meets at inference: noise for its first step, its own
re-noised estimates for the later ones. Without, it is trained on noised real clips, as the first DMD and consistency
training do; `geo4d evaluate distillation` compares the two.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.generation.unet.layers.state_stream import STATE_DIM
from geo4d_ros.generation.unet.network import UNetOutput
from geo4d_ros.generation.unet.pipeline import Geo4dPipeline
from geo4d_ros.generation.unet.sampling import edm
from geo4d_ros.training.unet.batches import Clips, Latents, sample_generator
from geo4d_ros.training.unet.config import UNetTrainConfig
from geo4d_ros.training.unet.latent_cache import Prepared, prepare
from geo4d_ros.training.unet.losses import noise_levels


class Draws(NamedTuple):
    """Everything random of one step. S streams, T frames; noises are unit (B, S, T, C, h, w)."""

    noises: list[torch.Tensor]  # the student's, one per level, at least one
    level: int  # of the student's level that is trained in this step
    again: torch.Tensor  # (B, S) noise levels at which the scores are compared
    fresh: torch.Tensor  # unit noise of that comparison


class Discriminator(nn.Module):
    """Real or fake, a logit per frame of every stream, of middle features (N, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(32, channels), nn.Conv2d(channels, channels, 1), nn.SiLU(), nn.Conv2d(channels, 1, 1)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N,), the mean over the pixels."""
        return self.layers(features).flatten(1).mean(1)


class Distillation(nn.Module):
    """Student, fake score model and discriminator; one call is the loss of one kind of step."""

    def __init__(self, student: nn.Module, levels: list[float], simulate: bool, gan: float) -> None:
        super().__init__()
        self.student, self.fake = student, copy.deepcopy(student)
        self.discriminator = Discriminator(student.config.block_out_channels[-1])
        self.levels, self.simulate, self.gan = levels, simulate, gan

    def forward(self, turn: str, teacher: nn.Module, latents: Latents, draws: Draws) -> dict[str, torch.Tensor]:
        """Losses of a 'student' or a 'fake' step, 'loss' is minimised."""
        trains_student = turn == 'student'
        self.student.requires_grad_(trains_student)
        self.fake.requires_grad_(not trains_student)
        self.discriminator.requires_grad_(not trains_student)
        with torch.set_grad_enabled(trains_student):
            sample = self.sample(latents, draws)
        if trains_student:
            return self._student_loss(teacher, latents, sample, draws)
        return self._fake_loss(latents, sample.detach(), draws)

    def sample(self, latents: Latents, draws: Draws) -> torch.Tensor:
        """The student's estimate at the drawn level, with the gradients of its last call."""
        sigma = self.levels[draws.level]
        if self.simulate:
            noisy = draws.noises[0] * edm.initial_noise_scale(self.levels[0])
            with torch.no_grad():
                for k in range(draws.level):
                    clean = estimate(self.student, noisy, latents, self.levels[k])[0]
                    noisy = clean + self.levels[k + 1] * draws.noises[k + 1]
        else:
            noisy = latents.clean + sigma * draws.noises[draws.level]
        return estimate(self.student, noisy, latents, sigma)[0]

    def _student_loss(
        self, teacher: nn.Module, latents: Latents, sample: torch.Tensor, draws: Draws
    ) -> dict[str, torch.Tensor]:
        noisy = sample + at(draws.again) * draws.fresh
        with torch.no_grad():
            real = estimate(teacher, noisy, latents, draws.again)[0]
            fake = estimate(self.fake, noisy, latents, draws.again)[0]
            scale = (sample - real).abs().flatten(1).mean(1).clamp_min(1e-4)[:, None, None, None, None, None]
            goal = sample - (fake - real) / scale
        parts = {'match': 0.5 * F.mse_loss(sample, goal)}
        if self.gan:
            features = estimate(self.fake, noisy, latents, draws.again)[1].features
            parts['fool'] = self.gan * F.softplus(-self.discriminator(features)).mean()
        return {'loss': sum(parts.values()), **parts}

    def _fake_loss(self, latents: Latents, sample: torch.Tensor, draws: Draws) -> dict[str, torch.Tensor]:
        own, out = estimate(self.fake, sample + at(draws.again) * draws.fresh, latents, draws.again)
        parts = {'fake': ((own - sample) ** 2 * self.fake.noise.loss_weight(at(draws.again))).mean()}
        if self.gan:
            real = estimate(self.fake, latents.clean + at(draws.again) * draws.fresh, latents, draws.again)[1]
            told = F.softplus(self.discriminator(out.features)) + F.softplus(-self.discriminator(real.features))
            parts['discriminator'] = self.gan * told.mean()
        return {'loss': sum(parts.values()), **parts}


def at(sigma: torch.Tensor) -> torch.Tensor:
    """(B, S) for latents (B, S, T, C, h, w)."""
    return sigma[:, :, None, None, None, None]


def estimate(
    model: nn.Module, noisy: torch.Tensor, latents: Latents, sigma: torch.Tensor | float
) -> tuple[torch.Tensor, UNetOutput]:
    """Clean latents at noise level sigma, one for all or (B, S), and all that the model put out."""
    if not isinstance(sigma, torch.Tensor):
        sigma = torch.full(noisy.shape[:2], sigma, device=noisy.device)
    state = torch.zeros(len(noisy), noisy.shape[2], STATE_DIM, device=noisy.device)
    scheme = model.noise
    out = model(scheme.scale_input(noisy, at(sigma)), scheme.timestep(sigma), latents.condition, latents.tokens,
                state=(state, latents.measured))
    return scheme.denoised(noisy, out.sample.float(), at(sigma)), out


class DistillationStage:
    """Trains a student of `student_steps` steps; the step number says whose turn it is."""

    find_unused_parameters = True  # each step trains one of the networks

    def __init__(self, pipeline: Geo4dPipeline, config: UNetTrainConfig) -> None:
        require(
            config.student_steps in edm.STUDENT_SIGMAS,
            f'student_steps should be one of {list(edm.STUDENT_SIGMAS)} but got {config.student_steps}',
            ConfigurationError,
        )
        self.pipeline, self.config, self.step = pipeline, config, 0
        self.teacher = copy.deepcopy(pipeline.unet).requires_grad_(False).eval()
        self.levels = list(edm.STUDENT_SIGMAS[config.student_steps])
        self.model = Distillation(pipeline.unet, self.levels, config.backward_simulation, config.gan)

    def turn(self) -> str:
        """Whose step it is: the student's after `fake_updates` of the fake model."""
        return 'student' if self.step % (self.config.fake_updates + 1) == self.config.fake_updates else 'fake'

    def losses(self, model: nn.Module, batch: Clips | Prepared) -> dict[str, torch.Tensor]:
        """Losses of one batch, of whom it is the turn."""
        if not isinstance(batch, Prepared):
            batch = prepare(batch, self.pipeline, self.config.loss, self.config.seed)
        latents = batch.latents
        device = latents.clean.device
        generators = [sample_generator(self.config.seed, i) for i in batch.index.tolist()]
        level = int(torch.randint(len(self.levels), (), generator=generators[0]))
        noises = [unit_noise(generators, latents.clean) for _ in self.levels]
        again = noise_levels(latents, replace(self.config.loss, max_noise_share=0.0), generators, False)
        self.teacher.to(device)
        return model(self.turn(), self.teacher, latents,
                     Draws(noises, level, again, unit_noise(generators, latents.clean)))

    def finish(self) -> None:
        """The student, which is the pipeline's U-Net, has its own levels."""
        self.pipeline.register_to_config(sampler='renoise', steps=self.config.student_steps)


def unit_noise(generators: list[torch.Generator], like: torch.Tensor) -> torch.Tensor:
    """Unit noise shaped as `like`, one generator per sample."""
    noise = torch.stack([torch.randn(like.shape[1:], generator=g) for g in generators])
    return noise.to(like.device)
