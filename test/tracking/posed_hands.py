"""Gripper poses and their silhouettes by brute force, for the tests of what draws them faster."""

import numpy as np

from geo4d_ros.geometry.cameras import intrinsics, project
from geo4d_ros.geometry.transforms import from_rotvec, transform_points
from geo4d_ros.robots.gripper import gripper_of

K = intrinsics(134.4, 128, 96)
SIZE = (96, 128)


def union_of_triangles(vertices, faces):
    uv, _ = project(vertices, K)
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    mask = np.zeros(SIZE, bool)
    for a, b, c in uv[faces]:
        side = [(q[0] - p[0]) * (v - p[1]) - (q[1] - p[1]) * (u - p[0]) for p, q in ((a, b), (b, c), (c, a))]
        mask |= np.all([s >= 0 for s in side], axis=0) | np.all([s <= 0 for s in side], axis=0)
    return mask


def posed(turn, place, opening=0.06):
    vertices, faces, _ = gripper_of().posed(opening)
    return transform_points(from_rotvec(np.array(turn), np.array(place)), vertices), faces
