"""The shipped generator: motion first, then the picture: frame 0 moved by it, the robot drawn from its mesh."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path

import numpy as np
import torch

from geo4d_ros.errors import require
from geo4d_ros.generation.manifest import write_manifest
from geo4d_ros.generation.two_view.composer import Layers, Views, compose
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
from geo4d_ros.generation.two_view.robot_surface import HAND, RobotSurface, panda_surface
from geo4d_ros.generation.two_view.scene_head import FIRST_TASK_CLASS, SceneHead, scene_inputs
from geo4d_ros.geometry.resampling import resize_frame
from geo4d_ros.geometry.transforms import invert
from geo4d_ros.types import Observation, Video4D

LEAST_OBJECT_PIXELS = 6  # in one view: fewer are noise


class ComposedPredictor:
    """Geometry first: the network predicts the gripper's path and opening, what they mean for every pixel follows.

    Implements `generation.protocol.VideoGenerator`. `pure_video` gives the variant whose every pixel is painted by the
    network: the `video` read-out uses that one, so that it never reads a drawn arm back.
    """

    def __init__(self, network: TwoViewNetwork, scene_head: SceneHead, surface: RobotSurface | None = None,
                 name: str = 'geo4d-sim-small') -> None:
        self.network, self.scene_head = network.eval(), scene_head.eval()
        self.surface = surface or panda_surface()
        self.name, self.frames, self.dt = name, network.config.frames, network.config.dt

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> ComposedPredictor:
        """Load `network/` and `scene/`; stored in half precision, used in single."""
        directory = Path(directory)
        network = TwoViewNetwork.from_pretrained(directory / 'network', local_files_only=True)
        head = SceneHead.from_pretrained(directory / 'scene', local_files_only=True)
        return cls(network.float(), head.float(), name=directory.name)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write model_index.json, half-precision weights and the sha256 manifest."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        copy.deepcopy(self.network).half().save_pretrained(directory / 'network')
        copy.deepcopy(self.scene_head).half().save_pretrained(directory / 'scene')
        (directory / 'model_index.json').write_text(json.dumps({'_class_name': 'ComposedPredictor'}) + '\n')
        write_manifest(directory)

    def to(self, device: str) -> ComposedPredictor:
        """Compile the network for the CPU with 'openvino'; the composition runs on the CPU in any case."""
        self.pure_video().to(device)
        if device != OPENVINO:
            self.scene_head.to(device)
        return self

    def pure_video(self) -> TwoViewPredictor:
        """The same network with its own painter: no mesh, no moved surfels in the picture."""
        return TwoViewPredictor(self.network, self.name)

    @torch.no_grad()
    def predict(self, observation: Observation, seed: int = 0) -> Video4D:
        """The next `frames` frames.

        Raises InvalidInputError without robot state or with other than one or two views. When the second view
        cannot be registered its pixels are marked invalid and the reference goes on alone.
        """
        timings: dict[str, float] = {}
        require(observation.T_ref_gripper is not None and observation.opening is not None,
                f'{self.name} needs the measured gripper pose and opening; publish joint states and transforms')
        require(len(observation.views) <= 2, f'{self.name} takes 1 or 2 views but got {len(observation.views)}')
        require(observation.arm_points is not None and len(observation.arm_points) == len(self.surface.arm_frames),
                f'{self.name} needs the origins of {len(self.surface.arm_frames)} links; publish their transforms '
                'and name them in arm_frames')
        start = time.perf_counter()
        config = self.network.config
        views = [within_range(resize_frame(v, config.height, config.width)) for v in observation.views]
        # 1. Bring the second view into the reference frame, from the images alone; the robot from its measured links.
        T_ref_view, seen = register(views)
        T_ref_base, q = self.surface.locate(observation.arm_points, observation.T_ref_gripper)
        timings['registration'] = time.perf_counter() - start
        # 2. Encode the observation once: the gripper's path, and what every pixel is.
        start = time.perf_counter()
        batch = observation_tensors(views, T_ref_view, seen, observation)
        batch = {k: v.to(self.network.device) for k, v in batch.items()}
        scene = self.network.encode(batch['rgb0'], batch['points'], batch['valid'], batch['T_g0_view'],
                                    batch['opening0'], batch['seen'])
        poses, openings = self.network.state_head(scene)[-1]
        logits = self.scene_head(scene.features.flatten(0, 1), scene_inputs(batch))
        state = state_track(observation, poses[0].double().cpu().numpy(), openings[0].double().cpu().numpy())
        timings['encode'] = time.perf_counter() - start
        # 3. Move frame 0 by the predicted motion.
        start = time.perf_counter()
        frame0 = Views(np.stack([v.rgb for v in views]), np.stack([v.depth for v in views]),
                       np.stack([v.K for v in views]), invert(T_ref_base) @ T_ref_view, seen[:len(views)],
                       objects_of(logits.argmax(1).cpu().numpy())[:len(views)])
        layers = compose(self.surface, frame0, invert(T_ref_base) @ state.T_ref_gripper, state.opening, q)
        timings['decode'] = time.perf_counter() - start
        # 4. Lift depth to points in the reference frame.
        return self._video(observation, views, T_ref_view, seen, layers, state, timings)

    def _video(self, observation: Observation, views: list, T_ref_view: np.ndarray, seen: np.ndarray, layers: Layers,
               state, timings: dict[str, float]) -> Video4D:
        stamps = observation.stamp + np.arange(self.frames + 1, dtype=np.int64) * round(self.dt * 1e9)
        points, valid = lift(layers.depth, views, T_ref_view, seen)
        hand = (layers.robot >= HAND).astype(np.float32)
        return Video4D(layers.rgb, points, valid, stamps, np.stack([v.K for v in views]), T_ref_view, hand, state,
                       timings)


def objects_of(classes: np.ndarray) -> np.ndarray:
    """Object class of every pixel (V, H, W), 0 for what is none; specks in one view are left out."""
    is_object = (classes >= FIRST_TASK_CLASS) & ((classes - FIRST_TASK_CLASS) % 2 == 0)
    out = np.where(is_object, classes, 0)
    for v in range(len(out)):
        for kind in np.unique(out[v][out[v] > 0]):
            if (out[v] == kind).sum() < LEAST_OBJECT_PIXELS:
                out[v][out[v] == kind] = 0
    return out
