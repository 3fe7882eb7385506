"""Few-step students against their teacher: the same held-out clips, the same seeds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from tqdm.auto import tqdm

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.evaluation.metrics.frechet import OWN_ENCODER, frechet_distance, own_features
from geo4d_ros.generation.loading import load_generator
from geo4d_ros.generation.manifest import checkpoint_sha256
from geo4d_ros.generation.unet import pointmaps
from geo4d_ros.generation.unet.pipeline import Geo4dPipeline
from geo4d_ros.generation.unet.sampling.denoising import noise_levels, partial_levels
from geo4d_ros.generation.unet.streams import POINTS, RGB, Stream
from geo4d_ros.training.unet.data import EpisodeWindows, list_data
from geo4d_ros.training.unet.pictures import observation_of

TEACHER_STEPS = 25
UNTIL = (10.0, 2.0)  # noise levels at which the teacher's denoising is stopped early
_METRE = 100.0  # [cm]


class Row(NamedTuple):
    """One way to make a film: a model, its steps, the noise level at which it stops."""

    model: Geo4dPipeline
    steps: int
    until: float = 0.0

    @property
    def calls(self) -> int:
        """How often the network runs."""
        return len(partial_levels(noise_levels(self.model.config, self.steps, None), self.until)) - 1


class Films(NamedTuple):
    """Samples of every clip and seed: rgb (clips, seeds, V, T, H, W, 3) uint8, points likewise float32 [m]."""

    rgb: np.ndarray
    points: np.ndarray


class DistillationReport(TypedDict):
    """See `compare`; size: height, width and frames of the clips."""

    rows: dict[str, dict[str, float]]
    clips: int
    seeds: int
    encoder: str
    model_sha256: dict[str, str]
    size: list[int]


def compare(
    teacher: Path, student: Path | None, noised_real: Path | None, data: Path, clips: int, seeds: int
) -> DistillationReport:
    """The report of `geo4d evaluate distillation`.

    rows: teacher_25, teacher_25_until_S (the same, stopped at noise level S and the estimate there taken), student_1,
    student_2, noised_real_1, noised_real_2 (the student trained without backward simulation) and copy; without
    students, what stopping the teacher early costs.
    frechet_to_teacher and frechet_to_truth: of RGB clips, features of `encoder`; psnr_to_teacher_mean: each sample to
    the mean of the teacher's samples of its clip [dB]; psnr_to_truth [dB]; diversity: standard deviation over the
    seeds, as a share of the teacher's; gripper_points_cm: mean distance of the predicted points from the true ones at
    the pixels where the gripper will be, which is what a plan is read from; calls: of the network.
    """
    require(clips >= 2 and seeds >= 2, 'clips and seeds should be at least 2', ConfigurationError)
    paths = {'teacher': teacher, 'student': student, 'noised_real': noised_real}
    models = {name: _load(path) for name, path in paths.items() if path is not None}
    settings = models['teacher'].config
    windows = EpisodeWindows(list_data(data, 'zarr'), 'zarr', settings.views, settings.frames,
                             (settings.height, settings.width), 1, settings.convention)
    chosen = [windows[i] for i in range(clips)]
    plans = _plans(models)
    samples, seconds = {}, {}
    for name, plan in plans.items():
        started = time.process_time()
        samples[name] = _samples(plan, chosen, seeds, tqdm(total=clips * seeds, desc=name))
        seconds[name] = (time.process_time() - started) / (clips * seeds)
    now, truth = _true_films(chosen, slice(0, 1)), _true_films(chosen, slice(1, None))
    shape = (clips, seeds, *truth.rgb.shape[2:])
    samples['copy'] = Films(np.broadcast_to(now.rgb, shape), np.broadcast_to(now.points, shape))
    counted = np.stack([(w['gripper'] & (w['depth'] > 0))[:, 1:].numpy() for w in chosen])
    reference = samples[f'teacher_{TEACHER_STEPS}']
    rows = {name: _figures(films, reference, truth, counted) for name, films in samples.items()}
    for name, plan in plans.items():
        rows[name] |= {'calls': plan.calls, 'processor_s': seconds[name]}
    hashes = {name: checkpoint_sha256(path) for name, path in paths.items() if path is not None}
    return {'rows': rows, 'clips': clips, 'seeds': seeds, 'encoder': OWN_ENCODER, 'model_sha256': hashes,
            'size': [settings.height, settings.width, settings.frames]}


def _plans(models: dict[str, Geo4dPipeline]) -> dict[str, Row]:
    plans = {f'teacher_{TEACHER_STEPS}': Row(models['teacher'], TEACHER_STEPS)}
    for level in UNTIL:
        plans[f'teacher_{TEACHER_STEPS}_until_{level:g}'] = Row(models['teacher'], TEACHER_STEPS, level)
    return plans | {f'{name}_{n}': Row(model, n) for name, model in models.items() if name != 'teacher' for n in (1, 2)}


def _load(path: Path) -> Geo4dPipeline:
    pipeline = load_generator(path)
    require(isinstance(pipeline, Geo4dPipeline), f'{path} is not a diffusion model', ConfigurationError)
    return pipeline


def _samples(row: Row, windows: Iterable[dict], seeds: int, bar: tqdm) -> Films:
    """Every clip `seeds` times."""
    rgb, points = [], []
    for window in windows:
        observation = observation_of(window)
        views = range(len(observation.views))
        for seed in range(seeds):
            decoded = row.model.generate(observation, seed, steps=row.steps, until=row.until).decoded
            rgb.append(np.stack([_uint8(decoded[Stream(v, RGB)]) for v in views]))
            points.append(np.stack([pointmaps.denormalise(decoded[Stream(v, POINTS)]).numpy() for v in views]))
            bar.update()
    bar.close()
    return Films(*(np.stack(x).reshape(-1, seeds, *x[0].shape) for x in (rgb, points)))


def _true_films(windows: Iterable[dict[str, torch.Tensor]], frames: slice) -> Films:
    """What happened, as one sample (clips, 1, V, T, H, W, 3); points in the reference frame."""
    rgb, points = [], []
    for window in windows:
        own = pointmaps.unproject(window['depth'][:, frames], window['K'].float()[:, None])
        rgb.append(window['rgb'][:, frames].numpy())
        points.append(pointmaps.transform(own, window['T_ref_view'].float()[:, None], None).numpy())
    return Films(np.stack(rgb)[:, None], np.stack(points)[:, None])


def _uint8(images: torch.Tensor) -> np.ndarray:
    """(T, H, W, 3) of images (T, 3, H, W) in [-1, 1]."""
    return ((images.movedim(1, -1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()


def _figures(samples: Films, teacher: Films, truth: Films, counted: np.ndarray) -> dict[str, float]:
    features, of_teacher, of_truth = (_features(x.rgb) for x in (samples, teacher, truth))
    spread = float(teacher.rgb.std(1, dtype=np.float64).mean())
    away = np.linalg.norm(samples.points - truth.points, axis=-1)  # (clips, seeds, V, T, H, W)
    here = np.broadcast_to(counted[:, None], away.shape)
    return {
        'frechet_to_teacher': frechet_distance(features, of_teacher),
        'frechet_to_truth': frechet_distance(features, of_truth),
        'psnr_to_teacher_mean': _psnr(samples.rgb, teacher.rgb.mean(1, keepdims=True)),
        'psnr_to_truth': _psnr(samples.rgb, truth.rgb),
        'diversity': float(samples.rgb.std(1, dtype=np.float64).mean()) / max(spread, 1e-9),
        'gripper_points_cm': _METRE * float(away[here].mean()) if here.any() else float('nan'),
    }


def _features(samples: np.ndarray) -> np.ndarray:
    """(n, F) of every clip, seed and view."""
    return np.stack([own_features(view) for clip in samples for sample in clip for view in sample])


def _psnr(samples: np.ndarray, goal: np.ndarray) -> float:
    """Mean over the samples [dB]."""
    error = (samples.astype(np.float64) - goal) ** 2
    per_sample = error.mean(tuple(range(2, error.ndim)))
    return float((10 * np.log10(255**2 / np.maximum(per_sample, 1e-9))).mean())
