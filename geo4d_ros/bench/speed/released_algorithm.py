"""The released code's way to the same prediction, restated plainly: the yardstick of the benchmark.

Four streams one after the other, twice per step for a guidance whose two halves are equal, every
condition encoded ten times over, twice; stock kernels, float32.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from geo4d_ros.generation.unet.encoders.autoencoders import decode_video, encode_condition
from geo4d_ros.generation.unet.encoders.image_tokens import image_tokens
from geo4d_ros.generation.unet.network import Geo4dUNet
from geo4d_ros.generation.unet.pipeline import Geo4dPipeline
from geo4d_ros.generation.unet.sampling import edm
from geo4d_ros.generation.unet.streams import POINTS, Stream, all_streams, token_view
from geo4d_ros.types import Observation

MAX_GUIDANCE = 2.5


class SequentialUNet(Geo4dUNet):
    """One stream per call; block outputs are kept, and a later call can attend to them."""

    features: list[torch.Tensor]
    sources: list[torch.Tensor] | None = None

    def _links(self, streams: list[Stream]) -> dict[str, tuple[list[int], list[int]]]:
        self.features = []
        return {'points': ([0], [0])}

    def _attend(self, i: int, x: torch.Tensor, links: Any, grid: Any) -> torch.Tensor:
        self.features.append(x)
        if self.sources is None:
            return x
        return x + self.link_attentions['points'][i](x, self.sources[i])


def stock_copy(module: nn.Module, kind: type | None = None) -> nn.Module:
    """The same weights in the library's own, untouched modules."""
    copy = (kind or type(module))(**{k: v for k, v in module.config.items() if not k.startswith('_')})
    copy.load_state_dict(module.state_dict(), assign=True)
    return copy.eval()


class ReleasedAlgorithm:
    """Prepared once from a pipeline; needs a shared or per-view decoder and pointmap links only."""

    def __init__(self, pipeline: Geo4dPipeline, clock: Callable[[], float] = time.perf_counter) -> None:
        self.pipeline, self.clock = pipeline, clock
        self.unet = stock_copy(pipeline.unet, SequentialUNet)
        self.vaes = (stock_copy(pipeline.points_vae), stock_copy(pipeline.rgb_vae))
        self.image_encoder = None
        if pipeline.image_encoder is not None:  # a copy, which stays in float32 whatever becomes of the pipeline's
            self.image_encoder = type(pipeline.image_encoder)(pipeline.image_encoder.config).eval()
            self.image_encoder.load_state_dict(pipeline.image_encoder.state_dict(), assign=True)

    @torch.no_grad()
    def __call__(
        self, observation: Observation, seed: int, steps: int = 25
    ) -> tuple[dict[Stream, torch.Tensor], dict[str, float]]:
        """Images (T, 3, H, W) of all streams, and [s] per stage."""
        pipeline, clock = self.pipeline, self.now
        settings = pipeline.config
        frames = pipeline.resized(observation)
        images, maps, _ = pipeline.prepare_images(frames, pipeline.registered_poses(frames))
        streams = all_streams(len(frames))
        start = clock()
        conditions = [self._encode(images, maps, streams) for _ in range(2)]  # conditional, "unconditional"
        encoded = clock()
        generator = torch.Generator().manual_seed(seed)
        shape = (1, len(streams), settings.frames, *conditions[0][0].shape[3:])
        x = torch.randn(shape, generator=generator).to(images.device) * edm.initial_noise_scale(edm.SIGMA_MAX)
        levels = edm.karras_sigmas(steps)
        scale = torch.linspace(1.0, MAX_GUIDANCE, settings.frames, device=x.device)[:, None, None, None]
        for sigma, sigma_next in itertools.pairwise(levels):
            cond, uncond = (self._pass(x, sigma, condition, streams) for condition in conditions)
            x = edm.euler_step(x, uncond + scale * (cond - uncond), sigma, sigma_next)
        denoised = clock()
        decoded = {s: decode_video(self.vaes[s.modality], x[0, i]) for i, s in enumerate(streams)}
        times = {'encode': encoded - start, 'denoise': denoised - encoded, 'decode': clock() - denoised}
        return decoded, times

    def now(self) -> float:
        """The clock, once the GPU has caught up."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self.clock()

    def _encode(
        self, images: torch.Tensor, maps: torch.Tensor, streams: list[Stream]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Condition latents (1, S, T, C, h, w) and tokens, every frame's copy encoded on its own."""
        pipeline, frames = self.pipeline, self.pipeline.config.frames
        latents = []
        for stream in streams:
            picture = (maps if stream.modality == POINTS else images)[stream.view]
            latents.append(encode_condition(self.vaes[stream.modality], picture[None].repeat(frames, 1, 1, 1)))
        routing = pipeline.unet.config.token_routing
        if routing == 'learned':
            return torch.stack(latents)[None], None
        tokens = [image_tokens(self.image_encoder, view[None].repeat(frames, 1, 1, 1))[:1] for view in images]
        return torch.stack(latents)[None], torch.stack(
            [tokens[token_view(s, routing, len(images))] for s in streams], 1
        )

    def _pass(
        self, x: torch.Tensor, sigma: float, condition: tuple[torch.Tensor, torch.Tensor | None], streams: list[Stream]
    ) -> torch.Tensor:
        """x0 of all streams, one network call each."""
        latents, tokens = condition
        t = edm.timestep(torch.full((1, 1), sigma, device=x.device))
        outputs, kept = [], []
        for i, stream in enumerate(streams):
            attends = stream.view > 0 and stream.modality == POINTS and bool(self.unet.config.links)
            self.unet.sources = kept if attends else None
            token = None if tokens is None else tokens[:, i : i + 1]
            scaled = edm.scale_input(x[:, i : i + 1], sigma)
            outputs.append(self.unet(scaled, t, latents[:, i : i + 1, 0], token, [stream]).sample)
            if stream == Stream(0, POINTS):
                kept = self.unet.features
        return edm.denoised(x, torch.cat(outputs, 1), sigma)
