"""The training loop: accelerate, EMA, exact resume, live figures and sample pictures.

Every random number belongs to a window index and every window to a step, so a run that is killed and
resumed continues with the same losses, and two processes see what one with the doubled batch sees.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, set_seed
from diffusers.training_utils import EMAModel
from torch import nn
from tqdm.auto import tqdm

from geo4d_ros.errors import BackendUnavailableError, CheckpointError, ConfigurationError, Geo4dError, require
from geo4d_ros.generation.loading import load_generator
from geo4d_ros.generation.unet.pipeline import Geo4dPipeline
from geo4d_ros.generation.unet.presets import build
from geo4d_ros.generation.unet.streams import POINTS, RGB
from geo4d_ros.training.budget import Budget, require_steps
from geo4d_ros.training.provenance import append_run
from geo4d_ros.training.unet.batches import Clips, make_clips
from geo4d_ros.training.unet.config import UNetTrainConfig, parse_config
from geo4d_ros.training.unet.data import EpisodeWindows, batches, list_data
from geo4d_ros.training.unet.latent_cache import CachedWindows, Prepared, from_cache, identity, write_cache
from geo4d_ros.training.unet.pictures import comparison, film, log_film, observation_of, save_picture
from geo4d_ros.training.unet.stages import make_stage

log = logging.getLogger(__name__)
LOSSES, VALIDATION = 'losses.jsonl', 'validation.jsonl'


def train(values: dict[str, Any]) -> Path:
    """Run (or continue) the training that the YAML mapping describes; returns its output directory.

    The result is a checkpoint in <output>/model and closing figures in <output>/summary.json. Raises
    ConfigurationError for unknown keys, DatasetError without data.
    """
    trainer = Trainer(parse_config(values))
    trainer.run()
    return trainer.output


def learning_rate(config: UNetTrainConfig, step: int, spent: float = 0.0) -> float:
    """Linear warm-up, then constant or a half cosine down to 2 %, over the steps or the time, `spent` being the share
    of the time used: whichever is further."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == 'constant':
        return config.lr * warm
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, max(spent, step / config.steps))))
    return config.lr * warm * (0.02 + 0.98 * cosine)


def make_optimizer(model: nn.Module, config: UNetTrainConfig) -> torch.optim.Optimizer:
    """AdamW, or its 8-bit version from bitsandbytes."""
    parameters: Any = [p for p in model.parameters() if p.requires_grad]
    if config.stage == 'distillation' and config.fake_lr:
        student = {id(p) for p in model.student.parameters()}
        parameters = [{'params': [p for p in parameters if id(p) in student]},
                      {'params': [p for p in parameters if id(p) not in student], 'scale': config.fake_lr / config.lr}]
    options = {'lr': config.lr, 'weight_decay': config.weight_decay, 'betas': (0.9, 0.99)}
    if config.optimizer == 'adamw':
        return torch.optim.AdamW(parameters, **options)
    if config.optimizer == 'adamw8bit':
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError as error:
            raise BackendUnavailableError(
                'optimizer adamw8bit needs bitsandbytes: pip install bitsandbytes, or set optimizer: adamw'
            ) from error
        return AdamW8bit(parameters, **options)
    raise ConfigurationError(f'optimizer should be adamw or adamw8bit but got {config.optimizer!r}')


def make_pipeline(config: UNetTrainConfig) -> Geo4dPipeline:
    """The pipeline to train: a fresh preset, or a checkpoint with single fields overridden."""
    if config.init_from is None:
        return build(config.preset, config.unet, config.pipeline, config.seed)
    pipeline = load_generator(config.init_from)
    if not isinstance(pipeline, Geo4dPipeline):
        raise CheckpointError(f'{config.init_from} holds a {type(pipeline).__name__}, expected a Geo4dPipeline')
    if config.unet:
        raise ConfigurationError('unet fields cannot be changed when training starts from a checkpoint')
    pipeline.register_to_config(**config.pipeline)
    return pipeline


def _needed_arrays(pipeline: Geo4dPipeline) -> tuple[str, ...]:
    """Arrays of the episode schema that this model learns from, beyond pictures, depth and cameras."""
    config = pipeline.unet.config
    return (*(('labels',) if config.auxiliary_upscale else ()),
            *(('T_base_gripper', 'opening') if config.state_stream else ()))


