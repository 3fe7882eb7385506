"""Trains the motion model on observations of expert runs: no picture goes through a network, only points of masks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F
from tqdm import tqdm

from geo4d_ros.data.observations import read_observations
from geo4d_ros.data.windows import HORIZON, STRIDE, undisturbed
from geo4d_ros.generation.two_view.motion_model import (
    BEST_GUESS,
    Condition,
    Future,
    MotionModel,
    condition_of,
    decoded,
    encoded,
    level_frame,
    stacked,
)
from geo4d_ros.geometry.cameras import unproject
from geo4d_ros.geometry.transforms import from_rotvec, invert, transform_points
from geo4d_ros.training.two_view.fit_settings import read_settings, write_summary
from geo4d_ros.training.two_view.losses import pose_loss
from geo4d_ros.training.two_view.scene_fit import FIXTURE, OBJECT

MOST_POINTS = 400  # of an object or fixture that are kept of a picture
TRANSPLANTED = 0.5  # share of windows whose points are those of another moment, taken to where the object is now
REGISTRATION = (0.004, 0.004)  # [m], [rad]: errors of the second view's place
ROBOT_STATE = (0.002, 0.003)
POINT_M, OUTLIERS = 0.002, 0.06
GUESS_SHARE = 0.6  # of a batch that learns the likeliest future; the rest learns the flow
LEFT_M, OPEN_M = 0.01, 0.07
POOL, RENEWED = 4096, 12  # windows that wait to be drawn, and how many of them are new in every step
MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])
log = logging.getLogger(__name__)


@dataclass
class MotionFitConfig:
    """`data`: folder of observations; `steps` of `batch` windows; `start`: weights that a new run begins with."""

    data: str
    steps: int = 8000
    batch: int = 64
    lr: float = 1.5e-3
    seed: int = 0
    save_every: int = 500
    width: int = 320
    start: str = ''


@dataclass
class Run:
    """One expert run: states of S moments, and per picture and view the points of object, fixtures and neighbours.

    T_gripper, T_object (S, 4, 4), opening (S,), times (S,); index (N,) moment of a picture; points: per picture, of the
    object and of the fixtures, [(points (n, 3) [m] in the base frame, view (n,))]; beside: points next to the object;
    done (S,): whether it is at its goal and let go of.
    """

    task: int
    T_gripper: np.ndarray
    T_object: np.ndarray
    opening: np.ndarray
    times: np.ndarray
    disturbances: np.ndarray
    index: np.ndarray
    points: list[tuple[tuple[np.ndarray, np.ndarray], ...]]
    beside: list[np.ndarray]
    done: np.ndarray


def run_of(arrays: dict[str, np.ndarray], rng: np.random.Generator) -> Run:
    """What the training needs of one file of observations."""
    points, beside = [], []
    for i in range(len(arrays['index'])):
        labels, depth = arrays['labels'][i], arrays['depth'][i]
        placed = [transform_points(T, unproject(d, K)) for T, d, K in zip(
            arrays['T_base_view'][i], depth, arrays['K'][i], strict=True)]
        rows = []
        for label in (OBJECT, FIXTURE):
            found = [(p[(lab == label) & (d > 0)]) for p, lab, d in zip(placed, labels, depth, strict=True)]
            view = np.repeat([0, 1], [len(f) for f in found])
            together = np.concatenate(found)
            pick = rng.permutation(len(together))[:MOST_POINTS]
            rows.append((together[pick].astype(np.float32), view[pick]))
        points.append(tuple(rows))
        rim = [ndimage.binary_dilation(lab == OBJECT, iterations=2) & (lab != OBJECT) & (d > 0)
               for lab, d in zip(labels, depth, strict=True)]
        around = np.concatenate([p[r] for p, r in zip(placed, rim, strict=True)])
        beside.append(around[rng.permutation(len(around))[:60]].astype(np.float32))
    return Run(arrays['task'].item(), arrays['T_base_gripper'], arrays['object_pose'], arrays['opening'],
               arrays['times'], arrays['disturbances'], arrays['index'], points, beside, _done(arrays))


def _done(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(S,) bool: the object is where the run, which succeeded, leaves it, and stays; the fingers are open."""
    position = arrays['object_pose'][:, :3, 3]
    there = np.linalg.norm(position - position[-1], axis=1) < LEFT_M
    return (np.cumsum(~there[::-1])[::-1] == 0) & (arrays['opening'] > OPEN_M)


