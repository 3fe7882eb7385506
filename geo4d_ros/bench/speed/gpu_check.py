"""One short run on a machine with a GPU: are the numbers right, what does each switch bring, does every stage train?

`scripts/gpu_check.sh` calls it. Without a GPU, or with --dry, it runs the same code at reduced width on the CPU, which
shows that the check works and says nothing about speed.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from geo4d_ros.bench.speed.generator import (
    benchmark_pipeline,
    device_name,
    optimised_run,
    peak_memory_mib,
    relative_difference,
)
from geo4d_ros.bench.speed.switches import FAULTS, switches
from geo4d_ros.generation.unet.pipeline import Geo4dPipeline
from geo4d_ros.training.unet.batches import Clips
from geo4d_ros.training.unet.config import UNetTrainConfig
from geo4d_ros.training.unet.stages import make_stage
from geo4d_ros.types import Observation

STAGES = ('vae', 'decoder', 'diffusion', 'distillation')


def main(argv: list[str] | None = None) -> int:
    """Run the check and write gpu_check.json and gpu_check.png into --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=Path('outputs/gpu_check'))
    parser.add_argument('--dry', action='store_true', help='reduced width on the CPU')
    parser.add_argument('--seconds', type=float, default=300, help='no new part starts after this')
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    dry = args.dry or not torch.cuda.is_available()
    report = check('cpu' if dry else 'cuda', 'reduced-width' if dry else 'svd', args.seconds, args.out)
    print(json.dumps(report, indent=1))
    return 0 if not report['failed'] else 3


def check(device: str, preset: str, seconds: float, out: Path) -> dict[str, Any]:
    """The report; parts that fail are named under 'failed' and the others go on."""
    started = time.monotonic()
    report: dict[str, Any] = {'device': device_name(device), 'dry': device == 'cpu', 'preset': preset,
                              'torch': torch.__version__, 'failed': {}, 'skipped': []}
    parts: dict[str, Callable[[], Any]] = {
        'correctness': lambda: correctness(device),
        **{f'train {stage}': (lambda s=stage: training_step(s, device)) for stage in STAGES},
        'switches': lambda: switches(device, preset, lambda: seconds - (time.monotonic() - started)),
    }
    for name, part in parts.items():
        if time.monotonic() - started > seconds:
            report['skipped'].append(name)
            continue
        begun = time.monotonic()
        try:
            report[name] = part()
        except FAULTS as error:
            report['failed'][name] = f'{type(error).__name__}: {str(error).splitlines()[0][:200]}'
        report.setdefault('wall_s', {})[name] = time.monotonic() - begun
        _free(device)
        (out / 'gpu_check.json').write_text(json.dumps(report, indent=1) + '\n')
    draw(report.get('switches', {}).get('rows', {}), report['device'], out / 'gpu_check.png')
    return report


def correctness(device: str) -> dict[str, float]:
    """Relative difference of the films between this device and the CPU, float32, two steps, reduced width."""
    observation = Observation.example()
    pipeline = benchmark_pipeline('reduced-width')
    expected = optimised_run(pipeline, observation, 2, 'everything').images
    pipeline.to(device)
    got = optimised_run(pipeline, observation, 2, 'everything').images
    pipeline.to(dtype=torch.bfloat16)
    half = optimised_run(pipeline, observation, 2, 'everything').images
    return {'float32': relative_difference(got, expected), 'bfloat16': relative_difference(half, expected)}


def training_step(stage: str, device: str) -> dict[str, float]:
    """Losses before and after one optimiser step on random clips, and the memory it took; reduced width."""
    pipeline = benchmark_pipeline('reduced-width').to(device)
    config = UNetTrainConfig(stage=stage, preset='geo4d-svd-reduced', fake_updates=1, student_steps=2)
    made = make_stage(pipeline, config)
    model = made.model.to(device).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    clips, losses = random_clips(pipeline, device), []
    for _ in range(2):
        loss = made.losses(model, clips)['loss']
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if not np.isfinite(losses).all():
        raise ValueError(f'losses {losses} are not finite')
    return {'first': losses[0], 'second': losses[1], 'peak_memory_mib': peak_memory_mib(device)}


def random_clips(pipeline: Geo4dPipeline, device: str, samples: int = 1) -> Clips:
    """A batch of noise of the pipeline's size."""
    s = pipeline.config
    g = torch.Generator().manual_seed(0)
    size = (samples, s.views, s.frames + 1)
    images = torch.rand((*size, 3, s.height, s.width), generator=g) * 2 - 1
    maps = torch.rand((*size, 3, s.height, s.width), generator=g) * 2 - 1
    some = torch.rand((*size, s.height, s.width), generator=g) > 0.5
    parts = (torch.arange(samples), images, maps[:, :, 1:], maps[:, :, 0], torch.ones_like(some), some, some[:, :, 1:],
             torch.zeros(samples, s.frames + 1, 10), torch.ones(samples, s.frames))
    return Clips(parts[0], *(part.to(device) for part in parts[1:]))


def draw(rows: dict[str, dict[str, float]], device: str, path: Path) -> None:
    """A bar per switch: encode, denoise, decode [ms]."""
    height = 40 + 28 * max(1, len(rows))
    picture = Image.new('RGB', (900, height), 'white')
    pen = ImageDraw.Draw(picture)
    pen.text((10, 8), f'{device}: milliseconds per prediction (encode, denoise, decode)', fill='black')
    longest = max((row['total'] for row in rows.values()), default=1.0)
    for i, (name, row) in enumerate(rows.items()):
        x, y = 330.0, 34 + 28 * i
        pen.text((10, y + 4), f'{name}, {int(row["steps"])} steps', fill='black')
        for stage, colour in (('encode', '#88aadd'), ('denoise', '#dd8866'), ('decode', '#88bb77')):
            width = 470 * row[stage] / longest
            pen.rectangle((x, y, x + width, y + 18), fill=colour)
            x += width
        pen.text((x + 6, y + 4), f'{row["total"]:.0f}', fill='black')
    picture.save(path)


def _free(device: str) -> None:
    gc.collect()
    if device != 'cpu':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


if __name__ == '__main__':
    raise SystemExit(main())
