"""The YAML config of a training run, as a checked dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.generation.module_config import ModuleConfig
from geo4d_ros.training.config_values import checked_config

STAGES = ('vae', 'decoder', 'regression', 'diffusion', 'distillation')


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses (method 3.6 unless said otherwise).

    gripper: extra weight of gripper pixels, fading with the noise as s^2 / (s^2 + 1); points: lambda,
    the weight of the pointmap streams against RGB; mask_invalid: leave pixels without depth out, by default as the
    model's convention says;
    static: weight of pixels that do not move, when the model has a motion gate (1 without one);
    mask, gate, state: weights of the auxiliary maps' cross-entropies and of the state stream;
    max_noise_share: share of clips at the highest noise; condition_dropout: for real guidance.
    """

    gripper: float = 1.0
    points: float = 1.0
    mask_invalid: bool | None = None
    static: float = 0.02
    mask: float = 0.2
    gate: float = 0.2
    state: float = 0.5
    max_noise_share: float = 0.0
    condition_dropout: float = 0.0


@dataclass(frozen=True)
class UNetTrainConfig:
    """A run. `unet` and `pipeline` override single fields of the preset; `init_from` starts from a checkpoint.

    data_format: 'zarr' (this package's episodes) or 'released' (the authors' npz episodes).
    validation: folder of held-out episodes: cameras and scenes not trained on (released data: their own split);
    every `sample_every` steps the averaged weights' losses on `validation_windows` fixed windows of it are logged.
    latent_cache: folder (zarr) of encoded windows, made at the first start with `cached_windows` of them, then read.
    batch is per process; minutes by `clock` (training/budget.py), when given, end the run and its schedule early.
    autoencoder: which one the 'vae' stage trains, and whose decoder the 'decoder' stage imitates.
    decoder: fields of the small decoder (encoders/tiny_decoder.py).
    student_steps, backward_simulation, gan (the adversarial loss's weight), fake_updates (of the score model, per
    update of the student), fake_lr (default lr): of the distillation stage.
    pose_noise: [m, degrees], error put on the registered pose of the condition.
    """

    stage: str = 'diffusion'
    preset: str = 'geo4d-sim-unet'
    init_from: str | None = None
    unet: ModuleConfig = field(default_factory=dict)
    pipeline: ModuleConfig = field(default_factory=dict)
    loss: LossConfig = field(default_factory=LossConfig)
    data: str = 'outputs/data/train'
    data_format: str = 'zarr'
    validation: str | None = None
    validation_windows: int = 8
    latent_cache: str | None = None
    cached_windows: int = 2000
    output: str = 'outputs/train/unet'
    steps: int = 20000
    minutes: float | None = None
    clock: str = 'wall'
    batch: int = 4
    accumulation: int = 1
    workers: int = 1
    lr: float = 1e-3
    schedule: str = 'cosine'
    warmup: int = 100
    weight_decay: float = 0.01
    optimizer: str = 'adamw'
    clip: float = 1.0
    ema: float = 0.999
    precision: str = 'no'
    gradient_checkpointing: bool = False
    pose_noise: tuple[float, float] = (0.003, 0.3)
    autoencoder: str = 'points'
    decoder: ModuleConfig = field(default_factory=dict)
    student_steps: int = 1
    backward_simulation: bool = True
    gan: float = 0.003
    fake_updates: int = 5
    fake_lr: float | None = None
    seed: int = 0
    save_every: int = 500
    sample_every: int = 500

    def __post_init__(self) -> None:
        require(
            self.stage in STAGES,
            f'stage should be one of {", ".join(STAGES)} but got {self.stage!r}',
            ConfigurationError,
        )
        require(
            self.schedule in ('cosine', 'constant'),
            f'schedule should be cosine or constant but got {self.schedule!r}',
            ConfigurationError,
        )
        require(
            self.autoencoder in ('points', 'rgb'),
            f'autoencoder should be points or rgb but got {self.autoencoder!r}',
            ConfigurationError,
        )
        require(
            self.data_format in ('zarr', 'released'),
            f'data_format should be zarr or released but got {self.data_format!r}',
            ConfigurationError,
        )
        for name in ('fake_updates', 'validation_windows', 'steps', 'batch', 'accumulation', 'save_every',
                     'sample_every'):
            require(
                getattr(self, name) >= 1,
                f'{name} should be at least 1 but got {getattr(self, name)}',
                ConfigurationError,
            )


def parse_config(values: dict[str, Any]) -> UNetTrainConfig:
    """The config of a YAML mapping; unknown keys are named."""
    values = {k: v for k, v in values.items() if k != 'model'}
    loss = values.pop('loss', None) or {}
    require(isinstance(loss, dict), f'loss should be a mapping of keys but is {loss!r}', ConfigurationError)
    loss = checked_config(LossConfig, loss, 'loss')
    if values.get('precision') is False:  # YAML reads a bare `no` as a boolean
        values['precision'] = 'no'
    return checked_config(UNetTrainConfig, {**values, 'loss': loss})


