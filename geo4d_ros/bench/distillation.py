"""Few-step students against their teacher: the same held-out clips, the same seeds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.evaluation.metrics.frechet import OWN_ENCODER, frechet_distance, own_features
from geo4d_ros.generation.loading import load_generator
from geo4d_ros.generation.manifest import checkpoint_sha256
from geo4d_ros.generation.unet.pipeline import Geo4dPipeline
from geo4d_ros.generation.unet.streams import RGB, Stream
from geo4d_ros.training.unet.data import EpisodeWindows, list_data
from geo4d_ros.training.unet.pictures import observation_of

TEACHER_STEPS = 25


def compare(
    teacher: Path, student: Path, noised_real: Path | None, data: Path, clips: int, seeds: int
) -> dict[str, Any]:
    """The report of `geo4d evaluate distillation`.

    rows: teacher_25, student_1, student_2, noised_real_1, noised_real_2 (the student trained without backward
    simulation) and copy. frechet_to_teacher and frechet_to_truth: of RGB clips, features of `encoder`;
    psnr_to_teacher_mean: each sample to the mean of the teacher's samples of its clip [dB]; psnr_to_truth [dB];
    diversity: standard deviation over the seeds, as a share of the teacher's; calls: of the network.
    """
    require(clips >= 2 and seeds >= 2, 'clips and seeds should be at least 2', ConfigurationError)
    models = {'teacher': _load(teacher), 'student': _load(student)}
    if noised_real is not None:
        models['noised_real'] = _load(noised_real)
    settings = models['teacher'].config
    windows = EpisodeWindows(list_data(data, 'zarr'), 'zarr', settings.views, settings.frames,
                             (settings.height, settings.width), 1, settings.convention)
    chosen = [windows[i] for i in range(clips)]
    truth = np.stack([w['rgb'][:, 1:].numpy() for w in chosen])[:, None]  # (clips, 1, V, T, H, W, 3)
    plans = [(f'{name}_{n}', model, n) for name, model in models.items()
             for n in ((TEACHER_STEPS,) if name == 'teacher' else (1, 2))]
    samples, seconds = {}, {}
    for row, model, steps in plans:
        started = time.process_time()
        samples[row] = _samples(model, chosen, seeds, steps, tqdm(total=clips * seeds, desc=row))
        seconds[row] = (time.process_time() - started) / (clips * seeds)
    first = np.stack([w['rgb'][:, :1].numpy() for w in chosen])[:, None]
    samples['copy'] = np.broadcast_to(first, (clips, seeds, *truth.shape[2:]))
    reference = samples[f'teacher_{TEACHER_STEPS}']
    rows = {row: _figures(value, reference, truth) for row, value in samples.items()}
    for row, _, steps in plans:
        rows[row] |= {'calls': steps, 'processor_s': seconds[row]}
    hashes = {name: checkpoint_sha256(path) for name, path in
              (('teacher', teacher), ('student', student), ('noised_real', noised_real)) if path is not None}
    return {'rows': rows, 'clips': clips, 'seeds': seeds, 'encoder': OWN_ENCODER, 'model_sha256': hashes,
            'size': [settings.height, settings.width, settings.frames]}


def _load(path: Path) -> Geo4dPipeline:
    pipeline = load_generator(path)
    require(isinstance(pipeline, Geo4dPipeline), f'{path} is not a diffusion model', ConfigurationError)
    return pipeline


def _samples(model: Geo4dPipeline, windows: Iterable[dict], seeds: int, steps: int, bar: tqdm) -> np.ndarray:
    """RGB (clips, seeds, V, T, H, W, 3) uint8."""
    clips = []
    for window in windows:
        observation, rows = observation_of(window), []
        for seed in range(seeds):
            decoded = model.generate(observation, seed, steps=steps).decoded
            rows.append(np.stack([_uint8(decoded[Stream(v, RGB)]) for v in range(len(observation.views))]))
            bar.update()
        clips.append(np.stack(rows))
    bar.close()
    return np.stack(clips)


def _uint8(images: torch.Tensor) -> np.ndarray:
    """(T, H, W, 3) of images (T, 3, H, W) in [-1, 1]."""
    return ((images.movedim(1, -1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()


def _figures(samples: np.ndarray, teacher: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    features, of_teacher, of_truth = (_features(x) for x in (samples, teacher, truth))
    spread = float(teacher.std(1, dtype=np.float64).mean())
    return {
        'frechet_to_teacher': frechet_distance(features, of_teacher),
        'frechet_to_truth': frechet_distance(features, of_truth),
        'psnr_to_teacher_mean': _psnr(samples, teacher.mean(1, keepdims=True)),
        'psnr_to_truth': _psnr(samples, truth),
        'diversity': float(samples.std(1, dtype=np.float64).mean()) / max(spread, 1e-9),
    }


def _features(samples: np.ndarray) -> np.ndarray:
    """(n, F) of every clip, seed and view."""
    return np.stack([own_features(view) for clip in samples for sample in clip for view in sample])


def _psnr(samples: np.ndarray, goal: np.ndarray) -> float:
    """Mean over the samples [dB]."""
    error = (samples.astype(np.float64) - goal) ** 2
    per_sample = error.mean(tuple(range(2, error.ndim)))
    return float((10 * np.log10(255**2 / np.maximum(per_sample, 1e-9))).mean())