class Windows:
    """Random windows of all runs as (condition, target numbers (T, 19), weight (T,))."""

    def __init__(self, directory: str, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.runs = [run_of(arrays, rng) for arrays in tqdm(read_observations(directory), desc='reading runs')]

    def window(self, run: Run, moment: int, picture: int, rng: np.random.Generator | None, mirror: bool = False,
               ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Scene and truth at a moment with the points of a picture; without rng as they are."""
        draw = rng or np.random.default_rng(0)
        later = np.minimum(moment + STRIDE * np.arange(HORIZON + 1), len(run.times) - 1)
        T_gripper, T_object = run.T_gripper[later], run.T_object[later]
        (thing, thing_view), (fixture, fixture_view) = run.points[picture]
        thing, fixture = thing.astype(np.float64), fixture.astype(np.float64)
        beside = run.beside[picture].astype(np.float64)
        moved = T_object[0] @ invert(run.T_object[run.index[picture]])
        thing = transform_points(moved, thing) if len(thing) else thing
        opening = float(run.opening[moment])
        start = T_gripper[0]
        if rng is not None:
            thing, fixture, start = _disturbed(thing, thing_view, fixture, fixture_view, beside, start, rng)
            opening += rng.normal(0, 0.0005)
        motion = T_object @ invert(T_object[0])
        if mirror:
            thing, fixture = thing * [1, -1, 1], fixture * [1, -1, 1]
            start, T_gripper, motion = (MIRROR @ T @ MIRROR for T in (start, T_gripper, motion))
        scene = condition_of(thing, fixture, start, opening, run.task, draw)
        T_level_base = invert(level_frame(start))
        truth = {'gripper': T_level_base @ T_gripper[1:], 'opening': run.opening[later][1:],
                 'motion': T_level_base @ motion[1:] @ invert(T_level_base),
                 'expected': undisturbed(run.times, moment, run.disturbances)[1:], 'done': run.done[moment]}
        return scene, truth

    def random(self, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """A window at a random moment, with the errors of a real cell."""
        run = self.runs[rng.integers(len(self.runs))]
        picture = int(rng.integers(len(run.index)))
        moment = int(rng.integers(len(run.times)) if rng.random() < TRANSPLANTED else run.index[picture])
        return self.window(run, moment, picture, rng, bool(rng.integers(2)))

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[tuple[Condition, dict[str, torch.Tensor]]]:
        """Endless batches from a pool of random windows that is renewed little by little: drawing one is dear."""
        pool = [self.random(rng) for _ in tqdm(range(POOL), desc='drawing windows')]
        while True:
            for place in rng.integers(POOL, size=RENEWED):
                pool[place] = self.random(rng)
            rows = [pool[i] for i in rng.integers(POOL, size=size)]
            yield stacked([row[0] for row in rows]), _tensors([row[1] for row in rows])


def _tensors(truths: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(np.stack([t[k] for t in truths])).float() for k in truths[0]}


def _disturbed(thing: np.ndarray, thing_view: np.ndarray, fixture: np.ndarray, fixture_view: np.ndarray,
               beside: np.ndarray, start: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Points and gripper pose as a real cell measures them: a view badly placed or missing, masks leaking, lacking."""
    second = from_rotvec(rng.normal(0, REGISTRATION[1], 3), rng.normal(0, REGISTRATION[0], 3))
    # The views' places come from the first one's own: turn about the scene, not about the far base.
    about = thing.mean(0) if len(thing) else start[:3, 3]
    alone = rng.random() < 0.1
    out = []
    for true, view in ((thing, thing_view), (fixture, fixture_view)):
        if not len(true):
            out.append(true)
            continue
        placed = np.where((view == 1)[:, None], transform_points(second, true - about) + about, true)
        keep = (view == 0) if alone and (view == 0).any() else np.ones(len(true), bool)
        kept = placed[keep & (rng.random(len(true)) > rng.uniform(0, 0.3))]
        out.append(kept + rng.normal(0, POINT_M, kept.shape))
    wrong = int(len(out[0]) * rng.uniform(0, 2 * OUTLIERS))
    if wrong and len(beside):
        out[0] = np.concatenate([out[0][wrong:], beside[rng.integers(len(beside), size=wrong)]])
    state = from_rotvec(rng.normal(0, ROBOT_STATE[1], 3), rng.normal(0, ROBOT_STATE[0], 3))
    return out[0], out[1], start @ state


def motion_loss(model: MotionModel, scene: Condition, truth: dict[str, torch.Tensor], generator: torch.Generator,
                ) -> dict[str, torch.Tensor]:
    """Of the best guess the distance of gripper and object, of the flow the squared error of the numbers."""
    size = len(scene.task)
    guesses = int(GUESS_SHARE * size)
    numbers = encoded(Future(truth['gripper'], truth['opening'], truth['motion']), scene)
    time = torch.rand(size, generator=generator)
    time[:guesses] = BEST_GUESS
    noise = torch.randn(numbers.shape, generator=generator)
    t = time.clamp(min=0)[:, None, None]
    code = model.encode(scene)
    clean = model(code, (1 - t) * noise + t * numbers, time)
    frames = numbers.shape[1]
    weight = torch.where(torch.arange(frames) < 5, 1.4, 0.6) * truth['expected']
    mean = lambda e, w: (w * e).sum() / w.sum().clamp(min=1)  # noqa: E731
    guess, first = decoded(clean[:guesses], scene.first(guesses)), weight[:guesses]
    terms = {'gripper': mean(pose_loss(guess.gripper, truth['gripper'][:guesses]), first),
             'opening': 4 * mean((guess.opening - truth['opening'][:guesses]).abs() * 10, first),
             'object': mean(_object_error(guess.object, truth['motion'][:guesses], scene.object[:guesses]),
                            first * scene.seen[:guesses, :1])}
    scale = torch.ones(numbers.shape[-1])
    scale[13:] = 0.3  # a turn that nothing shows should not drown the rest
    flow = ((clean[guesses:] - numbers[guesses:]).square() * scale).mean(-1)
    terms['flow'] = mean(flow, weight[guesses:])
    logit = model.done_logit(code)
    terms['done'] = 0.2 * mean(F.binary_cross_entropy_with_logits(logit, truth['done'], reduction='none'),
                               scene.seen[:, 0].float())
    terms['total'] = sum(terms.values())
    return terms


def _object_error(T: torch.Tensor, T_true: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Mean distance (B, T) of some of the object's points, in units of 10 cm."""
    p = points[:, None, ::8]
    move = lambda P: p @ P[..., :3, :3].transpose(-1, -2) + P[..., None, :3, 3]  # noqa: E731
    return ((move(T) - move(T_true)).square().sum(-1) + 0.005**2).sqrt().mean(-1) * 10


def fit_motion_model(config: MotionFitConfig, output: Path | None = None, windows: Windows | None = None,
                     ) -> MotionModel:
    """A trained model; with `output` its averaged weights are kept there every `save_every` steps."""
    torch.manual_seed(config.seed)
    rng, generator = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)
    windows = windows or Windows(config.data, config.seed)
    model, average = (MotionModel(width=config.width) for _ in range(2))
    if config.start:
        model = MotionModel.from_pretrained(config.start, local_files_only=True)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, max(config.steps, 2), pct_start=0.05)
    source = windows.batches(config.batch, rng)
    bar, means = tqdm(range(config.steps), desc='motion model'), {}
    for step in bar:
        scene, truth = next(source)
        terms = motion_loss(model, scene, truth, generator)
        optimizer.zero_grad()
        terms['total'].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        decay = min(0.995, (step + 1) / (step + 10))
        with torch.no_grad():
            for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        means = {k: 0.98 * means.get(k, v.item()) + 0.02 * v.item() for k, v in terms.items()}
        bar.set_postfix({k: f'{v:.3f}' for k, v in means.items()}, refresh=False)
        if output and ((step + 1) % config.save_every == 0 or step + 1 == config.steps):
            average.save_pretrained(output / 'motion')
    return average.eval()


@torch.no_grad()
def held_out_errors(model: MotionModel, windows: Windows) -> dict[str, float]:
    """Errors [cm] of the best guess at every picture of the runs, points as the labels have them."""
    path, thing = [], []
    for run in windows.runs:
        rows = [windows.window(run, int(m), i, None) for i, m in enumerate(run.index)]
        scene, truth = stacked([r[0] for r in rows]), _tensors([r[1] for r in rows])
        guess = decoded(model.best_guess(model.encode(scene)), scene)
        use = truth['expected'] > 0
        distance = 100 * (guess.gripper[..., :3, 3] - truth['gripper'][..., :3, 3]).norm(dim=-1)
        path.append(torch.where(use, distance, torch.nan))
        moved = 10 * _object_error(guess.object, truth['motion'], scene.object)
        moves = (truth['motion'][..., :3, 3] - 0).norm(dim=-1) > -1
        went = (10 * _object_error(torch.eye(4).expand_as(truth['motion']), truth['motion'], scene.object)) > 2
        thing.append(torch.where(use & moves & went & scene.seen[:, :1], moved, torch.nan))
    p, o = torch.cat(path), torch.cat(thing)
    return {'path_first5_median_cm': float(p[:, :5].nanmedian()), 'path_first5_mean_cm': float(p[:, :5].nanmean()),
            'path_all_mean_cm': float(p.nanmean()), 'object_moved_median_cm': float(o.nanmedian()),
            'object_moved_mean_cm': float(o.nanmean())}


def train(values: dict[str, Any]) -> Path:
    """Fit the motion model as a YAML mapping says; `output/motion` is then its checkpoint, `held_out` a folder of
    observations to measure it on.
    """
    config, output = read_settings(values, MotionFitConfig)
    model = fit_motion_model(config, output)
    figures = {'errors': held_out_errors(model, Windows(values['held_out']))} if 'held_out' in values else {}
    write_summary(output, config, **figures)
    return output


__all__ = ['MotionFitConfig', 'Windows', 'fit_motion_model', 'held_out_errors', 'train']
