"""Trains the scene head on single images of episodes, with other tasks' things pasted in."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from tqdm import tqdm

from geo4d_ros.generation.two_view.scene_head import FIRST_TASK_CLASS, ROBOT, SceneHead, scene_inputs
from geo4d_ros.geometry.cameras import unproject
from geo4d_ros.geometry.transforms import transform_points
from geo4d_ros.data.episodes import Episode, decode_depth, list_episodes, open_or_warn

OBJECT, FIXTURE, OTHERS = 5, 6, 10  # episode labels; from 10 on two for every other task in the scene
PER_EPISODE, POOL = 16, 384
PASTED = 0.4  # share of images that get another task's things
CLASS_WEIGHT = (0.5, 0.7, 3.0, 1.5)  # rest, robot, objects, fixtures
log = logging.getLogger(__name__)


@dataclass
class SceneFitConfig:
    """A run of `minutes` wall time on the episodes below `data`; resumes from `output`."""

    data: str
    output: str
    minutes: float = 12.0
    batch: int = 16
    lr: float = 2e-3
    seed: int = 0
    save_every_s: float = 120.0


def classes_of(labels: np.ndarray, task: int, tasks: int) -> np.ndarray:
    """Scene-head classes of episode labels (..., H, W) whose instructed task is number `task`."""
    table = np.zeros(256, np.int64)
    table[1:5] = ROBOT
    table[OBJECT], table[FIXTURE] = FIRST_TASK_CLASS + 2 * task, FIRST_TASK_CLASS + 2 * task + 1
    table[OTHERS:OTHERS + 2 * tasks] = FIRST_TASK_CLASS + np.arange(2 * tasks)
    return table[labels]


def images_of(episode: Episode, tasks: tuple[str, ...], count: int, rng: np.random.Generator,
              ) -> list[tuple[np.ndarray, np.ndarray]]:
    """`count` random images: inputs (7, H, W) float32 and classes (H, W) int64."""
    arrays = episode.load()
    cameras, frames = arrays['rgb'].shape[:2]
    out = []
    for _ in range(count):
        c, n = int(rng.integers(cameras)), int(rng.integers(frames))
        depth = decode_depth(arrays['depth'][c, n])
        points = transform_points(arrays['T_base_camera'][c], unproject(depth, arrays['K'][c]))
        rgb = torch.from_numpy(arrays['rgb'][c, n].astype(np.float32) / 127.5 - 1).permute(2, 0, 1)
        vector = lambda v: torch.tensor(v, dtype=torch.float32)  # noqa: E731
        inputs = scene_inputs(rgb[None], torch.from_numpy(points).float()[None], torch.from_numpy(depth)[None],
                              torch.from_numpy(depth > 0)[None], torch.zeros(3), vector([0, 0, 1.0]),
                              vector(arrays['T_base_gripper'][n, :3, 3]))[0].numpy()
        out.append((inputs, classes_of(arrays['labels'][c, n], tasks.index(episode.task), len(tasks))))
    return out


def paste(image: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray],
          ) -> tuple[np.ndarray, np.ndarray]:
    """The image with the task things of another one in it, where nothing nearer and no robot hides them."""
    (x, c), (y, d) = image, other
    depth = 5
    put = (d >= FIRST_TASK_CLASS) & (c != ROBOT) & (y[depth] < x[depth] + 0.05)
    return np.where(put[None], y, x), np.where(put, d, c)


def augmented(image: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours, mirror image and a little noise on what is measured."""
    x, c = image[0].copy(), image[1]
    draw = 0.15 * rng.normal(size=5)
    gain = (1 + draw[0]) * (1 + 0.3 * draw[1:4])
    x[:3] = np.clip(x[:3] * gain[:, None, None] + 0.5 * draw[4], -1, 1)
    x[3:6] += rng.normal(0, (0.02, 0.01, 0.01))[:, None, None] * x[6]
    x[3:6] += rng.normal(0, 0.006, x[3:6].shape) * x[6]
    if rng.random() < 0.5:
        x, c = x[..., ::-1], c[..., ::-1]
    return np.ascontiguousarray(x, np.float32), np.ascontiguousarray(c)


def batches(config: SceneFitConfig, tasks: tuple[str, ...], rng: np.random.Generator,
            ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless inputs (B, 7, H, W) and classes (B, H, W) from a directory that may still grow."""
    pool: list[tuple[np.ndarray, np.ndarray]] = []
    while True:
        paths = list_episodes(config.data)
        while len(pool) < POOL:
            episode = open_or_warn(paths[int(rng.integers(len(paths)))])
            pool += images_of(episode, tasks, PER_EPISODE, rng) if episode is not None else []
        rng.shuffle(pool)  # type: ignore[arg-type]
        chosen, pool = pool[:config.batch], pool[config.batch:]
        made = [augmented(paste(image, pool[int(rng.integers(len(pool)))]) if rng.random() < PASTED else image, rng)
                for image in chosen]
        yield tuple(torch.from_numpy(np.stack(part)) for part in zip(*made, strict=True))  # type: ignore[misc]


def fit_scene_head(config: SceneFitConfig, head: SceneHead | None = None) -> SceneHead:
    """Train (or resume) a scene head and write it to `output/scene`."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    head = head or SceneHead()
    tasks = tuple(head.config.tasks)
    directory = Path(config.output)
    directory.mkdir(parents=True, exist_ok=True)
    spent = _resume(directory, head)
    weight = torch.tensor([*CLASS_WEIGHT[:2], *CLASS_WEIGHT[2:] * len(tasks)])
    optimizer = torch.optim.AdamW(head.parameters(), config.lr, weight_decay=0.01)
    source, saved, mean, step = batches(config, tasks, rng), time.monotonic(), 0.0, 0
    with tqdm(total=round(60 * config.minutes), initial=round(spent), unit='s', desc='scene head') as bar:
        while spent < 60 * config.minutes:
            begun = time.monotonic()
            part = spent / (60 * config.minutes)
            for group in optimizer.param_groups:
                group['lr'] = config.lr * min(1.0, (step + 1) / 50) * (0.51 + 0.49 * np.cos(np.pi * part))
            inputs, classes = next(source)
            loss = F.cross_entropy(head(inputs), classes, weight=weight)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            mean, step = loss.item() if not step else 0.97 * mean + 0.03 * loss.item(), step + 1
            spent += time.monotonic() - begun
            bar.update(round(spent) - bar.n)
            bar.set_postfix(step=step, loss=f'{mean:.4f}', refresh=False)
            if time.monotonic() - saved > config.save_every_s:
                _save(directory, head, spent)
                saved = time.monotonic()
    _save(directory, head, spent)
    return head


def _save(directory: Path, head: SceneHead, spent: float) -> None:
    head.save_pretrained(directory / 'scene')
    save_file(head.state_dict(), directory / 'state.safetensors')
    (directory / 'run.json').write_text(json.dumps({'spent_s': spent}))


def _resume(directory: Path, head: SceneHead) -> float:
    state = directory / 'state.safetensors'
    if not state.is_file():
        return 0.0
    head.load_state_dict(load_file(state))
    return float(json.loads((directory / 'run.json').read_text())['spent_s'])


__all__ = ['SceneFitConfig', 'fit_scene_head']
