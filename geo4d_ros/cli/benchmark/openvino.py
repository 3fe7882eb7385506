"""`geo4d benchmark openvino`: predictions of a two-view model in torch and in OpenVINO, alternating in one run."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from geo4d_ros.cli.common import add_json_argument, checkpoint_directory, reported_path, weights_sha256, write_report
from geo4d_ros.errors import InvalidInputError, require

if TYPE_CHECKING:
    from geo4d_ros.generation.protocol import VideoGenerator
    from geo4d_ros.types import Observation

BACKENDS = {'torch': 'cpu', 'openvino': 'openvino'}
SCENE = ('apple', 500_000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--checkpoint', type=Path, metavar='P', help='model directory (default: the shipped one)')
    parser.add_argument('--observation', type=Path, metavar='FILE',
                        help='.npz as for `geo4d predict` (default: a scene of the simulated cell)')
    parser.add_argument('--repeats', type=int, default=20, metavar='N', help='timed predictions of each (default 20)')
    parser.add_argument('--threads', type=int, default=2, metavar='T', help='CPU threads (default 2)')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Time both, print p50 and p95 of every stage, write the report."""
    require(min(args.repeats, args.threads) >= 1, '--repeats and --threads should be positive', InvalidInputError)
    import torch

    from geo4d_ros.generation.loading import load_generator

    torch.set_num_threads(args.threads)
    checkpoint = checkpoint_directory(args.checkpoint)
    generators = {name: load_generator(checkpoint, device) for name, device in BACKENDS.items()}
    observation = _observation(args.observation)
    started = time.monotonic()
    first = {name: generator.predict(observation) for name, generator in generators.items()}  # compiles, warms up
    seconds = time_alternating(generators, observation, args.repeats)
    figures = compare(seconds)
    report = {'checkpoint': reported_path(checkpoint), 'model_sha256': weights_sha256(checkpoint), 'device': 'cpu',
              'threads': args.threads, 'repeats': args.repeats, **figures,
              'difference': differences(first['torch'], first['openvino']),
              'wall_s': round(time.monotonic() - started, 1)}
    write_report('benchmark-openvino', report, args.json)
    print(f'{"stage":<14}' + ''.join(f'{name + " p50/p95 [ms]":>26}' for name in BACKENDS))
    for stage in figures['stages_ms']['torch']:
        cells = (figures['stages_ms'][name][stage] for name in BACKENDS)
        print(f'{stage:<14}' + ''.join('{:>26}'.format(f'{c["p50"]:.1f} / {c["p95"]:.1f}') for c in cells))
    print(f'OpenVINO is {figures["speedup_network"]:.2f}x as fast in the network, '
          f'{figures["speedup_total"]:.2f}x in all')
    return 0


def _observation(path: Path | None) -> Any:
    """The file's, or a simulated scene's first look with held-out cameras."""
    if path is not None:
        from geo4d_ros.observation_file import load_observation

        return load_observation(path)
    from geo4d_ros.evaluation.closed_loop.cell_rig import CellRig, episode_cameras
    from geo4d_ros.simulation.cell import Cell

    cell = Cell(*SCENE)
    with CellRig(cell.model, episode_cameras(SCENE[1], 'held-out')) as rig:
        return rig.observe(cell)


def time_alternating(generators: dict[str, VideoGenerator], observation: Observation,
                     repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of every stage, by backend; the backends take turns, so that a drift of the machine falls on all."""
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in generators}
    for _ in range(repeats):
        for name, generator in generators.items():
            start = time.perf_counter()
            video = generator.predict(observation)
            total = time.perf_counter() - start
            stages = {**video.timings, 'network': video.timings['encode'] + video.timings['decode'], 'total': total}
            for stage, value in stages.items():
                seconds[name].setdefault(stage, []).append(value)
    return seconds


class Comparison(TypedDict):
    """Backend -> stage -> p50 and p95; how many times faster OpenVINO's p50 is."""

    stages_ms: dict[str, dict[str, dict[str, float]]]
    speedup_network: float
    speedup_total: float


def compare(seconds: dict[str, dict[str, list[float]]]) -> Comparison:
    """p50 and p95 [ms] of every stage, and how many times faster OpenVINO's p50 is."""
    from geo4d_ros.evaluation.metrics.statistics import percentiles_ms

    stages = {name: {stage: percentiles_ms(values) or {} for stage, values in mine.items()}
              for name, mine in seconds.items()}
    network, total = (round(stages['torch'][stage]['p50'] / stages['openvino'][stage]['p50'], 3)
                      for stage in ('network', 'total'))
    return {'stages_ms': stages, 'speedup_network': network, 'speedup_total': total}


def differences(a: Any, b: Any) -> dict[str, float]:
    """How two videos of one observation differ: median point, share of points and pixels beyond a bound (where a
    pixel's class is a tie it may fall to either side), largest difference of the gripper's path."""
    apart = np.abs(a.points - b.points)[a.valid & b.valid].max(-1)
    return {
        'point_mm_median': round(1000 * float(np.median(apart)), 5),
        'points_beyond_1_mm': float((apart > 1e-3).mean()),
        'pixels_beyond_one_level': float((np.abs(a.rgb.astype(int) - b.rgb.astype(int)) > 1).mean()),
        'gripper_mm': round(1000 * float(np.abs(a.state.T_ref_gripper - b.state.T_ref_gripper)[:, :3, 3].max()), 5),
        'opening_mm': round(1000 * float(np.abs(a.state.opening - b.state.opening).max()), 5),
    }
