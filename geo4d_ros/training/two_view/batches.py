"""Windows of episodes -> tensors in the first gripper frame, with the errors a real cell would add."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from geo4d_ros.data.windows import Window, WindowSampler
from geo4d_ros.geometry.cameras import unproject
from geo4d_ros.geometry.transforms import from_rotvec, invert, transform_points
from geo4d_ros.robots.inverse_kinematics import shared_kinematics
from geo4d_ros.training.budget import ignore_interrupt

# Episode label -> the network's frame-0 class: rest, arm, hand, finger, object; fixtures and other tasks' things count
# as rest.
SEGMENT_OF_LABEL = np.zeros(256, np.int64)
SEGMENT_OF_LABEL[1:6] = 1, 2, 3, 3, 4


@dataclass(frozen=True)
class Augmentation:
    """Standard deviations of the errors added to inputs; targets stay true."""

    registration_m: float = 0.004
    registration_rad: float = 0.004
    robot_state_m: float = 0.002
    robot_state_rad: float = 0.003
    opening_m: float = 0.0005
    depth_relative: float = 0.003
    colour: float = 0.15
    colour_between_views: float = 0.03
    drop_second_view: float = 0.1


@dataclass(frozen=True)
class BatchConfig:
    """Where windows come from and how they are batched; episodes named in `exclude` are kept out."""

    data: str
    batch: int = 8
    future_frames: int = 1
    workers: int = 1
    fresh_share: float = 0.35
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    exclude: tuple[str, ...] = ()


def _jitter(rng: np.random.Generator, sigma_m: float, sigma_rad: float) -> np.ndarray:
    return from_rotvec(rng.normal(0, sigma_rad, 3), rng.normal(0, sigma_m, 3))


def window_arrays(window: Window, rng: np.random.Generator, noise: Augmentation | None,
                  ) -> dict[str, np.ndarray]:
    """One training example as float32 arrays; g0 = the gripper's frame at the observation.

    rgb0 (V, 3, H, W) in [-1, 1], depth0 (V, 1, H, W) [m], points (V, H, W, 3) in g0, valid, segments (V, H, W);
    T_g0_view, T_view_g0 (V, 4, 4); K (V, 3, 3); seen (V,); opening0; poses (10, 4, 4), openings (10,), expected (10,);
    arm0 (J, 3) the arm's joints in g0 [m]; targets of F frames: steps (F,), rgb, depth, labels.
    """
    rgb, depth = window['rgb'].astype(np.float32) / 127.5 - 1, window['depth']
    T_ref_g, T_ref_view = window['T_ref_gripper'], window['T_ref_view']
    views = len(rgb)
    seen = np.ones(views, bool)
    T_g0_view = invert(T_ref_g[0]) @ T_ref_view
    rgb0, depth0, opening0 = rgb[:, 0], depth[:, 0], float(window['opening'][0])
    if noise is not None:
        T_g0_view = _jitter(rng, noise.robot_state_m, noise.robot_state_rad) @ T_g0_view
        for v in range(1, views):
            T_g0_view[v] = T_g0_view[v] @ _jitter(rng, noise.registration_m, noise.registration_rad)
            seen[v] = rng.random() >= noise.drop_second_view
        shared, own = noise.colour * rng.normal(size=5), noise.colour_between_views * rng.normal(size=(views, 5))
        draw = (shared + own)[:, None, None, None]  # brightness, tint of 3 channels, offset
        gain = (1 + draw[..., :1]) * (1 + 0.3 * draw[..., 1:4])
        offset = 0.5 * draw[..., 4:]
        rgb = np.clip(rgb * gain + offset, -1, 1).astype(np.float32)
        rgb0 = rgb[:, 0]
        depth0 = depth0 * (1 + noise.depth_relative * rng.normal(size=depth0.shape)).astype(np.float32)
        opening0 += noise.opening_m * rng.normal()
    points = np.stack([transform_points(T_g0_view[v], unproject(depth0[v], window['K'][v])) for v in range(views)])
    return {
        'rgb0': rgb0.transpose(0, 3, 1, 2), 'depth0': depth0[:, None], 'points': points,
        'valid': (depth0 > 0) & seen[:, None, None], 'segments': SEGMENT_OF_LABEL[window['labels'][:, 0]],
        'T_g0_view': T_g0_view, 'T_view_g0': invert(T_g0_view), 'K': window['K'], 'seen': seen,
        'opening0': np.float32(opening0), 'poses': invert(T_ref_g[0]) @ T_ref_g[1:], 'openings': window['opening'][1:],
        'expected': window['expected'][1:], 'steps': window['steps'] - 1, 'rgb': rgb[:, 1:].transpose(1, 0, 4, 2, 3),
        'depth': depth[:, 1:, None].transpose(1, 0, 2, 3, 4), 'labels': window['labels'][:, 1:].transpose(1, 0, 2, 3),
        'true_depth0': depth[:, :1], 'arm0': arm_in_gripper(window),
    }


def arm_in_gripper(window: Window) -> np.ndarray:
    """Joints of the arm (J, 3) [m] at the observation, in the gripper's frame."""
    T_g0_base = invert(window['T_base_ref'] @ window['T_ref_gripper'][0])
    return transform_points(T_g0_base, shared_kinematics(window.get('robot')).arm_points(window['joints'][0]))


def collate(examples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Stack examples; floating arrays become float32."""
    stacked = {k: torch.from_numpy(np.stack([e[k] for e in examples])) for k in examples[0]}
    return {k: v.float() if v.is_floating_point() else v for k, v in stacked.items()}


class Batches(IterableDataset):
    """Endless batches; every worker reads its own shard of the episodes."""

    def __init__(self, config: BatchConfig, seed: int) -> None:
        self.config, self.seed = config, seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        torch.set_num_threads(1)
        info = get_worker_info()
        index, count = (info.id, info.num_workers) if info else (0, 1)
        rng = np.random.default_rng([self.seed, index])
        windows = iter(WindowSampler(self.config.data, rng, self.config.future_frames, shard=(index, count),
                                    fresh_share=self.config.fresh_share, exclude=self.config.exclude))
        while True:
            yield collate([window_arrays(next(windows), rng, self.config.augmentation)
                           for _ in range(self.config.batch)])


def batches(config: BatchConfig, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """Endless iterator over training batches, prepared in worker processes."""
    loader = DataLoader(Batches(config, seed), batch_size=None, num_workers=config.workers,
                        prefetch_factor=4 if config.workers else None, worker_init_fn=ignore_interrupt)
    return iter(loader)
