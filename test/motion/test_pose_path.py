"""The sampled path: through every pose, fine enough, without overshoot."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.geometry.transforms import from_rotvec, make_transform, rotation_angle, translation_distance
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.path import densify

LIMITS = MotionLimits()


def chain(steps):
    T, out = np.eye(4), []
    for x, y, z, a, b, c in steps:
        T = make_transform(T[:3, :3] @ from_rotvec(np.array([a, b, c]))[:3, :3], T[:3, 3] + [x, y, z])
        out.append(T)
    return np.array(out)


step = st.tuples(*[st.floats(-0.05, 0.05)] * 3, *[st.floats(-0.2, 0.2)] * 3)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(step, min_size=1, max_size=8))
def test_the_path_passes_every_pose_in_small_samples(steps):
    goals = chain(steps)
    path = densify(np.eye(4), goals, LIMITS)
    assert (path.T[0] == np.eye(4)).all()
    for i, goal in enumerate(goals):
        at = path.T[path.sample_of_pose(i)]
        assert translation_distance(at, goal) <= 0.001 + 1e-9 and rotation_angle(at, goal) <= np.radians(0.3) + 1e-9
    assert (rotation_angle(path.T[:-1], path.T[1:]) <= LIMITS.sample_angle + 1e-9).all()
    assert (translation_distance(path.T[:-1], path.T[1:]) <= 1.6 * LIMITS.sample_distance).all()
    assert path.sample_of_pose(-1) == 0 and path.poses_within(len(path.T)) == len(goals)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(step, min_size=1, max_size=8))
def test_no_coordinate_overshoots_its_poses(steps):
    goals = chain(steps)
    p = densify(np.eye(4), goals, LIMITS).T[:, :3, 3]
    corners = np.concatenate([np.zeros((1, 3)), goals[:, :3, 3]])
    assert (p >= corners.min(axis=0) - 1e-9).all() and (p <= corners.max(axis=0) + 1e-9).all()


def test_pauses_are_no_samples():
    goals = np.stack([np.eye(4)] * 3)
    path = densify(np.eye(4), goals, LIMITS)
    assert len(path.T) == 1 and path.poses_within(1) == 3 and path.poses_within(0) == 0


def test_a_cut_path_reaches_only_the_poses_before_the_cut():
    goals = chain([(0.03, 0, 0, 0, 0, 0)] * 4)
    path = densify(np.eye(4), goals, LIMITS)
    third = path.sample_of_pose(2)
    assert path.poses_within(third) == 2 and path.poses_within(third + 1) == 3
