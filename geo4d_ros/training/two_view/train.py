"""The training loop of the two-view network: budgeted by time, EMA weights, exact resume, validation."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from geo4d_ros.data.episodes import list_episodes, open_or_warn
from geo4d_ros.errors import ConfigurationError
from geo4d_ros.generation.manifest import verify_manifest
from geo4d_ros.generation.module_config import ModuleConfig
from geo4d_ros.generation.two_view.network import TwoViewNetwork
from geo4d_ros.generation.two_view.predictor import TwoViewPredictor
from geo4d_ros.generation.two_view.weights import read_index, read_weights
from geo4d_ros.resources import find_checkpoint
from geo4d_ros.robots.registry import load_robot
from geo4d_ros.training.budget import Budget, require_steps
from geo4d_ros.training.config_values import checked_config
from geo4d_ros.training.two_view.arm_fit import fit_arm_head
from geo4d_ros.training.two_view.batches import Augmentation, BatchConfig, batches
from geo4d_ros.training.two_view.losses import total_loss
from geo4d_ros.training.two_view.validation import Validation, held_out_episodes

log = logging.getLogger(__name__)

ARM_STEPS, ARM_SHARE = 12000, 0.1  # of fitting a new arm head: at most, and of the budget


@dataclass
class TrainConfig:
    """Everything a run needs; `minutes` of training time by `clock` (training/budget.py) set the length and the
    learning-rate schedule.

    start: checkpoint whose weights a new run begins with; parts that it lacks are new, parts it has too many an error.
    frozen: parts of the network that keep those weights, by the beginning of their names. arm_steps: of fitting a new
    arm head (arm_fit.py) at the run's beginning, part of the budget; it is frozen then. None: none where `start` knows
    this robot's arm, else 12000 or as many as a tenth of the budget allows. network: what it does not say
    of the gripper's widest opening is the described robot's, whose data is in `data`. validation: folder of held-out
    episodes, 'auto' for some of `data`'s own that are then not trained on, 'none'; looked at every
    `validate_every_min` of the budget and at least four times (validation.py).
    """

    data: str = 'outputs/data/train'
    output: str = 'outputs/train/two_view'
    minutes: float = 120.0
    clock: str = 'wall'
    batch: int = 8
    future_frames: int = 1
    workers: int = 1
    fresh_share: float = 0.35
    lr: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    ema: float = 0.998
    clip: float = 1.0
    seed: int = 0
    start: str = ''
    frozen: list[str] = field(default_factory=list)
    arm_steps: int | None = None
    validation: str = 'auto'
    validate_every_min: float = 5.0
    save_every_s: float = 240.0
    network: ModuleConfig = field(default_factory=dict)
    augmentation: ModuleConfig = field(default_factory=dict)


def parse_config(values: dict[str, Any]) -> TrainConfig:
    """The config of a YAML mapping; unknown keys are named."""
    return checked_config(TrainConfig, {k: v for k, v in values.items() if k != 'model'})


def learning_rate(config: TrainConfig, step: int, fraction: float) -> float:
    """Linear warm-up by steps, then a half cosine over the time budget down to 2 %."""
    cosine = 0.5 * (1 + torch.cos(torch.tensor(min(fraction, 1.0) * torch.pi)).item())
    return config.lr * min(1.0, (step + 1) / config.warmup) * (0.02 + 0.98 * cosine)


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors whose name starts with the prefix, sorted and without it."""
    return {k.removeprefix(prefix): tensors[k] for k in sorted(tensors) if k.startswith(prefix)}


def start_from(network: TwoViewNetwork, checkpoint: str, robot: str = '') -> bool:
    """Copy a checkpoint's weights; what the network has beside them stays new and is named in the log.

    Returns whether it knows the arm of that robot.
    """
    directory = find_checkpoint(checkpoint)
    verify_manifest(directory)
    weights = read_weights(directory)  # from_pretrained would leave new parts without memory
    missing, unexpected = network.load_state_dict(weights, strict=False)
    if unexpected:
        raise ConfigurationError(f'{checkpoint} has parts that this network lacks: {sorted(unexpected)[:3]} ...')
    new = sorted({k.rsplit('.', 2)[0] for k in missing})
    log.warning('started from %s; new parts: %s', checkpoint, ', '.join(new) or 'none')
    same = load_robot(str(read_index(directory).get('robot', ''))) == load_robot(robot)
    return same and not any(name.startswith('arm_head') for name in new)


