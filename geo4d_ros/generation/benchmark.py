"""Times the pipeline against the released algorithm, in one process, on the same weights and noise."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from geo4d_ros.generation.pipeline import Geo4dPipeline
from geo4d_ros.generation.presets import RELEASED_UNET, build
from geo4d_ros.generation.released_algorithm import ReleasedAlgorithm
from geo4d_ros.generation.streams import Stream
from geo4d_ros.types import Observation

PRESETS = {'small': 'geo4d-sim-unet', 'reduced-width': 'geo4d-svd-reduced', 'svd': 'geo4d-svd'}
# What the consumer asks for: pointmaps only (the tracker's need), with the reference's RGB, or everything.
CONSUMERS: dict[str, tuple[int, ...] | None] = {'points': (), 'points_and_reference_rgb': (0,), 'everything': None}


@dataclass
class Run:
    """Seconds per stage of one prediction, and its decoded images."""

    stages: dict[str, float]
    images: dict[Stream, torch.Tensor]

    @property
    def total(self) -> float:
        """Encode, denoise and decode together [s]."""
        return sum(self.stages[name] for name in ('encode', 'denoise', 'decode'))


def benchmark_pipeline(preset: str) -> Geo4dPipeline:
    """The preset with random weights, configured as released (one decoder, no anchor, 25 Euler steps)."""
    learned = preset == 'small'
    unet = {'predict_residual': False, 'decoders': 'shared'} if learned else dict(RELEASED_UNET)
    settings = {'sampler': 'euler', 'steps': 25, 'anchor': False, 'condition_frame': 'own'}
    return build(PRESETS[preset], {**unet, 'link_zero_init': False}, settings)


def optimised_run(pipeline: Geo4dPipeline, observation: Observation, steps: int, consumer: str) -> Run:
    """One prediction."""
    prediction = pipeline.generate(observation, 0, steps=steps, rgb_views=CONSUMERS[consumer])
    return Run(dict(pipeline.timings), prediction.decoded)


def relative_difference(images: dict[Stream, torch.Tensor], reference: dict[Stream, torch.Tensor]) -> float:
    """||a - b|| / ||b|| over all the images that both have."""
    pairs = [(a.float().cpu(), reference[s].float().cpu()) for s, a in images.items()]
    error = sum(float((a - b).square().sum()) for a, b in pairs)
    return float(np.sqrt(error / sum(float(b.square().sum()) for _, b in pairs)))


def percentiles(runs: list[Run]) -> dict[str, dict[str, float]]:
    """Stage -> p50 and p95 in milliseconds."""
    stages = {name: [r.stages[name] for r in runs] for name in ('encode', 'denoise', 'decode')}
    stages['total'] = [r.total for r in runs]
    return {
        name: {'p50': 1e3 * float(np.percentile(v, 50)), 'p95': 1e3 * float(np.percentile(v, 95))}
        for name, v in stages.items()
    }


def count_flops(pipeline: Geo4dPipeline, observation: Observation, steps: int, consumer: str) -> int:
    """Floating-point operations of one prediction, counted on one step and scaled for the others."""
    counts = []
    for n in (1, 2):
        with FlopCounterMode(display=False) as counter:
            optimised_run(pipeline, observation, n, consumer)
        counts.append(counter.get_total_flops())
    return counts[0] + (steps - 1) * (counts[1] - counts[0])


def benchmark(
    preset: str,
    device: str = 'cpu',
    repeats: int = 3,
    dtype: str = 'float32',
    compiled: bool = False,
    flops: bool = True,
) -> dict[str, Any]:
    """The report of `geo4d benchmark generator`.

    On the CPU, times are processor time, which other processes cannot stretch.
    speedup_*: released algorithm's total over the pipeline's p50, for the `points` consumer;
    `consumers` has the same for the others. relative_output_difference: at 25 steps in float32.
    """
    torch.manual_seed(0)
    observation = Observation.example()
    pipeline = benchmark_pipeline(preset).to(device)
    clock = time.process_time if device == 'cpu' else time.perf_counter
    pipeline.clock = clock
    released = ReleasedAlgorithm(pipeline, clock)
    if dtype != 'float32':
        pipeline.to(dtype=getattr(torch, dtype))
    if compiled:
        pipeline.compile()
    optimised_run(pipeline, observation, 1, 'everything')  # warm-up
    started = time.perf_counter()
    runs = {
        (c, n): [optimised_run(pipeline, observation, n, c) for _ in range(repeats)] for c in CONSUMERS for n in (25, 8)
    }
    peak = peak_memory_mib(device)
    reference_images, reference_stages = released(observation, 0)
    reference = Run(reference_stages, reference_images)
    report: dict[str, Any] = {
        'preset': preset,
        'device': device_name(device),
        'dtype': dtype,
        'compiled': compiled,
        'repeats': repeats,
        'clock': 'processor time' if device == 'cpu' else 'wall time',
        'threads': torch.get_num_threads(),
        'memory_need_mib': pipeline.memory_need(4, pipeline.frames).total / 2**20,
        'unet_parameters': sum(p.numel() for p in pipeline.unet.parameters()),
        'peak_memory_mib': peak,
        'released_ms': {k: 1e3 * v for k, v in {**reference.stages, 'total': reference.total}.items()},
        'consumers': {c: consumer_report(runs, c, reference) for c in CONSUMERS},
    }
    first = report['consumers']['points']
    names = ('stages_ms', 'speedup_25_steps', 'speedup_8_steps', 'relative_output_difference')
    report.update({name: first[name] for name in names})
    if flops:
        report['flops'] = {str(n): count_flops(pipeline, observation, n, 'points') for n in (25, 8)}
    return {**report, 'wall_s': time.perf_counter() - started}


def consumer_report(runs: dict[tuple[str, int], list[Run]], consumer: str, reference: Run) -> dict[str, Any]:
    """Timings, speed-ups and output difference for one consumer."""
    totals = {n: float(np.median([r.total for r in runs[consumer, n]])) for n in (25, 8)}
    return {
        'stages_ms': percentiles(runs[consumer, 25]),
        'stages_8_steps_ms': percentiles(runs[consumer, 8]),
        'speedup_25_steps': reference.total / totals[25],
        'speedup_8_steps': reference.total / totals[8],
        'relative_output_difference': relative_difference(runs[consumer, 25][0].images, reference.images),
    }


def peak_memory_mib(device: str) -> float:
    """Peak memory so far: of the device, or of this process."""
    if device.startswith('cuda'):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def device_name(device: str) -> str:
    """The GPU's name, or 'cpu'."""
    return torch.cuda.get_device_name() if device.startswith('cuda') else device
