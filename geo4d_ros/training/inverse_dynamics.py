"""Trains the inverse-dynamics baseline on true video: pairs of frames -> the gripper's motion between them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from geo4d_ros.data.windows import Window, WindowSampler
from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.generation.inverse_dynamics import STEP_M, STEP_RAD, InverseDynamicsNetwork, save, state_vector
from geo4d_ros.generation.module_config import ModuleConfig
from geo4d_ros.geometry.transforms import from_rotvec, invert, rotvec
from geo4d_ros.training.budget import Budget, ignore_interrupt, require_steps
from geo4d_ros.training.config_values import checked_config

NOISE_M, NOISE_RAD, NOISE_OPENING_M = 0.01, 0.03, 0.002  # of the input state: motions add up to drifting poses


@dataclass(frozen=True)
class InverseDynamicsTraining:
    """A run. generator: checkpoint of the video generator whose frames it will read; batch: windows of ten pairs."""

    data: str = 'outputs/data/train'
    output: str = 'outputs/baselines/inverse_dynamics'
    generator: str = 'outputs/baselines/ours/model'
    minutes: float = 40.0
    clock: str = 'processor'
    batch: int = 4
    lr: float = 1e-3
    warmup: int = 50
    weight_decay: float = 0.01
    workers: int = 1
    seed: int = 0
    network: ModuleConfig = field(default_factory=dict)


def pairs_of(window: Window, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Ten pairs of the window's reference view: before, after (10, 3, H, W) in [-1, 1], state (10, 13) with noise,
    K (10, 3, 3), move (10, 3) [m], turn (10, 3) [rad], opening (10,) [m] after."""
    rgb = window['rgb'][0].astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
    gain, offset = 1 + 0.15 * rng.normal(size=(3, 1, 1)), 0.08 * rng.normal()
    rgb = np.clip(rgb * gain + offset, -1, 1).astype(np.float32)
    T, opening = window['T_ref_gripper'], window['opening']
    noisy = T[:-1].copy()
    for i in range(len(noisy)):
        error = from_rotvec(rng.normal(0, NOISE_RAD, 3))
        noisy[i, :3, :3] = error[:3, :3] @ noisy[i, :3, :3]
        noisy[i, :3, 3] += rng.normal(0, NOISE_M, 3)
    before = opening[:-1] + rng.normal(0, NOISE_OPENING_M, len(noisy))
    state = state_vector(torch.from_numpy(noisy).float(), torch.from_numpy(before).float()).numpy()
    return {'before': rgb[:-1], 'after': rgb[1:], 'state': state, 'move': T[1:, :3, 3] - T[:-1, :3, 3],
            'K': np.tile(window['K'][0], (len(noisy), 1, 1)), 'turn': rotvec(T[1:] @ invert(T[:-1])),
            'opening': opening[1:]}


class PairBatches(IterableDataset):
    """Endless batches of pairs."""

    def __init__(self, config: InverseDynamicsTraining) -> None:
        self.config = config

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.config.seed)
        windows = iter(WindowSampler(self.config.data, rng))
        while True:
            drawn = [pairs_of(next(windows), rng) for _ in range(self.config.batch)]
            yield {k: torch.from_numpy(np.concatenate([d[k] for d in drawn])).float() for k in drawn[0]}


def loss_of(network: InverseDynamicsNetwork, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Smooth L1 of translation, rotation and opening, in the network's units."""
    move, turn, opening = network(batch['before'], batch['after'], batch['state'], batch['K'])
    return (F.smooth_l1_loss(move / STEP_M, batch['move'] / STEP_M, beta=0.1)
            + F.smooth_l1_loss(turn / STEP_RAD, batch['turn'] / STEP_RAD, beta=0.1)
            + F.smooth_l1_loss(opening * 25, batch['opening'] * 25, beta=0.1))


def train(values: dict[str, Any]) -> Path:
    """Train from a YAML mapping, always from the start; the checkpoint (with the generator in it) is in
    <output>/model, closing figures in <output>/summary.json.

    Raises ConfigurationError for unknown keys and a missing generator, DatasetError without data.
    """
    config = checked_config(InverseDynamicsTraining, {k: v for k, v in values.items() if k != 'model'})
    require((Path(config.generator) / 'model_index.json').is_file(),
            f'no generator checkpoint in {config.generator}; train one first or set generator=DIR', ConfigurationError)
    torch.manual_seed(config.seed)
    network = InverseDynamicsNetwork(**config.network)
    budget, step, mean = Budget(config.minutes, config.clock), 0, 0.0
    optimizer = torch.optim.AdamW(network.parameters(), config.lr, weight_decay=config.weight_decay)
    source = iter(DataLoader(PairBatches(config), batch_size=None, num_workers=config.workers,
                             worker_init_fn=ignore_interrupt))
    with tqdm(total=round(60 * config.minutes), unit='s', desc='inverse dynamics') as bar:
        while not budget.over:
            budget.start()
            for group in optimizer.param_groups:
                cosine = 0.5 * (1 + math.cos(math.pi * budget.fraction))
                group['lr'] = config.lr * min(1.0, (step + 1) / config.warmup) * (0.02 + 0.98 * cosine)
            loss = loss_of(network, next(source))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            budget.stop()
            step, mean = step + 1, loss.item() if step == 0 else 0.97 * mean + 0.03 * loss.item()
            bar.update(round(budget.spent_s) - bar.n)
            bar.set_postfix(step=step, loss=f'{mean:.4f}', refresh=False)
    require_steps(step)
    output = Path(config.output)
    save(output / 'model', network, Path(config.generator))
    summary = {'config': asdict(config), 'steps': step, 'trained_min': budget.spent_s / 60, 'loss': mean}
    (output / 'summary.json').write_text(json.dumps(summary, indent=1) + '\n')
    return output
