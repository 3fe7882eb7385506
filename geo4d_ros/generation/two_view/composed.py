"""The shipped generator: motion first, then the picture: frame 0 moved by it, the robot drawn from its mesh."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from geo4d_ros.errors import CheckpointError, require
from geo4d_ros.generation.manifest import verify_manifest, write_manifest
from geo4d_ros.generation.two_view.background import background_of
from geo4d_ros.generation.two_view.composer import Layers, Views, compose
from geo4d_ros.generation.two_view.encoder import Scene
from geo4d_ros.generation.two_view.instruction import InstructionReader
from geo4d_ros.generation.two_view.judge import SceneJudge
from geo4d_ros.generation.two_view.network import TwoViewNetwork
from geo4d_ros.generation.two_view.predictor import (
    OPENVINO,
    TwoViewPredictor,
    lift,
    observation_tensors,
    register,
    state_track,
    within_range,
)
from geo4d_ros.generation.two_view.robot_surface import HAND, RobotSurface, surface_of
from geo4d_ros.generation.two_view.scene_head import FIRST_TASK_CLASS, REST, ROBOT, SceneHead, scene_inputs
from geo4d_ros.generation.two_view.weights import read_index, read_network
from geo4d_ros.geometry.resampling import resize_frame
from geo4d_ros.geometry.transforms import invert
from geo4d_ros.types import Observation, RgbdFrame, Video4D

LEAST_OBJECT_PIXELS = 6  # in one view: fewer are noise


class ComposedPredictor:
    """Geometry first: the network predicts the gripper's path and opening, what they mean for every pixel follows.

    Implements `generation.protocol.VideoGenerator`. The network's own painter is `pure_video`: there no pixel is drawn
    from the mesh, which is what the `video` read-out has to be measured on.
    """

    def __init__(self, network: TwoViewNetwork, scene_head: SceneHead, reader: InstructionReader,
                 surface: RobotSurface | None = None, name: str = 'geo4d-sim-composed',
                 judge: SceneJudge | None = None, robot: str = '') -> None:
        self.judge, self.robot = judge, robot
        self.network, self.scene_head, self.reader = network.eval(), scene_head.eval(), reader
        self.surface = surface or surface_of(robot)
        self.name, self.frames, self.dt = name, network.config.frames, network.config.dt

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> ComposedPredictor:
        """Load `scene/`, `instructions.json` and the motion network of the checkpoint that model_index.json names."""
        directory = Path(directory)
        index = read_index(directory)
        motion = directory / str(index.get('motion'))
        if not motion.is_dir():
            raise CheckpointError(f'{directory} takes its motion network from {motion}, which is missing')
        verify_manifest(motion)
        network, robot = read_network(motion), str(index.get('robot') or read_index(motion).get('robot', ''))
        head = SceneHead.from_pretrained(directory / 'scene', local_files_only=True)
        reader = InstructionReader.load(directory / 'instructions.json')
        return cls(network, head.float(), reader, None, directory.name, SceneJudge.load(motion), robot)

    def save_pretrained(self, directory: str | Path, motion: str) -> None:
        """Write what `from_pretrained` reads; motion: the motion network's checkpoint, relative to `directory`."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        copy.deepcopy(self.scene_head).half().save_pretrained(directory / 'scene')
        self.reader.save(directory / 'instructions.json')
        index = {'_class_name': 'ComposedPredictor', **({'robot': self.robot} if self.robot else {}), 'motion': motion}
        (directory / 'model_index.json').write_text(json.dumps(index) + '\n')
        write_manifest(directory)

    def to(self, device: str) -> ComposedPredictor:
        """Compile the network for the CPU with 'openvino'; the composition runs on the CPU in any case."""
        self.pure_video().to(device)
        self.scene_head.to('cpu' if device == OPENVINO else device)
        return self

    def pure_video(self) -> TwoViewPredictor:
        """The same network with its own painter: no mesh, no moved surfels in the picture."""
        return TwoViewPredictor(self.network, self.name, robot=self.robot)

    @torch.no_grad()
    def predict(self, observation: Observation, seed: int = 0) -> Video4D:
        """The next `frames` frames; deterministic, so `seed` changes nothing.

        An instruction makes one task's things the scene: other tasks' are taken out of what the network looks at.
        scene of the video: object_pixels, those of the instructed object in all views (or of all objects). Raises
        InvalidInputError without robot state, with other than one or two views or for an instruction that names no
        known task. When the second view cannot be registered its pixels are marked invalid and the reference goes on
        alone.
        """
        timings: dict[str, float] = {}
        self._check(observation)
        task = self.reader.task_of(observation.instruction) if observation.instruction else None
        start = time.perf_counter()
        config = self.network.config
        views = [within_range(resize_frame(v, config.height, config.width)) for v in observation.views]
        # 1. Bring the second view into the reference frame, from the images alone; the robot from its measured links.
        T_ref_view, seen = register(views)
        assert observation.arm_points is not None and observation.T_ref_gripper is not None
        T_ref_base, q = self.surface.locate(observation.arm_points, observation.T_ref_gripper)
        T_base_view = invert(T_ref_base) @ T_ref_view
        timings['registration'] = time.perf_counter() - start
        # 2. What every pixel is, and the gripper's path.
        start = time.perf_counter()
        scene, classes = self._look(views, T_ref_view, seen, observation)
        shown = views
        if task is not None:
            shown = without_others(views, classes, self.scene_head.object_class(task), T_base_view, seen)
            if shown is not views:
                scene, _ = self._look(shown, T_ref_view, seen, observation)
        poses, openings = self.network.state_head(scene)[-1]
        state = state_track(observation, poses[0].double().cpu().numpy(), openings[0].double().cpu().numpy())
        timings['encode'] = time.perf_counter() - start
        # 3. Move frame 0 by the predicted motion.
        start = time.perf_counter()
        objects = objects_of(classes)
        if task is not None:
            objects = np.where(objects == self.scene_head.object_class(task), objects, 0)
        alone = seen[:len(views)]
        frame0 = Views(np.stack([v.rgb for v in views]), np.stack([v.depth for v in views]),
                       np.stack([v.K for v in views]), T_base_view, alone, objects)
        layers = compose(self.surface, frame0, invert(T_ref_base) @ state.T_ref_gripper, state.opening, q)
        timings['decode'] = time.perf_counter() - start
        # 4. Lift depth to points in the reference frame.
        stamps = observation.stamp + np.arange(self.frames + 1, dtype=np.int64) * round(self.dt * 1e9)
        points, valid = lift(layers.depth, views, T_ref_view, seen)
        hand = (layers.robot >= HAND).astype(np.float32)
        return Video4D(layers.rgb, points, valid, stamps, frame0.K, T_ref_view, hand, state, timings=timings,
                       origin=layers.origin, scene=self._figures(scene, objects, seen),
                       T_ref_object_motion=handled_motion(layers, T_ref_base))

    def _check(self, observation: Observation) -> None:
        require(observation.T_ref_gripper is not None and observation.opening is not None,
                f'{self.name} needs the measured gripper pose and opening; publish joint states and transforms')
        require(len(observation.views) <= 2, f'{self.name} takes 1 or 2 views but got {len(observation.views)}')
        joints = 0 if observation.arm_points is None else len(observation.arm_points)
        require(joints == len(self.surface.arm_frames),
                f'{self.name} needs arm_points of {len(self.surface.arm_frames)} links but got {joints}; publish the '
                'transforms of the links and name them in arm_frames')

    def _figures(self, scene: Scene, objects: np.ndarray, seen: np.ndarray) -> dict[str, float]:
        """What a verdict is reached by: how much of the object is seen, and what the judge says of the features."""
        out = {'object_pixels': float((objects > 0).sum())}
        if self.judge is not None:
            count = len(objects)
            out |= self.judge.figures(scene.features[0].float().cpu().numpy()[:count], objects > 0, seen[:count])
        return out

    def _look(self, views: list[RgbdFrame], T_ref_view: np.ndarray, seen: np.ndarray, observation: Observation,
              ) -> tuple[Scene, np.ndarray]:
        """The encoded observation and the class (V, H, W) of every pixel of the given views."""
        batch = observation_tensors(views, T_ref_view, seen, observation)
        batch = {k: v.to(self.network.device) for k, v in batch.items()}
        scene = self.network.encode(batch['rgb0'], batch['points'], batch['valid'], batch['T_g0_view'],
                                    batch['opening0'], batch['seen'])
        logits = self.scene_head(scene.features.flatten(0, 1), scene_inputs(batch))
        return scene, logits.argmax(1).cpu().numpy()[:len(views)]


