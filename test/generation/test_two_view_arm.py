"""The arm's skeleton as rays see it: plain geometry, for any weights."""

import numpy as np
import pytest
import torch

from geo4d_ros.generation.two_view.arm import BONE_FEATURES, WIDTHS, ArmHead, bone_motions, bones_seen, nearest_bone
from geo4d_ros.geometry.transforms import from_rotvec, transform_points

BELLS, SIDE, NORMAL, ALONG, AWAY = slice(0, 3), 3, slice(4, 6), 6, 7


def seen(joints, directions, T=None):
    """Features (rays, bones, BONE_FEATURES) of rays from the origin, everything moved by T."""
    T = np.eye(4) if T is None else T
    directions = np.asarray(directions, float) / np.linalg.norm(directions, axis=-1, keepdims=True)
    tensor = lambda a: torch.as_tensor(np.asarray(a, float))  # noqa: E731
    out = bones_seen(tensor(transform_points(T, np.asarray(joints, float)))[None, None],
                     tensor(directions @ T[:3, :3].T)[None, None, None], tensor(T[:3, 3])[None, None],
                     tensor(T[:3, :3])[None, None])
    return out[0, 0, 0, 0].unflatten(-1, (-1, BONE_FEATURES)).numpy()


def test_a_ray_through_a_bone_meets_it_where_it_is():
    bone = [[-0.2, 0, 1.0], [0.2, 0, 1.0]]
    hit = seen(bone, [[0.1, 0, 1.0]])[0, 0]
    np.testing.assert_allclose(hit[BELLS], 1, atol=1e-6)
    np.testing.assert_allclose(hit[ALONG], 0.75, atol=1e-6)
    np.testing.assert_allclose(hit[AWAY], np.hypot(0.1, 1.0), atol=1e-6)


def test_both_sides_of_a_bone_are_told_apart_and_its_ends_are_ends():
    bone = [[-0.2, 0, 1.0], [0.2, 0, 1.0]]
    above, below, beyond = seen(bone, [[0, -0.05, 1.0], [0, 0.05, 1.0], [0.4, 0, 1.0]])[:, 0]
    assert above[SIDE] * above[NORMAL][1] == pytest.approx(-below[SIDE] * below[NORMAL][1])
    np.testing.assert_allclose(above[BELLS], below[BELLS], atol=1e-9)
    reach = 0.4 - 0.2 - 0.2 * (1 - 1 / (1 + 0.16))  # roughly: what the ray passes the end by
    assert np.exp(-(0.2 / WIDTHS[1])**2) < beyond[1] < np.exp(-(reach * 0.8 / WIDTHS[1])**2)


def test_it_depends_on_where_the_arm_is_seen_from_only():
    rng = np.random.default_rng(0)
    joints = rng.normal(0, 0.3, (5, 3)) + np.array([0, 0, 1.0])
    rays = rng.normal(0, 0.3, (20, 3)) + np.array([0, 0, 1.0])
    T = from_rotvec(np.array([0.4, -1.0, 2.0]), np.array([0.3, -0.1, 0.6]))
    np.testing.assert_allclose(seen(joints, rays, T), seen(joints, rays), atol=1e-6)


def test_nothing_is_said_where_no_bone_is_near_and_degenerate_bones_are_finite():
    far = seen([[0, 3.0, 1.0], [0.1, 3.0, 1.0]], [[0, 0, 1.0]])
    assert np.abs(far).max() < 1e-6
    assert np.isfinite(seen([[0, 0, 1.0]] * 3, [[0, 0, 1.0], [0, 0.1, 1.0]])).all()


ARM = torch.tensor([[0.0, 0, 0], [0, 0, 0.3], [0.1, 0, 0.6], [0.3, 0.1, 0.6], [0.5, 0.1, 0.4]], dtype=torch.float64)


def motion(seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.as_tensor(from_rotvec(rng.normal(0, 0.8, 3), rng.normal(0, 0.3, 3)))


@pytest.mark.parametrize('seed', range(5))
def test_an_arm_that_moves_as_one_body_moves_every_bone_so(seed):
    T = motion(seed)
    moved = ARM @ T[:3, :3].T + T[:3, 3]
    motions = bone_motions(ARM[None], moved[None, None], T[None, None])[0, 0]
    torch.testing.assert_close(motions, T.expand(4, 4, 4), atol=1e-6, rtol=0)


def test_a_bone_lands_between_its_joints_and_the_last_follows_the_hand():
    rng = np.random.default_rng(0)
    arm, T = ARM + torch.as_tensor(rng.normal(0, 0.03, ARM.shape)), motion(1)
    motions = bone_motions(ARM[None], arm[None, None], T[None, None])[0, 0]
    for i in range(3):
        ends = ARM[i:i + 2] @ motions[i, :3, :3].T + motions[i, :3, 3]
        assert (ends - arm[i:i + 2]).norm(dim=-1).max() < 0.06, 'no farther than the bones changed in length'
        torch.testing.assert_close(torch.linalg.det(motions[i, :3, :3]), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(motions[-1], T)


def test_points_belong_to_the_bone_beside_them_beyond_its_ends_too():
    points = torch.tensor([[0.05, 0, 0.1], [-0.05, 0, -0.3], [0.2, 0.1, 0.62], [0.6, 0.1, 0.3]], dtype=torch.float64)
    assert nearest_bone(points[None], ARM[None])[0].tolist() == [0, 0, 2, 3]


def test_before_training_the_base_stays_and_the_hand_goes_with_the_gripper():
    torch.manual_seed(0)
    head, T = ArmHead(16, 5).double(), motion(2)
    torch.nn.init.zeros_(head.out[-1].weight)
    torch.nn.init.zeros_(head.out[-1].bias)
    joints = head(T[None, None], ARM[None])[0, 0]
    taken = ARM @ T[:3, :3].T + T[:3, 3]
    share = (joints - ARM).norm(dim=-1) / (taken - ARM).norm(dim=-1)
    assert share[0] < 0.1 and share[-1] > 0.9 and bool((share.diff() > 0).all())
