"""From one observation to a 4D video: the diffusion pipeline, for the SVD size and the small presets alike."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder, DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPVisionModelWithProjection

from geo4d_ros.errors import ConfigurationError, InvalidInputError, require
from geo4d_ros.generation.manifest import write_manifest
from geo4d_ros.generation.unet import pointmaps
from geo4d_ros.generation.unet.assembly import Prediction, assemble_video
from geo4d_ros.generation.unet.conventions import CONVENTIONS
from geo4d_ros.generation.unet.encoders.autoencoders import (
    PatchAutoencoder,
    decode_video,
    encode_condition,
    spatial_factor,
)
from geo4d_ros.generation.unet.encoders.image_tokens import image_tokens
from geo4d_ros.generation.unet.encoders.tiny_decoder import TinyTemporalDecoder
from geo4d_ros.generation.unet.kernels.fused import use_fast_kernels
from geo4d_ros.generation.unet.kernels.prepacked import fixed_weights
from geo4d_ros.generation.unet.layers.state_stream import STATE_DIM, decode_states, encode_states
from geo4d_ros.generation.unet.memory import MemoryNeed, check_memory, decode_bytes, denoise_bytes, weight_bytes
from geo4d_ros.generation.unet.network import Geo4dUNet
from geo4d_ros.generation.unet.sampling.denoising import SAMPLERS, Condition, denoise, noise_levels, partial_levels
from geo4d_ros.generation.unet.saved_modules import load_parts
from geo4d_ros.generation.unet.streams import POINTS, RGB, Stream, all_streams, needed_streams, token_view
from geo4d_ros.geometry.resampling import resize_frame
from geo4d_ros.types import Observation, RgbdFrame, Video4D

MAX_DEPTH_M = 2.0  # farther depth counts as invalid, as in the training data


class Geo4dPipeline(DiffusionPipeline):
    """A `VideoGenerator` of unet, two autoencoders and, for SVD-size models, a CLIP image encoder.

    condition_frame: 'own' gives every view's pointmap in its own frame (the paper: no pose input);
    'registered' first moves them into the reference frame by registering the views' RGB-D.
    points_decoder, rgb_decoder: small decoders distilled from the autoencoders' (training stage 'decoder'), used in
    their place where a checkpoint has them.
    convention: what the weights were trained with, 'corrected' or 'released' (conventions.py).
    sampler: 'euler' (EDM), 'renoise' (distilled students) or 'regression' (one step from zero noise).
    """

    clock = staticmethod(time.perf_counter)  # benchmarks on a busy CPU put process_time here
    model_cpu_offload_seq = 'image_encoder->unet->points_vae->rgb_vae->points_decoder->rgb_decoder'
    _optional_components = ['image_encoder', 'points_decoder', 'rgb_decoder']  # noqa: RUF012 (diffusers' own convention)

    def __init__(
        self,
        unet: Geo4dUNet,
        rgb_vae: AutoencoderKLTemporalDecoder | PatchAutoencoder,
        points_vae: AutoencoderKLTemporalDecoder | PatchAutoencoder,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        points_decoder: TinyTemporalDecoder | None = None,
        rgb_decoder: TinyTemporalDecoder | None = None,
        name: str = 'geo4d-svd',
        height: int = 256,
        width: int = 320,
        frames: int = 10,
        dt: float = 0.5,
        views: int = 2,
        steps: int = 8,
        sampler: str = 'euler',
        guidance_scale: float = 1.0,
        anchor: bool = True,
        condition_frame: str = 'own',
        decode_chunk: int | None = None,
        convention: str = 'corrected',
        until: float = 0.0,
    ) -> None:
        super().__init__()
        require(
            sampler in SAMPLERS,
            f'unknown sampler {sampler!r}; known: {", ".join(SAMPLERS)}',
            ConfigurationError,
        )
        require(
            condition_frame in ('own', 'registered'),
            f'condition_frame should be own or registered but got {condition_frame!r}',
            ConfigurationError,
        )
        require(
            convention in CONVENTIONS,
            f'unknown convention {convention!r}; known: {", ".join(CONVENTIONS)}',
            ConfigurationError,
        )
        self.register_modules(
            unet=unet,
            rgb_vae=rgb_vae,
            points_vae=points_vae,
            image_encoder=image_encoder,
            points_decoder=points_decoder,
            rgb_decoder=rgb_decoder,
        )
        self.register_to_config(
            name=name,
            height=height,
            width=width,
            frames=frames,
            dt=dt,
            views=views,
            steps=steps,
            sampler=sampler,
            guidance_scale=guidance_scale,
            anchor=anchor,
            condition_frame=condition_frame,
            decode_chunk=decode_chunk,
            convention=convention,
            until=until,
        )
        self.convention = CONVENTIONS[convention]
        self._check_sizes()
        for model in (unet, rgb_vae, points_vae, points_decoder, rgb_decoder):
            use_fast_kernels(model)
        self.set_progress_bar_config(disable=True)

    name = property(lambda self: self.config.name, doc='For reports.')
    frames = property(lambda self: self.config.frames, doc='Predicted frames T.')
    dt = property(lambda self: self.config.dt, doc='Seconds between frames.')

    def _check_sizes(self) -> None:
        factor = spatial_factor(self.points_vae)
        multiple = factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        for side, size in (('height', self.config.height), ('width', self.config.width)):
            require(
                size % factor == 0 and size > 0,
                f'{side} should be a multiple of {factor} (best {multiple}) but got {size}',
                ConfigurationError,
            )
        require(
            spatial_factor(self.rgb_vae) == factor,
            'the RGB and the pointmap autoencoder should have the same '
            f'patch size but have {spatial_factor(self.rgb_vae)} and {factor}',
            ConfigurationError,
        )
        if self.unet.config.token_routing != 'learned':
            require(
                self.image_encoder is not None,
                'this U-Net is conditioned on image tokens: an image_encoder is needed',
                ConfigurationError,
            )
        require(
            self.unet.config.points or self.config.condition_frame == 'registered',
            'a model without pointmaps cannot tell where its views are: set condition_frame: registered',
            ConfigurationError,
        )

    @classmethod
    def from_pretrained(cls, directory: Path | str, torch_dtype: torch.dtype = torch.float32) -> Geo4dPipeline:
        """Open what `save` wrote; CheckpointError names a part that is missing or of another shape."""
        return cls(**load_parts(Path(directory), torch_dtype))

    def save(self, directory: Path | str, shard_size: str = '4GB') -> str:
        """`save_pretrained` in safetensors shards, with the sha256 manifest; returns the checkpoint's hash."""
        diffusers_logging.disable_progress_bar()
        self.save_pretrained(directory, safe_serialization=True, max_shard_size=shard_size)
        return write_manifest(Path(directory))

    def compile(self, mode: str = 'default') -> Geo4dPipeline:
        """Compile the denoiser: the first prediction of each number of streams takes minutes, the next ones less.

        mode: torch.compile's, on GPUs; 'reduce-overhead' and 'max-autotune' record CUDA graphs, shapes being always the
        same. On the CPU the weights are frozen into the code, and a C++ compiler has to be there.
        """
        on_gpu = torch.device(self._execution_device).type == 'cuda'
        how: dict[str, str | dict[str, bool]] = {'mode': mode} if on_gpu else {'options': {'freezing': True}}
        self.unet = torch.compile(self.unet, dynamic=False, **how)
        return self

    def channels_last(self) -> Geo4dPipeline:
        """Keep the convolutions' weights with channels innermost, as GPUs' tensor cores want them.

        Those over pictures alone: a whole model refuses, since its convolutions over time have one dimension more.
        """
        for model in (self.unet, self.rgb_vae, self.points_vae, self.points_decoder, self.rgb_decoder):
            for layer in () if model is None else model.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    layer.to(memory_format=torch.channels_last)
        return self

    def predict(self, observation: Observation, seed: int = 0) -> Video4D:
        """The video with the pipeline's own settings (`VideoGenerator`)."""
        return self(observation, seed)

    def __call__(self, observation: Observation, seed: int = 0, anchor: bool | None = None, **options: Any) -> Video4D:
        """The video with some of the pipeline's settings overridden: see `generate` for the options.

        anchor: scale each view's prediction to the observed depth.
        """
        prediction = self.generate(observation, seed, **options)
        with self._timed('assemble'):
            anchor = self.config.anchor if anchor is None else anchor
            moved = self.convention.moves_invalid_points
            video = assemble_video(prediction, observation, self.config.dt, anchor, moved)
        video.timings.update(self.timings)
        return video

    @torch.no_grad()
    def generate(
        self,
        observation: Observation,
        seed: int = 0,
        steps: int | None = None,
        sigmas: Sequence[float] | None = None,
        guidance_scale: float | None = None,
        rgb_views: Sequence[int] | None = None,
        decode_chunk: int | None = None,
        until: float | None = None,
    ) -> Prediction:
        """What the networks predict, decoded, before the geometry is put right.

        steps: Euler steps (25 is the reference, 8 the default, fewer lose diversity first); sigmas:
        noise levels to evaluate at instead; guidance_scale: 1 is none, more is classifier-free
        guidance growing over the frames; rgb_views: views whose RGB is wanted, default all (the
        others come back black and cost nothing); decode_chunk: frames decoded at a time; until: noise level at which
        denoising stops and the estimate there is taken, for a plan before the film is finished (0: at the end).
        Raises InvalidInputError for an observation that the model cannot take, ConfigurationError
        for impossible settings or too little memory.
        """
        self.timings: dict[str, float] = {}
        settings = self.config
        chunk = decode_chunk or settings.decode_chunk or settings.frames
        guidance = settings.guidance_scale if guidance_scale is None else guidance_scale
        views = len(observation.views)

        # 1. Check the observation and bring it to the model's size.
        self.check_observation(observation)
        with self._timed('prepare'):
            frames = self.resized(observation)
            T_ref_view = self.registered_poses(frames)
            images, maps, valid = self.prepare_images(frames, T_ref_view)

        # 2. Find the streams to denoise: the wanted ones and those they attend to.
        wanted = self.wanted_streams(views, rgb_views)
        streams = needed_streams(wanted, tuple(self.unet.config.links))
        self.check_memory(len(streams), chunk)

        # 3. Encode the condition once; all frames and all steps share it.
        with self._timed('encode'):
            condition = self.encode(observation, images, maps, streams)

        # 4. Draw the noise of all streams, so that leaving some out changes nothing for the others.
        generator = torch.Generator().manual_seed(seed)
        noise = self.draw_noise(condition, views, generator)

        # 5. Denoise all streams together.
        levels = partial_levels(noise_levels(settings, steps, sigmas), settings.until if until is None else until)
        with self._timed('denoise'):
            x, state, auxiliary = denoise(
                self.unet, condition, noise, levels, settings.sampler, guidance, generator, self.progress_bar
            )

        # 6. Decode what is wanted.
        with self._timed('decode'):
            decoded = self.decode(self.undo_residual(x, condition), condition, wanted, chunk)
        self.maybe_free_model_hooks()
        return Prediction(
            frames,
            maps,
            valid,
            decoded,
            T_ref_view,
            self._auxiliary_maps(auxiliary, condition.streams, views),
            None if state is None else decode_states(state[0].float().cpu().numpy()),
        )

    def wanted_streams(self, views: int, rgb_views: Sequence[int] | None) -> list[Stream]:
        """The pointmaps of all views (where the model has them), and the RGB of `rgb_views` (None: of all)."""
        rgb = list(range(views)) if rgb_views is None else sorted(set(rgb_views))
        require(
            all(0 <= v < views for v in rgb), f'rgb_views should be in 0..{views - 1} but got {rgb}', ConfigurationError
        )
        points = range(views) if self.unet.config.points else ()
        return [Stream(v, POINTS) for v in points] + [Stream(v, RGB) for v in rgb]

    def check_observation(self, observation: Observation) -> None:
        """Raise InvalidInputError unless the model can take it."""
        views = len(observation.views)
        require(
            views == self.config.views,
            f'{self.name} takes {self.config.views} views but the observation has {views}; check the cameras',
        )
        for i, view in enumerate(observation.views):
            share = float((view.depth > 0).mean())
            require(
                share >= 0.01,
                f'view {i} has depth at {share:.1%} of its pixels, expected at least 1 %; check the depth stream',
            )
        if self.unet.config.state_stream and (observation.T_ref_gripper is None or observation.opening is None):
            raise InvalidInputError('this model has a state stream: the observation needs T_ref_gripper and opening')

    def registered_poses(self, frames: tuple[RgbdFrame, ...]) -> np.ndarray | None:
        """T_ref_view (V, 4, 4) from RGB-D registration, or None when the model estimates the poses itself."""
        if self.config.condition_frame == 'own':
            return None
        from geo4d_ros.geometry.registration import register_views

        others = [register_views(frames[0], frame).T_ref_second for frame in frames[1:]]
        return np.stack([np.eye(4), *others])

    def resized(self, observation: Observation) -> tuple[RgbdFrame, ...]:
        """The views at the model's size, resampled as the training data were."""
        size = (self.config.height, self.config.width)
        how = (self.convention.resampling, self.convention.half_pixel_intrinsics)
        return tuple(resize_frame(view, *size, *how) for view in observation.views)

    def prepare_images(
        self, frames: tuple[RgbdFrame, ...], T_ref_view: np.ndarray | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """RGB (V, 3, H, W) and pointmap (V, 3, H, W) images in [-1, 1], and validity (V, H, W)."""
        device = self._execution_device
        rgb = torch.from_numpy(np.stack([f.rgb for f in frames])).to(device)
        depth = torch.from_numpy(np.stack([f.depth for f in frames])).to(device)
        K = torch.from_numpy(np.stack([f.K for f in frames])).to(device)
        valid = (depth > 0) & (depth <= MAX_DEPTH_M)
        points = pointmaps.unproject(torch.where(valid, depth, torch.zeros_like(depth)), K)
        if T_ref_view is not None:
            points = pointmaps.transform(points, torch.from_numpy(T_ref_view).to(device), valid)
        return rgb.movedim(-1, 1).float() / 127.5 - 1, pointmaps.normalise(points), valid

    def encode(
        self, observation: Observation, images: torch.Tensor, maps: torch.Tensor, streams: list[Stream]
    ) -> Condition:
        """Latents, image tokens and robot state of the observation, each encoded once."""
        dtype = self.unet.dtype
        by_modality = {}
        for modality, vae, pixels in ((POINTS, self.points_vae, maps), (RGB, self.rgb_vae, images)):
            views = [s.view for s in streams if s.modality == modality]
            if views:
                by_modality[modality] = dict(zip(views, encode_condition(vae, pixels[views]), strict=True))
        latents = torch.stack([by_modality[s.modality][s.view] for s in streams])[None].to(dtype)
        tokens = None
        if self.unet.config.token_routing != 'learned':
            sources = [token_view(s, self.unet.config.token_routing, len(images)) for s in streams]
            unique = sorted(set(sources))
            encoded = image_tokens(self.image_encoder, images[unique]).to(dtype)
            tokens = torch.stack([encoded[unique.index(v)] for v in sources])[None]
        state = None
        if self.unet.config.state_stream:
            measured = encode_states(observation.T_ref_gripper, np.float64(observation.opening))
            state = torch.from_numpy(measured)[None].to(latents.device, dtype)
        return Condition(streams, latents, tokens, state)

    def draw_noise(
        self, condition: Condition, views: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Unit noise (1, S, T, C, h, w) of the needed streams and (1, T, 10) of the state; float32."""
        every = all_streams(views, self.unet.config.points)
        noise = torch.randn((1, len(every), self.frames, *condition.latents.shape[2:]), generator=generator)
        rows = [every.index(s) for s in condition.streams]
        state = torch.randn((1, self.frames, STATE_DIM), generator=generator) if condition.state is not None else None
        device = condition.latents.device
        return noise[:, rows].to(device), None if state is None else state.to(device)

    def undo_residual(self, x: torch.Tensor, condition: Condition) -> torch.Tensor:
        """Latents of the video, of the diffused quantity: itself, or the scaled difference to the condition."""
        if not self.unet.config.predict_residual:
            return x
        modalities = [s.modality for s in condition.streams]
        std = torch.tensor([self.unet.config.residual_std[m] for m in modalities], device=x.device)
        vaes = (self.points_vae, self.rgb_vae)
        factor = torch.tensor([vaes[m].config.scaling_factor for m in modalities], device=x.device)
        base = condition.latents.float() * factor[:, None, None, None]
        return base[:, :, None] + x * std[:, None, None, None, None]

    @fixed_weights()
    def decode(
        self, latents: torch.Tensor, condition: Condition, wanted: list[Stream], chunk: int
    ) -> dict[Stream, torch.Tensor]:
        """float32 images (T, 3, H, W) in [-1, 1] of the wanted streams."""
        decoders = (self.points_decoder or self.points_vae, self.rgb_decoder or self.rgb_vae)
        return {s: decode_video(decoders[s.modality], latents[0, condition.streams.index(s)], chunk) for s in wanted}

    def _auxiliary_maps(self, auxiliary: torch.Tensor | None, streams: list[Stream], views: int) -> np.ndarray | None:
        """Probabilities (V, 2, T, H, W) of gripper and of motion, from each view's pointmap stream, or its RGB one."""
        if auxiliary is None:
            return None
        modality = POINTS if self.unet.config.points else RGB
        rows = [streams.index(Stream(v, modality)) for v in range(views)]
        maps = auxiliary[0, rows].float().sigmoid().transpose(1, 2)  # (V, 2, T, h, w)
        size = (self.config.height, self.config.width)
        resized = torch.nn.functional.interpolate(maps.flatten(0, 1), size, mode='nearest')
        return resized.unflatten(0, maps.shape[:2]).cpu().numpy()

    def memory_need(self, streams: int, chunk: int) -> MemoryNeed:
        """Bytes a prediction of `streams` streams needs at this pipeline's size."""
        settings, element = self.config, self.unet.dtype.itemsize
        factor = spatial_factor(self.points_vae)
        weights = weight_bytes(*(m for m in self.components.values() if isinstance(m, torch.nn.Module)))
        width = getattr(self.points_vae.config, 'block_out_channels', (3,))[0]
        return MemoryNeed(
            weights,
            denoise_bytes(
                streams,
                settings.frames,
                settings.height // factor,
                settings.width // factor,
                self.unet.config.block_out_channels[0],
                element,
            ),
            decode_bytes(chunk, settings.height, settings.width, width, self.points_vae.dtype.itemsize),
        )

    def check_memory(self, streams: int, chunk: int) -> None:
        """Raise ConfigurationError when the device has too little memory left for this prediction."""
        settings = self.config
        what = f'{streams} streams of {settings.frames} frames {settings.height}x{settings.width}'
        check_memory(self.memory_need(streams, chunk), torch.device(self._execution_device), what)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Record the seconds that a stage takes."""
        start = self._now()
        yield
        self.timings[stage] = self._now() - start

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self.clock()
