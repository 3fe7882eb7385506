"""What the operator sees of the executor: /geo4d/state, /diagnostics and the log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypedDict

from rclpy.node import Node
from std_msgs.msg import String

from geo4d_ros.loop.events import ActionData
from geo4d_ros.loop.machine import RESTING, Phase
from geo4d_ros.loop.port import Watcher
from geo4d_ros.reasons import Kind, Reason, Refusal
from geo4d_ros.ros.serve import diagnostics
from geo4d_ros.ros.serve.qos import STATE_QOS


class LoopStatus(TypedDict, total=False):
    """The JSON of /geo4d/state. time [s] of the executor's monotonic clock; report: the last, with its detail."""

    time: float
    state: str  # of loop.machine.Phase
    reason: str  # code, or ''
    detail: str
    cycles: int
    refusals: int
    plan_id: str
    dry_run: bool
    auto: bool
    report: ActionData | None


class Status(Watcher):
    """Tells what the driver does. `driver` is set once there is one; settings() gives dry_run and auto."""

    def __init__(self, node: Node, report: diagnostics.Diagnostics, settings: Callable[[], Any]) -> None:
        self._node, self._report, self._settings = node, report, settings
        self._state = node.create_publisher(String, 'geo4d/state', STATE_QOS)
        self._last: ActionData | None = None
        self.driver: Any = None
        self.listeners: list[Callable[[], None]] = []  # called after every event

    def values(self) -> LoopStatus:
        """The JSON of /geo4d/state."""
        state = self.driver.state
        config = self.driver.loop.config if state.phase not in RESTING else self._settings()
        return {'time': time.monotonic(), 'state': state.phase.value,
                'reason': state.reason.code if state.reason else '', 'detail': state.detail,
                'cycles': state.cycles, 'refusals': state.refusals,
                'plan_id': state.plan_id or '', 'dry_run': config.dry_run, 'auto': config.auto, 'report': self._last}

    def changed(self, report: ActionData | None) -> None:
        """Publish the state."""
        self._last = report or self._last
        self._state.publish(String(data=json.dumps(self.values())))
        state = self.driver.state
        level, text = diagnostics.OK, state.phase.value
        if state.phase is Phase.FAULT or (state.phase is Phase.STOPPING and state.latch):
            level, text = diagnostics.ERROR, Refusal(state.reason, state.detail).message
        elif report and state.phase in RESTING and Reason[report['reason']].kind is Kind.FAULT:
            level, text = diagnostics.ERROR, Refusal(Reason[report['reason']], report['detail']).message
        elif state.refusals and self._last:
            level, text = diagnostics.WARN, Refusal(Reason[self._last['reason']], self._last['detail']).message
        self._report.set('loop', level, text, cycles=state.cycles, refusals=state.refusals)
        for listener in self.listeners:
            listener()

    def said(self, refusal: Refusal) -> None:
        """Log it."""
        # Two statements: rclpy refuses a line that logs with more than one severity.
        if refusal.reason.kind is Kind.FAULT:
            self._node.get_logger().error(refusal.message)
        else:
            self._node.get_logger().info(refusal.message)

    def erred(self, text: str) -> None:
        """Log it."""
        self._node.get_logger().error(text)