def handled_motion(layers: Layers, T_ref_base: np.ndarray) -> np.ndarray | None:
    """Motion (T+1, 4, 4) in the reference frame of the object that goes farthest, of the largest one if none moves."""
    if not layers.motions:
        return None
    way = {kind: (float(np.abs(M - np.eye(4)).max()), layers.object_pixels[kind]) for kind, M in layers.motions.items()}
    return T_ref_base @ layers.motions[max(way, key=lambda kind: way[kind])] @ invert(T_ref_base)


def without_others(views: list[RgbdFrame], classes: np.ndarray, object_class: int, T_base_view: np.ndarray,
                   seen: np.ndarray) -> list[RgbdFrame]:
    """The views with the things of all tasks but one replaced by what is behind them; the same list without any."""
    others = (classes >= FIRST_TASK_CLASS) & (classes != object_class) & (classes != object_class + 1)
    others &= np.stack([(o.sum() >= LEAST_OBJECT_PIXELS) * np.ones_like(o) for o in others])
    if not others.any():
        return views
    others = np.stack([ndimage.binary_dilation(o, iterations=2) for o in others]) & (classes != ROBOT)
    others &= (classes != object_class) & (classes != object_class + 1)
    rest = background_of(np.stack([v.rgb for v in views]), np.stack([v.depth for v in views]), ~others,
                         ~others & (classes == REST), np.stack([v.K for v in views]), T_base_view, seen[:len(views)])
    return [replace(v, rgb=np.where(o[..., None], np.rint(c), v.rgb).astype(np.uint8), depth=np.where(o, z, v.depth))
            for v, o, c, z in zip(views, others, rest.rgb, rest.depth, strict=True)]


def objects_of(classes: np.ndarray) -> np.ndarray:
    """Object class of every pixel (V, H, W), 0 for what is none; specks in one view are left out."""
    is_object = (classes >= FIRST_TASK_CLASS) & ((classes - FIRST_TASK_CLASS) % 2 == 0)
    out = np.where(is_object, classes, 0)
    for v in range(len(out)):
        for kind in np.unique(out[v][out[v] > 0]):
            if (out[v] == kind).sum() < LEAST_OBJECT_PIXELS:
                out[v][out[v] == kind] = 0
    return out
