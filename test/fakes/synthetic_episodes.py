"""Tiny episodes: a bright square, the gripper, glides over a tilted plane in front of three cameras."""

import numpy as np

from geo4d_ros.data.episodes import write_episode
from geo4d_ros.geometry.transforms import make_transform

CAMERAS, FRAMES, SIZE = 3, 24, 32


def episode_arrays(seed):
    """Arrays of the episode schema at 32x32."""
    rng = np.random.default_rng(seed)
    rgb = np.full((CAMERAS, FRAMES, SIZE, SIZE, 3), 90, np.uint8)
    rgb += rng.integers(0, 40, (CAMERAS, 1, SIZE, SIZE, 3), dtype=np.uint8)
    rows = np.linspace(0, 2000, SIZE)[:, None]
    depth = np.broadcast_to(8000 + rows, (CAMERAS, FRAMES, SIZE, SIZE)).astype(np.uint16)
    labels = np.zeros((CAMERAS, FRAMES, SIZE, SIZE), np.uint8)
    for t in range(FRAMES):
        corner = 2 + t
        square = (slice(None), t, slice(10, 16), slice(corner, corner + 6))
        rgb[square] = 230
        depth[square] = 7000
        labels[square] = 2
    gripper = np.tile(np.diag([1.0, -1, -1, 1]), (FRAMES, 1, 1))
    gripper[:, 0, 3] = 0.3 + 0.01 * np.arange(FRAMES)
    cameras = np.stack([make_transform(t=np.array([0.0, 0.05 * c, 0])) for c in range(CAMERAS)])
    K = np.array([[34.0, 0, 15.5], [0, 34, 15.5], [0, 0, 1]])
    return {
        'rgb': rgb, 'depth': depth, 'labels': labels, 'K': np.tile(K, (CAMERAS, 1, 1)), 'T_base_camera': cameras,
        'T_base_gripper': gripper, 'joints': np.zeros((FRAMES, 7)), 'opening': np.full(FRAMES, 0.04),
        'opening_command': np.full(FRAMES, 0.04), 'object_pose': np.tile(np.eye(4), (FRAMES, 1, 1)),
        'times': np.arange(FRAMES) * 0.25,
    }


def write_episodes(directory, count=3):
    """`count` episodes in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        write_episode(directory, episode_arrays(seed),
                      {'task': 'apple', 'seed': seed, 'success': True, 'perturbed': False})
