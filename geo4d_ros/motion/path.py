"""The tool's path through the poses of a plan: a smooth curve, sampled finely enough to check."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation, Slerp

from geo4d_ros.geometry.transforms import rotation_angle, translation_distance
from geo4d_ros.motion.limits import MotionLimits

_SAME_DISTANCE = 0.001  # m: a pose this near its predecessor (and within the angle) is a pause, not a move
_SAME_ANGLE = np.radians(0.3)


@dataclass(frozen=True)
class PosePath:
    """Tool poses T (N, 4, 4) in the base frame from where the arm stands through the poses of a plan.

    pose_samples (n + 1,): sample index of the start (0) and of each pose of the plan.
    """

    T: np.ndarray
    pose_samples: np.ndarray

    def sample_of_pose(self, pose: int) -> int:
        """Sample index of the plan's pose `pose` (-1: the start)."""
        return int(self.pose_samples[pose + 1])

    def poses_within(self, samples: int) -> int:
        """How many poses of the plan lie within the first `samples` samples."""
        return int((self.pose_samples[1:] < samples).sum())


def densify(T_start: np.ndarray, T: np.ndarray, limits: MotionLimits) -> PosePath:
    """Sample the path from T_start (4, 4) through T (n, 4, 4), at most one sample distance and angle apart.

    Positions follow a monotone cubic (PCHIP, Fritsch and Carlson 1980): no coordinate overshoots the poses
    it joins, and there are no corners that would force a stop. Rotations turn at a constant rate.
    """
    chain = np.concatenate([T_start[None], T])
    kept = [0]
    member = [0]
    for i in range(1, len(chain)):
        last = chain[kept[-1]]
        if translation_distance(last, chain[i]) > _SAME_DISTANCE or rotation_angle(last, chain[i]) > _SAME_ANGLE:
            kept.append(i)
        member.append(len(kept) - 1)
    if len(kept) == 1:
        return PosePath(T_start[None].copy(), np.zeros(len(chain), dtype=int))
    knots = chain[kept]
    samples, starts = _sample(knots, limits)
    return PosePath(samples, starts[np.array(member)])


def _sample(knots: np.ndarray, limits: MotionLimits) -> tuple[np.ndarray, np.ndarray]:
    """Poses along the curve through the knots, and the sample index of each knot."""
    distance = translation_distance(knots[:-1], knots[1:])
    angle = rotation_angle(knots[:-1], knots[1:])
    s = np.concatenate([[0.0], np.cumsum(np.maximum(distance / limits.speed, angle / limits.angular_speed))])
    with np.errstate(over='ignore'):  # steps of 1e-300 m, whose slope is rightly taken as 0
        curve = PchipInterpolator(s, knots[:, :3, 3])
    turn = Slerp(s, Rotation.from_matrix(knots[:, :3, :3]))
    # A monotone cubic runs up to three times faster than the straight line, hence the factor.
    count = np.ceil(np.maximum(1.6 * distance / limits.sample_distance, angle / limits.sample_angle)).astype(int)
    count = np.maximum(count, 2)
    fine = np.concatenate([np.linspace(a, b, n, endpoint=False)
                           for a, b, n in zip(s[:-1], s[1:], count, strict=True)] + [s[-1:]])
    T = np.tile(np.eye(4), (len(fine), 1, 1))
    T[:, :3, :3] = turn(fine).as_matrix()
    T[:, :3, 3] = curve(fine)
    return T, np.concatenate([[0], np.cumsum(count)])
