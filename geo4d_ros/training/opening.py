"""Training the network that reads the gripper's opening, on windows of episodes with poses off as a tracker's are."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geo4d_ros.data.episodes import Episode, list_episodes, open_or_warn
from geo4d_ros.data.windows import HORIZON, STRIDE, Window, cut_window
from geo4d_ros.errors import DatasetError, require
from geo4d_ros.geometry.transforms import from_rotvec, invert
from geo4d_ros.robots.gripper import GripperModel
from geo4d_ros.tracking.opening import is_closed, middle_of
from geo4d_ros.tracking.opening_network import LEVELS, build_network, load_network, save
from geo4d_ros.tracking.segmentation.finger_patches import DEPTH_UNIT_M, MAX_DEPTH_UNITS, finger_patches, view_scalars
from geo4d_ros.tracking.weights import NetworkConfig
from geo4d_ros.training.budget import Budget, require_steps
from geo4d_ros.training.segmenter.generated import paint_along
from geo4d_ros.training.small_networks import WeightAverage, set_learning_rate

log = logging.getLogger(__name__)

POSE_M, POSE_RAD, POSE_MEMORY = 0.004, 0.035, 0.7  # errors of tracked poses
POSE_SPREAD = 0.5  # of their size, from window to window, as a factor's logarithm
VIEW_M = 0.002  # of a view's calibration
CHANGE_M = 0.010  # windows whose opening changes by so much are drawn more often
DEPTH_CODE = 127 / MAX_DEPTH_UNITS


@dataclass(frozen=True)
class OpeningTraining:
    """minutes: budget of processor time of this process; windows: per episode; damaged: share of windows that are
    blurred and given depth errors."""

    minutes: float = 20.0
    batch: int = 24
    learning_rate: float = 2e-3
    windows: int = 6
    width: int = 16
    seed: int = 0
    threads: int = 1
    damaged: float = 0.7


@dataclass
class OpeningSamples:
    """Windows: colour (N, V, F, 3, ROWS, COLUMNS) uint8, behind (N, V, F, ROWS, COLUMNS) int8, inside likewise bool, as
    the channels of `finger_patches`; scalars (N, V, F, SCALARS) float32; opening (N, F) float32 [m]; painted (N,) bool:
    by a generator."""

    colour: np.ndarray
    behind: np.ndarray
    inside: np.ndarray
    scalars: np.ndarray
    opening: np.ndarray
    painted: np.ndarray

    @classmethod
    def stack(cls, windows: list[tuple[np.ndarray, np.ndarray, np.ndarray, bool]]) -> OpeningSamples:
        """From patches, scalars, openings and whether they were painted."""
        patches, scalars, opening, painted = (np.stack(part) for part in zip(*windows, strict=True))
        return cls(patches[:, :, :, :3], patches[:, :, :, 3].view(np.int8), patches[:, :, :, 4] > 0,
                   scalars, opening.astype(np.float32), painted)


def load_windows(directory: Path, per_episode: int, seed: int = 0, limit: int | None = None,
                 generator: Any = None, predictions: int = 0) -> OpeningSamples:
    """`per_episode` windows of (at most `limit`) episodes, and `predictions` more that a generator painted along true
    paths. Raises DatasetError when there is nothing to learn from."""
    rng = np.random.default_rng(seed)
    paths = list_episodes(directory, limit)
    painted_of = np.bincount(np.linspace(0, len(paths) - 1, predictions).astype(int), minlength=len(paths)) \
        if predictions and paths else np.zeros(len(paths), int)
    windows = []
    for path, painted in zip(paths, painted_of, strict=True):
        episode = open_or_warn(path)
        if episode is None or episode.cameras < 2:
            continue
        arrays = episode.load()
        for i, start in enumerate(_starts(episode, arrays['opening'], per_episode + int(painted), rng)):
            views = tuple(rng.choice(episode.cameras, 2, replace=False).tolist())
            window = cut_window(arrays, start, views, np.arange(1, HORIZON + 1))
            windows.append(_sample(window, rng, generator if i >= per_episode else None))
    require(len(windows) > 0, f'{directory} has no readable episode with two cameras; collect some: geo4d collect',
            DatasetError)
    return OpeningSamples.stack(windows)


def _starts(episode: Episode, opening: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """Window starts; those in which the opening changes count fourfold."""
    starts = np.arange(max(1, episode.frames - STRIDE * HORIZON // 2))
    last = len(opening) - 1
    change = np.array([np.ptp(opening[np.minimum(s + STRIDE * np.arange(HORIZON + 1), last)]) for s in starts])
    weight = np.where(change > CHANGE_M, 4.0, 1.0)
    return rng.choice(starts, count, p=weight / weight.sum()).tolist()


def _sample(window: Window, rng: np.random.Generator, generator: Any
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """uint8 patches, scalars and opening of a window at poses that are off like tracked ones."""
    rgb, depth = window['rgb'], window['depth']
    if generator is not None:
        video = paint_along(generator, window)
        rgb = video.rgb
        depth = np.stack([[video.depth(v, t) for t in range(video.frames)] for v in range(video.views)])
    T = off_poses(window['T_ref_gripper'], rng)
    T_view = invert(window['T_ref_view'])[:, None] @ T[None]
    T_view[..., :3, 3] += rng.normal(0, VIEW_M, (len(T_view), 1, 3))
    patches = finger_patches(rgb, depth, window['K'], T_view)
    coded = np.concatenate([np.rint((patches[:, :, :3] + 1) * 127.5), np.rint(patches[:, :, 3:4] * DEPTH_CODE) % 256,
                            patches[:, :, 4:]], 2).astype(np.uint8)
    return coded, view_scalars(window['K'], T_view), window['opening'], generator is not None


def off_poses(T: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Poses (F, 4, 4) with errors that drift from frame to frame; frame 0 is measured and true."""
    size = np.exp(POSE_SPREAD * rng.standard_normal())
    sigma = size * np.repeat([POSE_RAD, POSE_M], 3)
    error, out = np.zeros(6), T.copy()
    for t in range(1, len(T)):
        error = POSE_MEMORY * error + np.sqrt(1 - POSE_MEMORY**2) * sigma * rng.standard_normal(6)
        out[t, :3, :3] = T[t, :3, :3] @ from_rotvec(error[:3], np.zeros(3))[:3, :3]
        out[t, :3, 3] += error[3:]
    return out


