"""What a node says of itself on /diagnostics: one entry per subject, at 1 Hz and at every change of level."""

from __future__ import annotations

import threading
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

OK, WARN, ERROR, STALE = (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR,
                          DiagnosticStatus.STALE)


class Diagnostics:
    """Keeps the newest status per subject of `node` and publishes them; thread-safe."""

    def __init__(self, node: Node, period_s: float = 1.0) -> None:
        self.node = node
        self._name = node.get_fully_qualified_name().lstrip('/')
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._status: dict[str, DiagnosticStatus] = {}
        self._lock = threading.Lock()
        # Steady: a simulation that stands still is worth reporting too.
        self._timer = node.create_timer(period_s, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

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
