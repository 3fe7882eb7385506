"""The last seconds of /joint_states, read at any stamp; several publishers may each carry some joints."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence

import numpy as np
from sensor_msgs.msg import JointState

from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.observe.receiver import Receiver
from geo4d_ros.ros.observe.transforms import GAP_S, SPACING
from geo4d_ros.ros.serve.qos import SENSOR_QOS
from geo4d_ros.ros.wire.guard import Boundary
from geo4d_ros.ros.wire.joint_state import JointSample, parse_joint_state
from geo4d_ros.ros.wire.sources import Sources

JOINTS = 512  # whose positions are kept


class JointStateBuffer:
    """Keeps `history` samples per joint, at least `SPACING` apart; thread-safe."""

    def __init__(self, history: int = 1000) -> None:
        self._samples: dict[str, deque[tuple[int, float]]] = defaultdict(lambda: deque(maxlen=history))
        self._sources = Sources()
        self._invalid = ''
        self._lock = threading.Lock()

    def add(self, sample: JointSample, number: int | None = None) -> None:
        """Store one message; a clock that jumps back, or another publisher, starts anew."""
        with self._lock:
            fresh = self._sources.see(sample.names, number, time.monotonic())
            self._invalid = ''
            for name, position in zip(sample.names, sample.positions.tolist(), strict=True):
                if name not in self._samples and len(self._samples) >= JOINTS:
                    del self._samples[next(iter(self._samples))]
                samples = self._samples[name]
                if samples and (fresh or sample.stamp < samples[-1][0]):
                    samples.clear()
                if len(samples) > 1 and sample.stamp - samples[-2][0] < SPACING:
                    samples.pop()
                samples.append((sample.stamp, position))

    def refuse(self, cause: str) -> None:
        """A message could not be used: until the next one that can, nothing is known."""
        with self._lock:
            self._invalid = cause

    def forget(self) -> None:
        """The clock jumped."""
        with self._lock:
            self._samples.clear()

    def at(self, stamp: int, names: Sequence[str], max_age_s: float = 0.1) -> np.ndarray | Refusal:
        """Positions (len(names),) at `stamp` [ns], interpolated; held for `max_age_s` past the newest sample."""
        with self._lock:
            if self._invalid:
                return Refusal(Reason.ROBOT_STATE_INVALID, self._invalid)
            if self._sources.doubled(names, time.monotonic()):
                return Refusal(Reason.ROBOT_STATE_INVALID, f'two publishers send {", ".join(names)} on joint_states: '
                               'end one of the two sources')
            out = [self._joint_at(name, stamp, max_age_s) for name in names]
        wrong = next((value for value in out if isinstance(value, Refusal)), None)
        return wrong if wrong is not None else np.array(out, float)

    def _joint_at(self, name: str, stamp: int, max_age_s: float) -> float | Refusal:
        samples = self._samples.get(name)
        if not samples:
            return Refusal(Reason.ROBOT_STATE_INVALID, f'no joint state of {name!r} was received (parameter '
                           f'finger_joints); known: {", ".join(sorted(self._samples)) or "none"}')
        times = np.array([t for t, _ in samples])
        at = int(np.searchsorted(times, stamp))
        before, after = times[max(at - 1, 0)], times[min(at, len(times) - 1)]
        gap = max(before - stamp, stamp - after, 0) * 1e-9
        if after - before > GAP_S * 1e9 and before <= stamp <= after:
            gap = min(stamp - before, after - stamp) * 1e-9
        if gap > max_age_s:
            return Refusal(Reason.JOINT_STATES_STALE, f'{name!r} is known {gap:.3f} s away from the stamp '
                           f'asked for, {max_age_s} s allowed', {'age_s': float(gap)})
        # Relative to the stamp: nanoseconds since 1970 do not fit a float64.
        return float(np.interp(0, (times - stamp).astype(float), [p for _, p in samples]))


def listen_to_joint_states(receiver: Receiver, boundary: Boundary, buffer: JointStateBuffer) -> None:
    """Feed `buffer` from the topic joint_states."""
    boundary.subscribe(JointState, 'joint_states', parse_joint_state, buffer.add, SENSOR_QOS, refused=buffer.refuse,
                       host=receiver)
