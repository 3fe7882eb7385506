"""The camera rig: random RGB-D views on a hemispherical shell; training never sees some azimuths.

Azimuth is measured about the table centre from the +x axis of the base (0 = looking back at the robot from
the front, positive towards +y). The rig spans +-135 deg. Held out are two bands of it, and between a band and
the training region lies a margin that belongs to neither.
"""

from __future__ import annotations

import numpy as np

from geo4d_ros.errors import InvalidInputError, require
from geo4d_ros.geometry.cameras import Camera, intrinsics, look_at, project

TABLE_CENTRE = np.array([0.5, 0.0, 0.1])  # centre of the shell
LOOK_AT = np.array([0.48, 0.0, 0.15])  # between the table and the hand at home
FOCAL_PER_WIDTH = 1.05
RADIUS_M = (0.7, 1.2)
ELEVATION_DEG = (25.0, 60.0)
AZIMUTH_LIMIT_DEG = 135.0
HELD_OUT_AZIMUTHS_DEG = ((-80.0, -55.0), (40.0, 65.0))
MARGIN_DEG = 3.0
TARGET_JITTER_M = 0.04
MIN_SEPARATION_DEG = 20.0
# Box around the hand and fingers at the expert's start, which every camera has to see: centre, half sizes.
HOME_HAND_CENTRE = np.array([0.45, 0.0, 0.33])
HOME_HAND_HALF = np.array([0.05, 0.11, 0.06])
TABLE_CORNERS = np.array([[x, y, 0] for x in (0.40, 0.60) for y in (-0.20, 0.20)])
VIEW_MARGIN = 0.02  # of the image's width, around what has to be in view
SPLITS = ('train', 'held-out')


def _allowed_intervals(split: str) -> list[tuple[float, float]]:
    if split == 'held-out':
        return list(HELD_OUT_AZIMUTHS_DEG)
    require(split == 'train', f'split should be one of {SPLITS} but got {split!r}')
    edges = [-AZIMUTH_LIMIT_DEG]
    for low, high in HELD_OUT_AZIMUTHS_DEG:
        edges += [low - MARGIN_DEG, high + MARGIN_DEG]
    edges.append(AZIMUTH_LIMIT_DEG)
    return list(zip(edges[::2], edges[1::2], strict=True))


def azimuth_deg(camera: Camera) -> float:
    """Azimuth [deg] of a camera's position about the table centre, in (-180, 180]."""
    offset = camera.T_base_camera[:3, 3] - TABLE_CENTRE
    return float(np.degrees(np.arctan2(offset[1], offset[0])))


def view_separation_deg(a: Camera, b: Camera) -> float:
    """Angle [deg] between two cameras as seen from the table centre."""
    u, v = (c.T_base_camera[:3, 3] - TABLE_CENTRE for c in (a, b))
    return float(np.degrees(np.arccos(np.clip(u @ v / np.linalg.norm(u) / np.linalg.norm(v), -1, 1))))


def sees(camera: Camera, points: np.ndarray) -> bool:
    """Whether all points (n, 3) [m] in the base frame project into the image, with a small margin."""
    T = camera.T_base_camera
    pixels, z = project((points - T[:3, 3]) @ T[:3, :3], camera.K)
    margin = VIEW_MARGIN * camera.width
    inside = (pixels >= margin) & (pixels <= [camera.width - 1 - margin, camera.height - 1 - margin])
    return bool((z > 0.1).all() and inside.all())


def sees_workspace(camera: Camera) -> bool:
    """Whether the box around the hand at its start and the places of the tasks' things are in the image."""
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T
    return sees(camera, np.concatenate([HOME_HAND_CENTRE + signs * HOME_HAND_HALF, TABLE_CORNERS]))


def _sample_camera(rng: np.random.Generator, split: str, width: int, height: int) -> Camera:
    intervals = np.array(_allowed_intervals(split))
    lengths = intervals[:, 1] - intervals[:, 0]
    low, high = intervals[rng.choice(len(intervals), p=lengths / lengths.sum())]
    azimuth, elevation = np.radians(rng.uniform(low, high)), np.radians(rng.uniform(*ELEVATION_DEG))
    direction = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth),
                          np.sin(elevation)])
    position = TABLE_CENTRE + rng.uniform(*RADIUS_M) * direction
    target = LOOK_AT + rng.uniform(-TARGET_JITTER_M, TARGET_JITTER_M, 3)
    K = intrinsics(FOCAL_PER_WIDTH * width, width, height)
    return Camera(K, look_at(position, target), width, height)


def sample_cameras(
    rng: np.random.Generator, n: int, split: str = 'train', width: int = 128, height: int = 96
) -> tuple[Camera, ...]:
    """n cameras of the split ('train' or 'held-out'), 20 deg apart or more, each seeing hand and table.

    Raises InvalidInputError for an unknown split or more cameras than fit the region apart from each other.
    """
    require(n >= 1, f'at least one camera is needed but got {n}')
    for _ in range(50):
        cameras: list[Camera] = []
        for _ in range(60 * n):
            camera = _sample_camera(rng, split, width, height)
            apart = all(view_separation_deg(camera, other) >= MIN_SEPARATION_DEG for other in cameras)
            if apart and sees_workspace(camera):
                cameras.append(camera)
                if len(cameras) == n:
                    return tuple(cameras)
    raise InvalidInputError(
        f'{n} {split} cameras {MIN_SEPARATION_DEG:.0f} deg apart do not fit; ask for fewer')
