"""What a node says of itself on /diagnostics: one entry per subject, at 1 Hz and at every change of level."""

from __future__ import annotations

import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from geo4d_ros.ros.serve.clock_jump import NO_CLOCK

OK, WARN, ERROR, STALE = (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR,
                          DiagnosticStatus.STALE)

# Of a paused replay or simulation too: what waits for the time that does not pass should say so.
CLOCK_STANDS_S = 5.0


class Diagnostics:
    """Keeps the newest status per subject of `node` and publishes them; thread-safe."""

    def __init__(self, node: Node, period_s: float = 1.0) -> None:
        self.node = node
        self._name = node.get_fully_qualified_name().lstrip('/')
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._status: dict[str, DiagnosticStatus] = {}
        self._lock = threading.Lock()
        # Steady: a simulation that stands still is worth reporting too.
        self._timer = node.create_timer(period_s, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._clock, self._moved = 0, time.monotonic()

    def _tick(self) -> None:
        self.check_clock(time.monotonic())
        self.publish()

    def check_clock(self, now: float) -> None:
        """Name a simulated clock that does not come or does not run, at steady time `now` [s]."""
        simulated = self.node.get_parameter('use_sim_time').value
        stamp = self.node.get_clock().now().nanoseconds
        if stamp != self._clock or not simulated:
            self._clock, self._moved = stamp, now
        if simulated and not stamp:
            self.set('clock', ERROR, NO_CLOCK)
        elif now - self._moved > CLOCK_STANDS_S:
            self.set('clock', WARN, 'the simulated clock stands still', seconds=now - self._moved)
        elif 'clock' in self._status:
            self.set('clock', OK, 'runs')

    def set(self, subject: str, level: bytes, message: str, **values: Any) -> None:
        """Replace the status of `subject`; a change of level or message goes out at once."""
        status = DiagnosticStatus(level=level, name=f'{self._name}: {subject}', message=message,
                                  hardware_id='geo4d',
                                  values=[KeyValue(key=k, value=_text(v)) for k, v in values.items()])
        with self._lock:
            before = self._status.get(subject)
            self._status[subject] = status
        if before is None or (before.level, before.message) != (level, message):
            self.publish()

    def publish(self) -> None:
        """Send every status now."""
        message = DiagnosticArray()
        message.header.stamp = self.node.get_clock().now().to_msg()
        with self._lock:
            message.status = list(self._status.values())
        self._publisher.publish(message)


def _text(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)
