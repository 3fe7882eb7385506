"""Differences to the released model's conventions, measured on a random scene and random weights.

Every expected number is computed here from the convention itself, in numpy or with the library's plain functions,
not with the code it is compared to. docs/fidelity.md explains the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F

from geo4d_ros.bench.speed.released_algorithm import ReleasedAlgorithm
from geo4d_ros.data.readers.released_episodes import is_static, released_split
from geo4d_ros.generation.unet import pointmaps
from geo4d_ros.generation.unet.assembly import Prediction, assemble_video
from geo4d_ros.generation.unet.conventions import CONVENTIONS
from geo4d_ros.generation.unet.encoders.autoencoders import encode_target
from geo4d_ros.generation.unet.encoders.image_tokens import clip_pixels
from geo4d_ros.generation.unet.pipeline import Geo4dPipeline
from geo4d_ros.generation.unet.presets import RELEASED_UNET, build
from geo4d_ros.generation.unet.streams import POINTS, RGB, Stream, all_streams, token_view
from geo4d_ros.geometry.resampling import resize_colour, resize_depth, resize_intrinsics
from geo4d_ros.training.unet.batches import Latents, make_clips, mask_to_latents
from geo4d_ros.training.unet.stages import dropped
from geo4d_ros.types import Observation, RgbdFrame


class Deviation(TypedDict):
    """Relative difference of what each convention gives to what the released model's does."""

    released: float
    corrected: float
    what: str


class FidelityReport(TypedDict):
    """The report of `geo4d evaluate fidelity`."""

    deviations: dict[str, Deviation]
    seed: int


Rows = dict[str, Deviation]
SIZE = (48, 64)
_FRAMES = 3


def measure(seed: int = 0) -> FidelityReport:
    """The report of `geo4d evaluate fidelity`: name -> relative difference under each convention, and what it is."""
    torch.set_grad_enabled(False)
    try:
        rng = np.random.default_rng(seed)
        rows: Rows = {}
        for part in (_points, _targets, _resampling, _masks, _data, _model):
            rows |= part(rng)
        return {'deviations': rows, 'seed': seed}
    finally:
        torch.set_grad_enabled(True)


def difference(got: Any, expected: Any) -> float:
    """||got - expected|| / ||expected||."""
    got, expected = (np.asarray(x, np.float64) for x in (got, expected))
    return float(np.linalg.norm(got - expected) / max(np.linalg.norm(expected), 1e-12))


def row(what: str, expected: Any, got: Mapping[str, Any]) -> Deviation:
    """A row of the report from the expected value and that of each convention."""
    return {'corrected': difference(got['corrected'], expected), 'released': difference(got['released'], expected),
            'what': what}


