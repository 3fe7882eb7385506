"""Validation during a two-view run: losses on fixed windows of episodes that are not trained on, and films of two."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from geo4d_ros.data.episodes import SCHEMA, Episode, list_episodes
from geo4d_ros.data.windows import HORIZON, Window, cut_window, undisturbed
from geo4d_ros.errors import Geo4dError
from geo4d_ros.generation.two_view.network import TwoViewNetwork, one_view_each
from geo4d_ros.generation.two_view.predictor import TwoViewPredictor
from geo4d_ros.geometry.transforms import invert, transform_points
from geo4d_ros.robots.inverse_kinematics import shared_kinematics
from geo4d_ros.training.two_view.batches import collate, window_arrays
from geo4d_ros.training.two_view.losses import total_loss
from geo4d_ros.types import Observation, RgbdFrame, Video4D

log = logging.getLogger(__name__)

FILE, JOURNAL = 'held_out.json', 'validation.jsonl'
SHARE, MOST, FEWEST = 0.1, 16, 5  # of the episodes are held out; at most; and none where there are fewer than this
WINDOWS, FILMS, BATCH = 12, 2, 4
PAINTED = (1, 4, 7, 10)  # future frames whose pictures are judged
GIF_MS = 250


def held_out_episodes(data: str, directory: Path, validation: str) -> list[Path]:
    """Episodes to validate on: those of the folder `validation`; of 'auto' a tenth of `data`'s own, chosen by their
    names, at most `MOST`; none of 'none' or where there are fewer than `FEWEST`.

    What was chosen is kept in the run's directory: a resumed run must not train on it, though the data grows.
    """
    if validation == 'none':
        return []
    if validation != 'auto':
        return list_episodes(validation)[:MOST]
    chosen = directory / FILE
    known = {path.name: path for path in list_episodes(data)}
    if not chosen.is_file():
        count = 0 if len(known) < FEWEST else min(MOST, max(1, round(SHARE * len(known))))
        names = sorted(known, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:count]
        chosen.write_text(json.dumps(sorted(names)) + '\n')
    return [known[name] for name in json.loads(chosen.read_text()) if name in known]


class Validation:
    """Fixed windows of held-out episodes, the same ones for every look and every run on these data."""

    def __init__(self, episodes: list[Path], directory: Path) -> None:
        self.directory = directory
        self._windows = [window for index in range(WINDOWS if episodes else 0)
                         if (window := _window(episodes[index % len(episodes)], index, len(episodes))) is not None]
        self._writer: SummaryWriter | None = None

    def __bool__(self) -> bool:
        return bool(self._windows)

    @torch.no_grad()
    def look(self, network: TwoViewNetwork, robot: str, step: int, minutes: float) -> dict[str, float]:
        """Mean losses and the path's mean error [cm], written to TensorBoard and `validation.jsonl`; two films beside.

        The network is left in evaluation mode.
        """
        network.eval()
        with torch.random.fork_rng(devices=[]):
            found = self._losses(network)
        if self._writer is None:
            self._writer = SummaryWriter(str(self.directory / 'tensorboard'))
        for name, value in found.items():
            self._writer.add_scalar(f'validation/{name}', value, step)
        for number, window in enumerate(self._windows[:FILMS]):
            self._film(network, robot, window, number, step)
        self._writer.flush()
        with open(self.directory / JOURNAL, 'a') as journal:
            row = {'step': step, 'minutes': minutes, **found}
            journal.write(json.dumps({k: round(v, 4) for k, v in row.items()}) + '\n')
        return found

    def train_scalars(self, terms: dict[str, float], step: int) -> None:
        """The training's own losses beside them, so that both curves are in one picture."""
        if self._writer is None:
            self._writer = SummaryWriter(str(self.directory / 'tensorboard'))
        for name, value in terms.items():
            self._writer.add_scalar(f'training/{name}', value, step)

    def _losses(self, network: TwoViewNetwork) -> dict[str, float]:
        sums: dict[str, float] = {}
        rng, painted = np.random.default_rng(0), [step - 1 for step in PAINTED]
        for first in range(0, len(self._windows), BATCH):
            torch.manual_seed(first)  # the small errors of the poses that guide the painting
            rows = [window_arrays(window, rng, None) for window in self._windows[first:first + BATCH]]
            for row in rows:
                for key in ('steps', 'rgb', 'depth', 'labels'):
                    row[key] = row[key][painted]
            batch = {k: v.to(network.device) for k, v in collate(rows).items()}
            terms = {**total_loss(network, batch), 'path_error_cm': path_error(network, batch)}
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(rows) / len(self._windows)
        return sums

    def _film(self, network: TwoViewNetwork, robot: str, window: Window, number: int, step: int) -> None:
        try:
            video = TwoViewPredictor(network, robot=robot).predict(observation_of(window))
        except Geo4dError as error:  # two views that cannot be registered
            log.warning('no film %d at step %d: %s', number, step, error)
            return
        frames = compared(window, video)
        gif = as_gif(frames)
        (self.directory / f'validation_{number}.gif').write_bytes(gif)
        picture = Summary.Image(height=frames.shape[1], width=frames.shape[2], colorspace=3, encoded_image_string=gif)
        assert self._writer is not None and self._writer.file_writer is not None
        self._writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=f'film/{number}', image=picture)]), step)

    def close(self) -> None:
        """Write what TensorBoard still holds back."""
        if self._writer is not None:
            self._writer.close()


