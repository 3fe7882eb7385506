"""Evaluates a generator's videos on one episode: every row of the table, the read-outs, the diversity."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from geo4d_ros.errors import ConfigurationError, Geo4dError
from geo4d_ros.evaluation.metrics.depth import moved_mask
from geo4d_ros.evaluation.metrics.frechet import i3d_features, own_features
from geo4d_ros.evaluation.metrics.futures import future_figures
from geo4d_ros.evaluation.metrics.pose import pose_errors
from geo4d_ros.evaluation.simulated_truth import TruthClip, copy_video
from geo4d_ros.evaluation.video.data import ClipSource, clips_of
from geo4d_ros.evaluation.video.oracle_motion import oracle_motion_video
from geo4d_ros.evaluation.video.rows import ClipMetrics, clip_metrics
from geo4d_ros.generation.protocol import VideoGenerator
from geo4d_ros.tracking.protocol import Tracker
from geo4d_ros.types import GripperTrack, TrackStatus, Video4D

READOUTS = ('fused', 'video', 'state')


@dataclass(frozen=True)
class VideoOptions:
    """What is the same for all episodes. rows: (name, checkpoint) of each model row; the first is the model.
    gaussians: how many of them reconstruct every clip, 0 for no such row."""

    rows: tuple[tuple[str, str], ...]
    split: str
    windows: int = 4
    size: tuple[int, int] = (96, 128)
    diversity_seeds: int = 2
    readouts: tuple[str, ...] = READOUTS
    tracker: str = 'model'
    device: str = 'cpu'
    i3d: str | None = None
    lpips: str | None = None
    gaussians: int = 0
    pictures: bool = True


class ReadoutErrors(TypedDict):
    """Of one read-out in one clip, (T,) by predicted step."""

    position_cm: np.ndarray
    rotation_deg: np.ndarray
    opening_mm: np.ndarray
    lost: np.ndarray


class Sample(TypedDict):
    """Pictures of a clip: colours (V, T+1, H, W, 3) uint8, the reference view's depth (T+1, H, W) [m]."""

    true: np.ndarray
    predicted: np.ndarray
    true_depth: np.ndarray
    predicted_depth: np.ndarray


@dataclass
class ClipResult:
    """One clip. rows: row -> metrics of `clip_metrics` (+ lpips); readouts: name -> errors per step of the model;
    baseline_readouts: the same by row; features: row -> per view feature vectors; diversity and futures (see
    `future_figures`) per model row; sample:
    pictures of the first clip."""

    task: str
    seed: int
    rows: dict[str, ClipMetrics]
    readouts: dict[str, ReadoutErrors]
    baseline_readouts: dict[str, dict[str, ReadoutErrors]]
    features: dict[str, list[np.ndarray]]
    diversity: dict[str, float]
    predict_s: float
    futures: dict[str, dict[str, float]] = field(default_factory=dict)
    sample: Sample | None = field(default=None, repr=False)


@dataclass(frozen=True)
class VideoParts:
    """Generators by row (the first is the model), trackers by read-out, feature function of a clip, LPIPS or None,
    and how many Gaussians reconstruct every clip (0: none do)."""

    generators: dict[str, VideoGenerator]
    trackers: dict[str, Tracker]
    features: Callable[[np.ndarray], np.ndarray] = own_features
    lpips: Callable[[np.ndarray, np.ndarray], float] | None = None
    gaussians: int = 0


@lru_cache(maxsize=1)
def _parts(options: VideoOptions) -> VideoParts:
    """What this process needs for the options, loaded once."""
    from geo4d_ros.generation.loading import load_generator
    from geo4d_ros.tracking.factory import create_tracker

    generators = {name: load_generator(path, options.device) for name, path in options.rows}
    trackers = {name: create_tracker(options.tracker, readout=name) for name in options.readouts}
    features = i3d_features(Path(options.i3d)) if options.i3d else own_features
    return VideoParts(generators, trackers, features, lpips_function(options.lpips), options.gaussians)


def lpips_function(path: str | None) -> Any:
    """Perceptual distance from a TorchScript module (images (N, 3, H, W) in -1..1, twice -> distances), or None."""
    if path is None:
        return None
    import torch

    try:
        net = torch.jit.load(path, map_location='cpu').eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f'--lpips {path} is not a TorchScript file: {reason}') from error

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        tensors = (torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1 for x in (a, b))
        with torch.inference_mode():
            return float(net(*tensors).mean())

    return distance


def evaluate_episode(options: VideoOptions, source: ClipSource) -> list[ClipResult] | str:
    """Results of the episode's clips, or one line saying why the episode could not be used."""
    parts = _parts(options)
    model = next(iter(parts.generators.values()))
    try:
        clips = clips_of(source, options.split, options.windows, model.frames, model.dt, options.size)
    except Geo4dError as error:
        return f'{source.task} seed {source.seed}: {error}'
    return [evaluate_clip(parts, clip, options.diversity_seeds if i == 0 else 1, options.pictures and i == 0)
            for i, clip in enumerate(clips)]


