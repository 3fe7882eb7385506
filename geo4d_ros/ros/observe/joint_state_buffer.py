"""The last seconds of /joint_states, read at any stamp; several publishers may each carry some joints."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Sequence

import numpy as np
from sensor_msgs.msg import JointState

from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.observe.receiver import Receiver
from geo4d_ros.ros.serve.qos import SENSOR_QOS
from geo4d_ros.ros.wire.conversions import to_nanoseconds


class JointStateBuffer:
    """Keeps `history` samples per joint; thread-safe."""

    def __init__(self, history: int = 1000) -> None:
        self._samples: dict[str, deque[tuple[int, float]]] = defaultdict(lambda: deque(maxlen=history))
        self._lock = threading.Lock()

    def add(self, stamp: int, names: Sequence[str], positions: Sequence[float]) -> None:
        """Store one message; joints without a position are left out, a clock that jumps back starts anew."""
        with self._lock:
            for name, position in zip(names, positions, strict=False):
                samples = self._samples[name]
                if samples and stamp < samples[-1][0]:
                    samples.clear()
                samples.append((stamp, float(position)))

    def at(self, stamp: int, names: Sequence[str], max_age_s: float = 0.1) -> np.ndarray | Refusal:
        """Positions (len(names),) at `stamp` [ns], interpolated; held for `max_age_s` past the newest sample."""
        out = []
        with self._lock:
            for name in names:
                samples = self._samples.get(name)
                if not samples:
                    return Refusal(Reason.ROBOT_STATE_INVALID, f'no joint state of {name!r} was received; known: '
                                   f'{", ".join(sorted(self._samples)) or "none"}')
                times = np.array([t for t, _ in samples])
                gap = max(times[0] - stamp, stamp - times[-1]) * 1e-9
                if gap > max_age_s:
                    return Refusal(Reason.JOINT_STATES_STALE, f'{name!r} is known {gap:.3f} s away from the stamp '
                                   f'asked for, {max_age_s} s allowed', {'age_s': float(gap)})
                # Relative to the stamp: nanoseconds since 1970 do not fit a float64.
                out.append(float(np.interp(0, (times - stamp).astype(float), [p for _, p in samples])))
        positions = np.array(out)
        if not np.isfinite(positions).all():
            return Refusal(Reason.ROBOT_STATE_INVALID, f'joint states {list(names)} are {positions.tolist()}')
        return positions


def listen_to_joint_states(receiver: Receiver, buffer: JointStateBuffer) -> None:
    """Feed `buffer` from the topic joint_states."""
    receiver.create_subscription(
        JointState, 'joint_states',
        lambda m: buffer.add(to_nanoseconds(m.header.stamp), m.name, m.position), SENSOR_QOS)
