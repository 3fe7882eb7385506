"""What happens next, from geometry alone: the gripper's path, its opening and how one object moves, as one future.

Flow matching over all ten steps at once (Lipman et al. 2023, https://arxiv.org/abs/2210.02747), conditioned on points
of the instructed object and of its fixtures. Everything is said in the gripper's level frame: its origin at the tool
centre now, z up, x away from the robot's base; so no camera pose goes in, and where the robot stands does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional as F

from geo4d_ros.generation.two_view.layers import fourier, fourier_size, pose_matrix, rotation_from_6d
from geo4d_ros.geometry.transforms import invert, make_transform, transform_points

POINTS = 64  # of the object, and as many of its fixtures
STEP_SIZE = 19  # gripper: shift 3, rotation 6, opening; object: shift of its middle 3, rotation 6
SHIFT_M, OPENING_M = 0.1, 0.04  # units of the numbers the network gives
MAX_OPENING_M = 0.08
_BANDS = 5
BEST_GUESS = -1.0  # in the place of the flow's time: no noise goes in, the likeliest future comes out


@dataclass(frozen=True)
class Condition:
    """What a future depends on; B scenes, in the gripper's level frame [m].

    object, fixture (B, POINTS, 3) points, repeated where fewer are seen; seen (B, 2) bool: whether any of them is;
    rotation (B, 3, 3) of the gripper; opening (B,); base (B, 2): how far the base is behind, and below, the tool
    centre; task (B,) int64.
    """

    object: torch.Tensor
    fixture: torch.Tensor
    seen: torch.Tensor
    rotation: torch.Tensor
    opening: torch.Tensor
    base: torch.Tensor
    task: torch.Tensor

    def repeated(self, count: int) -> Condition:
        """One scene `count` times."""
        return self._each(lambda a: a.expand(count, *a.shape[1:]))

    def first(self, count: int) -> Condition:
        """The first `count` scenes."""
        return self._each(lambda a: a[:count])

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Condition:
        return Condition(*(change(getattr(self, f.name)) for f in fields(self)))


@dataclass(frozen=True)
class Code:
    """What a scene is to the network: vector (B, width), and the middles (B, 2, 3) of object and fixture in units of
    SHIFT_M, 0 where none is seen. Futures are told relative to those: a grasp is at the object wherever it lies.
    """

    vector: torch.Tensor
    anchors: torch.Tensor

    def repeated(self, count: int) -> Code:
        """One scene `count` times."""
        return Code(self.vector.expand(count, -1), self.anchors.expand(count, -1, -1))


@dataclass(frozen=True)
class Future:
    """Poses (B, T, 4, 4) of the gripper and openings (B, T) [m]; motions (B, T, 4, 4) of the object since now, all in
    the gripper's level frame.
    """

    gripper: torch.Tensor
    opening: torch.Tensor
    object: torch.Tensor


class _PointSet(nn.Module):
    """Points (B, N, 3) about their middle -> a code (B, 2 size)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.first = nn.Linear(fourier_size(3, _BANDS), size)
        self.second, self.third = nn.Linear(size, size), nn.Linear(2 * size, size)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.first(fourier(points * 4, _BANDS)))
        x = F.gelu(self.second(x))
        x = F.gelu(self.third(torch.cat([x, x.amax(1, keepdim=True).expand_as(x)], -1)))
        return torch.cat([x.amax(1), x.mean(1)], -1)


