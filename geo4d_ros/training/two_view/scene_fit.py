"""Trains the scene head on the frozen encoder's features, with other tasks' things pasted into the images."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from geo4d_ros.data.windows import Window, WindowSampler
from geo4d_ros.errors import ConfigurationError, DatasetError, require
from geo4d_ros.generation.two_view.composed import ComposedPredictor
from geo4d_ros.generation.two_view.instruction import InstructionReader
from geo4d_ros.generation.two_view.network import TwoViewNetwork
from geo4d_ros.generation.two_view.scene_head import FIRST_TASK_CLASS, ROBOT, SceneHead, scene_inputs
from geo4d_ros.generation.two_view.weights import read_index, read_network
from geo4d_ros.simulation.tasks import BUILT_IN
from geo4d_ros.training.two_view.batches import Augmentation, collate, window_arrays

OBJECT, FIXTURE, OTHERS = 5, 6, 10  # episode labels; from 10 on two for every other task in the scene
PASTED = 0.4  # share of windows that get another task's things
CLASS_WEIGHT = (0.5, 0.7, 3.0, 1.5)  # rest, robot, objects, fixtures
BATCH, HELD_OUT = 8, 0.06
log = logging.getLogger(__name__)


@dataclass
class SceneFitConfig:
    """`windows` two-view observations of the episodes below `data` are encoded once; then `steps` on random ones."""

    data: str
    windows: int = 1500
    steps: int = 1500
    lr: float = 3e-3
    seed: int = 0


@dataclass
class Encoded:
    """Views of all windows: features (N, C, H/4, W/4) and inputs (N, 7, H, W) in half precision, classes (N, H, W)."""

    features: torch.Tensor
    inputs: torch.Tensor
    classes: torch.Tensor


def classes_of(labels: np.ndarray, task: int, tasks: int) -> np.ndarray:
    """Scene-head classes of episode labels (..., H, W) whose instructed task is number `task`."""
    table = np.zeros(256, np.uint8)
    table[1:5] = ROBOT
    table[OBJECT], table[FIXTURE] = FIRST_TASK_CLASS + 2 * task, FIRST_TASK_CLASS + 2 * task + 1
    table[OTHERS:OTHERS + 2 * tasks] = FIRST_TASK_CLASS + np.arange(2 * tasks)
    return table[labels]


def pasted(window: Window, other: Window, tasks: tuple[str, ...]) -> Window:
    """The window with the object and fixtures of another task's window in frame 0, where nothing nearer hides them."""
    if window['task'] == other['task']:
        return window
    out: Window = {**window, 'rgb': window['rgb'].copy(), 'depth': window['depth'].copy(),
                   'labels': window['labels'].copy()}
    labels, theirs = window['labels'][:, 0], other['labels'][:, 0]
    robot = (labels >= 1) & (labels <= 4)
    put = ((theirs == OBJECT) | (theirs == FIXTURE)) & ~robot & (other['depth'][:, 0] < window['depth'][:, 0] + 0.05)
    out['rgb'][:, 0][put] = other['rgb'][:, 0][put]
    out['depth'][:, 0][put] = other['depth'][:, 0][put]
    out['labels'][:, 0][put] = (theirs - OBJECT + OTHERS + 2 * tasks.index(other['task']))[put]
    return out


@torch.no_grad()
def encoded(network: TwoViewNetwork, tasks: tuple[str, ...], config: SceneFitConfig) -> Encoded:
    """Observations drawn from the episodes, with the errors of a real cell, through the encoder."""
    rng = np.random.default_rng(config.seed)
    windows = iter(WindowSampler(config.data, rng, 1, windows_per_episode=12))
    parts: list[tuple[torch.Tensor, ...]] = []
    last = next(windows)
    for _ in tqdm(range(config.windows), desc='encoding observations'):
        window = next(windows)
        shown = pasted(window, last, tasks) if rng.random() < PASTED else window
        last = window
        batch = collate([window_arrays(shown, rng, Augmentation())])
        scene = network.encode(batch['rgb0'], batch['points'], batch['valid'], batch['T_g0_view'], batch['opening0'],
                               batch['seen'])
        classes = torch.from_numpy(classes_of(shown['labels'][:, 0], tasks.index(window['task']), len(tasks)))
        seen = batch['seen'][0]
        parts.append((scene.features[0][seen].half(), scene_inputs(batch)[seen].half(), classes[seen]))
    return Encoded(*(torch.cat(part) for part in zip(*parts, strict=True)))


