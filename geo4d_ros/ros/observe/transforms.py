"""A small transform buffer on /tf and /tf_static (tf2_py is C++ and not on PyPI)."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, insort

import numpy as np
from geometry_msgs.msg import TransformStamped
from tf2_msgs.msg import TFMessage

from geo4d_ros.errors import Geo4dError
from geo4d_ros.geometry.transforms import interpolate, invert
from geo4d_ros.ros.observe.receiver import Receiver
from geo4d_ros.ros.serve.qos import TF_QOS, TF_STATIC_QOS
from geo4d_ros.ros.wire.camera import frame_name
from geo4d_ros.ros.wire.conversions import read_transform, to_nanoseconds
from geo4d_ros.ros.wire.guard import Boundary, Malformed

FRAMES, SAMPLES = 512, 4000  # frames that are kept, samples of each
SPACING = 4_000_000  # [ns] between samples that are kept apart
GAP_S = 0.5  # [s] between two samples across which is still interpolated
FUTURE = 2_000_000_000  # [ns] ahead of the clock, which may be late on a busy machine
NAME = 256  # characters of a frame's name
MESSAGE_BYTES = 1 << 19


class TransformError(Geo4dError):
    """A transform is unknown, or not known at the stamp asked for."""


class TransformBuffer:
    """The tree of frames over the last seconds; thread-safe. T_a_b = pose of b in a."""

    def __init__(self, history_s: float = 10.0) -> None:
        self.history = int(history_s * 1e9)
        self._heard: dict[str, float] = {}  # steady time per moving frame
        self._moving: dict[str, tuple[str, list[tuple[int, int]], dict[int, np.ndarray]]] = {}
        self._static: dict[str, tuple[str, np.ndarray]] = {}
        self._lock = threading.Lock()
        self._count = 0

    def add_static(self, parent: str, child: str, T_parent_child: np.ndarray) -> None:
        """A transform that holds at any time; the newest one wins. TransformError beyond `FRAMES` of them."""
        with self._lock:
            if child not in self._static and len(self._static) >= FRAMES:
                raise TransformError(f'{child!r}: more than {FRAMES} static frames')
            self._static[child] = (parent, T_parent_child)

    def forget(self) -> None:
        """The clock jumped: what moves has to be told again."""
        with self._lock:
            self._moving.clear()
            self._heard.clear()

    def add(self, parent: str, child: str, stamp: int, T_parent_child: np.ndarray) -> None:
        """A transform at a stamp [ns]; a jump back of the clock forgets what came before."""
        with self._lock:
            known = self._moving.get(child)
            if known is None or known[0] != parent or (known[1] and stamp < known[1][-1][0] - self.history):
                self._make_room(child)
                known = self._moving[child] = (parent, [], {})
            self._heard[child] = time.monotonic()
            _, order, values = known
            if order and 0 <= stamp - order[-1][0] < SPACING and len(order) > 1 and stamp - order[-2][0] < SPACING:
                del values[order.pop()[1]]  # two within the spacing are enough: the newer one replaces the last
            self._count += 1
            insort(order, (stamp, self._count))
            values[self._count] = T_parent_child
            while order[0][0] < order[-1][0] - self.history or len(order) > SAMPLES:
                del values[order.pop(0)[1]]

    def _make_room(self, child: str) -> None:
        """Frames of strangers must not fill the memory: the one that was silent for longest goes."""
        while len(self._moving) >= FRAMES and child not in self._moving:
            oldest = min(self._heard, key=lambda name: self._heard[name])
            del self._moving[oldest], self._heard[oldest]

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
            if t1 - t0 > GAP_S * 1e9:
                near, key = (stamp - t0, a) if stamp - t0 <= t1 - stamp else (t1 - stamp, b)
                if near > tolerance_s * 1e9:
                    raise TransformError(f'{parent!r} -> {child!r} has a gap of {(t1 - t0) * 1e-9:.3f} s around the '
                                         f'stamp asked for, {GAP_S} s allowed')
                return values[key]
            return interpolate(values[a], values[b], np.array([(stamp - t0) / (t1 - t0)]))[0]
        nearest, key = order[0] if at == 0 else order[-1]
        if abs(stamp - nearest) > tolerance_s * 1e9:
            raise TransformError(f'{parent!r} -> {child!r} is {(stamp - nearest) * 1e-9:+.3f} s away from the '
                                 f'stamp asked for, {tolerance_s} s allowed')
        return values[key]


class TransformListener:
    """Feeds a `TransformBuffer` from /tf and /tf_static; bad transforms are counted, not used.

    now() gives the node's clock [ns], 0 while there is none: a transform of the future is of another clock.
    """

    def __init__(self, receiver: Receiver, boundary: Boundary, buffer: TransformBuffer) -> None:
        self.buffer, self._boundary = buffer, boundary
        self._now = lambda: receiver.node.get_clock().now().nanoseconds
        for topic, qos, static in (('/tf', TF_QOS, False), ('/tf_static', TF_STATIC_QOS, True)):
            boundary.subscribe(TFMessage, topic, lambda message: message,
                               lambda message, number, topic=topic, static=static:
                               self._receive(message, topic, static), qos, limit=MESSAGE_BYTES, host=receiver)

    def _receive(self, message: TFMessage, topic: str, static: bool) -> None:
        now = self._now()
        for item in message.transforms:
            wrong = self._add(item, now, static)
            if wrong is not None:
                self._boundary.refuse(topic, str(wrong))

    def _add(self, item: TransformStamped, now: int, static: bool) -> Malformed | None:
        """Keep one transform, or say why not."""
        parent, child = frame_name(item.header.frame_id), frame_name(item.child_frame_id)
        if not (0 < len(parent) <= NAME and 0 < len(child) <= NAME) or parent == child:
            return Malformed('frame_id, child_frame_id', f'{parent[:40]}, {child[:40]}', 'two different names of at '
                             f'most {NAME} characters are needed')
        try:
            T = read_transform(item.transform)
            if static:
                self.buffer.add_static(parent, child, T)
                return None
        except Geo4dError as error:
            return Malformed('transform', f'{parent} -> {child}', str(error))
        stamp = to_nanoseconds(item.header.stamp)
        if stamp < 0 or (now and stamp > now + FUTURE):
            return Malformed('header.stamp', stamp, f'{parent} -> {child} is {(stamp - now) * 1e-9:+.1f} s ahead of '
                             "this node's clock")
        self.buffer.add(parent, child, stamp, T)
        return None
