"""The shipped generator: motion first, then the picture: frame 0 moved by it, the robot drawn from its mesh."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from geo4d_ros.errors import CheckpointError, require
from geo4d_ros.generation.manifest import verify_manifest, write_manifest
from geo4d_ros.generation.two_view.composer import Views, compose
from geo4d_ros.generation.two_view.instruction import InstructionReader
from geo4d_ros.generation.two_view.judge import SceneJudge
from geo4d_ros.generation.two_view.motion_model import MotionModel, condition_of, level_frame, stacked
from geo4d_ros.generation.two_view.predictor import (
    TwoViewPredictor,
    lift,
    register,
    state_track,
    within_range,
)
from geo4d_ros.generation.two_view.robot_surface import HAND, RobotSurface, surface_of
from geo4d_ros.generation.two_view.scene_head import FIRST_TASK_CLASS, REST, SceneHead, scene_inputs
from geo4d_ros.generation.two_view.weights import read_index
from geo4d_ros.geometry.cameras import unproject
from geo4d_ros.geometry.resampling import resize_frame
from geo4d_ros.geometry.transforms import invert, transform_points
from geo4d_ros.types import Observation, RgbdFrame, Video4D

LEAST_OBJECT_PIXELS = 6  # in one view: fewer are noise
FUTURES = 4  # drawn for every observation; the first one that the arm can follow is shown
REACHED_M = 0.01  # a pose that the arm misses by more is not followed
STILL_M, STILL_RAD = 0.012, 0.12  # a predicted motion of an object below both is none: its pixels stay as they are
FARTHEST_M = 0.25  # of an object's point from its middle: what lies farther is a slip of the mask
BETWEEN_FINGERS_M = (0.03, 0.045, 0.03)  # half sizes about the tool centre


@dataclass(frozen=True)
class Thing:
    """A task's things as one observation shows them: object (N, 3), fixture (M, 3) points in the base frame [m];
    pixels of the object in all views.
    """

    task: int
    object: np.ndarray
    fixture: np.ndarray
    pixels: int


@dataclass(frozen=True)
class Foreseen:
    """One future in the base frame: gripper (T+1, 4, 4), opening (T+1,) [m], motion (T+1, 4, 4) of the object; q
    (T+1, 7) [rad] of the arm that follows it. Index 0 is now.
    """

    gripper: np.ndarray
    opening: np.ndarray
    motion: np.ndarray
    q: np.ndarray


class ComposedPredictor:
    """Geometry first: what every pixel is, what happens next, what that means for every pixel.

    Implements `generation.protocol.VideoGenerator`. `painted` is a checkpoint of another network that paints its
    video: there no pixel is drawn from the mesh, which is what the `video` read-out has to be measured on.
    """

    def __init__(self, scene_head: SceneHead, motion: MotionModel, reader: InstructionReader,
                 painted: Path | None = None, surface: RobotSurface | None = None, name: str = 'geo4d-sim-composed',
                 judge: SceneJudge | None = None, size: tuple[int, int] = (96, 128), robot: str = '') -> None:
        self.scene_head, self.motion, self.reader = scene_head.eval(), motion.eval(), reader
        self.painted, self.judge, self.size = painted, judge, size
        self.surface = surface or surface_of(robot)
        self.name, self.frames, self.dt = name, motion.config.frames, motion.config.dt
        self._device, self.robot = 'cpu', robot

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> ComposedPredictor:
        """Load `scene/`, `motion/`, `instructions.json`; model_index.json names the painting network's checkpoint."""
        directory = Path(directory)
        index = read_index(directory)
        painted = directory / str(index.get('painted'))
        if not painted.is_dir():
            raise CheckpointError(f'{directory} leaves the video read-out to {painted}, which is missing')
        robot = str(index.get('robot') or read_index(painted).get('robot', ''))
        head = SceneHead.from_pretrained(directory / 'scene', local_files_only=True)
        motion = MotionModel.from_pretrained(directory / 'motion', local_files_only=True)
        reader = InstructionReader.load(directory / 'instructions.json')
        return cls(head.float(), motion.float(), reader, painted, name=directory.name, judge=SceneJudge.load(directory),
                   robot=robot)

    def save_pretrained(self, directory: str | Path, painted: str) -> None:
        """Write what `from_pretrained` reads; painted: the painting network's checkpoint, relative to `directory`."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        for name, network in (('scene', self.scene_head), ('motion', self.motion)):
            half = copy.deepcopy(network).half()
            half.register_to_config(_name_or_path='')  # the folder it was once loaded from is nobody's business
            half.save_pretrained(directory / name)
        self.reader.save(directory / 'instructions.json')
        if self.judge is not None:
            self.judge.save(directory)
        robot = {'robot': self.robot} if self.robot else {}
        index = {'_class_name': 'ComposedPredictor', **robot, 'painted': painted}
        (directory / 'model_index.json').write_text(json.dumps(index) + '\n')
        write_manifest(directory)

    def to(self, device: str) -> ComposedPredictor:
        """Where the painting network runs; the two small networks and the composition stay on the CPU."""
        self._device = device
        return self

    def pure_video(self) -> TwoViewPredictor:
        """The painting network: no mesh, no moved surfels in the picture."""
        if self.painted is None:
            raise CheckpointError(f'{self.name} was made without a painting network; load it from a checkpoint')
        verify_manifest(self.painted)
        return TwoViewPredictor.from_pretrained(self.painted).to(self._device)

    @torch.no_grad()
    def predict(self, observation: Observation, seed: int = 0) -> Video4D:
        """The next `frames` frames of the likeliest future, or of the first of some others that the arm can follow;
        `seed` draws those.

        An instruction says whose object is handled; without one it is the object in the hand, or the largest that is
        not where it belongs. scene of the video: object_pixels, those of the instructed object in all views (of all
        objects without an instruction), done (0..1), and unfamiliar with a judge. Raises InvalidInputError without
        robot state, with other than one or two views or for an instruction that names no known task. When the second
        view cannot be registered its pixels are marked invalid and the reference goes on alone.
        """
        timings: dict[str, float] = {}
        self._check(observation)
        wanted = self.reader.task_of(observation.instruction) if observation.instruction else None
        start = time.perf_counter()
        views = [within_range(resize_frame(v, *self.size)) for v in observation.views]
        # 1. Bring the second view into the reference frame, from the images alone; the robot from its measured links.
        T_ref_view, seen = register(views)
        assert observation.arm_points is not None and observation.T_ref_gripper is not None
        T_ref_base, q = self.surface.locate(observation.arm_points, observation.T_ref_gripper)
        T_base_view = invert(T_ref_base) @ T_ref_view
        timings['registration'] = time.perf_counter() - start
        # 2. What every pixel is.
        start = time.perf_counter()
        classes, features = self._look(views, T_ref_view, observation)
        things = self._things(views, classes, T_base_view, seen)
        T_base_gripper = invert(T_ref_base) @ observation.T_ref_gripper
        assert observation.opening is not None
        opening = float(observation.opening)
        thing, done = self._chosen(things, wanted, T_base_gripper, opening)
        timings['encode'] = time.perf_counter() - start
        # 3. What happens next.
        start = time.perf_counter()
        future = self._foresee(thing, T_base_gripper, opening, q, seed)
        timings['motion'] = time.perf_counter() - start
        # 4. Move frame 0 by it.
        start = time.perf_counter()
        objects = np.where(classes == self.scene_head.object_class(thing.task), classes, 0)
        frame0 = Views(np.stack([v.rgb for v in views]), np.stack([v.depth for v in views]),
                       np.stack([v.K for v in views]), T_base_view, seen, objects)
        layers = compose(self.surface, frame0, future.q, future.opening, future.motion)
        timings['decode'] = time.perf_counter() - start
        # 5. Lift depth to points in the reference frame.
        stamps = observation.stamp + np.arange(self.frames + 1, dtype=np.int64) * round(self.dt * 1e9)
        points, valid = lift(layers.depth, views, T_ref_view, seen)
        state = state_track(observation, invert(T_base_gripper) @ future.gripper[1:], future.opening[1:])
        shown = thing.pixels if wanted is not None else sum(t.pixels for t in things)
        scene = {'object_pixels': float(shown), **({'done': done} if thing.pixels else {})}
        if self.judge is not None:
            scene['unfamiliar'] = self.judge.figures(features, objects > 0, seen)['unfamiliar']
        return Video4D(layers.rgb, points, valid, stamps, frame0.K, T_ref_view,
                       (layers.robot >= HAND).astype(np.float32), state, timings=timings, origin=layers.origin,
                       scene=scene, T_ref_object_motion=T_ref_base @ future.motion @ invert(T_ref_base))

    def _check(self, observation: Observation) -> None:
        require(observation.T_ref_gripper is not None and observation.opening is not None,
                f'{self.name} needs the measured gripper pose and opening; publish joint states and transforms')
        require(len(observation.views) <= 2, f'{self.name} takes 1 or 2 views but got {len(observation.views)}')
        joints = 0 if observation.arm_points is None else len(observation.arm_points)
        require(joints == len(self.surface.arm_frames),
                f'{self.name} needs arm_points of {len(self.surface.arm_frames)} links but got {joints}; publish the '
                'transforms of the links and name them in arm_frames')

    def _look(self, views: list[RgbdFrame], T_ref_view: np.ndarray, observation: Observation,
              ) -> tuple[np.ndarray, np.ndarray]:
        """The class (V, H, W) of every pixel, and coarse features (V, C, h, w)."""
        T_gripper_ref = invert(observation.T_ref_gripper)
        points = np.stack([transform_points(T_gripper_ref @ T, unproject(v.depth, v.K))
                           for T, v in zip(T_ref_view, views, strict=True)])
        rgb = np.stack([v.rgb.transpose(2, 0, 1) for v in views]).astype(np.float32) / 127.5 - 1
        arm = np.repeat(transform_points(T_gripper_ref, observation.arm_points)[None], len(views), 0)
        tensors = (torch.from_numpy(np.ascontiguousarray(a)).float()
                   for a in (rgb, points, np.stack([v.depth for v in views]), arm))
        logits, features = self.scene_head.with_features(scene_inputs(*tensors))
        return objects_cleaned(logits.argmax(1).numpy()), features.numpy()

    def _things(self, views: list[RgbdFrame], classes: np.ndarray, T_base_view: np.ndarray, seen: np.ndarray,
                ) -> list[Thing]:
        """The things of every task."""
        placed = [transform_points(T, unproject(v.depth, v.K)) for T, v in zip(T_base_view, views, strict=True)]
        known = [(v.depth > 0) & s for v, s in zip(views, seen, strict=True)]
        of = lambda c: np.concatenate([p[(k == c) & ok] for p, k, ok in zip(  # noqa: E731
            placed, classes, known, strict=True)])
        out = []
        for task in range(len(self.scene_head.config.tasks)):
            kind = self.scene_head.object_class(task)
            out.append(Thing(task, _compact(of(kind)), of(kind + 1), int((classes == kind).sum())))
        return out

    def _chosen(self, things: list[Thing], wanted: int | None, T_base_gripper: np.ndarray, opening: float,
                ) -> tuple[Thing, float]:
        """The thing to handle, and how surely it is where it belongs."""
        among = things if wanted is None else [things[wanted]]
        scenes = stacked([condition_of(t.object, t.fixture, T_base_gripper, opening, t.task, np.random.default_rng(0))
                          for t in among])
        done = self.motion.done_logit(self.motion.encode(scenes)).sigmoid().tolist()
        T_gripper_base = invert(T_base_gripper)

        def order(i: int) -> tuple[bool, bool, bool, int, int]:
            t = among[i]
            held = len(t.object) > 0 and bool((np.abs(transform_points(T_gripper_base, t.object)) < BETWEEN_FINGERS_M)
                                              .all(1).mean() > 0.02)
            return held, t.pixels > 0, done[i] < 0.5, t.pixels, len(t.fixture)

        best = max(range(len(among)), key=order)
        return among[best], done[best]

    def _foresee(self, thing: Thing, T_base_gripper: np.ndarray, opening: float, q: np.ndarray, seed: int) -> Foreseen:
        """The likeliest future, or the first one that the arm can follow."""
        scene = condition_of(thing.object, thing.fixture, T_base_gripper, opening, thing.task, np.random.default_rng(0))
        futures = self.motion.sample(stacked([scene]), FUTURES, seed=seed)
        T_base_level = level_frame(T_base_gripper)
        gripper = T_base_level @ futures.gripper.double().numpy()
        motion = T_base_level @ futures.object.double().numpy() @ invert(T_base_level)
        middle = thing.object.mean(0) if len(thing.object) else T_base_gripper[:3, 3]
        found = []
        for k in range(FUTURES):
            path = np.concatenate([T_base_gripper[None], gripper[k]])
            joints, missed = self.surface.follow(path, q)
            widths = np.concatenate([[opening], futures.opening[k].double().numpy()])
            moved = np.concatenate([np.eye(4)[None], stilled(motion[k], middle)])
            found.append(Foreseen(path, widths, moved, joints))
            if missed.max() < REACHED_M:
                return found[-1]
        return found[0]


def stilled(motion: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Motions (T, 4, 4) of an object about its middle (3,), those within STILL_M and STILL_RAD made none."""
    shift = np.linalg.norm(motion[:, :3, :3] @ middle + motion[:, :3, 3] - middle, axis=-1)
    cosine = (np.trace(motion[:, :3, :3], axis1=1, axis2=2) - 1) / 2
    still = (shift < STILL_M) & (np.arccos(np.clip(cosine, -1, 1)) < STILL_RAD)
    return np.where(still[:, None, None], np.eye(4), motion)


def _compact(points: np.ndarray) -> np.ndarray:
    """The points (N, 3) of an object without those far from the rest."""
    if not len(points):
        return points
    return points[np.linalg.norm(points - np.median(points, 0), axis=1) < FARTHEST_M]


def objects_cleaned(classes: np.ndarray) -> np.ndarray:
    """Classes (V, H, W) in which specks of an object in one view count as rest."""
    out = classes.copy()
    for v in range(len(out)):
        for kind in np.unique(out[v]):
            few = (out[v] == kind).sum() < LEAST_OBJECT_PIXELS
            if kind >= FIRST_TASK_CLASS and (kind - FIRST_TASK_CLASS) % 2 == 0 and few:
                out[v][out[v] == kind] = REST
    return out