def evaluate_clip(parts: VideoParts, clip: TruthClip, diversity_seeds: int = 1, picture: bool = False) -> ClipResult:
    """Every row, read-out and feature of one clip; diversity needs two seeds or more."""
    videos, seconds = _predictions(parts, clip)
    rows = {name: clip_metrics(video, clip) for name, video in videos.items()}
    if parts.lpips is not None:
        for name, video in videos.items():
            rows[name]['lpips'] = float(np.mean([parts.lpips(video.rgb[v, 1:], clip.video.rgb[v, 1:])
                                                 for v in range(video.views)]))
    first, *others = parts.generators
    model = videos[first]
    others += ['gaussians'] if parts.gaussians else []
    alone = {name: tracker for name, tracker in parts.trackers.items() if name != 'fused'}
    features = {name: [parts.features(view) for view in video.rgb]
                for name, video in {**videos, 'truth': clip.video}.items()}
    samples = {} if diversity_seeds < 2 else {
        name: [videos[name], *(generator.predict(clip.observation, seed=s) for s in range(1, diversity_seeds))]
        for name, generator in parts.generators.items()}
    diversity = {name: _diversity(several, clip) for name, several in samples.items()}
    futures = {name: future_figures(np.stack([v.state.T_ref_gripper[1:, :3, 3] for v in several]),
                                    clip.track.T_ref_gripper[1:, :3, 3])
               for name, several in samples.items() if all(v.state is not None for v in several)}
    return ClipResult(clip.task, clip.seed, rows, _readouts(parts.trackers, model, clip, parts.generators[first]),
                      {name: _readouts(alone, videos[name], clip, parts.generators.get(name)) for name in others},
                      features, diversity, seconds,
                      futures, _sample(model, clip) if picture else None)


def _predictions(parts: VideoParts, clip: TruthClip) -> tuple[dict[str, Video4D], float]:
    """Every row's video, and how long the first model took [s]."""
    videos, seconds = {}, 0.0
    for i, (name, generator) in enumerate(parts.generators.items()):
        start = time.perf_counter()
        videos[name] = generator.predict(clip.observation, seed=0)
        seconds = time.perf_counter() - start if i == 0 else seconds
    if parts.gaussians:
        from geo4d_ros.evaluation.baselines.gaussians import GaussianFit
        from geo4d_ros.evaluation.baselines.gaussians import reconstruct as fitted

        videos['gaussians'] = fitted(clip, GaussianFit(parts.gaussians))
    reconstruct = getattr(next(iter(parts.generators.values())), 'reconstruct', None)
    videos['copy'] = copy_video(clip)
    videos['oracle_motion'] = oracle_motion_video(clip)
    # A model whose codec loses nothing has the truth itself as its ceiling.
    videos['codec'] = clip.video if reconstruct is None else reconstruct(clip.video)
    return videos, seconds


def _readouts(trackers: dict[str, Tracker], video: Video4D, clip: TruthClip, generator: Any = None,
              ) -> dict[str, ReadoutErrors]:
    """Errors of each read-out per step 1..T; a video without a state stream has only `video`. `copy`: stays put.

    `video` is measured on pictures into which the generator has drawn no robot, see `generation.loading.read_by`.
    """
    from geo4d_ros.generation.loading import read_by

    tracks: dict[str, GripperTrack] = {'copy': copy_video(clip).state}
    for name, tracker in trackers.items():
        if name == 'video' or video.state is not None:
            pure = read_by(generator, name)
            shown = video if pure is generator else pure.predict(clip.observation)
            tracks[name] = tracker.track(shown, clip.observation)
    out: dict[str, ReadoutErrors] = {}
    for name, track in tracks.items():
        position, rotation = pose_errors(track.T_ref_gripper[1:], clip.track.T_ref_gripper[1:])
        out[name] = {'position_cm': position, 'rotation_deg': rotation,
                     'opening_mm': 1000 * np.abs(track.opening[1:] - clip.track.opening[1:]),
                     'lost': np.array([s is TrackStatus.LOST for s in track.status[1:]])}
    return out


def _diversity(videos: list[Video4D], clip: TruthClip) -> float:
    """Mean spread over samples (standard deviation of 0..1 colours) where the truth moves; 0 = deterministic."""
    spread = np.stack([video.rgb for video in videos]).astype(np.float32).std(axis=0).mean(axis=-1) / 255
    true = clip.video
    moved = np.stack([moved_mask(true.rgb[v], true.points[v], true.valid[v]) for v in range(true.views)])
    return float(spread[moved].mean()) if moved.any() else float('nan')


def _sample(video: Video4D, clip: TruthClip) -> Sample:
    """Small pictures for the report: colours and reference depth, true and predicted."""
    true = clip.video
    return {'true': true.rgb, 'predicted': video.rgb,
            'true_depth': np.stack([true.depth(0, t) for t in range(true.frames)]),
            'predicted_depth': np.stack([video.depth(0, t) for t in range(video.frames)])}
