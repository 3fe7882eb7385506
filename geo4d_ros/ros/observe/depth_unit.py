"""Recognises depth in a wrong unit by comparison with the robot, whose place is known."""

from __future__ import annotations

import numpy as np

from geo4d_ros.geometry.cameras import project
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.types import Observation

WINDOW = 6  # [px] around a point of the arm in which its surface is looked for
FEWEST = 2  # points of the arm that have to tell the same
UNITS = (10.0, 1000.0, 0.1, 0.001)  # by which depth is off where 0.1 mm, m and mm are mixed up
NEAR = 1.6  # a ratio within this factor of a unit is taken for it


def depth_ratio(observation: Observation) -> float | None:
    """Measured over expected depth at the arm's points in the reference view (median); None with too few in view."""
    reference = observation.views[0]
    points = [] if observation.arm_points is None else [*observation.arm_points]
    if observation.T_ref_gripper is not None:
        points.append(observation.T_ref_gripper[:3, 3])
    if not points:
        return None
    pixels, expected = project(np.array(points), reference.K)
    height, width = reference.depth.shape
    ratios = []
    for (u, v), z in zip(pixels, expected, strict=True):
        if not (z > 0.05 and 0 <= u < width and 0 <= v < height):
            continue
        row, column = int(v), int(u)
        patch = reference.depth[max(0, row - WINDOW):row + WINDOW + 1, max(0, column - WINDOW):column + WINDOW + 1]
        near = patch[patch > 0]
        if near.size:
            ratios.append(float(np.median(near)) / float(z))
    return float(np.median(ratios)) if len(ratios) >= FEWEST else None


def check_depth_unit(observation: Observation, unit: float) -> Refusal | None:
    """OBSERVATION_INVALID where the arm is seen ten or a thousand times nearer or farther than it is."""
    ratio = depth_ratio(observation)
    if ratio is None:
        return None
    for factor in UNITS:
        if factor / NEAR < ratio < factor * NEAR:
            return Refusal(Reason.OBSERVATION_INVALID, f'the depth unit is wrong: the arm is seen {ratio:.3g} times as '
                           f'far as it is; depth_unit is {unit:g} m per count, {unit / factor:g} would fit (a D405 '
                           'sends 0.1 mm)', {'ratio': ratio})
    return None