class Batches:
    """Random batches, damaged the way generated and noisy frames are: blur, noise, colour, depth errors."""

    def __init__(self, samples: OpeningSamples, gripper: GripperModel, config: OpeningTraining) -> None:
        import torch

        self.samples, self.config, self.stroke = samples, config, gripper.max_opening
        self.rng = np.random.default_rng(config.seed)
        self.torch = torch.Generator().manual_seed(config.seed)

    def batch(self, pick: np.ndarray, damage: bool = True) -> tuple[Any, Any, Any, Any, Any]:
        """Network inputs (patches, scalars, start, use) and openings (n, F) as shares of the stroke."""
        import torch

        s = self.samples
        colour = torch.from_numpy(s.colour[pick]).float() / 127.5 - 1
        behind = torch.from_numpy(s.behind[pick]).float()[:, :, :, None] / DEPTH_CODE
        inside = torch.from_numpy(s.inside[pick]).float()[:, :, :, None]
        scalars = torch.from_numpy(s.scalars[pick])
        opening = torch.from_numpy(s.opening[pick] / self.stroke).clamp(0, 1)
        use = torch.ones(len(pick), s.colour.shape[1])
        start = opening[:, 0]
        if damage:
            colour, behind = self._damage(colour, behind, torch.from_numpy(s.painted[pick]))
            behind = behind * (torch.rand(len(pick), 1, 1, 1, 1, 1, generator=self.torch) > 0.1)
            use = self._drop_view(use)
            start = start + 0.008 * torch.randn(len(pick), generator=self.torch)
        patches = torch.cat([colour, behind.clamp(-MAX_DEPTH_UNITS, MAX_DEPTH_UNITS), torch.ones_like(behind)], 3)
        patches = patches * inside
        if damage and self.rng.random() < 0.5:  # the fingers are alike
            patches, scalars = patches.flip(-1), scalars * torch.tensor([1.0, -1.0, 1.0, 1.0, 1.0])
        return patches, scalars, start, use, opening

    def _drop_view(self, use: Any) -> Any:
        """Some windows are seen by one view alone."""
        use = use.clone()
        for i in np.flatnonzero(self.rng.random(len(use)) < 0.15):
            use[i, self.rng.integers(use.shape[1])] = 0
        return use

    def _damage(self, colour: Any, behind: Any, painted: Any) -> tuple[Any, Any]:
        """Colour and depth of predicted frames blurred and disturbed; frame 0 is the observation; painted windows are
        damaged already and get little."""
        import torch

        n, views, frames = colour.shape[:3]

        def draw(*shape: int) -> Any:
            return torch.rand(*shape, generator=self.torch)

        def noise(*shape: int) -> Any:
            return torch.randn(*shape, generator=self.torch)

        some = (draw(n) < self.config.damaged).float() * torch.where(painted, 0.3, 1.0)
        later = (torch.arange(frames) > 0).float()[None, None, :, None, None, None]
        much = some[:, None, None, None, None, None] * later
        soft = _blur(colour, self.rng.uniform(0.5, 2.0))
        colour = colour + (much * draw(n, 1, 1, 1, 1, 1)) * (soft - colour)
        colour = colour + 0.06 * much * draw(n, 1, 1, 1, 1, 1) * noise(*colour.shape)
        tint = draw(n, views, 1, 3, 1, 1)
        colour = colour * (0.8 + 0.4 * tint) + 0.2 * (draw(n, views, 1, 3, 1, 1) - 0.5)
        shape = behind.shape
        coarse = torch.nn.functional.interpolate(noise(n * views * frames, 1, 3, 4), size=shape[-2:], mode='bilinear')
        fine = torch.nn.functional.interpolate(noise(n * views * frames, 1, 10, 13), size=shape[-2:], mode='bilinear')
        error = (0.9 * coarse + 0.6 * fine).reshape(shape) * draw(n, 1, 1, 1, 1, 1) * 0.05  # at about 1 m
        behind = behind + much * error / DEPTH_UNIT_M * (behind != 0)
        return colour, behind


