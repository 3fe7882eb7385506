"""Joint trajectories between arrays and trajectory_msgs, in the order of the caller's joints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from geo4d_ros.errors import InvalidInputError, require
from geo4d_ros.ros.wire.conversions import to_duration, to_nanoseconds


def to_message(joint_names: Sequence[str], times: np.ndarray, positions: np.ndarray,
               velocities: np.ndarray | None = None, accelerations: np.ndarray | None = None) -> JointTrajectory:
    """times (n,) [s], the rest (n, j) [rad, rad/s, rad/s^2]; stamp 0 means 'start now'."""
    message = JointTrajectory(joint_names=list(joint_names))
    for i, t in enumerate(times):
        point = JointTrajectoryPoint(time_from_start=to_duration(float(t)), positions=positions[i].tolist())
        if velocities is not None:
            point.velocities = velocities[i].tolist()
        if accelerations is not None:
            point.accelerations = accelerations[i].tolist()
        message.points.append(point)
    return message


def from_message(message: JointTrajectory, joint_names: Sequence[str]) -> tuple[np.ndarray, ...]:
    """times (n,), positions (n, j), velocities or None, accelerations or None, joints in `joint_names` order.

    Velocities (accelerations) count only when every point has them. Raises InvalidInputError when joints,
    sizes or points are missing; the numbers themselves are not judged here.
    """
    require(len(message.points) > 0, 'the trajectory has no points')
    names = list(message.joint_names)
    if sorted(names) != sorted(joint_names):
        raise InvalidInputError(f'the trajectory should name the joints {list(joint_names)} but has {names}')
    order = [names.index(name) for name in joint_names]
    times = np.array([to_nanoseconds(p.time_from_start) * 1e-9 for p in message.points])

    def column(field: str) -> np.ndarray | None:
        rows = [getattr(p, field) for p in message.points]
        if not all(len(row) == len(names) for row in rows):
            require(not any(len(row) not in (0, len(names)) for row in rows),
                    f'{field} of a point should have {len(names)} values')
            return None
        return np.array(rows, dtype=float)[:, order]

    positions = column('positions')
    require(positions is not None, 'every point of the trajectory needs positions')
    velocities = column('velocities')
    accelerations = column('accelerations') if velocities is not None else None
    return times, positions, velocities, accelerations
