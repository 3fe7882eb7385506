"""A small transform buffer on /tf and /tf_static (tf2_py is C++ and not on PyPI)."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort

import numpy as np
from tf2_msgs.msg import TFMessage

from geo4d_ros.errors import Geo4dError
from geo4d_ros.geometry.transforms import interpolate, invert
from geo4d_ros.ros.observe.receiver import Receiver
from geo4d_ros.ros.serve.qos import TF_QOS, TF_STATIC_QOS
from geo4d_ros.ros.wire.conversions import read_transform, to_nanoseconds


class TransformError(Geo4dError):
    """A transform is unknown, or not known at the stamp asked for."""


class TransformBuffer:
    """The tree of frames over the last seconds; thread-safe. T_a_b = pose of b in a."""

    def __init__(self, history_s: float = 10.0) -> None:
        self.history = int(history_s * 1e9)
        self._moving: dict[str, tuple[str, list[tuple[int, int]], dict[int, np.ndarray]]] = {}
        self._static: dict[str, tuple[str, np.ndarray]] = {}
        self._lock = threading.Lock()
        self._count = 0

    def add_static(self, parent: str, child: str, T_parent_child: np.ndarray) -> None:
        """A transform that holds at any time; the newest one wins."""
        with self._lock:
            self._static[child] = (parent, T_parent_child)

    def add(self, parent: str, child: str, stamp: int, T_parent_child: np.ndarray) -> None:
        """A transform at a stamp [ns]; a jump back of the clock forgets what came before."""
        with self._lock:
            known = self._moving.get(child)
            if known is None or known[0] != parent or (known[1] and stamp < known[1][-1][0] - self.history):
                known = self._moving[child] = (parent, [], {})
            _, order, values = known
            self._count += 1
            insort(order, (stamp, self._count))
            values[self._count] = T_parent_child
            while order[0][0] < order[-1][0] - self.history:
                del values[order.pop(0)[1]]

    def lookup(self, target: str, source: str, stamp: int | None = None, tolerance_s: float = 0.1) -> np.ndarray:
        """T_target_source (4, 4) at `stamp` [ns], interpolated; None takes the newest of each link.

        Beyond the newest sample a link may be held for `tolerance_s`, never extrapolated further.
        Raises TransformError naming the frames or the gap.
        """
        with self._lock:
            up_target, up_source = self._chain(target), self._chain(source)
            common = next((frame for frame in up_target if frame in up_source), None)
            if common is None:
                raise TransformError(f'no transform between {target!r} and {source!r}; known frames: '
                                     f'{", ".join(sorted({*self._static, *self._moving})) or "none"}')
            T_common_target = self._compose(up_target, common, stamp, tolerance_s)
            T_common_source = self._compose(up_source, common, stamp, tolerance_s)
        return invert(T_common_target) @ T_common_source

    def _parent(self, frame: str) -> str | None:
        known = self._moving.get(frame) or self._static.get(frame)
        return known[0] if known else None

    def _chain(self, frame: str) -> list[str]:
        chain = [frame]
        while (parent := self._parent(chain[-1])) is not None:
            if parent in chain:
                raise TransformError(f'the transform tree has a loop at {parent!r}')
            chain.append(parent)
        return chain

    def _compose(self, chain: list[str], common: str, stamp: int | None, tolerance_s: float) -> np.ndarray:
        T = np.eye(4)
        for child in chain[:chain.index(common)]:
            T = self._link(child, stamp, tolerance_s) @ T
        return T

    def _link(self, child: str, stamp: int | None, tolerance_s: float) -> np.ndarray:
        if child not in self._moving:
            return self._static[child][1]
        parent, order, values = self._moving[child]
        if stamp is None:
            return values[order[-1][1]]
        at = bisect_left(order, (stamp, 0))
        if at < len(order) and (order[at][0] == stamp or at > 0):
            if order[at][0] == stamp:
                return values[order[at][1]]
            (t0, a), (t1, b) = order[at - 1], order[at]
            return interpolate(values[a], values[b], np.array([(stamp - t0) / (t1 - t0)]))[0]
        nearest, key = order[0] if at == 0 else order[-1]
        if abs(stamp - nearest) > tolerance_s * 1e9:
            raise TransformError(f'{parent!r} -> {child!r} is {(stamp - nearest) * 1e-9:+.3f} s away from the '
                                 f'stamp asked for, {tolerance_s} s allowed')
        return values[key]


class TransformListener:
    """Feeds a `TransformBuffer` from /tf and /tf_static; bad transforms are counted, not used."""

    def __init__(self, receiver: Receiver, buffer: TransformBuffer) -> None:
        self.buffer, self.rejected = buffer, 0
        receiver.create_subscription(TFMessage, '/tf', lambda m: self._receive(m, False), TF_QOS)
        receiver.create_subscription(TFMessage, '/tf_static', lambda m: self._receive(m, True), TF_STATIC_QOS)

    def _receive(self, message: TFMessage, static: bool) -> None:
        for item in message.transforms:
            parent, child = item.header.frame_id.lstrip('/'), item.child_frame_id.lstrip('/')
            try:
                T = read_transform(item.transform)
            except Geo4dError:
                self.rejected += 1
                continue
            if static:
                self.buffer.add_static(parent, child, T)
            else:
                self.buffer.add(parent, child, to_nanoseconds(item.header.stamp), T)