def fit_scene_head(network: TwoViewNetwork, config: SceneFitConfig, head: SceneHead | None = None,
                   data: Encoded | None = None) -> tuple[SceneHead, dict[str, float]]:
    """A trained head and the IoU of every class on the observations left out of the training."""
    torch.manual_seed(config.seed)
    head = head or SceneHead(features=network.config.channels)
    tasks = tuple(head.config.tasks)
    data = data or encoded(network, tasks, config)
    kept = len(data.classes) - max(1, int(HELD_OUT * len(data.classes)))
    require(kept > 0, 'no observations to train on', DatasetError)
    weight = torch.tensor([*CLASS_WEIGHT[:2], *CLASS_WEIGHT[2:] * len(tasks)])
    optimizer = torch.optim.AdamW(head.parameters(), config.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, max(config.steps, 2), pct_start=0.1)
    bar, mean = tqdm(range(config.steps), desc='scene head'), 0.0
    for step in bar:
        rows = torch.randint(kept, (BATCH,))
        flip = [-1] if step % 2 else []
        features, inputs, classes = (a[rows].flip(flip) for a in (data.features, data.inputs, data.classes))
        loss = F.cross_entropy(head(features.float(), inputs.float()), classes.long(), weight=weight)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean = loss.item() if not step else 0.98 * mean + 0.02 * loss.item()
        bar.set_postfix(loss=f'{mean:.4f}', refresh=False)
    rows = slice(kept, None)
    return head, intersection_over_union(head, Encoded(data.features[rows], data.inputs[rows], data.classes[rows]))


@torch.no_grad()
def intersection_over_union(head: SceneHead, data: Encoded) -> dict[str, float]:
    """IoU of every class over all views."""
    found = torch.cat([head(f.float()[None], x.float()[None]).argmax(1)
                       for f, x in zip(data.features, data.inputs, strict=True)])
    names = ['rest', 'robot', *(f'{task} {part}' for task in head.config.tasks for part in ('object', 'fixture'))]
    both = lambda c: float(((found == c) & (data.classes == c)).sum())  # noqa: E731
    either = lambda c: float(((found == c) | (data.classes == c)).sum())  # noqa: E731
    return {name: both(c) / max(either(c), 1.0) for c, name in enumerate(names)}


def train(values: dict[str, Any]) -> Path:
    """Fit the scene head and the words of instructions as a YAML mapping says; `output/model` is then a
    ComposedPredictor's checkpoint, its motion network that of `motion` (a path relative to it).
    """
    keys = set(SceneFitConfig.__dataclass_fields__)
    unknown = set(values) - keys - {'model', 'motion', 'output'}
    require(not unknown, f'unknown training keys {sorted(unknown)}; available: {sorted(keys)}', ConfigurationError)
    config = SceneFitConfig(**{k: v for k, v in values.items() if k in keys})
    output = Path(values['output'])
    directory = output / 'model'
    directory.mkdir(parents=True, exist_ok=True)
    network = read_network(directory / values['motion']).eval()
    head, report = fit_scene_head(network, config)
    reader = InstructionReader.fit({name: list(BUILT_IN[name].instructions) for name in sorted(BUILT_IN)})
    robot = str(read_index(directory / values['motion']).get('robot', ''))
    ComposedPredictor(network, head, reader, robot=robot).save_pretrained(directory, values['motion'])
    (output / 'summary.json').write_text(json.dumps({'config': asdict(config), 'iou': report}, indent=1) + '\n')
    return output


__all__ = ['SceneFitConfig', 'encoded', 'fit_scene_head', 'train']