def _blur(x: Any, sigma: float) -> Any:
    """Gaussian blur of the last two axes, sigma in cells."""
    import torch

    radius = int(np.ceil(2 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    flat = torch.nn.functional.pad(x.reshape(-1, 1, *x.shape[-2:]), (radius,) * 4, mode='replicate')
    flat = torch.nn.functional.conv2d(flat, kernel[None, None, :, None])
    return torch.nn.functional.conv2d(flat, kernel[None, None, None]).reshape(x.shape)


def level_loss(logits: Any, opening: Any) -> Any:
    """Cross-entropy (mean) of logits (n, F, LEVELS) with openings (n, F) shared between their two levels, frames after
    the measured one."""
    import torch

    place = opening * (LEVELS - 1)
    low = place.floor().clamp(max=LEVELS - 2)
    logp = torch.log_softmax(logits, -1)
    index = low.long()[..., None]
    part = (place - low).clamp(0, 1)
    loss = -(1 - part) * logp.gather(-1, index)[..., 0] - part * logp.gather(-1, index + 1)[..., 0]
    return loss[:, 1:].mean()


def train_opening(samples: OpeningSamples, gripper: GripperModel, out: Path, config: OpeningTraining,
                  record: NetworkConfig) -> NetworkConfig:
    """Train for `config.minutes` of processor time and write the weights to `out`; returns the record written."""
    import torch

    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    network = build_network(config.width).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=1e-2)
    batches = Batches(samples, gripper, config)
    average = WeightAverage(network, 0.995)
    budget, steps = Budget(config.minutes, 'processor'), 0
    while not budget.over:
        budget.start()
        set_learning_rate(optimiser, config.learning_rate, steps, budget.fraction)
        pick = batches.rng.choice(len(samples.opening), config.batch)
        *inputs, opening = batches.batch(pick)
        loss = level_loss(network(*inputs), opening)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        steps += 1
        average.update(network)
        if steps % 100 == 0:
            log.warning('opening: %3.0f %% of the time, step %d, loss %.3f', 100 * budget.fraction, steps,
                        float(loss.detach()))
        budget.stop()
    require_steps(steps)
    network.load_state_dict(average.weights)
    record = {**record, 'gripper_sha256': gripper.sha256, 'width': config.width, 'training': asdict(config),
              'steps': steps, 'windows': len(samples.opening), 'final_loss': float(loss.detach())}
    save(network.eval(), out, record)
    return record


def evaluate_opening(samples: OpeningSamples, gripper: GripperModel, folder: Path, damaged: bool = False
                     ) -> dict[str, float]:
    """Share of frames with open and closed told right, and mean error [m] of the opening; `damaged`: as trained."""
    import torch

    network, _ = load_network(folder)
    batches = Batches(samples, gripper, OpeningTraining(seed=1, damaged=1.0))
    levels, stroke = np.linspace(0, gripper.max_opening, LEVELS), gripper.max_opening
    right, error = [], []
    for part in np.array_split(np.arange(len(samples.opening)), -(-len(samples.opening) // 32)):
        *inputs, _ = batches.batch(part, damaged)
        with torch.inference_mode():
            chances = torch.softmax(network(*inputs).double(), -1).numpy()
        for row, true in zip(chances, samples.opening[part], strict=True):
            opening, _ = middle_of(row, levels)
            opening[0] = true[0]
            right.append((is_closed(opening, stroke) == is_closed(true, stroke))[1:])
            error.append(np.abs(opening - true)[1:])
    return {'open_closed_accuracy': float(np.mean(right)), 'opening_error_m': float(np.mean(error))}
