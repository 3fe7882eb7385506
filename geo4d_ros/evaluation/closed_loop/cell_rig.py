"""Two still RGB-D cameras around a simulated cell, without ROS: observations and recordings of the truth."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import numpy as np

from geo4d_ros.evaluation.simulated_truth import Recording
from geo4d_ros.geometry.cameras import Camera, scale_intrinsics
from geo4d_ros.geometry.transforms import invert, transform_points
from geo4d_ros.simulation.cameras import sample_cameras
from geo4d_ros.simulation.noise import add_depth_noise
from geo4d_ros.simulation.rendering import RgbdRenderer
from geo4d_ros.types import Observation, RgbdFrame

SENSOR_SIZE = (480, 640)
MODEL_SIZE = (96, 128)


def episode_cameras(seed: int, split: str, size: tuple[int, int] = SENSOR_SIZE) -> tuple[Camera, ...]:
    """The two cameras of an evaluation episode, fixed by its seed; size is (height, width)."""
    rng = np.random.default_rng([seed, 2])
    return sample_cameras(rng, 2, split, width=size[1], height=size[0])


def resized_camera(camera: Camera, size: tuple[int, int]) -> Camera:
    """The same camera at another (height, width)."""
    height, width = size
    K = scale_intrinsics(camera.K, width / camera.width, height / camera.height)
    return Camera(K, camera.T_base_camera, width, height)


_Array = Literal['rgb', 'depth', 'labels', 'T_base_gripper', 'opening', 'arm_points', 'T_base_object']


class Snapshot(TypedDict):
    """One moment of the truth, V views of H x W pixels."""

    rgb: np.ndarray  # (V, H, W, 3) uint8
    depth: np.ndarray  # (V, H, W) float32 m
    labels: np.ndarray  # (V, H, W) uint8 of simulation.scene.LABELS
    T_base_gripper: np.ndarray  # (4, 4)
    opening: float  # m
    arm_points: np.ndarray  # (J, 3) m, base frame
    stamp: int  # ns
    T_base_object: np.ndarray  # (4, 4)


class CellRig:
    """Cameras that look at a cell: `observe` as real ones would, `snapshot` the truth at the model's size."""

    def __init__(self, model: Any, cameras: tuple[Camera, ...], noise: str = 'none', seed: int = 0,
                 model_size: tuple[int, int] = MODEL_SIZE, labels: bool = True) -> None:
        self.cameras = cameras
        self.small_cameras = tuple(resized_camera(c, model_size) for c in cameras)
        self._sensor = RgbdRenderer(model, cameras[0].height, cameras[0].width)
        self._small = RgbdRenderer(model, *model_size)
        self._noise, self._rng, self._labels = noise, np.random.default_rng([seed, 3]), labels

    def __enter__(self) -> CellRig:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the renderers."""
        self._sensor.close()
        self._small.close()

    def observe(self, cell: Any) -> Observation:
        """The cell now, at the sensors' size; the gripper pose as kinematics and calibration give it."""
        rendered = self._sensor.render_many(cell.data, self.cameras)
        stamp = round(cell.time * 1e9)
        views = tuple(
            RgbdFrame(rgb, add_depth_noise(self._noise, depth, camera.K, self._rng), camera.K, stamp,
                      f'camera{i + 1}_color_optical_frame')
            for i, (camera, (rgb, depth, _)) in enumerate(zip(self.cameras, rendered, strict=True))
        )
        T_ref_base = invert(self.cameras[0].T_base_camera)
        T_ref_view = T_ref_base @ np.stack([c.T_base_camera for c in self.cameras])
        return Observation(views, T_ref_base @ cell.T_base_gripper, cell.opening, T_ref_view,
                           transform_points(T_ref_base, cell.arm_points))

    def snapshot(self, cell: Any) -> Snapshot:
        """One moment of the truth at the model's size, for `recording_of`."""
        rendered = self._small.render_many(cell.data, self.small_cameras, labels=self._labels)
        rgb, depth, labels = zip(*rendered, strict=True)
        return {'rgb': np.stack(rgb), 'depth': np.stack(depth), 'T_base_gripper': cell.T_base_gripper,
                'labels': np.stack(labels) if self._labels else np.zeros(np.shape(depth), np.uint8),
                'opening': cell.opening, 'arm_points': cell.arm_points, 'stamp': round(cell.time * 1e9),
                'T_base_object': cell.object_pose()}

    def recording_of(self, snapshots: list[Snapshot], dt: float) -> Recording:
        """Snapshots `dt` [s] apart as one recording; stamps count from the first."""
        def stacked(key: _Array, axis: int) -> np.ndarray:
            return np.stack([s[key] for s in snapshots], axis=axis)

        stamps = snapshots[0]['stamp'] + np.arange(len(snapshots), dtype=np.int64) * round(dt * 1e9)
        return Recording(stacked('rgb', 1), stacked('depth', 1), stacked('labels', 1),
                         np.stack([c.K for c in self.small_cameras]),
                         np.stack([c.T_base_camera for c in self.small_cameras]),
                         stacked('T_base_gripper', 0), stacked('opening', 0), stacked('arm_points', 0), stamps,
                         stacked('T_base_object', 0))
