"""The gripper over a table, seen by two cameras: drawn by the tracker's own shape, with known poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from geo4d_ros.geometry.cameras import intrinsics, look_at, unproject
from geo4d_ros.geometry.transforms import from_rotvec, invert, transform_points
from geo4d_ros.robots.gripper import GripperModel, gripper_of
from geo4d_ros.tracking.clip import Chunk, Masks
from geo4d_ros.tracking.outlines import rasterise
from geo4d_ros.types import Observation, RgbdFrame, Video4D

FRAMES = 6


@dataclass(frozen=True)
class GripperScene:
    """A video whose truth is known: T_ref_gripper (T+1, 4, 4), opening (T+1,), labels (V, T+1, H, W)."""

    gripper: GripperModel
    video: Video4D
    observation: Observation
    T_ref_gripper: np.ndarray
    opening: np.ndarray
    labels: np.ndarray

    def masks(self, chunk: Chunk, T_ref_gripper: np.ndarray, opening: float) -> Masks:
        """A mask source: the true masks at the chunk's size."""
        labels = self.labels[: chunk.views]
        rows = np.arange(chunk.size[0]) * labels.shape[2] // chunk.size[0]
        columns = np.arange(chunk.size[1]) * labels.shape[3] // chunk.size[1]
        labels = labels[:, :, rows[:, None], columns[None, :]]
        return Masks((labels >= 2).astype(np.float32), 'truth', (labels >= 3).astype(np.float32))


def draw(gripper: GripperModel, T_view_base: np.ndarray, T_base_gripper: np.ndarray, opening: float, K: np.ndarray,
         size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """rgb, depth and labels of a white gripper and a box over a chequered table at z = 0."""
    height, width = size
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(size)], axis=-1)
    down = rays @ T_view_base[:3, 2]
    height_above = invert(T_view_base)[2, 3]
    z = np.where(down < -1e-3, -height_above / np.minimum(down, -1e-3), 0)
    depth = np.where((z > 0) & (z < 3), z, 0).astype(np.float32)
    base = transform_points(invert(T_view_base), rays * depth[..., None])
    chequer = (np.floor(base[..., 0] / 0.1) + np.floor(base[..., 1] / 0.1)).astype(int) % 2
    rgb = np.where(chequer[..., None] > 0, 90, 140).astype(np.uint8).repeat(3, axis=-1)
    labels = np.zeros(size, np.uint8)
    corners = np.array([[x, y, z] for x in (0.3, 0.4) for y in (0.15, 0.3) for z in (0, 0.2)])
    box = np.array([[0, 1, 3], [0, 3, 2], [4, 5, 7], [4, 7, 6], [0, 1, 5], [0, 5, 4], [2, 3, 7], [2, 7, 6], [1, 3, 7],
                    [1, 7, 5], [0, 2, 6], [0, 6, 4]])
    vertices, faces, part = gripper.posed(opening)
    for mesh, triangles, label, colour in (
            (corners, box, np.zeros(len(box), np.uint8), 60),
            (transform_points(T_base_gripper, vertices), faces, 2 + part.astype(np.uint8), 230)):
        raster = rasterise(transform_points(T_view_base, mesh), triangles, K, size)
        if raster is None:
            continue
        x, y, face = raster.pixels()
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        x, y, face = x[inside], y[inside], face[inside]
        near = raster.depth_at(x.astype(float), y.astype(float), face, K)
        front = (depth[y, x] == 0) | (near < depth[y, x])
        x, y, face, near = x[front], y[front], face[front], near[front]
        depth[y, x], rgb[y, x], labels[y, x] = near, colour, label[face]
    return rgb, depth, labels


def gripper_scene(seed: int = 0, frames: int = FRAMES, size: tuple[int, int] = (96, 128), noise: float = 0.0,
                  closes: bool = True, step_m: float = 0.04, step_rad: float = 0.1) -> GripperScene:
    """A random motion, the same for every size; `noise` is the mean relative depth error of frames 1..T."""
    rng = np.random.default_rng(seed)
    gripper = gripper_of()
    K = intrinsics(1.05 * size[1], size[1], size[0])
    azimuth = rng.uniform(0, 2 * np.pi)
    cameras = []
    for angle in (azimuth, azimuth + rng.uniform(0.7, 1.5)):
        elevation, radius = rng.uniform(0.5, 1.0), rng.uniform(0.75, 1.0)
        away = np.array([np.cos(angle) * np.cos(elevation), np.sin(angle) * np.cos(elevation), np.sin(elevation)])
        target = np.array([0.5, 0, 0.15])
        cameras.append(look_at(target + radius * away, target))
    T = np.diag([1.0, -1.0, -1.0, 1.0]) @ from_rotvec(np.array([0, 0, rng.uniform(-0.8, 0.8)]))
    T[:3, 3] = 0.5, 0, 0.2
    step, turn = rng.normal(size=3), rng.normal(size=3)
    step *= step_m / np.linalg.norm(step)
    turn *= step_rad / np.linalg.norm(turn)
    poses, opening = [], np.where(np.arange(frames) < frames - 2, 0.08, 0.03 if closes else 0.08)
    for _ in range(frames):
        poses.append(T)
        moved = T @ from_rotvec(turn)
        moved[:3, 3] = np.clip(T[:3, 3] + step, [0.38, -0.12, 0.08], [0.62, 0.12, 0.35])
        T = moved
    drawn = [[draw(gripper, invert(camera), pose, o, K, size) for pose, o in zip(poses, opening, strict=True)]
             for camera in cameras]
    rgb, depth, labels = (np.stack([[frame[i] for frame in view] for view in drawn]) for i in range(3))
    damaged = depth.copy()
    for index in np.ndindex(2, frames):
        if noise and index[1] > 0:
            field = gaussian_filter(rng.standard_normal(size), 6 * size[1] / 128)
            damaged[index] *= (1 + noise / 0.8 * field / field.std()).astype(np.float32)
    T_ref_view = np.stack([invert(cameras[0]) @ camera for camera in cameras])
    points = np.stack([[transform_points(T_ref_view[v], unproject(damaged[v, t], K)) for t in range(frames)]
                       for v in range(2)]).astype(np.float32)
    T_ref_gripper = np.stack([invert(cameras[0]) @ pose for pose in poses])
    stamps = np.arange(frames, dtype=np.int64) * 500_000_000
    video = Video4D(rgb, points, depth > 0, stamps, np.stack([K, K]), T_ref_view)
    views = tuple(RgbdFrame(rgb[v, 0], depth[v, 0], K) for v in range(2))
    return GripperScene(gripper, video, Observation(views, T_ref_gripper[0], 0.08), T_ref_gripper, opening, labels)
