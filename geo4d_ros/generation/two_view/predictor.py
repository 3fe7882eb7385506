"""From an observation to a 4D video with the two-view network, as a numbered story."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from geo4d_ros.errors import RegistrationError, require
from geo4d_ros.generation.manifest import write_manifest
from geo4d_ros.generation.two_view.encoder import Scene
from geo4d_ros.generation.two_view.judge import SceneJudge
from geo4d_ros.generation.two_view.network import OBJECT_SEGMENT, TwoViewNetwork, one_view_each
from geo4d_ros.generation.two_view.weights import read_index, read_network, write_network
from geo4d_ros.geometry.cameras import unproject
from geo4d_ros.geometry.registration import register_views
from geo4d_ros.geometry.resampling import resize_frame
from geo4d_ros.geometry.transforms import invert, transform_points
from geo4d_ros.types import GripperTrack, Observation, RgbdFrame, TrackStatus, Video4D

# A pixel keeps frame 0's depth when it is this surely static; chosen on the validation split, where full-frame AbsRel
# is least. Colours cross over gradually, depth does not: half-way points would hang in the air. Where colours begin to
# is a trade on validation: later is better where something moves (+0.07 dB from 0.5 to 0.6), worse in all (-0.13 dB).
STATIC_ABOVE = 0.75
COLOUR_FROM = 0.6
OPENVINO = 'openvino'  # a device name beside torch's
MAX_DEPTH_M = 2.5  # training episodes hold no depth beyond it (training/episodes.py)


class TwoViewPredictor:
    """One-step generator of two views; implements `generation.protocol.VideoGenerator`.

    No camera pose goes in: the second view is registered to the reference from the two RGB-D images.
    The measured gripper pose and opening are needed (the network works in the gripper's frame).
    """

    def __init__(self, network: TwoViewNetwork, name: str = 'geo4d-sim-small', judge: SceneJudge | None = None,
                 robot: str = '') -> None:
        self.network, self.judge = network.eval(), judge
        self.name, self.robot = name, robot
        self.frames, self.dt = network.config.frames, network.config.dt

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> TwoViewPredictor:
        """Load `network/` weights; stored in half precision, used in single."""
        directory = Path(directory)
        return cls(read_network(directory), directory.name, SceneJudge.load(directory),
                   str(read_index(directory).get('robot', '')))

    def save_pretrained(self, directory: str | Path, base: str | Path | None = None) -> None:
        """Write model_index.json, half-precision network weights and the sha256 manifest.

        base: checkpoint that this one was tuned from and will lie beside; weights that it has are left out.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        index = {'_class_name': 'TwoViewPredictor', **({'robot': self.robot} if self.robot else {}),
                 **write_network(self.network, directory, None if base is None else Path(base))}
        if self.judge is not None:
            self.judge.save(directory)
        (directory / 'model_index.json').write_text(json.dumps(index) + '\n')
        write_manifest(directory)

    def to(self, device: str) -> TwoViewPredictor:
        """Move the network; 'openvino' has it compiled for the CPU (for good: it cannot be moved or saved after)."""
        if device == OPENVINO:
            from geo4d_ros.generation.two_view.openvino import accelerate

            accelerate(self.network)
        else:
            self.network.to(device)
        return self

    @torch.no_grad()
    def predict(self, observation: Observation, seed: int = 0) -> Video4D:
        """The next `frames` frames; deterministic, so `seed` changes nothing.

        Raises InvalidInputError without robot state or with other than one or two views. When the
        second view cannot be registered its pixels are marked invalid and the reference goes on alone.
        """
        timings: dict[str, float] = {}
        # 1. Check and resize.
        require(observation.T_ref_gripper is not None and observation.opening is not None,
                f'{self.name} needs the measured gripper pose and opening; publish joint states and transforms')
        require(len(observation.views) <= 2, f'{self.name} takes 1 or 2 views but got {len(observation.views)}')
        config = self.network.config
        joints = 0 if observation.arm_points is None else len(observation.arm_points)
        require(self.network.arm_head is None or joints == config.arm_joints,
                f'{self.name} needs arm_points of {config.arm_joints} links but got {joints}; publish the transforms '
                'of the links and name them in arm_frames')
        start = time.perf_counter()
        views = [within_range(resize_frame(v, config.height, config.width)) for v in observation.views]
        # 2. Bring the second view into the reference frame, from the images alone.
        T_ref_view, seen = given(observation) if config.given_poses else register(views)
        timings['registration'] = time.perf_counter() - start
        # 3. Encode the observation once; predict the gripper's path.
        start = time.perf_counter()
        batch = observation_tensors(views, T_ref_view, seen, observation)
        batch = {k: v.to(self.network.device) for k, v in batch.items()}
        inputs = batch if config.cross_view else one_view_each(batch)
        scene = self.network.encode(inputs['rgb0'], inputs['points'], inputs['valid'], inputs['T_g0_view'],
                                    inputs['opening0'], inputs['seen'])
        poses, openings = self.network.state_head(scene)[-1]
        timings['encode'] = time.perf_counter() - start
        # 4. Paint every future frame of every view.
        start = time.perf_counter()
        segments = self.network.segment_logits(scene).max(2).indices * inputs['valid']
        out = self.network.paint(scene, inputs, segments, scene.queries, poses, openings)
        if not config.cross_view:
            out, segments = {k: v.transpose(0, 2) for k, v in out.items()}, segments.transpose(0, 1)
        timings['decode'] = time.perf_counter() - start
        # 5. Copy what does not move from frame 0, lift depth to points in the reference frame.
        rgb, depth, hand = (a[: len(views)] for a in compose(out, batch, segments))
        stamps = observation.stamp + np.arange(self.frames + 1, dtype=np.int64) * round(self.dt * 1e9)
        points, valid = lift(depth, views, T_ref_view, seen)
        state = state_track(observation, poses[0].double().cpu().numpy(), openings[0].double().cpu().numpy())
        K = np.stack([v.K for v in views])
        return Video4D(rgb, points, valid, stamps, K, T_ref_view, hand, state, timings,
                       scene=self._figures(scene, segments, seen))

    def _figures(self, scene: Scene, segments: torch.Tensor, seen: np.ndarray) -> dict[str, float]:
        """What a verdict is reached by: how much of the object is seen, and what the judge says of the features."""
        mask = (segments[0] == OBJECT_SEGMENT).cpu().numpy()[:len(seen)]
        out = {'object_pixels': float(mask.sum())}
        if self.judge is not None and self.network.config.cross_view:
            out |= self.judge.figures(scene.features[0].float().cpu().numpy()[:len(seen)], mask, seen)
        return out


def within_range(frame: RgbdFrame) -> RgbdFrame:
    """The frame with depth beyond MAX_DEPTH_M marked invalid, as in the training episodes."""
    return replace(frame, depth=np.where(frame.depth <= MAX_DEPTH_M, frame.depth, np.float32(0)))


def register(views: list[RgbdFrame]) -> tuple[np.ndarray, np.ndarray]:
    """T_ref_view (V, 4, 4) and which views could be placed (V,) bool."""
    T_ref_view, seen = np.tile(np.eye(4), (len(views), 1, 1)), np.ones(len(views), bool)
    for i in range(1, len(views)):
        try:
            T_ref_view[i] = register_views(views[0], views[i]).T_ref_second
        except RegistrationError:
            seen[i] = False
    return T_ref_view, seen


def given(observation: Observation) -> tuple[np.ndarray, np.ndarray]:
    """T_ref_view (V, 4, 4) as the observation has it, all views seen."""
    require(observation.T_ref_view is not None,
            'this baseline is told the camera poses: the observation needs T_ref_view, which evaluations give')
    return observation.T_ref_view, np.ones(len(observation.views), bool)


def observation_tensors(views: list[RgbdFrame], T_ref_view: np.ndarray, seen: np.ndarray,
                        observation: Observation) -> dict[str, torch.Tensor]:
    """What the network reads, batch of one; a missing second view is a blank one. `views` are those of the
    observation at the network's size.
    """
    rgb = [v.rgb.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1 for v in views]
    depth, K = [v.depth for v in views], [v.K for v in views]
    T_g0_ref = invert(observation.T_ref_gripper)
    T_g0_view = list(T_g0_ref @ T_ref_view)
    if len(views) == 1:
        rgb, depth, K = [*rgb, np.zeros_like(rgb[0])], [*depth, np.zeros_like(depth[0])], [*K, K[0]]
        T_g0_view, seen = [*T_g0_view, T_g0_view[0]], np.array([*seen, False])
    points = [transform_points(T, unproject(d, k)) for T, d, k in zip(T_g0_view, depth, K, strict=True)]
    depth_stack = np.stack(depth)
    arrays = {
        'rgb0': np.stack(rgb), 'depth0': depth_stack[:, None], 'points': np.stack(points), 'K': np.stack(K),
        'valid': (depth_stack > 0) & seen[:, None, None], 'T_g0_view': np.stack(T_g0_view),
        'T_view_g0': invert(np.stack(T_g0_view)), 'seen': seen, 'opening0': np.float64(observation.opening),
    }
    if observation.arm_points is not None:
        arrays['arm0'] = transform_points(T_g0_ref, observation.arm_points)
    tensors = {k: torch.as_tensor(v)[None] for k, v in arrays.items()}
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def compose(out: dict[str, torch.Tensor], batch: dict[str, torch.Tensor], segments: torch.Tensor,
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """rgb (V, T+1, H, W, 3) u8, depth (V, T+1, H, W) [m], hand probability (V, T+1, H, W), frame 0 first."""
    probability = out['motion'][0].softmax(2)
    static = probability[:, :, :1]
    rgb = torch.lerp(out['rgb'][0], batch['rgb0'], ((static - COLOUR_FROM) / (1 - COLOUR_FROM)).clamp(0, 1))
    depth = torch.where(static > STATIC_ABOVE, batch['depth0'], out['depth'][0])
    hand = probability[:, :, 1:2]
    if 'moved_hand' in out:
        moved, near = nearby_hand(out['moved_hand'][0])
        depth = torch.where((hand > 0.5) & near, moved, depth)
    hand0 = ((segments[0] == 2) | (segments[0] == 3)).float()[:, None]
    first = lambda a0, a: torch.cat([a0[None], a]).transpose(0, 1)  # noqa: E731
    rgb = first(batch['rgb0'][0], rgb).permute(0, 1, 3, 4, 2)
    rgb = ((rgb + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return rgb, first(batch['depth0'][0], depth)[:, :, 0].cpu().numpy(), first(hand0, hand)[:, :, 0].cpu().numpy()


def nearby_hand(moved_hand: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth (K, V, 1, H, W) [m] of the rigidly moved hand, its rim widened by a pixel, and where there is one (bool).

    The measured hand keeps its shape; painted depth bends towards the background at the rim, where the points of
    the two views then float in front of each other's surface. moved_hand (K, V, 2, H, W): depth and mask.
    """
    depth, mask = moved_hand.split(1, 2)
    pool = lambda a: F.avg_pool2d(a.flatten(0, 1), 3, 1, 1).view_as(a)  # noqa: E731
    share = pool(mask)
    return torch.where(mask > 0, depth, pool(depth * mask) / share.clamp(min=0.01)), share > 0.01


def lift(depth: np.ndarray, views: list[RgbdFrame], T_ref_view: np.ndarray, seen: np.ndarray,
         ) -> tuple[np.ndarray, np.ndarray]:
    """Points (V, T+1, H, W, 3) float32 in the reference frame and their validity."""
    points = np.stack([
        np.stack([transform_points(T_ref_view[v], unproject(d, views[v].K)) for d in depth[v]])
        for v in range(len(views))
    ])
    return points.astype(np.float32), (depth > 0.05) & seen[:, None, None, None]


def state_track(observation: Observation, poses: np.ndarray, openings: np.ndarray) -> GripperTrack:
    """The state stream as a track in the reference frame; index 0 is the measurement."""
    T = np.concatenate([observation.T_ref_gripper[None], observation.T_ref_gripper @ poses])
    U, _, Vt = np.linalg.svd(T[:, :3, :3])  # single precision leaves rotations a little off orthonormal
    T[:, :3, :3] = U @ Vt
    opening = np.concatenate([[observation.opening], openings])
    return GripperTrack(T, opening, np.ones(len(T)), (TrackStatus.OK,) * len(T))