class _Layer(nn.Module):
    """A residual layer whose middle a condition scales and shifts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.film = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        scale, shift = self.film(condition).chunk(2, -1)
        return x + self.outer(F.gelu(self.inner(self.norm(x)) * (1 + scale) + shift))


class MotionModel(ModelMixin, ConfigMixin):
    """Denoises a whole future given a scene; `tasks` as in the scene head."""

    @register_to_config
    def __init__(self, tasks: tuple[str, ...] = ('apple', 'cereal', 'spatula'), frames: int = 10, dt: float = 0.5,
                 width: int = 320, layers: int = 5, points: int = 64) -> None:
        super().__init__()
        self.things = nn.ModuleList([_PointSet(points) for _ in range(2)])
        own = 2 + 9 + fourier_size(1, 4) + fourier_size(2, 3) + len(tasks)
        place = 2 * fourier_size(3, _BANDS) + own
        self.scene = nn.Sequential(nn.Linear(4 * points + place, width), nn.GELU(), nn.Linear(width, width))
        self.done = nn.Linear(width, 1)
        self.time = nn.Linear(fourier_size(1, 4) + 1, width)
        self.noisy = nn.Linear(frames * STEP_SIZE, width)
        self.trunk = nn.ModuleList([_Layer(width) for _ in range(layers)])
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, frames * STEP_SIZE))
        # By how much each coordinate of gripper and object follows object, fixture and, the object, the gripper.
        self.follow = nn.Linear(width, frames * 15)
        nn.init.zeros_(self.follow.weight)
        nn.init.zeros_(self.follow.bias)

    def encode(self, scene: Condition) -> Code:
        """The scenes as the network sees them."""
        parts, anchors = [], []
        for points, seen, net in zip((scene.object, scene.fixture), scene.seen.unbind(1), self.things, strict=True):
            middle = points.mean(1)
            shape = net(points - middle[:, None])
            anchors.append(middle * seen[:, None] / SHIFT_M)
            parts.append(torch.cat([shape, fourier(middle, _BANDS)], -1) * seen[:, None])
        task = F.one_hot(scene.task, len(self.config.tasks)).to(parts[0])
        own = [scene.seen.to(parts[0]), scene.rotation.flatten(1), fourier(scene.opening[:, None] * 10, 4),
               fourier(scene.base, 3), task]
        return Code(self.scene(torch.cat([*parts, *own], -1)), torch.stack(anchors, 1))

    def done_logit(self, code: Code) -> torch.Tensor:
        """(B,) of a scene's code: positive where the object is at its goal and let go of."""
        return self.done(F.gelu(code.vector))[:, 0]

    def forward(self, code: Code, noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """The clean future (B, T, 19) that a noisy one (B, T, 19) at flow times (B,) in 0..1 belongs to; time
        BEST_GUESS: the likeliest one, whatever the noise.
        """
        guess = (time < 0).to(noisy)[:, None]
        condition = code.vector + self.time(torch.cat([fourier(time[:, None].clamp(min=0), 4), guess], -1))
        x = self.noisy(noisy.flatten(1) * (1 - guess)) + condition
        for layer in self.trunk:
            x = layer(x, condition)
        return self._anchored(self.out(x), self.follow(self.out[0](x)), code.anchors)

    def _anchored(self, numbers: torch.Tensor, follow: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        """Numbers (B, T * 19) with their shifts told from the anchors (B, 2, 3) by weights (B, T * 15)."""
        p, turn, shift, rest = numbers.unflatten(-1, (self.config.frames, STEP_SIZE)).split([3, 7, 3, 6], -1)
        w = follow.unflatten(-1, (self.config.frames, 5, 3))
        p = p + (w[:, :, :2] * anchors[:, None]).sum(2)
        shift = shift + (w[:, :, 2:4] * anchors[:, None]).sum(2) + w[:, :, 4] * (p - anchors[:, None, 0])
        return torch.cat([p, turn, shift, rest], -1)

    def best_guess(self, code: Code) -> torch.Tensor:
        """Numbers (B, T, 19) of the likeliest futures."""
        count = len(code.vector)
        nothing = code.vector.new_zeros((count, self.config.frames, STEP_SIZE))
        return self(code, nothing, nothing.new_full((count,), BEST_GUESS))

    @torch.no_grad()
    def sample(self, scene: Condition, futures: int, steps: int = 5, seed: int = 0) -> Future:
        """`futures` futures of one scene (batch of one): the likeliest first, the others drawn by `seed`."""
        code = self.encode(scene)
        best = self.best_guess(code)
        if futures == 1:
            return decoded(best, scene)
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn((futures - 1, *best.shape[1:]), generator=generator)
        code = code.repeated(futures - 1)
        for step in range(steps):
            time = step / steps
            clean = self(code, x, x.new_full((futures - 1,), time))
            x = x + (clean - x) / (1 - time) / steps
        return decoded(torch.cat([best, x]), scene.repeated(futures))


def encoded(future: Future, scene: Condition) -> torch.Tensor:
    """Numbers (B, T, 19) of futures: the gripper's turn since now, the shift of the object's middle."""
    two = lambda R: R[..., :3, :2].transpose(-1, -2).flatten(-2)  # noqa: E731
    turn = scene.rotation[:, None].transpose(-1, -2) @ future.gripper[..., :3, :3]
    opening = (future.opening[..., None] - OPENING_M) / OPENING_M
    return torch.cat([future.gripper[..., :3, 3] / SHIFT_M, two(turn), opening,
                      _shift(future.object, scene.object.mean(1)) / SHIFT_M, two(future.object)], -1)


def _shift(motion: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
    moved = torch.einsum('btij,bj->bti', motion[..., :3, :3], middle) + motion[..., :3, 3]
    return moved - middle[:, None]


def decoded(numbers: torch.Tensor, scene: Condition) -> Future:
    """The futures that numbers (B, T, 19) stand for."""
    p, r, opening, shift, turn = numbers.split([3, 6, 1, 3, 6], -1)
    middle = scene.object.mean(1)[:, None]
    R = rotation_from_6d(turn)
    t = middle + shift * SHIFT_M - torch.einsum('btij,btj->bti', R, middle.expand(-1, R.shape[1], -1))
    opening = (opening[..., 0] * OPENING_M + OPENING_M).clamp(0, MAX_OPENING_M)
    now = scene.rotation[:, None] @ rotation_from_6d(r)
    return Future(pose_matrix(now, p * SHIFT_M), opening, pose_matrix(R, t))


def level_frame(T_base_gripper: np.ndarray) -> np.ndarray:
    """T_base_level (4, 4) of a gripper pose (4, 4) in the base frame (z up)."""
    p = T_base_gripper[:3, 3]
    ahead = np.array([p[0], p[1], 0.0])
    ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-6)
    up = np.array([0.0, 0.0, 1.0])
    return make_transform(np.stack([ahead, np.cross(up, ahead), up], 1), p)


def chosen_points(points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """POINTS of the points (N, 3), drawn by rng, and whether there are any."""
    if not len(points):
        return np.zeros((POINTS, 3)), False
    return points[rng.choice(len(points), POINTS, replace=len(points) < POINTS)], True


def condition_of(object_points: np.ndarray, fixture_points: np.ndarray, T_base_gripper: np.ndarray, opening: float,
                 task: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One scene's fields of `Condition`, from points (N, 3), (M, 3) and the gripper's pose in the base frame (z up)."""
    T_level_base = invert(level_frame(T_base_gripper))
    (thing, thing_seen), (fixture, fixture_seen) = (
        chosen_points(transform_points(T_level_base, p) if len(p) else p, rng) for p in (object_points, fixture_points))
    p = T_base_gripper[:3, 3]
    return {'object': thing, 'fixture': fixture, 'seen': np.array([thing_seen, fixture_seen]),
            'rotation': (T_level_base @ T_base_gripper)[:3, :3], 'opening': np.float64(opening),
            'base': np.array([np.hypot(p[0], p[1]), p[2]]), 'task': np.int64(task)}


def stacked(scenes: list[dict[str, np.ndarray]]) -> Condition:
    """A batch of `condition_of`'s scenes."""
    arrays = {k: torch.from_numpy(np.stack([s[k] for s in scenes])) for k in scenes[0]}
    return Condition(**{k: v.float() if v.is_floating_point() else v for k, v in arrays.items()})


__all__ = ['BEST_GUESS', 'Code', 'Condition', 'Future', 'MotionModel', 'condition_of', 'decoded', 'encoded',
           'level_frame',
           'stacked']