def _scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """depth (2, H, W) [m] with a fifth invalid, K (2, 3, 3), T_ref_view (2, 4, 4)."""
    depth = rng.uniform(0.5, 1.4, (2, *SIZE)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.2] = 0
    K = np.tile(np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]]), (2, 1, 1))
    T = np.tile(np.eye(4), (2, 1, 1))
    c, s = np.cos(0.3), np.sin(0.3)
    T[1, :3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    T[1, :3, 3] = (0.5, 0.1, 0.3)
    return depth, K, T


def _moved_points(depth: np.ndarray, K: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Points (H, W, 3) in the reference frame, those without depth moved like the others, pixel by pixel."""
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]]
    rays = np.einsum('ij,hwj->hwi', np.linalg.inv(K), np.stack([u, v, np.ones_like(u)], -1).astype(np.float64))
    return np.einsum('ij,hwj->hwi', T[:3, :3], rays * depth[..., None]) + T[:3, 3]


def _points(rng: np.random.Generator) -> Rows:
    """Targets of view 2, and the mask that is read off them."""
    depth, K, T = _scene(rng)
    expected = _moved_points(depth[1], K[1], T[1])
    count = _FRAMES + 1
    window = {
        'index': torch.zeros(1, dtype=torch.int64), 'rgb': torch.zeros((1, 2, count, *SIZE, 3), dtype=torch.uint8),
        'depth': torch.from_numpy(depth)[None, :, None].expand(-1, -1, count, -1, -1), 'K': torch.from_numpy(K)[None],
        'T_ref_view': torch.from_numpy(T)[None], 'gripper': torch.zeros((1, 2, count, *SIZE), dtype=torch.bool),
        'T_ref_gripper': torch.eye(4).expand(1, count, 4, 4), 'opening': torch.zeros(1, count),
        'expected': torch.ones((1, count), dtype=torch.bool),
    }
    targets, masks = {}, {}
    image = pointmaps.normalise(torch.from_numpy(expected).float())[None].expand(_FRAMES, -1, -1, -1)
    own = pointmaps.normalise(torch.from_numpy(_moved_points(depth[0], K[0], T[0])).float())[None].expand_as(image)
    frames = tuple(RgbdFrame(np.zeros((*SIZE, 3), np.uint8), depth[v], K[v]) for v in (0, 1))
    decoded = {Stream(0, POINTS): own, Stream(1, POINTS): image}
    prediction = Prediction(frames, torch.zeros(2, 3, *SIZE), torch.from_numpy(depth > 0), decoded, T, None, None)
    for name, convention in CONVENTIONS.items():
        clips = make_clips(window, torch.device('cpu'), 'own', (0, 0), convention.moves_invalid_points, 0)
        targets[name] = pointmaps.denormalise(clips.targets[0, 1, 0]).numpy()
        video = assemble_video(prediction, Observation(frames), 0.5, False, convention.moves_invalid_points)
        masks[name] = video.valid[1, 1:] == 0
    return {
        'points_view_2': row('target points of the second view', expected, targets),
        'mask_view_2': row('pixels read as invalid, of a prediction that moves invalid points',
                           np.broadcast_to(depth[1] == 0, (_FRAMES, *SIZE)), masks),
    }


def _targets(rng: np.random.Generator) -> Rows:
    """Target latents of an autoencoder whose quant_conv is the condition's only."""
    vae = build('geo4d-svd-reduced').points_vae
    torch.nn.init.normal_(vae.quant_conv.weight, generator=torch.Generator().manual_seed(int(rng.integers(1 << 30))))
    images = torch.from_numpy(rng.uniform(-1, 1, (2, 3, *SIZE)).astype(np.float32))
    mean, log_variance = vae.encoder(images).numpy().astype(np.float64).reshape(2, 2, 4, 6, 8).transpose(1, 0, 2, 3, 4)
    noise = torch.randn((2, 4, 6, 8), generator=torch.Generator().manual_seed(1)).numpy()
    expected = (mean + np.exp(log_variance.clip(-30, 20) / 2) * noise) * 0.18215
    got = {name: encode_target(vae, images, torch.Generator().manual_seed(1), c.target_quant_conv)
           for name, c in CONVENTIONS.items()}
    return {'target_latents': row('latents of the training targets', expected, got)}


def _bicubic(size_in: int, size_out: int) -> np.ndarray:
    """(size_out, size_in): cubic convolution, a = -0.75, corners aligned, edges repeated."""
    a, matrix = -0.75, np.zeros((size_out, size_in))
    for i in range(size_out):
        at = i * (size_in - 1) / (size_out - 1)
        first = int(np.floor(at))
        for k in range(-1, 3):
            x = abs(at - first - k)
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            weight = near if x <= 1 else a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            matrix[i, min(max(first + k, 0), size_in - 1)] += weight
    return matrix


def _gaussian(size_in: int, size_out: int) -> np.ndarray:
    """(size_in, size_in): the blur before the resize, mirrored at the edges."""
    deviation = max((size_in / size_out - 1) / 2, 0.001)
    window = max(int(2 * 2 * deviation), 3)
    half = (window + (window % 2 == 0)) // 2
    weights = np.array([np.exp(-(k**2) / (2 * deviation**2)) for k in range(-half, half + 1)])
    weights /= weights.sum()
    matrix = np.zeros((size_in, size_in))
    for i in range(size_in):
        for k, weight in zip(range(-half, half + 1), weights, strict=True):
            at = abs(i + k)
            matrix[i, at if at < size_in else 2 * (size_in - 1) - at] += weight
    return matrix


def _resampling(rng: np.random.Generator) -> Rows:
    """CLIP's input; colour, depth and intrinsics of a picture of 640x480 at the model's size."""
    image = rng.uniform(-1, 1, (3, 64, 80)).astype(np.float32)
    sides = [_bicubic(n, 24) @ _gaussian(n, 24) for n in image.shape[1:]]
    mean, std = np.array([[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]])[..., None, None]
    clip = ((np.einsum('ih,chw,jw->cij', sides[0], image, sides[1]) + 1) / 2 - mean) / std
    pixels = clip_pixels(torch.from_numpy(image)[None], 24)[0]
    rgb = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    depth = np.where(rng.random((480, 640)) < 0.3, 0, rng.uniform(0.5, 1.9, (480, 640))).astype(np.float32)
    K = np.array([[500.0, 0, 320.0], [0, 500.0, 240.0], [0, 0, 1]])
    expected = {
        'colour': F.interpolate(torch.from_numpy(rgb).permute(2, 0, 1)[None].float(), (256, 320), mode='bilinear')[0]
        .permute(1, 2, 0).round().numpy(),
        'depth': F.interpolate(torch.from_numpy(depth)[None, None], (256, 320), mode='bilinear')[0, 0].numpy(),
        'K': np.array([[250.0, 0, 160.0], [0, 500 * 256 / 480, 128.0], [0, 0, 1]]),
    }
    got: dict[str, dict[str, np.ndarray]] = {'colour': {}, 'depth': {}, 'K': {}}
    for name, how in CONVENTIONS.items():
        got['colour'][name] = resize_colour(rgb, 256, 320, how.resampling)
        got['depth'][name] = resize_depth(depth, 256, 320, how.resampling)
        got['K'][name] = resize_intrinsics(K, 0.5, 256 / 480, how.half_pixel_intrinsics)
    return {
        'clip_input': row('pixels that CLIP sees', clip, dict.fromkeys(CONVENTIONS, pixels)),
        'colour_resampling': row('RGB of 640x480 at 320x256, white noise', expected['colour'], got['colour']),
        'depth_resampling': row('depth of 640x480 at 320x256, white noise', expected['depth'], got['depth']),
        'intrinsics': row('K of the resized picture', expected['K'], got['K']),
    }


def _masks(rng: np.random.Generator) -> Rows:
    """The gripper's mask at latent resolution, and which conditions are dropped."""
    mask = np.zeros((64, 80), bool)
    for _ in range(6):
        y, x = rng.integers(0, 56), rng.integers(0, 72)
        mask[y : y + rng.integers(3, 14), x : x + rng.integers(3, 14)] = True
    cells = mask[::8, ::8]
    for _ in range(2):  # each cell, the one above, the one to the left and the one between
        padded = np.pad(cells, ((1, 0), (1, 0)))
        cells = padded[1:, 1:] | padded[:-1, 1:] | padded[1:, :-1] | padded[:-1, :-1]
    vae = build('geo4d-svd-reduced').points_vae
    masks = {n: mask_to_latents(torch.from_numpy(mask)[None], vae, True, c.gripper_pixel)[0, 0]
             for n, c in CONVENTIONS.items()}
    views, kept = [0, 1, 0, 1], {}
    latents = Latents(torch.ones(1, 4, 10, 1, 1, 1), torch.ones(1, 4, 1, 1, 1), torch.ones(1, 4, 1, 1),
                      torch.zeros(1, 10, 10), torch.zeros(1, 10))
    draws = torch.rand(42, generator=torch.Generator().manual_seed(3)).numpy() >= 0.3
    expected = np.concatenate([draws[:40].reshape(4, 10), draws[40:][views][:, None]], 1)
    for name, how in CONVENTIONS.items():
        out = dropped(latents, [torch.Generator().manual_seed(3)], 0.3, views if how.frame_dropout else None)
        condition = out.condition.view(4, -1).expand(4, 10)
        kept[name] = torch.cat([condition, out.tokens.view(4, 1)], 1)
    return {
        'gripper_mask': row("cells of the gripper's loss weight", cells, masks),
        'condition_dropout': row('conditions kept, by stream and frame, and tokens', expected, kept),
    }


def _data(rng: np.random.Generator) -> Rows:
    """Static windows and the split of the episodes."""
    speeds = rng.uniform(0.0, 0.05, (64, 2))
    steps = np.arange(11)[:, None] * 0.5 * np.array([0.6, 0.0, 0.8])
    static = [is_static([v * steps for v in pair]) for pair in speeds]
    names = [Path(str(i)) for i in range(50)]
    chosen = np.random.default_rng(seed=42).choice(50, size=5, replace=False)
    validation = np.isin(np.arange(50), [int(p.name) for p in released_split(names, 'validation')])
    return {
        'static_windows': row('windows left out because no arm moves', speeds.max(1) <= 0.02,
                              dict.fromkeys(CONVENTIONS, static)),
        'validation_split': row('episodes kept for validation', np.isin(np.arange(50), chosen),
                                dict.fromkeys(CONVENTIONS, validation)),
    }


def _model(rng: np.random.Generator) -> Rows:
    """Image tokens by stream, and a whole prediction against the released algorithm, guidance and all."""
    released = [0, 1, 0, 1]  # points of both views see view 1's token, RGB of both view 2's
    order = [Stream(0, POINTS), Stream(0, RGB), Stream(1, POINTS), Stream(1, RGB)]
    tokens = {name: [token_view(s, routing, 2) for s in order] for name, routing in
              (('released', 'released'), ('corrected', 'own'))}
    pipeline = _tiny_pipeline(rng)
    observation = Observation.example()
    images, _ = ReleasedAlgorithm(pipeline)(observation, 0, 5)
    expected = np.stack([images[s].numpy() for s in all_streams(2)])
    got = {}
    for name, options in (('released', {}), ('corrected', {'token_routing': 'own'})):
        pipeline.unet.register_to_config(**{'token_routing': 'released', **options})
        decoded = pipeline.generate(observation, 0, steps=5).decoded
        got[name] = np.stack([decoded[s].numpy() for s in all_streams(2)])
    return {
        'token_routing': row('the view whose image token each stream gets', np.add(released, 1),
                             {name: np.add(views, 1) for name, views in tokens.items()}),
        'prediction': row('images of all streams, five steps, guidance 1.0 to 2.5 there and none here', expected, got),
    }


def _tiny_pipeline(rng: np.random.Generator) -> Geo4dPipeline:
    unet = {**RELEASED_UNET, 'block_out_channels': (32, 32, 64, 64), 'num_attention_heads': (1, 1, 1, 1),
            'layers_per_block': 1, 'link_zero_init': False}
    settings = {'frames': 2, 'anchor': False, 'convention': 'released'}
    return build('geo4d-svd-reduced', unet, settings, seed=int(rng.integers(1 << 30)))
