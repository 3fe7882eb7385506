"""Training the gripper segmenter on episodes, on images damaged the way a generator damages them."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geo4d_ros.data.episodes import Episode, decode_depth, list_episodes, open_or_warn
from geo4d_ros.errors import CheckpointError, DatasetError, require
from geo4d_ros.geometry.transforms import invert
from geo4d_ros.robots.gripper import HAND, GripperModel, gripper_of
from geo4d_ros.tracking.outlines import rasterise
from geo4d_ros.tracking.segmentation.landmarks import CHANNELS, MAPS, project_landmarks
from geo4d_ros.tracking.segmentation.segmenter import CLASSES, build_network, load_network, network_input, save
from geo4d_ros.tracking.weights import NetworkConfig
from geo4d_ros.training.budget import Budget, require_steps
from geo4d_ros.training.small_networks import WeightAverage, set_learning_rate

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

HAND_CLASS, LEFT_CLASS, RIGHT_CLASS = 2, 3, 4


@dataclass(frozen=True)
class SegmenterTraining:
    """minutes: budget of processor time of this process; frames: kept per camera of an episode, spread evenly;
    crop: side [px] of the windows that are trained on, most of them around the gripper."""

    minutes: float = 15.0
    batch: int = 16
    learning_rate: float = 3e-3
    frames: int = 10
    width: int = 32
    seed: int = 0
    threads: int = 1
    near_gripper_weight: float = 4.0
    landmark_weight: float = 0.1
    crop: int = 64


@dataclass
class Samples:
    """Images of all clips: rgb (N, H, W, 3) uint8, depth (N, H, W) uint16 [0.1 mm], labels (N, H, W) uint8 of
    CLASSES, landmarks (N, 6, 2) float32 [px] as `landmarks.CHANNELS`, NaN where unknown, clip (N,) int: which camera of
    which episode, so that a ghost comes from the same scene."""

    rgb: np.ndarray
    depth: np.ndarray
    labels: np.ndarray
    landmarks: np.ndarray
    clip: np.ndarray


def load_samples(directory: Path, frames: int, gripper: GripperModel | None = None,
                 limit: int | None = None) -> Samples:
    """Evenly spread frames of every camera of (at most `limit`) episodes; with `gripper` the labels come from its
    kinematics (and the landmarks, otherwise those of the default robot's).

    Raises DatasetError when there is nothing to learn from.
    """
    rgb, depth, labels, landmarks, clip = [], [], [], [], []
    shape = gripper or gripper_of()
    for path in list_episodes(directory, limit):
        episode = open_or_warn(path)
        if episode is None:
            continue
        pick = np.unique(np.linspace(0, episode.frames - 1, frames).astype(int))
        for camera in range(episode.cameras):
            d = episode.read('depth', camera)[pick]
            rgb.append(episode.read('rgb', camera)[pick])
            depth.append(d)
            labels.append(known_labels(episode.read('labels', camera)[pick]) if gripper is None
                          else kinematic_labels(episode, camera, pick, decode_depth(d), gripper))
            T_camera_gripper = invert(episode.read('T_base_camera', camera)) @ episode.read('T_base_gripper')[pick]
            landmarks.append(project_landmarks(shape, T_camera_gripper, episode.read('opening')[pick],
                                               episode.read('K', camera)))
            clip.append(np.full(len(pick), len(clip)))
    require(len(rgb) > 0, f'{directory} has no readable episode; collect some: geo4d collect', DatasetError)
    return Samples(*(np.concatenate(part) for part in (rgb, depth, labels, landmarks, clip)))


def known_labels(labels: np.ndarray) -> np.ndarray:
    """Labels with other tasks' things, which have numbers of their own, as part of the rest."""
    return np.where(labels < len(CLASSES), labels, 0).astype(np.uint8)


def kinematic_labels(episode: Episode, camera: int, pick: np.ndarray, depth: np.ndarray, gripper: GripperModel
                     ) -> np.ndarray:
    """Labels (n, H, W) uint8 from the gripper's mesh at its measured pose, where nothing nearer was seen.

    For real robots, whose episodes carry no labels; only hand and finger classes are set.
    """
    T_camera_base = invert(episode.read('T_base_camera', camera))
    K, T, opening = episode.read('K', camera), episode.read('T_base_gripper')[pick], episode.read('opening')[pick]
    labels = np.zeros(depth.shape, np.uint8)
    for i in range(len(pick)):
        vertices, faces, part = gripper.posed(float(np.clip(opening[i], 0, gripper.max_opening)))
        T_camera_gripper = T_camera_base @ T[i]
        posed = vertices @ T_camera_gripper[:3, :3].T + T_camera_gripper[:3, 3]
        raster = rasterise(posed, faces, K, depth.shape[1:])
        if raster is None:
            continue
        u, v, face = raster.pixels()
        inside = (u >= 0) & (v >= 0) & (u < depth.shape[2]) & (v < depth.shape[1])
        u, v, face = u[inside], v[inside], face[inside]
        z = raster.depth_at(u.astype(float), v.astype(float), face, K)
        clear = (depth[i, v, u] == 0) | (depth[i, v, u] > z - 0.03)
        labels[i, v[clear], u[clear]] = np.where(part[face[clear]] == HAND, HAND_CLASS, part[face[clear]] + HAND_CLASS)
    return labels


class Damage:
    """Blur, ghosts of another moment, fading, wobble, colour shifts and depth errors: what generated frames show."""

    def __init__(self, samples: Samples, seed: int, crop: int | None = None) -> None:
        self.samples, self.crop = samples, crop
        self.rng = np.random.default_rng(seed)
        order = np.argsort(samples.clip, kind='stable')
        self._clips = np.split(order, np.flatnonzero(np.diff(samples.clip[order])) + 1)

    def batch(self, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Network input (size, 4, H, W) float32, labels (size, H, W) int64 and landmarks (size, 6, 2) [px]; whole
        images, or windows of `crop`."""
        samples = []
        for _ in range(size):
            clip = self._clips[self.rng.integers(len(self._clips))]
            i, j = self.rng.choice(clip, 2)
            samples.append(self._sample(i, j))
        images, labels, landmarks = (np.stack(part) for part in zip(*samples, strict=True))
        return images, labels, landmarks

    def _sample(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng, s = self.rng, self.samples
        window = self._window(s.labels[i])
        label = s.labels[i][window].astype(np.int64)
        points = s.landmarks[i] - [window[1].start, window[0].start]
        x = self._input(i, window)
        if rng.random() < 0.4:
            x = self._ghost(x, label, self._input(j, window), s.labels[j][window])
        if rng.random() < 0.6:
            x = self._blur_and_wobble(x)
        x[:3] = x[:3] * rng.uniform(0.75, 1.25, (3, 1, 1)) + rng.uniform(-0.15, 0.15, (3, 1, 1))
        x[:3] += rng.normal(0, rng.uniform(0, 0.06), x[:3].shape)
        x[3] *= self._depth_factor(label)
        if rng.random() < 0.1:
            x[3] = 0
        if rng.random() < 0.5:
            x, label = x[:, :, ::-1], label[:, ::-1]
            points[:, 0] = label.shape[1] - 1 - points[:, 0]
        return np.ascontiguousarray(x, np.float32), np.ascontiguousarray(label), points.astype(np.float32)

    def _input(self, i: int, window: tuple[slice, slice]) -> np.ndarray:
        s = self.samples
        return network_input(s.rgb[i][window][None], decode_depth(s.depth[i][window])[None])[0]

    def _window(self, labels: np.ndarray) -> tuple[slice, slice]:
        """A crop that mostly holds (part of) the gripper, anywhere in it."""
        height, width = labels.shape
        if self.crop is None or self.crop >= min(height, width):
            return slice(0, height), slice(0, width)
        y, x = np.nonzero((labels >= HAND_CLASS) & (labels <= RIGHT_CLASS))
        corner = [self.rng.integers(0, height - self.crop + 1), self.rng.integers(0, width - self.crop + 1)]
        if len(y) and self.rng.random() < 0.85:
            k = self.rng.integers(len(y))
            inside = self.rng.integers(4, self.crop - 4, 2)
            corner = [int(np.clip(y[k] - inside[0], 0, height - self.crop)),
                      int(np.clip(x[k] - inside[1], 0, width - self.crop))]
        return slice(corner[0], corner[0] + self.crop), slice(corner[1], corner[1] + self.crop)

    def _ghost(self, x: np.ndarray, label: np.ndarray, other: np.ndarray, other_label: np.ndarray) -> np.ndarray:
        """The robot of another moment shines through where the gripper is not, and the gripper itself fades."""
        from scipy.ndimage import gaussian_filter

        own = (label >= HAND_CLASS) & (label <= RIGHT_CLASS)
        theirs = (other_label >= 1) & (other_label <= RIGHT_CLASS)
        alpha = self.rng.uniform(0, 0.8) * gaussian_filter((theirs & ~own).astype(np.float32), 0.7)
        alpha += self.rng.uniform(0, 0.4) * (own & ~theirs)
        return x + np.minimum(alpha, 0.8) * (other - x)

    def _blur_and_wobble(self, x: np.ndarray) -> np.ndarray:
        from scipy.ndimage import gaussian_filter, map_coordinates, zoom

        height, width = x.shape[1:]
        sigma = self.rng.uniform(0, 1.2)
        if sigma > 0.3:
            x = gaussian_filter(x, (0, sigma, sigma))
        if self.rng.random() < 0.5:
            shift = zoom(self.rng.normal(0, 0.8, (2, height // 12, width // 12)), (1, 12, 12), order=1)
            shift = np.pad(shift, ((0, 0), (0, height - shift.shape[1]), (0, width - shift.shape[2])), mode='edge')
            grid = np.mgrid[:height, :width] + shift
            x = np.stack([map_coordinates(channel, grid, order=1, mode='nearest') for channel in x])
        return x

    def _depth_factor(self, label: np.ndarray) -> np.ndarray:
        """1 / (1 + relative depth error): smooth over the image, and of its own on the gripper."""
        from scipy.ndimage import gaussian_filter

        field = gaussian_filter(self.rng.normal(size=label.shape), 6)
        error = self.rng.uniform(0, 0.05) * field / max(field.std(), 1e-6)
        own = (label >= HAND_CLASS) & (label <= RIGHT_CLASS)
        error = error + own * self.rng.normal(0, 0.02)
        return 1 / np.clip(1 + error, 0.7, 1.3)


def train_segmenter(samples: Samples, out: Path, config: SegmenterTraining, record: NetworkConfig,
                    init: Path | None = None) -> NetworkConfig:
    """Train for `config.minutes` of processor time and write the weights to `out`; returns the record written.

    init: folder of weights of the same width to start from (fine-tuning); raises CheckpointError.
    """
    import torch

    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    network = build_network(config.width).to(memory_format=torch.channels_last).train()
    if init is not None:
        network, earlier = load_network(init)
        require(earlier.get('width') == config.width, f'{init} is {earlier.get("width")} channels wide, expected '
                f'{config.width}', CheckpointError)
        network = network.to(memory_format=torch.channels_last).train()
        record = {**record, 'init_sha256': earlier['sha256'], 'init_steps': earlier.get('steps')}
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=1e-3)
    damage = Damage(samples, config.seed, config.crop)
    average = WeightAverage(network, 0.99)
    budget, steps = Budget(config.minutes, 'processor'), 0
    while not budget.over:
        budget.start()
        set_learning_rate(optimiser, config.learning_rate, steps, budget.fraction)
        loss = _step(network, optimiser, damage.batch(config.batch), config)
        steps += 1
        average.update(network)
        if steps % 200 == 0:
            _save(average.weights, out, config, {**record, 'steps': steps, 'final_loss': loss})
            log.warning('segmenter: %3.0f %% of the time, step %d, loss %.3f', 100 * budget.fraction, steps, loss)
        budget.stop()
    require_steps(steps)
    record = {**record, 'training': asdict(config), 'steps': steps, 'images': len(samples.rgb), 'final_loss': loss}
    _save(average.weights, out, config, record)
    return record


def _save(weights: dict[str, torch.Tensor], out: Path, config: SegmenterTraining, record: NetworkConfig) -> None:
    network = build_network(config.width)
    network.load_state_dict(weights)
    save(network.eval(), out, record, config.width)


def _step(network: Any, optimiser: Any, batch: tuple[np.ndarray, np.ndarray, np.ndarray], config: SegmenterTraining
          ) -> float:
    import torch

    image, label, points = batch
    x = torch.from_numpy(image).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(label)
    logits, maps = network(x)
    loss = _class_loss(logits, y)
    # More weight around the gripper, whatever the class there: outlines stay unbiased.
    own = ((y >= HAND_CLASS) & (y <= RIGHT_CLASS)).float()
    near = torch.nn.functional.max_pool2d(own[:, None], 9, 1, 4)[:, 0]
    weight = 1 + (config.near_gripper_weight - 1) * near
    loss = (loss * weight).sum() / weight.sum() + config.landmark_weight * _landmark_loss(maps, points)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def _class_loss(logits: Any, y: Any) -> Any:
    """Cross-entropy per pixel (N, H, W) in which the two fingers are nearly one class: which is left can seldom be
    told, what is finger must be."""
    import torch

    logp = torch.log_softmax(logits, 1)
    finger = torch.logsumexp(logp[:, LEFT_CLASS:RIGHT_CLASS + 1], 1)
    own = torch.gather(logp, 1, y[:, None])[:, 0]
    is_finger = (y == LEFT_CLASS) | (y == RIGHT_CLASS)
    return -torch.where(is_finger, 0.9 * finger + 0.1 * own, own)


def _landmark_loss(maps: Any, points: np.ndarray) -> Any:
    """Cross-entropy of the maps (N, 4, h, w), "nowhere" included, with where the landmarks (N, 6, 2) [px] are."""
    import torch

    n, count, h, w = maps.shape
    target, known = landmark_targets(points, (h, w))
    flat = torch.cat([maps.reshape(n, count, h * w), maps.new_zeros(n, count, 1)], 2)
    loss = -(torch.log_softmax(flat, 2) * torch.from_numpy(target)).sum(2)
    return (loss * torch.from_numpy(known)).sum() / max(float(known.sum()), 1.0)


def landmark_targets(points: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where landmarks (N, 6, 2) [px] lie in maps of size (h, w), 2 px per cell: shares (N, 4, h w + 1) float32 over the
    cells, the last one for "nowhere", and which maps are known (N, 4) float32."""
    (h, w), n = size, len(points)
    target, known = np.zeros((n, MAPS, h * w + 1), np.float32), np.ones((n, MAPS), np.float32)
    share = 1 / np.bincount(CHANNELS)
    rows = np.arange(n)
    for k, channel in enumerate(CHANNELS):
        finite = np.isfinite(points[:, k]).all(1)
        known[~finite, channel] = 0
        cell = np.where(finite[:, None], (points[:, k] + 0.5) / 2 - 0.5, -9.0)
        low = np.floor(cell).astype(np.intp)
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            x, y = low[:, 0] + dx, low[:, 1] + dy
            weight = np.abs(1 - dx - cell[:, 0] + low[:, 0]) * np.abs(1 - dy - cell[:, 1] + low[:, 1])
            inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
            target[rows, channel, np.where(inside, y * w + x, h * w)] += share[channel] * weight
    return target, known


def evaluate_segmenter(samples: Samples, folder: Path | None, damaged: bool = False, count: int = 600
                       ) -> dict[str, float]:
    """Intersection over union per class, of the gripper and of the hand, over `count` images; `damaged`: as trained."""
    from geo4d_ros.tracking.segmentation.segmenter import Segmenter

    segmenter = Segmenter.load(folder)
    rng = np.random.default_rng(0)
    pick = np.sort(rng.choice(len(samples.rgb), min(count, len(samples.rgb)), replace=False))
    if damaged:
        image, label, _ = Damage(samples, 1).batch(len(pick))
        predicted = np.concatenate([segmenter.logits_class(image[i:i + 32]) for i in range(0, len(image), 32)])
    else:
        label = samples.labels[pick]
        predicted = np.concatenate([
            segmenter.probabilities(samples.rgb[i], decode_depth(samples.depth[i])).argmax(1)
            for i in np.array_split(pick, max(1, len(pick) // 32))])
    return iou_table(predicted, label)


def iou_table(predicted: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """IoU over all pixels of each class, `fingers` (both) and `gripper` (hand and fingers)."""
    groups = {name: (i,) for i, name in enumerate(CLASSES)}
    groups |= {'fingers': (LEFT_CLASS, RIGHT_CLASS), 'gripper': (HAND_CLASS, LEFT_CLASS, RIGHT_CLASS)}
    table = {}
    for name, classes in groups.items():
        a, b = np.isin(predicted, classes), np.isin(label, classes)
        table[name] = float((a & b).sum() / max((a | b).sum(), 1))
    return table
