"""Pictures of the fingers as the tool frame sees them: every view sampled on one metric grid between the fingers."""

from __future__ import annotations

import numpy as np

# The grid lies in the plane in which the fingers slide: columns along y, rows along z (the approach) of the tool frame.
ROWS, COLUMNS, CELL_M = 24, 32, 0.004
FIRST_Z_M = -0.052
CHANNELS = 5  # red, green, blue, depth behind the grid, inside the image
DEPTH_UNIT_M, MAX_DEPTH_UNITS = 0.05, 2.0
SCALARS = 5  # of `view_scalars`


def grid_points() -> np.ndarray:
    """Points (ROWS * COLUMNS, 3) [m] of the grid in the tool frame, row by row."""
    y = (np.arange(COLUMNS) - (COLUMNS - 1) / 2) * CELL_M
    z = FIRST_Z_M + np.arange(ROWS) * CELL_M
    Z, Y = np.meshgrid(z, y, indexing='ij')
    return np.stack([np.zeros(Y.size), Y.ravel(), Z.ravel()], axis=1)


def finger_patches(rgb: np.ndarray, depth: np.ndarray, K: np.ndarray, T_view_gripper: np.ndarray) -> np.ndarray:
    """Patches (V, F, CHANNELS, ROWS, COLUMNS) float32 of frames at the gripper's poses T_view_gripper (V, F, 4, 4).

    rgb (V, F, H, W, 3) uint8, depth (V, F, H, W) [m], 0 = invalid, K (V, 3, 3). Colours in [-1, 1]. The depth channel
    says by how much what is seen lies behind the grid's own point, in DEPTH_UNIT_M and cut at MAX_DEPTH_UNITS: fingers
    are near 0, the table is beyond, the hand in front; 0 where there is no depth.
    """
    views, frames, height, width = depth.shape
    points = grid_points() @ np.swapaxes(T_view_gripper[..., :3, :3], -1, -2) + T_view_gripper[..., None, :3, 3]
    z = np.maximum(points[..., 2], 0.05)
    u = points[..., 0] / z * K[:, 0, 0, None, None] + K[:, 0, 2, None, None]
    v = points[..., 1] / z * K[:, 1, 1, None, None] + K[:, 1, 2, None, None]
    inside = (u >= 0) & (v >= 0) & (u <= width - 1) & (v <= height - 1) & (points[..., 2] > 0.05)
    u, v = np.clip(u, 0, width - 1.001), np.clip(v, 0, height - 1.001)
    x, y = u.astype(np.intp), v.astype(np.intp)
    fx, fy = (u - x).astype(np.float32), (v - y).astype(np.float32)
    base = (np.arange(views * frames).reshape(views, frames, 1) * height + y) * width + x
    colour, flat_depth = rgb.reshape(-1, 3), depth.reshape(-1)
    mixed = np.zeros((*base.shape, 3), np.float32)
    near, seen = np.zeros(base.shape, np.float32), np.zeros(base.shape, np.float32)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (fx if dx else 1 - fx) * (fy if dy else 1 - fy)
            index = base + dy * width + dx
            mixed += weight[..., None] * colour[index]
            d = flat_depth[index]
            near += weight * d
            seen += weight * (d > 0)
    behind = np.clip((near / np.maximum(seen, 1e-3) - points[..., 2]) / DEPTH_UNIT_M,
                     -MAX_DEPTH_UNITS, MAX_DEPTH_UNITS)
    behind = np.where(seen > 0.5, behind, 0)
    patch = np.concatenate([mixed / 127.5 - 1, behind[..., None], inside[..., None]], -1) * inside[..., None]
    return np.ascontiguousarray(np.moveaxis(patch, -1, 2).reshape(views, frames, CHANNELS, ROWS, COLUMNS), np.float32)


def view_scalars(K: np.ndarray, T_view_gripper: np.ndarray) -> np.ndarray:
    """Where each view stands, (V, F, SCALARS) float32: its direction in the tool frame and that direction's |x| (1:
    the fingers slide across the line of sight), and pixels per cell of the grid."""
    R, t = T_view_gripper[..., :3, :3], T_view_gripper[..., :3, 3]
    camera = -np.einsum('vfji,vfj->vfi', R, t)
    distance = np.maximum(np.linalg.norm(camera, axis=-1, keepdims=True), 0.05)
    direction = camera / distance
    scale = CELL_M * K[:, 0, 0, None, None] / distance
    return np.concatenate([direction, np.abs(direction[..., :1]), scale], -1).astype(np.float32)