def freeze(network: TwoViewNetwork, prefixes: list[str]) -> None:
    """Keep the weights whose names begin so; ConfigurationError for a beginning that none has."""
    for prefix in prefixes:
        found = [p for name, p in network.named_parameters() if name.startswith(prefix)]
        if not found:
            parts = ', '.join(name for name, _ in network.named_children())
            raise ConfigurationError(f'training key frozen: no part of the network begins with {prefix!r}; there are '
                                     f'{parts}')
        for parameter in found:
            parameter.requires_grad_(False)


def robot_of(data: str) -> str:
    """Name of the robot of the episodes below `data`, '' for the default one; ConfigurationError where they are of
    several."""
    episodes = map(open_or_warn, list_episodes(data))
    names = {episode.robot or '' for episode in episodes if episode is not None}
    if len({load_robot(name) for name in names}) > 1:
        raise ConfigurationError(f'{data} holds episodes of several robots ({", ".join(sorted(names))}); a model '
                                 'learns one: keep them in folders of their own')
    return max(names, default='')


class Trainer:
    """One run; `step` and `budget` continue where the last checkpoint stopped."""

    def __init__(self, config: TrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.config, self.directory = config, Path(config.output)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.accelerator = Accelerator()
        self.robot = robot_of(config.data)
        stroke = load_robot(self.robot).gripper.stroke
        network = TwoViewNetwork(**{'max_opening': stroke, **config.network})
        self.arm_known = bool(config.start) and start_from(network, config.start, self.robot)
        freeze(network, config.frozen)
        if network.arm_head is not None:
            network.arm_head.requires_grad_(False)  # it is fitted alone, to far more poses than a run shows
        trained = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, config.lr, weight_decay=config.weight_decay)
        self.network, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.ema = self._average()
        self.step, self.budget = 0, Budget(config.minutes, config.clock)
        state = self.directory / 'state.safetensors'
        if state.is_file():
            self.load(state)

    def _average(self) -> EMAModel:
        return EMAModel(self.network.parameters(), decay=self.config.ema, use_ema_warmup=True, power=0.75)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint written by `save`."""
        saved = load_file(path)
        network = self.accelerator.unwrap_model(self.network)
        network.load_state_dict(_under('network.', saved))
        moments = _under('moments.', saved)
        state = {i: {k: moments[f'{i}.{k}'] for k in ('step', 'exp_avg', 'exp_avg_sq')}
                 for i in range(sum(p.requires_grad for p in network.parameters()))}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), 'state': state})
        self.ema.shadow_params = list(_under('ema.', saved).values())
        self.step, self.ema.optimization_step = int(saved['step']), int(saved['step'])
        self.budget.load_state_dict({'spent_s': float(saved['trained_s'])})
        torch.set_rng_state(saved['rng'])
        log.warning('resumed at step %d after %.1f min', self.step, self.budget.spent_s / 60)

    def save(self) -> None:
        """Checkpoint for resuming, and the EMA weights in `model/`, ready for every --checkpoint."""
        network = self.accelerator.unwrap_model(self.network)
        moments = {f'{i}.{k}': v for i, row in self.optimizer.state_dict()['state'].items() for k, v in row.items()}
        tensors = {'step': torch.tensor(self.step), 'rng': torch.get_rng_state(),
                   'trained_s': torch.tensor(self.budget.spent_s, dtype=torch.float64),
                   **{f'network.{k}': v for k, v in network.state_dict().items()},
                   **{f'moments.{k}': v for k, v in moments.items()},
                   **{f'ema.{i:04d}': v for i, v in enumerate(self.ema.shadow_params)}}
        partial = self.directory / 'state.partial'
        save_file({k: v.contiguous() for k, v in tensors.items()}, partial)
        partial.replace(self.directory / 'state.safetensors')
        with self._averaged() as averaged:
            TwoViewPredictor(averaged, robot=self.robot).save_pretrained(self.directory / 'model')
        report = {'config': asdict(self.config), 'steps': self.step, 'trained_min': self.budget.spent_s / 60}
        (self.directory / 'run.json').write_text(json.dumps(report, indent=1))

    @contextmanager
    def _averaged(self) -> Iterator[TwoViewNetwork]:
        """The network with its averaged weights, for as long as the block lasts."""
        network = self.accelerator.unwrap_model(self.network)
        self.ema.store(network.parameters())
        self.ema.copy_to(network.parameters())
        try:
            yield network
        finally:
            network.train()
            self.ema.restore(network.parameters())

    def validate(self, validation: Validation) -> None:
        """Look at the held-out clips with the averaged weights; the best ones so far are kept in `best/`."""
        path = self.directory / 'best.json'
        best = json.loads(path.read_text())['total'] if path.is_file() else float('inf')
        with self._averaged() as averaged:
            found = validation.look(averaged, self.robot, self.step, self.budget.spent_s / 60)
            if found['total'] < best:
                TwoViewPredictor(averaged, robot=self.robot).save_pretrained(self.directory / 'best')
                path.write_text(json.dumps({'step': self.step, 'minutes': self.budget.spent_s / 60, **found}, indent=1))
        tqdm.write(f'{self.budget.spent_s / 60:6.1f} min  held-out loss {found["total"]:.3f}  path '
                   f'{found["path_error_cm"]:.1f} cm{"  best so far" if found["total"] < best else ""}')

    def run(self) -> None:
        """Train until the time budget is used up."""
        config, budget = self.config, self.budget
        held_out = held_out_episodes(config.data, self.directory, config.validation)
        validation = Validation(held_out, self.directory)
        data = BatchConfig(config.data, config.batch, config.future_frames, config.workers,
                           config.fresh_share, Augmentation(**config.augmentation),
                           tuple(p.name for p in held_out) if config.validation == 'auto' else ())
        every = 60 * min(config.validate_every_min, config.minutes / 4)
        if self.step == 0:
            self._fit_arm_head()
            if validation and config.start:
                self.validate(validation)  # what the start does with these data: tuning has to be better
        source = batches(data, config.seed + self.step)
        saved_at, means, looked_at = time.monotonic(), {}, budget.spent_s
        with tqdm(total=round(budget.seconds), initial=round(budget.spent_s), desc='training',
                  bar_format='{desc}: {percentage:3.0f}%|{bar:20}| {remaining} left {postfix}') as bar, \
                open(self.directory / 'log.jsonl', 'a') as journal:
            while not budget.over:
                budget.start()
                terms = self._train_step(next(source), budget.fraction)
                for name, value in terms.items():
                    means[name] = 0.97 * means.get(name, value) + 0.03 * value
                budget.stop()
                self.step += 1
                bar.update(round(budget.spent_s) - bar.n)
                bar.set_postfix(step=self.step, **{k: f'{v:.3f}' for k, v in means.items()}, refresh=False)
                if self.step % 50 == 0:
                    row = {'step': self.step, 'minutes': budget.spent_s / 60, **means}
                    journal.write(json.dumps({k: round(v, 4) for k, v in row.items()}) + '\n')
                    journal.flush()
                    validation.train_scalars(means, self.step)
                if validation and budget.spent_s - looked_at > every:
                    self.validate(validation)
                    looked_at = budget.spent_s
                if time.monotonic() - saved_at > config.save_every_s:
                    self.save()
                    saved_at = time.monotonic()
        require_steps(self.step)
        self.save()
        if validation:
            self.validate(validation)
        validation.close()

    def _fit_arm_head(self) -> None:
        head = self.accelerator.unwrap_model(self.network).arm_head
        config = self.config
        steps = config.arm_steps if config.arm_steps is not None else 0 if self.arm_known else ARM_STEPS
        if head is None or not steps:
            return
        self.budget.start()
        head.requires_grad_(True)
        seconds = ARM_SHARE * 60 * config.minutes if config.arm_steps is None else float('inf')
        error = fit_arm_head(head, config.data, steps, config.seed, seconds, config.clock)
        head.requires_grad_(False)
        self.ema = self._average()
        self.budget.stop()
        log.warning('the arm head tells the joints to %.1f mm on average', 1000 * error)

    def _train_step(self, batch: dict[str, torch.Tensor], fraction: float) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group['lr'] = learning_rate(self.config, self.step, fraction)
        terms = total_loss(self.network, batch)
        self.accelerator.backward(terms['total'])
        if not torch.isfinite(terms['total']):
            raise FloatingPointError(f'the loss is not finite at step {self.step}: {terms}')
        self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.step(self.network.parameters())
        return {k: v.item() for k, v in terms.items()}


def train(config: dict[str, Any]) -> Path:
    """Run (or resume) the training a YAML mapping describes; returns the output directory."""
    trainer = Trainer(parse_config(config))
    trainer.run()
    return trainer.directory
