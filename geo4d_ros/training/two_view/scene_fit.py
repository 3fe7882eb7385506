"""Trains the scene head on single observations of expert runs (`geo4d collect --observations`)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from tqdm import tqdm

from geo4d_ros.data.observations import read_observations
from geo4d_ros.generation.two_view.scene_head import FIRST_TASK_CLASS, ROBOT, SceneHead, scene_inputs
from geo4d_ros.geometry.cameras import unproject
from geo4d_ros.geometry.transforms import from_rotvec, invert, transform_points
from geo4d_ros.robots.inverse_kinematics import shared_kinematics
from geo4d_ros.simulation.noise import add_depth_noise
from geo4d_ros.training.two_view.batches import Augmentation
from geo4d_ros.training.two_view.fit_settings import read_settings, write_summary

OBJECT, FIXTURE, OTHERS = 5, 6, 10  # episode labels; from 10 on two for every other task in the scene
SENSOR_NOISE = 0.4  # share of views whose depth is that of a stereo camera
CROP = 64  # [px]: pictures are mostly rest, so a batch is squares around things
CENTRED = 0.85  # share of them that hold a thing
OVERLAP = 0.5  # weight of the soft IoU of things beside the cross entropy of all pixels
log = logging.getLogger(__name__)


@dataclass
class SceneFitConfig:
    """`data`: folder of observations; `steps` of `batch` views, a state kept every `save_every`."""

    data: str
    steps: int = 4000
    batch: int = 8
    lr: float = 2e-3
    seed: int = 0
    save_every: int = 250
    channels: int = 32


def classes_of(labels: np.ndarray, task: int, tasks: int) -> np.ndarray:
    """Scene-head classes of episode labels (..., H, W) whose instructed task is number `task`."""
    table = np.zeros(256, np.uint8)
    table[1:5] = ROBOT
    table[OBJECT], table[FIXTURE] = FIRST_TASK_CLASS + 2 * task, FIRST_TASK_CLASS + 2 * task + 1
    table[OTHERS:OTHERS + 2 * tasks] = FIRST_TASK_CLASS + np.arange(2 * tasks)
    return table[labels]


def disturbed_view(run: dict[str, np.ndarray], picture: int, view: int, arm: np.ndarray, rng: np.random.Generator,
                   noise: Augmentation | None) -> tuple[np.ndarray, ...]:
    """rgb (3, H, W) in [-1, 1], points (H, W, 3) in the gripper's frame, depth (H, W), arm (J, 3) of one view, with
    the errors of a real cell; arm (J, 3): the links' origins in the base frame [m].
    """
    rgb = run['rgb'][picture, view].astype(np.float32) / 127.5 - 1
    depth, K = run['depth'][picture, view], run['K'][picture, view]
    T_g_base = invert(run['T_base_gripper'][run['index'][picture]])
    T_g_view = T_g_base @ run['T_base_view'][picture, view]
    if noise is not None:
        gain = (1 + noise.colour * rng.normal()) * (1 + 0.3 * noise.colour * rng.normal(size=3))
        rgb = np.clip(rgb * gain + 0.5 * noise.colour * rng.normal(), -1, 1)
        if rng.random() < SENSOR_NOISE:
            depth = add_depth_noise('d435', depth, K, rng)
        depth = depth * (1 + noise.depth_relative * rng.normal(size=depth.shape))
        turn, shift = rng.normal(0, noise.robot_state_rad, 3), rng.normal(0, noise.robot_state_m, 3)
        T_g_view = from_rotvec(turn, shift) @ T_g_view
    points = transform_points(T_g_view, unproject(depth, K))
    return rgb.transpose(2, 0, 1), points, depth, transform_points(T_g_base, arm)


class Views:
    """All views of a folder of observations, and batches of them."""

    def __init__(self, directory: str, tasks: int) -> None:
        self.runs = list(read_observations(directory))
        for run in self.runs:
            run['arms'] = shared_kinematics().arm_points(run['joints'][run['index']])
            run['classes'] = classes_of(run['labels'], run['task'].item(), tasks)
        self.places = [(r, p, v) for r, run in enumerate(self.runs) for p in range(len(run['index'])) for v in (0, 1)]

    def batch(self, places: list[tuple[int, int, int]], rng: np.random.Generator, noise: Augmentation | None,
              ) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs (N, 10, H, W) and classes (N, H, W) of the views at `places`."""
        rows = [disturbed_view(self.runs[r], p, v, self.runs[r]['arms'][p], rng, noise) for r, p, v in places]
        rgb, points, depth, arm = (torch.from_numpy(np.stack(part)).float() for part in zip(*rows, strict=True))
        classes = np.stack([self.runs[r]['classes'][p, v] for r, p, v in places])
        return scene_inputs(rgb, points, depth, arm), torch.from_numpy(classes).long()

    def random(self, size: int, rng: np.random.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Endless batches of squares with the errors of a real cell."""
        while True:
            chosen = [self.places[i] for i in rng.integers(len(self.places), size=size)]
            inputs, classes = self.batch(chosen, rng, Augmentation())
            cut = [_square(c, rng) for c in classes.numpy()]
            yield (torch.stack([x[:, r:r + CROP, k:k + CROP] for x, (r, k) in zip(inputs, cut, strict=True)]),
                   torch.stack([c[r:r + CROP, k:k + CROP] for c, (r, k) in zip(classes, cut, strict=True)]))


def _square(classes: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """First row and column of a square of classes (H, W), usually about a pixel of an object or fixture."""
    most = np.array(classes.shape) - CROP
    parts = [np.argwhere((classes >= FIRST_TASK_CLASS) & (classes % 2 == i)) for i in (0, 1)]
    parts = [p for p in parts if len(p)]
    if not parts or rng.random() > CENTRED:
        return int(rng.integers(most[0] + 1)), int(rng.integers(most[1] + 1))
    part = parts[int(rng.random() > 0.7) % len(parts)]
    place = part[rng.integers(len(part))] - rng.integers(CROP // 8, CROP - CROP // 8, 2)
    return tuple(np.clip(place, 0, most).tolist())


def scene_loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Cross entropy of all pixels and, of every object and fixture in the batch, one minus the soft IoU."""
    loss = F.cross_entropy(logits, classes)
    p = logits.softmax(1)[:, FIRST_TASK_CLASS:]
    true = F.one_hot(classes, logits.shape[1]).movedim(-1, 1)[:, FIRST_TASK_CLASS:].to(p)
    both, either = (p * true).sum((0, 2, 3)), (p + true - p * true).sum((0, 2, 3))
    shown = true.sum((0, 2, 3)) > 0
    return loss + OVERLAP * (1 - both / either.clamp(min=1))[shown].mean() if shown.any() else loss


def fit_scene_head(config: SceneFitConfig, output: Path | None = None, head: SceneHead | None = None) -> SceneHead:
    """A trained head; with `output` it goes on from, and keeps, a state there."""
    torch.manual_seed(config.seed)
    head = head or SceneHead(channels=config.channels)
    optimizer = torch.optim.AdamW(head.parameters(), config.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, max(config.steps, 2), pct_start=0.1)
    first = _resume(head, optimizer, schedule, output) if output else 0
    rng = np.random.default_rng([config.seed, first])
    source = Views(config.data, len(head.config.tasks)).random(config.batch, rng)
    bar, mean = tqdm(range(first, config.steps), initial=first, total=config.steps, desc='scene head'), 0.0
    for step in bar:
        inputs, classes = next(source)
        loss = scene_loss(head(inputs), classes)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean = loss.item() if step == first else 0.98 * mean + 0.02 * loss.item()
        bar.set_postfix(loss=f'{mean:.4f}', refresh=False)
        if output and ((step + 1) % config.save_every == 0 or step + 1 == config.steps):
            _keep(head, optimizer, step + 1, output)
    return head.eval()


def _keep(head: SceneHead, optimizer: torch.optim.Optimizer, step: int, output: Path) -> None:
    state = optimizer.state_dict()['state']
    tensors = {'step': torch.tensor(step)}
    tensors |= {f'network.{k}': v for k, v in head.state_dict().items()}
    tensors |= {f'moments.{i}.{k}': v for i, row in state.items() for k, v in row.items()}
    partial = output / 'state.partial'
    save_file({k: v.contiguous() for k, v in tensors.items()}, partial)
    partial.replace(output / 'state.safetensors')


def _resume(head: SceneHead, optimizer: torch.optim.Optimizer, schedule: Any, output: Path) -> int:
    path = output / 'state.safetensors'
    if not path.is_file():
        return 0
    saved = load_file(path)
    head.load_state_dict({k.removeprefix('network.'): v for k, v in saved.items() if k.startswith('network.')})
    count = sum(1 for _ in head.parameters())
    moments = {i: {k: saved[f'moments.{i}.{k}'] for k in ('step', 'exp_avg', 'exp_avg_sq')} for i in range(count)}
    optimizer.load_state_dict({**optimizer.state_dict(), 'state': moments})
    for _ in range(int(saved['step'])):
        schedule.step()
    log.warning('resumed at step %d', int(saved['step']))
    return int(saved['step'])


@torch.no_grad()
def intersection_over_union(head: SceneHead, views: Views) -> dict[str, float]:
    """IoU of every class over all views, of undisturbed pictures."""
    rng = np.random.default_rng(0)
    count = FIRST_TASK_CLASS + 2 * len(head.config.tasks)
    both, either = np.zeros(count), np.zeros(count)
    for start in range(0, len(views.places), 16):
        inputs, classes = views.batch(views.places[start:start + 16], rng, None)
        found = head(inputs).argmax(1)
        for c in range(count):
            both[c] += float(((found == c) & (classes == c)).sum())
            either[c] += float(((found == c) | (classes == c)).sum())
    names = ['rest', 'robot', *(f'{task} {part}' for task in head.config.tasks for part in ('object', 'fixture'))]
    return {name: both[c] / max(either[c], 1.0) for c, name in enumerate(names)}


def train(values: dict[str, Any]) -> Path:
    """Fit the scene head as a YAML mapping says; `output/scene` is then its checkpoint. `held_out`: a folder of
    observations to measure it on.
    """
    config, output = read_settings(values, SceneFitConfig)
    head = fit_scene_head(config, output)
    head.save_pretrained(output / 'scene')
    figures = ({'iou': intersection_over_union(head, Views(values['held_out'], len(head.config.tasks)))}
               if 'held_out' in values else {})
    write_summary(output, config, **figures)
    return output


__all__ = ['SceneFitConfig', 'Views', 'fit_scene_head', 'intersection_over_union', 'train']