def path_error(network: TwoViewNetwork, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean distance [cm] of the predicted gripper's positions from the true ones."""
    seen = batch if network.config.cross_view else one_view_each(batch)
    scene = network.encode(seen['rgb0'], seen['points'], seen['valid'], seen['T_g0_view'], seen['opening0'],
                           seen['seen'])
    off = (network.state_head(scene)[-1][0][..., :3, 3] - batch['poses'][..., :3, 3]).norm(dim=-1)
    return 100 * (off * batch['expected']).sum() / batch['expected'].sum().clamp(min=1)


def observation_of(window: Window) -> Observation:
    """What a generator is given of a `windows.cut_window`."""
    frames = tuple(RgbdFrame(rgb[0], depth[0], K)
                   for rgb, depth, K in zip(window['rgb'], window['depth'], window['K'], strict=True))
    arm = transform_points(invert(window['T_base_ref']),
                           shared_kinematics(window.get('robot')).arm_points(window['joints'][0]))
    return Observation(frames, window['T_ref_gripper'][0], float(window['opening'][0]), window['T_ref_view'], arm)


def compared(window: Window, video: Video4D) -> np.ndarray:
    """(frames, rows, columns, 3) uint8: the true views beside each other, the predicted ones below."""
    rows = [np.concatenate(list(views), axis=2) for views in (window['rgb'], video.rgb)]
    frames = min(len(row) for row in rows)
    return np.concatenate([row[:frames] for row in rows], axis=1)


def as_gif(frames: np.ndarray) -> bytes:
    """An endless animation of (frames, H, W, 3) uint8."""
    pictures, out = [Image.fromarray(frame) for frame in frames], io.BytesIO()
    pictures[0].save(out, 'GIF', save_all=True, append_images=pictures[1:], duration=GIF_MS, loop=0)
    return out.getvalue()


def _window(path: Path, index: int, episodes: int) -> Window | None:
    """One of `WINDOWS` windows of an episode, at a share of its length that depends on the index; None if damaged."""
    try:
        episode = Episode.open(path)
        episode.need(tuple(SCHEMA), 'the validation')
        arrays = episode.load()
        if episode.cameras < 2:
            return None
        per_episode = -(-WINDOWS // episodes)
        start = round((len(arrays['times']) - HORIZON) * (index // episodes + 0.5) / per_episode)
        views = tuple(np.random.default_rng(index).choice(episode.cameras, 2, replace=False).tolist())
        start = max(0, start)
        window = cut_window(arrays, start, views, np.arange(1, HORIZON + 1))
        disturbances = episode.attributes.get('disturbances', [])
        return {**window, 'expected': undisturbed(arrays['times'], start, disturbances), 'robot': episode.robot}
    except Geo4dError as error:
        log.warning('left out of the validation: %s', error)
        return None
