"""What a run of the small generator takes where no config is given: by how many demonstrations there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geo4d_ros.data.episodes import list_episodes
from geo4d_ros.errors import DatasetError, require
from geo4d_ros.resources import resource
from geo4d_ros.robots.registry import DEFAULT, load_robot

SHIPPED = 'shipped'
TUNED_WARMUP = 10  # steps: four minutes have some hundred


@dataclass(frozen=True)
class Amount:
    """Up to so many demonstrations: minutes on two CPU cores and highest learning rate, tuned from a start or new."""

    demonstrations: float
    tuned_minutes: float
    tuned_lr: float
    new_minutes: float
    keeps_views: bool  # tuned: how views are compared stays as it is, of few demonstrations it only forgets


AMOUNTS = (Amount(15, 4.0, 3e-4, 15.0, True), Amount(150, 20.0, 5e-4, 60.0, True),
           Amount(float('inf'), 60.0, 5e-4, 120.0, False))


def config_for(data: str, start: str | None) -> tuple[dict[str, Any], str]:
    """A config's mapping for the episodes in `data`, and what it is in one line.

    start: 'shipped' (the model that knows the robot of the data, else the default robot's), a checkpoint, or None for a
    new one. Raises DatasetError without episodes.
    """
    import yaml

    from geo4d_ros.training.two_view.train import robot_of

    count = len(list_episodes(data))
    require(count > 0, f'{data} holds no episode; run `geo4d collect` or `geo4d import`', DatasetError)
    amount = next(a for a in AMOUNTS if count <= a.demonstrations)
    values = yaml.safe_load(resource('config', 'train', 'sim_small.yaml').read_text())
    values |= {'data': data, 'output': f'outputs/train/{Path(data).resolve().name}'}
    if start is None:
        values |= {'minutes': amount.new_minutes}
        return values, f'{count} demonstrations: a new model, {amount.new_minutes:g} minutes'
    start = checkpoint_of(start, robot_of(data))
    values |= {'start': start, 'minutes': amount.tuned_minutes, 'lr': amount.tuned_lr, 'warmup': TUNED_WARMUP,
               'frozen': ['encoder.blocks'] if amount.keeps_views else []}
    return values, f'{count} demonstrations: {start} tuned for {amount.tuned_minutes:g} minutes'


def checkpoint_of(start: str, robot: str = '') -> str:
    """The checkpoint to start from: itself, or what 'shipped' stands for with that robot."""
    if start != SHIPPED:
        return start
    return load_robot(robot).checkpoint or load_robot(DEFAULT).checkpoint
