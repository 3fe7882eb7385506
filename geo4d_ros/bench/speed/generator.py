"""Times the pipeline against the released algorithm, in one process, on the same weights and noise."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from geo4d_ros.bench.speed.released_algorithm import ReleasedAlgorithm
from geo4d_ros.generation.module_config import ModuleConfig
from geo4d_ros.generation.unet.encoders.autoencoders import PatchAutoencoder
from geo4d_ros.generation.unet.encoders.tiny_decoder import TinyTemporalDecoder
from geo4d_ros.generation.unet.kernels.prepacked import fixed_weights, flop_formulas, linear
from geo4d_ros.generation.unet.pipeline import Geo4dPipeline
from geo4d_ros.generation.unet.presets import RELEASED_UNET, build
from geo4d_ros.generation.unet.streams import Stream
from geo4d_ros.types import Observation

PRESETS = {'small': 'geo4d-sim-unet', 'reduced-width': 'geo4d-svd-reduced', 'svd': 'geo4d-svd'}
# What the consumer asks for: pointmaps only (the tracker's need), with the reference's RGB, or everything.
CONSUMERS: dict[str, tuple[int, ...] | None] = {'points': (), 'points_and_reference_rgb': (0,), 'everything': None}

REFERENCE_STEPS = 25
H100_PEAK = {'float32': 67e12, 'bfloat16': 989e12}  # dense operations per second, data sheet of the SXM card
STEPS = (25, 8, 4)


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
    unet: ModuleConfig = {'predict_residual': False, 'decoders': 'shared'} if learned else dict(RELEASED_UNET)
    settings: ModuleConfig = {'sampler': 'euler', 'steps': 25, 'anchor': False, 'condition_frame': 'own'}
    return build(PRESETS[preset], {**unet, 'link_zero_init': False}, settings)


def optimised_run(pipeline: Geo4dPipeline, observation: Observation, steps: int, consumer: str) -> Run:
    """One prediction."""
    prediction = pipeline.generate(observation, 0, steps=steps, rgb_views=CONSUMERS[consumer])
    return Run(dict(pipeline.timings), prediction.decoded)


Percentiles = dict[str, dict[str, float]]  # stage -> p50 and p95 [ms]


class ConsumerReport(TypedDict):
    """One consumer's times, and how many times the released algorithm's 25 steps take as long: median over the rounds
    and the range."""

    stages_ms: Percentiles  # of 25 steps
    stages_8_steps_ms: Percentiles
    stages_4_steps_ms: Percentiles
    speedup_25_steps: float
    speedup_25_steps_range: list[float]
    speedup_8_steps: float
    speedup_8_steps_range: list[float]
    speedup_4_steps: float
    speedup_4_steps_range: list[float]
    relative_output_difference: float  # at 25 steps, to the released algorithm in float32


class Floors(TypedDict):
    """Operations of every stage, and the time that an H100 needs for them at its peak: computed, not measured."""

    flops_once: dict[str, int]
    h100_ms_25_steps: dict[str, dict[str, float]]  # dtype -> stage
    note: str


class Headline(TypedDict):
    """See `headline`."""

    same_output_speedup_25_steps: float
    points_speedup_25_steps: float
    points_speedup_8_steps: float
    student_1_step_speedup: float
    student_1_step_speedup_range: list[float]
    student_stages_ms: Percentiles
    largest_output_difference: float


class _Measured(TypedDict, total=False):
    preset: str
    device: str
    dtype: str
    compiled: bool
    repeats: int
    clock: str
    threads: int
    instructions: str
    load_average: dict[str, float]  # before and after
    memory_need_mib: float
    unet_parameters: int
    peak_memory_mib: float
    released_ms: Percentiles
    consumers: dict[str, ConsumerReport]
    consumer: str  # which of them the next four are of
    stages_ms: Percentiles
    speedup_25_steps: float
    speedup_8_steps: float
    relative_output_difference: float
    flops: dict[str, int]  # by steps
    released_flops: int
    floor: Floors
    matmul_flops_per_s: float
    fraction_of_matmul_rate: dict[str, float]  # by steps
    wall_s: float


class GeneratorReport(_Measured, Headline):
    """The report of `geo4d benchmark generator`; the operations where they were counted."""


def relative_difference(images: dict[Stream, torch.Tensor], reference: dict[Stream, torch.Tensor]) -> float:
    """||a - b|| / ||b|| over all the images that both have."""
    pairs = [(a.float().cpu(), reference[s].float().cpu()) for s, a in images.items()]
    error = sum(float((a - b).square().sum()) for a, b in pairs)
    return float(np.sqrt(error / sum(float(b.square().sum()) for _, b in pairs)))


def percentiles(runs: list[Run]) -> Percentiles:
    """Stage -> p50 and p95 in milliseconds."""
    stages = {name: [r.stages[name] for r in runs] for name in ('encode', 'denoise', 'decode')}
    stages['total'] = [r.total for r in runs]
    return {
        name: {'p50': 1e3 * float(np.percentile(v, 50)), 'p95': 1e3 * float(np.percentile(v, 95))}
        for name, v in stages.items()
    }


def count_flops(predict: Callable[[int], Any], steps: int) -> int:
    """Floating-point operations of a prediction of so many steps: counted at one and two, the rest are alike."""
    counts = []
    for n in (1, 2):
        with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
            predict(n)
        counts.append(counter.get_total_flops())
    return counts[0] + (steps - 1) * (counts[1] - counts[0])


def benchmark(
    preset: str,
    device: str = 'cpu',
    repeats: int = 3,
    dtype: str = 'float32',
    compiled: bool = False,
    flops: bool = True,
    threads: int = 1,
) -> GeneratorReport:
    """The report of `geo4d benchmark generator`; every time in it is of a complete prediction.

    On the CPU, times are processor time of `threads` threads: waiting for other processes is not in them, but sharing
    caches and memory with others is, and not on both sides alike, so `load_average` has to be low (below 1 beside the
    run's own) for the ratios to mean anything. They depend on the `instructions` too: the wider the processor's
    vectors, the more of the released algorithm's time is not arithmetic.
    `repeats` rounds, each with one prediction of every setting and one of the released algorithm, so
    that a drift of the machine falls on both. speedup_*: median over the rounds of the released
    algorithm's time at 25 steps over the pipeline's, for the `points` consumer; `consumers` has the
    others and the range over the rounds. relative_output_difference: at 25 steps, to the released
    algorithm in float32. fraction_of_matmul_rate: the prediction's operations over what the device
    does in its time in one large matrix product of the same precision.
    """
    if device == 'cpu':
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    observation = Observation.example()
    pipeline = benchmark_pipeline(preset).to(device)
    pipeline.clock = time.process_time if device == 'cpu' else time.perf_counter
    released = ReleasedAlgorithm(pipeline, pipeline.clock)
    if dtype != 'float32':
        pipeline.to(dtype=getattr(torch, dtype))
    # Counted before compiling: the counter does not see into compiled code.
    if flops:
        counts = {str(n): count_flops(lambda k: optimised_run(pipeline, observation, k, 'points'), n) for n in STEPS}
        released_count = count_flops(lambda k: released(observation, 0, k), REFERENCE_STEPS)
        floors = stage_floors(pipeline, observation)
    if compiled:
        pipeline.compile()
    started, load = time.perf_counter(), os.getloadavg()[0]
    student = student_pipeline(pipeline)
    runs, references, peak = time_both(pipeline, student, released, observation, repeats, device)
    consumers = {c: consumer_report(runs, c, references) for c in CONSUMERS}
    first = consumers['points']
    report: _Measured = {
        'preset': preset,
        'device': device_name(device),
        'dtype': dtype,
        'compiled': compiled,
        'repeats': repeats,
        'clock': 'processor time' if device == 'cpu' else 'wall time',
        'threads': torch.get_num_threads(),
        'instructions': torch.backends.cpu.get_cpu_capability(),
        'load_average': {'before': load, 'after': os.getloadavg()[0]},
        'memory_need_mib': pipeline.memory_need(4, pipeline.frames).total / 2**20,
        'unet_parameters': sum(p.numel() for p in pipeline.unet.parameters()),
        'peak_memory_mib': peak,
        'released_ms': percentiles(references),
        'consumers': consumers,
        'consumer': 'points',
        'stages_ms': first['stages_ms'],
        'speedup_25_steps': first['speedup_25_steps'],
        'speedup_8_steps': first['speedup_8_steps'],
        'relative_output_difference': first['relative_output_difference'],
    }
    if flops:
        report['flops'], report['released_flops'], report['floor'] = counts, released_count, floors
        rate = matmul_rate(device, getattr(torch, dtype), pipeline.clock)
        seconds = {n: float(np.median([r.total for r in runs['points', n]])) for n in STEPS}
        fractions = {str(n): counts[str(n)] / rate / seconds[n] for n in STEPS}
        report['matmul_flops_per_s'], report['fraction_of_matmul_rate'] = rate, fractions
    return {**report, **headline(consumers, runs, references), 'wall_s': time.perf_counter() - started}


def time_both(
    pipeline: Geo4dPipeline,
    student: Geo4dPipeline,
    released: ReleasedAlgorithm,
    observation: Observation,
    repeats: int,
    device: str,
) -> tuple[dict[tuple[str, int], list[Run]], list[Run], float]:
    """The pipeline's runs by (consumer, steps), the released algorithm's, and the pipeline's peak memory [MiB]."""
    settings = [(c, n) for c in CONSUMERS for n in STEPS]
    for consumer in CONSUMERS:  # warm-up, also of what is compiled per number of streams
        optimised_run(pipeline, observation, 1, consumer)
    optimised_run(student, observation, 1, 'points')
    if device.startswith('cuda'):
        torch.cuda.reset_peak_memory_stats()
        for consumer in CONSUMERS:
            optimised_run(pipeline, observation, 1, consumer)
    peak = peak_memory_mib(device)
    runs: dict[tuple[str, int], list[Run]] = {s: [] for s in [*settings, ('student', 1)]}
    references = []
    for _ in range(repeats):
        for consumer, steps in settings:
            runs[consumer, steps].append(optimised_run(pipeline, observation, steps, consumer))
        runs['student', 1].append(optimised_run(student, observation, 1, 'points'))
        references.append(released_run(released, observation))
    return runs, references, peak


def student_pipeline(pipeline: Geo4dPipeline) -> Geo4dPipeline:
    """A one-step student of the pipeline's size with small decoders; random weights, which cost the same."""
    own = pipeline.unet._orig_mod if hasattr(pipeline.unet, '_orig_mod') else pipeline.unet
    settings = {k: v for k, v in pipeline.config.items() if not k.startswith('_') and not isinstance(v, (list, tuple))}
    decoders = {}
    if not isinstance(pipeline.points_vae, PatchAutoencoder):
        small = min(pipeline.points_vae.config.block_out_channels) < 128
        widths = (64, 32, 16) if small else (256, 128, 64)
        channels = pipeline.points_vae.config.latent_channels
        for name in ('points_decoder', 'rgb_decoder'):
            decoder = TinyTemporalDecoder(widths, channels).to(own.device, own.dtype)
            decoders[name] = decoder.eval().requires_grad_(False)
    student = Geo4dPipeline(own, pipeline.rgb_vae, pipeline.points_vae, pipeline.image_encoder,
                            **{**settings, **decoders, 'sampler': 'renoise', 'steps': 1})
    student.clock = pipeline.clock
    student.register_modules(unet=pipeline.unet)
    return student


def headline(consumers: dict[str, ConsumerReport], runs: dict[tuple[str, int], list[Run]],
             references: list[Run]) -> Headline:
    """The like-for-like figure first, then what each further step adds; all against the released 25 steps.

    same_output: all four films, 25 steps; points: pointmaps of both views, which is what a tracker needs, RGB films
    are neither denoised nor decoded; 8 steps: another, coarser sample of the same model; student: one step and a small
    decoder, another model, whose quality `geo4d evaluate distillation` measures.
    """
    ratios = [r.total / run.total for run, r in zip(runs['student', 1], references, strict=True)]
    return {
        'same_output_speedup_25_steps': consumers['everything']['speedup_25_steps'],
        'points_speedup_25_steps': consumers['points']['speedup_25_steps'],
        'points_speedup_8_steps': consumers['points']['speedup_8_steps'],
        'student_1_step_speedup': float(np.median(ratios)),
        'student_1_step_speedup_range': [min(ratios), max(ratios)],
        'student_stages_ms': percentiles(runs['student', 1]),
        'largest_output_difference': max(c['relative_output_difference'] for c in consumers.values()),
    }


def stage_floors(pipeline: Geo4dPipeline, observation: Observation) -> Floors:
    """Operations of every stage, and the time that an H100 needs for them at its peak [ms]: computed, not measured."""
    counts: dict[str, int] = {}
    counter = FlopCounterMode(display=False, custom_mapping=flop_formulas())
    clock, pipeline.clock = pipeline.clock, counter.get_total_flops  # stages are told apart by the clock's differences
    try:
        with counter:
            optimised_run(pipeline, observation, 1, 'everything')
        counts = {name: int(pipeline.timings[name]) for name in ('encode', 'denoise', 'decode')}
    finally:
        pipeline.clock = clock
    steps = {'encode': 1, 'denoise': REFERENCE_STEPS, 'decode': 1}
    return {
        'flops_once': counts,
        'h100_ms_25_steps': {
            dtype: {name: 1e3 * counts[name] * steps[name] / peak for name in counts}
            for dtype, peak in H100_PEAK.items()
        },
        'note': 'all four films; operations over the peak of the data sheet, a lower bound, not a measurement',
    }


def released_run(released: ReleasedAlgorithm, observation: Observation) -> Run:
    """One complete prediction of the released algorithm, 25 steps."""
    images, stages = released(observation, 0, REFERENCE_STEPS)
    return Run(stages, images)


def consumer_report(runs: dict[tuple[str, int], list[Run]], consumer: str, references: list[Run]) -> ConsumerReport:
    """Timings, speed-ups and output difference for one consumer."""
    stages = {n: percentiles(runs[consumer, n]) for n in STEPS}
    ratios = {n: [r.total / run.total for run, r in zip(runs[consumer, n], references, strict=True)] for n in STEPS}
    medians = {n: float(np.median(values)) for n, values in ratios.items()}
    spread = {n: [min(values), max(values)] for n, values in ratios.items()}
    images = runs[consumer, REFERENCE_STEPS][0].images
    return {
        'stages_ms': stages[25], 'stages_8_steps_ms': stages[8], 'stages_4_steps_ms': stages[4],
        'speedup_25_steps': medians[25], 'speedup_25_steps_range': spread[25],
        'speedup_8_steps': medians[8], 'speedup_8_steps_range': spread[8],
        'speedup_4_steps': medians[4], 'speedup_4_steps_range': spread[4],
        'relative_output_difference': relative_difference(images, references[0].images),
    }


def matmul_rate(device: str, dtype: torch.dtype, clock: Callable[[], float], size: int = 0) -> float:
    """Floating-point operations per second of the best of several large square matrix products."""
    size = size or (8192 if device.startswith('cuda') else 1024)
    layer = torch.nn.Linear(size, size, bias=False, device=device, dtype=dtype)
    x = torch.randn(size, size, device=device, dtype=dtype)
    seconds = []
    with torch.no_grad(), fixed_weights():
        for _ in range(8):
            start = _caught_up(device, clock)
            linear(layer, x)
            seconds.append(_caught_up(device, clock) - start)
    return 2 * size**3 / min(seconds)


def _caught_up(device: str, clock: Callable[[], float]) -> float:
    if device.startswith('cuda'):
        torch.cuda.synchronize()
    return clock()


def peak_memory_mib(device: str) -> float:
    """Peak memory so far: of the device, or of this process."""
    if device.startswith('cuda'):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def device_name(device: str) -> str:
    """The GPU's name, or 'cpu'."""
    return torch.cuda.get_device_name() if device.startswith('cuda') else device
