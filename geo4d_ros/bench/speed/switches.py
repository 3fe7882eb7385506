"""What each switch of the generator brings: one after the other, each added to those before it."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypedDict

import numpy as np
import torch

from geo4d_ros.bench.speed.generator import (
    Floors,
    Run,
    benchmark_pipeline,
    optimised_run,
    peak_memory_mib,
    stage_floors,
    student_pipeline,
)
from geo4d_ros.errors import Geo4dError
from geo4d_ros.generation.unet.pipeline import Geo4dPipeline
from geo4d_ros.types import Observation

FAULTS = (Geo4dError, RuntimeError, ValueError, ImportError)  # running out of memory is a RuntimeError


class SwitchReport(TypedDict):
    """rows: switch -> milliseconds per stage, total, gain, steps and peak memory; skipped: switch -> why."""

    rows: dict[str, dict[str, float]]
    skipped: dict[str, str]
    floor: Floors


def switches(device: str, preset: str, left: Callable[[], float] = lambda: math.inf) -> SwitchReport:
    """Median milliseconds per stage and of a whole prediction, with each switch added to those before it.

    gain: the total of the row before over this row's. left: seconds until no further switch is tried.
    """
    observation = Observation.example()
    skipped: dict[str, str] = {}
    rows: dict[str, dict[str, float]] = {}
    pipeline = benchmark_pipeline(preset).to(device)
    floor = stage_floors(pipeline, observation)
    steps = 1 if device == 'cpu' else 8

    def time_it(name: str, model: Geo4dPipeline, consumer: str = 'everything', n: int = steps) -> None:
        runs: list[Run] = [optimised_run(model, observation, n, consumer) for _ in range(2 if device == 'cpu' else 4)]
        stages = {key: 1e3 * float(np.median([r.stages[key] for r in runs[1:]])) for key in runs[0].stages}
        total, before = sum(stages[k] for k in ('encode', 'denoise', 'decode')), [row['total'] for row in rows.values()]
        rows[name] = {**stages, 'total': total, 'gain': before[-1] / total if before else 1.0, 'steps': n,
                      'peak_memory_mib': peak_memory_mib(device)}

    def add(name: str, action: Callable[[], Any], **options: Any) -> None:
        if left() < 0:
            skipped[name] = 'no time left'
            return
        try:
            action()
            time_it(name, pipeline, **options)
        except FAULTS as error:
            skipped[name] = f'{type(error).__name__}: {str(error).splitlines()[0][:200]}'

    add('float32, guidance 1.0 to 2.5', lambda: pipeline.register_to_config(guidance_scale=2.5))
    add('guidance off', lambda: pipeline.register_to_config(guidance_scale=1.0))
    add('bfloat16', lambda: pipeline.to(dtype=torch.bfloat16))
    add('channels last', pipeline.channels_last)
    add('points only', lambda: None, consumer='points')
    if device != 'cpu':
        add('fp8 linear layers', lambda: quantise(pipeline), consumer='points')
        add('compiled, CUDA graphs', lambda: pipeline.compile('max-autotune'), consumer='points')
    student = student_pipeline(pipeline)
    with suppress(RuntimeError):
        time_it('one-step student, small decoder, points', student, 'points', 1)
        time_it('one-step student, small decoders, everything', student, 'everything', 1)
    return {'rows': rows, 'skipped': skipped, 'floor': floor}


def quantise(pipeline: Geo4dPipeline) -> None:
    """fp8 matrix products of the denoiser's linear layers, by torchao; ImportError without it."""
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, quantize_

    quantize_(pipeline.unet, Float8DynamicActivationFloat8WeightConfig())
