"""The action /geo4d/run: the closed loop as one goal with feedback; its cancel stops the arm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geo4d_interfaces.action import RunTask
from rclpy.action import ActionServer, CancelResponse
from rclpy.node import Node
from rclpy.task import Future

from geo4d_ros.loop.driver import Driver
from geo4d_ros.loop.events import EventKind
from geo4d_ros.loop.machine import RESTING
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.execute.status import Status

ACTION = 'geo4d/run'


class RunAction:
    """Serves the action in the node's executor thread. begin(task, cycles) starts a run, or says why not."""

    def __init__(self, node: Node, driver: Driver, status: Status,
                 begin: Callable[[str, int], Refusal | None]) -> None:
        self._node, self._driver, self._begin = node, driver, begin
        self._running: tuple[Any, Future] | None = None
        self._server = ActionServer(node, RunTask, ACTION, self._execute, cancel_callback=self._cancel)
        status.listeners.append(self._changed)

    @property
    def running(self) -> bool:
        """Whether a goal waits for its result."""
        return self._running is not None

    def _cancel(self, handle: Any) -> CancelResponse:
        self._driver.handle(EventKind.STOP)
        return CancelResponse.ACCEPT

    async def _execute(self, handle: Any) -> RunTask.Result:
        refusal = self._begin(handle.request.task, handle.request.cycles)
        if refusal is not None:
            handle.abort()
            return RunTask.Result(reason=refusal.reason.code, detail=refusal.detail)
        if self._driver.phase not in RESTING:
            self._running = handle, Future(executor=self._node.executor)
            self._changed()
            await self._running[1]
            self._running = None
        state = self._driver.state
        success = state.reason is Reason.TASK_DONE
        if handle.is_cancel_requested:
            handle.canceled()
        elif success:
            handle.succeed()
        else:
            handle.abort()
        return RunTask.Result(success=success, reason=state.reason.code if state.reason else '', detail=state.detail,
                              cycles=state.cycles)

    def _changed(self) -> None:
        """Feedback after every event; a loop that rests ends the goal."""
        if self._running is None:
            return
        handle, ended = self._running
        state = self._driver.state
        if state.phase in RESTING:
            if not ended.done():
                ended.set_result(None)
        elif handle.is_active:
            handle.publish_feedback(RunTask.Feedback(phase=state.phase.value, cycle=state.cycles,
                                                     reason=state.reason.code if state.reason else ''))

    def close(self) -> None:
        """Take the action off the graph."""
        self._server.destroy()
