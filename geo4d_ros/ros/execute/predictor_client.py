"""The executor's side of generator and tracker: ask for a prediction, then collect the plan that belongs to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from nav_msgs.msg import Path
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from geo4d_ros.errors import Geo4dError
from geo4d_ros.loop.port import Predicted
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.serve.qos import STATE_QOS
from geo4d_ros.ros.wire.conversions import read_opening, read_path, to_nanoseconds
from geo4d_ros.types import Plan

KEPT = 4  # plans whose parts are remembered


class PredictClient:
    """Calls `/geo4d/predict`; the answer may come late or never, so the caller keeps its own deadline."""

    def __init__(self, node: Node) -> None:
        self._client = node.create_client(Trigger, '/geo4d/predict')
        self._future: Any = None

    @property
    def ready(self) -> bool:
        """Whether the service is known."""
        return self._client.service_is_ready()

    def call(self, done: Callable[[Predicted | Refusal], None]) -> None:
        """Ask for a prediction; an earlier question that is still open is dropped."""
        if self._future is not None:
            self._client.remove_pending_request(self._future)
            self._future = None
        if not self.ready:
            done(Refusal(Reason.PREDICTION_FAILED, 'no /geo4d/predict service'))
            return
        future = self._future = self._client.call_async(Trigger.Request())

        def answered(future: Any) -> None:
            if future is self._future:
                self._future = None
                done(read_reply(future.result()))

        future.add_done_callback(answered)


def read_reply(response: Trigger.Response) -> Predicted | Refusal:
    """The reply, or the reason the node gave (code and detail of its JSON line) for having none."""
    try:
        values = json.loads(response.message)
        if response.success:
            return Predicted(str(values['plan']), int(values['stamp']), values)
        return Refusal(Reason[values['code']], str(values.get('detail', '')))
    except (ValueError, KeyError, TypeError):
        return Refusal(Reason.PREDICTION_FAILED, response.message[:200])


class PlanInbox:
    """Collects path, opening and info of a plan and hands it to whom it was promised, before or after it came.

    The three topics arrive in any order; they belong together when their stamps agree.
    """

    def __init__(self, node: Node, base_frame: str) -> None:
        self._base_frame = base_frame
        self._awaited: tuple[int, Callable[[Plan | Refusal], None]] | None = None
        self._parts: dict[int, dict[str, Any]] = {}
        node.create_subscription(Path, '/geo4d/plan/path',
                                 lambda m: self._add(to_nanoseconds(m.header.stamp), 'path', m), STATE_QOS)
        node.create_subscription(JointTrajectory, '/geo4d/plan/gripper',
                                 lambda m: self._add(to_nanoseconds(m.header.stamp), 'gripper', m), STATE_QOS)
        node.create_subscription(String, '/geo4d/plan/info', self._add_info, STATE_QOS)

    def _add_info(self, message: String) -> None:
        try:
            values = json.loads(message.data)
            self._add(int(values['stamp']), 'info', values)
        except (ValueError, KeyError, TypeError):
            return  # no plan can be made of it: the loop's deadline answers for it

    def _add(self, stamp: int, kind: str, part: Any) -> None:
        self._parts.setdefault(stamp, {})[kind] = part
        while len(self._parts) > KEPT:
            del self._parts[min(self._parts)]
        self._deliver()

    def await_plan(self, stamp: int, done: Callable[[Plan | Refusal], None]) -> None:
        """done(plan or refusal) once the plan of the observation at stamp [ns] is here; the wait before is dropped."""
        self._awaited = stamp, done
        self._deliver()

    def _deliver(self) -> None:
        if self._awaited is not None and self.complete(self._awaited[0]):
            (stamp, done), self._awaited = self._awaited, None
            done(self.take(stamp))

    def complete(self, stamp: int) -> bool:
        """Whether everything about the plan of this observation is here, be it a plan or a refusal."""
        parts = self._parts.get(stamp, {})
        return 'info' in parts and ('code' in parts['info'] or {'path', 'gripper'} <= set(parts))

    def take(self, stamp: int) -> Plan | Refusal:
        """The plan of an observation stamp [ns] for which `complete` holds, in the base frame."""
        parts = self._parts.pop(stamp)
        try:
            info = parts['info']
            if 'code' in info:
                return Refusal(Reason[info['code']], str(info.get('detail', '')))
            return self._plan(parts['path'], read_opening(parts['gripper']), info)
        except (Geo4dError, KeyError, ValueError, TypeError) as error:
            return Refusal(Reason.PLAN_INVALID, f'{type(error).__name__}: {error}')

    def _plan(self, path: Path, opening: np.ndarray, info: dict[str, Any]) -> Plan | Refusal:
        if path.header.frame_id != self._base_frame:
            return Refusal(Reason.TRANSFORM_MISSING,
                           f'the path is in {path.header.frame_id!r}, expected {self._base_frame!r}')
        T, stamps = read_path(path)
        confidence = np.array(info['confidence'], np.float64)[:len(T)]
        if not len(T) == len(opening) == len(confidence):
            return Refusal(Reason.PLAN_INVALID,
                           f'{len(T)} poses, {len(opening)} openings, {len(confidence)} confidences')
        if len(T) < 2:
            return Refusal(Reason.TRACK_LOST, 'no frame after the first is trusted')
        seconds = (stamps[1:] - stamps[0]) * 1e-9
        return Plan(str(info['plan']), T[1:], opening[1:], seconds, int(stamps[0]), T[0], float(opening[0]),
                    confidence[1:])
