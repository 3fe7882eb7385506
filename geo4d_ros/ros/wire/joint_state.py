"""sensor_msgs/JointState -> `JointSample`, total: whatever the message holds, a value or a refusal comes out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import JointState

from geo4d_ros.ros.wire.conversions import to_nanoseconds
from geo4d_ros.ros.wire.guard import Malformed

MOST_JOINTS = 256


@dataclass(frozen=True)
class JointSample:
    """Measured joints at a stamp [ns]: positions (n,) [rad or m], velocities (n,) or None where none are sent."""

    stamp: int
    names: tuple[str, ...]
    positions: np.ndarray
    velocities: np.ndarray | None

    def row(self, name: str) -> int | None:
        """Where a joint is, None when the message does not carry it."""
        return self.names.index(name) if name in self.names else None


def parse_joint_state(message: JointState) -> JointSample | Malformed:
    """Names are unique and as many as positions; numbers are finite; velocities may be missing altogether."""
    names, n = tuple(message.name), len(message.name)
    if not 0 < n <= MOST_JOINTS:
        return Malformed('name', f'{n} names', f'1 to {MOST_JOINTS} joints are read')
    if len(set(names)) != n:
        doubled = sorted({name for name in names if names.count(name) > 1})
        return Malformed('name', doubled, 'a joint is named twice')
    if len(message.position) != n:
        count = len(message.position)
        return Malformed('position', f'{count} values', f'positions are {"missing" if not count else "too many or few"}'
                         f' for {n} names')
    if len(message.velocity) not in (0, n):
        return Malformed('velocity', f'{len(message.velocity)} values', f'velocities should be {n} or none')
    positions = np.array(message.position, np.float64)
    if not np.isfinite(positions).all():
        return Malformed('position', positions.tolist(), 'not finite')
    velocities = np.array(message.velocity, np.float64) if len(message.velocity) else None
    if velocities is not None and not np.isfinite(velocities).all():
        return Malformed('velocity', velocities.tolist(), 'not finite')
    stamp = to_nanoseconds(message.header.stamp)
    if stamp < 0:
        return Malformed('header.stamp', message.header.stamp.sec, 'before 1970')
    return JointSample(stamp, names, positions, velocities)