class Trainer:
    """One run of one stage."""

    def __init__(self, config: UNetTrainConfig) -> None:
        self.config, self.output = config, Path(config.output)
        self.pipeline = make_pipeline(config)
        self.stage = make_stage(self.pipeline, config)
        self.stage.model.train().requires_grad_(True)
        if config.gradient_checkpointing:
            for module in self.stage.model.modules():
                if hasattr(module, 'enable_gradient_checkpointing'):
                    module.enable_gradient_checkpointing()
        self.accelerator = Accelerator(
            mixed_precision=config.precision,
            gradient_accumulation_steps=config.accumulation,
            log_with='tensorboard',
            project_dir=str(self.output),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=self.stage.find_unused_parameters)],
        )
        self.main = self.accelerator.is_main_process
        set_seed(config.seed)
        self.device = self.accelerator.device
        for module in self.pipeline.components.values():
            if isinstance(module, nn.Module):
                module.to(self.device)
        optimizer = make_optimizer(self.stage.model, config)
        self.model, self.optimizer = self.accelerator.prepare(self.stage.model, optimizer)
        self.ema = EMAModel(self.stage.model.parameters(), decay=config.ema)
        self.budget = Budget(config.minutes, config.clock)
        self.accelerator.register_for_checkpointing(self.ema, self.budget)
        self.step = 0

    def run(self) -> None:
        """Train to the last step (or minute), save the model and how it went."""
        config, started = self.config, time.monotonic()
        self._prepare_output()
        self.episodes = self._episode_list()
        self._resume()
        self.accelerator.init_trackers('tensorboard')
        self.windows = self._cached(self._windows(self.episodes))
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        stream = batches(
            self.windows, self.step * config.accumulation, config.batch, config.batch * processes, rank, config.workers
        )
        bar = tqdm(total=config.steps, initial=self.step, disable=not self.main, desc=config.stage)
        losses: dict[str, float] = {}
        while self.step < config.steps and not self._out_of_time():
            self.budget.start()
            losses = self._train_step(stream)
            self.budget.stop()
            self.step += 1
            self._report(losses, bar)
            if self.step % config.save_every == 0:
                self._save_state()
            if self.step % config.sample_every == 0:
                self._sample()
        bar.close()
        require_steps(self.step)
        if self.budget.interrupted:
            self._save_state()
        digest = self._finish()
        self.accelerator.end_training()
        if self.main:
            wall = time.monotonic() - started
            summary = {'steps': self.step, 'trained_min': self.budget.spent_s / 60, 'wall_s': wall,
                       'model_sha256': digest, **losses}
            (self.output / 'summary.json').write_text(json.dumps(summary, indent=1) + '\n')

    def _prepare_output(self) -> None:
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f'cannot write {self.output}: {error.strerror}; choose another output') from error

    def _episode_list(self) -> list[Path]:
        """The episodes of this run: those present at its first start, whatever is added later."""
        record = self.output / 'episodes.json'
        if self.main and not record.is_file():
            paths = list_data(Path(self.config.data), self.config.data_format)
            record.write_text(json.dumps([str(p) for p in paths], indent=0))
        self.accelerator.wait_for_everyone()
        return [Path(p) for p in json.loads(record.read_text())]

    def _windows(self, episodes: list[Path], seed_offset: int = 0) -> EpisodeWindows:
        settings = self.pipeline.config
        return EpisodeWindows(
            episodes,
            self.config.data_format,
            settings.views,
            settings.frames,
            (settings.height, settings.width),
            self.config.seed + seed_offset,
            settings.convention,
            _needed_arrays(self.pipeline),
        )

    def _cached(self, windows: EpisodeWindows) -> EpisodeWindows | CachedWindows:
        """The windows themselves, or their cache where the config names one, made now if it is not there."""
        config = self.config
        if config.latent_cache is None:
            return windows
        needs_pixels = config.stage in ('vae', 'decoder') or self.pipeline.unet.config.auxiliary_upscale
        require(not needs_pixels, 'a latent cache has no pixels: drop latent_cache for the vae and decoder stages and '
                'for models with auxiliary maps', ConfigurationError)
        path = Path(config.latent_cache)
        if self.main and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_cache(path, windows, config.cached_windows, self._clips, self.pipeline, config.loss)
        self.accelerator.wait_for_everyone()
        return CachedWindows(path, identity(self.pipeline, windows, config.loss))

    def _clips(self, window: dict[str, torch.Tensor]) -> Clips:
        config, settings = self.config, self.pipeline.config
        moved = self.pipeline.convention.moves_invalid_points
        return make_clips(window, self.device, settings.condition_frame, config.pose_noise, moved, config.seed)

    def _batch(self, window: dict[str, torch.Tensor]) -> Clips | Prepared:
        """A collated batch on the device, of pixels or from the cache."""
        if self.config.latent_cache is None:
            return self._clips(window)
        kinds = (POINTS, RGB) if self.pipeline.unet.config.points else (RGB,)
        return from_cache(window, self.device, kinds, self.config.seed)

    def _train_step(self, stream: Any) -> dict[str, float]:
        """One optimiser step over `accumulation` micro-batches; mean losses over all processes."""
        config, sums = self.config, {}
        for group in self.optimizer.param_groups:
            group['lr'] = learning_rate(config, self.step, self.budget.fraction) * group.get('scale', 1.0)
        self.stage.step = self.step
        for _ in range(config.accumulation):
            batch = self._batch(next(stream))
            with self.accelerator.accumulate(self.model), self.accelerator.autocast():
                losses = self.stage.losses(self.model, batch)
                if not bool(torch.isfinite(losses['loss'])):
                    raise Geo4dError(f'the loss is not finite at step {self.step}; lower lr (now {config.lr})')
                self.accelerator.backward(losses['loss'])
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), config.clip)
                self.optimizer.step()
                self.optimizer.zero_grad()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach() / config.accumulation
        self.ema.step(self.stage.model.parameters())
        names = sorted(sums)
        means = self.accelerator.reduce(torch.stack([sums[n].float() for n in names]), 'mean')
        return dict(zip(names, means.tolist(), strict=True))

    def _report(self, losses: dict[str, float], bar: tqdm) -> None:
        if not self.main:
            return
        bar.update()
        bar.set_postfix({k: f'{v:.4f}' for k, v in losses.items()})
        self.accelerator.log(losses, step=self.step)
        with open(self.output / LOSSES, 'a') as file:
            file.write(json.dumps({'step': self.step, **losses}) + '\n')

    def _out_of_time(self) -> bool:
        """Whether the minutes are over, by the main process's clock, so that all stop at the same step."""
        if self.config.minutes is None and self.accelerator.num_processes == 1:
            return self.budget.interrupted
        over = self.main and self.budget.over
        return bool(self.accelerator.reduce(torch.tensor(float(over), device=self.device), 'sum'))

    def _states(self) -> list[Path]:
        """Complete training states, oldest first."""
        found = (p for p in (self.output / 'states').glob('step-*') if p.is_dir())
        return sorted(found, key=lambda p: int(p.name.split('-')[1]))

    def _save_state(self) -> None:
        """Write the training state; it gets its name only when complete, and the two newest are kept."""
        target = self.output / 'states' / f'step-{self.step}'
        temporary = target.with_name(f'.{target.name}')
        if self.main:
            shutil.rmtree(temporary, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(temporary))
        self.accelerator.wait_for_everyone()
        if self.main:
            shutil.rmtree(target, ignore_errors=True)
            os.rename(temporary, target)
            for old in self._states()[:-2]:
                shutil.rmtree(old, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        """Continue from the newest complete state, and forget the losses logged after it."""
        states = self._states()
        if states:
            try:
                self.accelerator.load_state(str(states[-1]))
            except (OSError, RuntimeError, ValueError, KeyError) as error:
                raise CheckpointError(
                    f'{states[-1]} cannot be resumed ({str(error).splitlines()[0]}); delete it to '
                    'resume from the one before'
                ) from error
            self.step = int(states[-1].name.split('-')[1])
            self.ema.to(self.device)
        for log_file in (self.output / name for name in (LOSSES, VALIDATION) if self.main):
            lines = log_file.read_text().splitlines() if log_file.is_file() else []
            kept = [line for line in lines if line.endswith('}') and json.loads(line)['step'] <= self.step]
            if len(kept) < len(lines):
                log_file.write_text(''.join(f'{line}\n' for line in kept))

    def _sample(self) -> None:
        """With the averaged weights: the prediction of one fixed window as a picture, and the validation losses."""
        sharded = self.accelerator.distributed_type == DistributedType.FSDP  # one process alone cannot predict
        if not self.main or sharded:
            return
        source, kind = Path(self.config.validation or self.config.data), self.config.data_format
        kept = list_data(source, kind, 'validation')
        windows = self._windows(kept or list_data(source, kind), 1)

        def look() -> None:
            if self.config.stage != 'vae':
                self._draw(windows[0])
            # A student's losses are a contest, whose height tells nothing.
            if kept and (self.config.validation or kind == 'released') and self.config.stage != 'distillation':
                self._validate(windows)

        self._with_average(look)

    @torch.no_grad()
    def _validate(self, windows: EpisodeWindows) -> None:
        """Mean losses over fixed windows of episodes that are not trained on, each with its own fixed noise."""
        sums: dict[str, float] = {}
        for index in range(self.config.validation_windows):
            window = {name: value[None] for name, value in windows[index].items()}
            for name, value in self.stage.losses(self.stage.model, self._clips(window)).items():
                sums[name] = sums.get(name, 0.0) + float(value) / self.config.validation_windows
        self.accelerator.log({f'validation/{name}': value for name, value in sums.items()}, step=self.step)
        with open(self.output / VALIDATION, 'a') as file:
            file.write(json.dumps({'step': self.step, **sums}) + '\n')

    def _draw(self, window: dict) -> None:
        try:
            video = self.pipeline.predict(observation_of(window))
        except Geo4dError as error:  # e.g. an untrained model whose second view cannot be registered
            log.warning('no sample at step %d: %s', self.step, error)
            return
        picture = comparison(window, video)
        save_picture(self.output / 'samples' / f'{self.step:07d}.png', picture)
        for tracker in self.accelerator.trackers:
            tracker.writer.add_image('sample', picture, self.step, dataformats='HWC')
            log_film(tracker.writer, 'film', film(window, video), self.pipeline.dt, self.step)

    def _with_average(self, action: Any) -> None:
        """Run `action` with the averaged weights in place, in evaluation mode."""
        parameters = list(self.stage.model.parameters())
        self.ema.store(parameters)
        self.ema.copy_to(parameters)
        self.stage.model.eval()
        try:
            self.stage.finish()
            action()
        finally:
            self.stage.model.train()
            self.ema.restore(parameters)

    def _finish(self) -> str:
        """Save the last state and the averaged model; returns the model's hash.

        The averaged weights are gathered from all processes and put into a freshly built pipeline,
        which also works where the parameters are sharded.
        """
        self._save_state()
        weights: dict[str, torch.Tensor] = {}

        def gather() -> None:
            whole = self.accelerator.get_state_dict(self.model)
            weights.update({name: value.detach().cpu().clone() for name, value in whole.items()})

        self._with_average(gather)
        digest = ''
        if self.main:
            pipeline = make_pipeline(self.config)
            stage = make_stage(pipeline, self.config)
            stage.model.load_state_dict(weights)
            stage.finish()
            target = self.output / 'model'
            temporary = target.with_name('.model')
            shutil.rmtree(temporary, ignore_errors=True)
            pipeline.save(temporary, shard_size='15MB')
            digest = self._record(temporary)
            shutil.rmtree(target, ignore_errors=True)
            os.rename(temporary, target)
        self.accelerator.wait_for_everyone()
        return digest

    def _record(self, checkpoint: Path) -> str:
        """Write this run behind those that the checkpoint comes from; returns the model's hash."""
        start = self.config.init_from
        run = {'config': asdict(self.config), 'steps': self.step, 'processes': self.accelerator.num_processes,
               'trained_min': round(self.budget.spent_s / 60, 2)}
        return append_run(checkpoint, None if start is None else Path(start), (p.name for p in self.episodes), run)
