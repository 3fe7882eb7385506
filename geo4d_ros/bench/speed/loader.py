"""How fast training data come, from pixels and from the latent cache, and how fast eight H100 would eat them."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch.utils.flop_counter import FlopCounterMode

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.generation.unet.network import Geo4dUNet
from geo4d_ros.training.unet.batches import make_clips
from geo4d_ros.training.unet.config import UNetTrainConfig
from geo4d_ros.training.unet.data import EpisodeWindows, batches, list_data
from geo4d_ros.training.unet.latent_cache import CachedWindows, from_cache, identity, prepare, write_cache
from geo4d_ros.training.unet.trainer import make_pipeline

H100_BF16_PEAK = 989e12  # dense operations per second, data sheet of the SXM card
MFU = 0.4  # assumed share of the peak that training reaches


class Demand(TypedDict):
    """See `demand`; forward: operations of one pass."""

    needed_for_8_h100: float
    forward_flops_per_clip: int
    assumed_mfu: float
    note: str


class LoaderReport(Demand):
    """The report of `geo4d benchmark loader`; size: height, width and frames of a clip."""

    clips_per_s: dict[str, float]  # cached and uncached
    processor_ms_per_clip: dict[str, float]
    load_average: dict[str, float]  # before and after
    clips: int
    workers: int
    batch: int
    size: list[int]
    cached_kib_per_clip: float


def measure(config: UNetTrainConfig, clips: int, workers: int) -> LoaderReport:
    """The report of `geo4d benchmark loader`: clips per second up to latents, pixels against cache.

    clips_per_s: of wall time, with `workers` processes that read, on whatever else the machine does meanwhile
    (`load_average`); processor_ms_per_clip: in one process, which other load hardly changes.
    """
    require(clips >= config.batch, f'clips should be at least the batch {config.batch}', ConfigurationError)
    pipeline, device = make_pipeline(config), torch.device('cpu')
    settings = pipeline.config
    windows = EpisodeWindows(list_data(Path(config.data), config.data_format), config.data_format, settings.views,
                             settings.frames, (settings.height, settings.width), config.seed, settings.convention)

    def clips_of(batch: dict[str, torch.Tensor]) -> Any:
        return make_clips(batch, device, settings.condition_frame, config.pose_noise,
                          pipeline.convention.moves_invalid_points, config.seed)

    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / 'cache'
        write_cache(cache, windows, min(clips, 64), clips_of, pipeline, config.loss)
        size = sum(p.stat().st_size for p in cache.rglob('*') if p.is_file())
        cached = CachedWindows(cache, identity(pipeline, windows, config.loss))
        ways: dict[str, tuple[Any, Callable[[dict], Any]]] = {
            'uncached': (windows, lambda b: prepare(clips_of(b), pipeline, config.loss, config.seed)),
            'cached': (cached, lambda b: from_cache(b, device, (0, 1), config.seed)),
        }
        load = os.getloadavg()[0]
        rates: dict[str, float] = {}
        processor: dict[str, float] = {}
        for name, (source, use) in ways.items():
            def stream(workers: int, source: Any = source) -> Iterator[dict]:
                return batches(source, 0, config.batch, config.batch, 0, workers)

            rates[name] = clips / seconds(stream(workers), config.batch, clips, use, time.perf_counter)
            few = max(config.batch, clips // 4)
            processor[name] = 1e3 * seconds(stream(0), config.batch, few, use, time.process_time) / few
    return {'clips_per_s': rates, 'processor_ms_per_clip': processor, 'clips': clips, 'workers': workers,
            'batch': config.batch, 'load_average': {'before': load, 'after': os.getloadavg()[0]},
            'size': [settings.height, settings.width, settings.frames],
            'cached_kib_per_clip': size / 1024 / cached.rows,
            **demand()}


def seconds(
    stream: Iterator[dict], batch: int, clips: int, use: Callable[[dict], Any], clock: Callable[[], float]
) -> float:
    """Time per `clips` clips after the first batch, whole batches being read."""
    use(next(stream))
    started, count = clock(), 0
    while count < clips:
        use(next(stream))
        count += batch
    return (clock() - started) * clips / count


def clip_flops(frames: int = 10, height: int = 32, width: int = 40) -> int:
    """Operations of one forward pass of the full-size denoiser on a clip's four streams, counted without weights."""
    with torch.device('meta'), torch.no_grad():
        unet = Geo4dUNet().to('meta')
        data = (torch.empty(1, 4, frames, 4, height, width), torch.empty(1, 4), torch.empty(1, 4, 4, height, width),
                torch.empty(1, 4, 1, 1024))
        with FlopCounterMode(display=False) as counter:
            unet(*data)
    return counter.get_total_flops()


def demand() -> Demand:
    """Clips per second that eight H100 train on at the assumed MFU: forward and twice that backward, and once more
    the forward pass for gradient checkpointing."""
    forward = clip_flops()
    needed = 8 * H100_BF16_PEAK * MFU / (4 * forward)
    return {'needed_for_8_h100': needed, 'forward_flops_per_clip': forward, 'assumed_mfu': MFU,
            'note': 'needed_for_8_h100 is computed: four forward passes per clip at the data-sheet peak times the MFU'}
