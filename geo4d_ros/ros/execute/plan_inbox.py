"""Where plans come in: /geo4d/plan, and only from the publisher that was there when the run began."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geo4d_interfaces.msg import Plan as PlanMessage
from rclpy.event_handler import QoSSubscriptionMatchedInfo, SubscriptionEventCallbacks
from rclpy.node import Node

from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.serve.qos import STATE_QOS
from geo4d_ros.ros.wire.guard import Boundary
from geo4d_ros.ros.wire.plan_message import PLAN_BYTES, Received, parse_plan
from geo4d_ros.types import Plan

TOPIC = 'geo4d/plan'
Source = tuple[bytes, str]  # the endpoint's identity, and its node in words


class PlanInbox:
    """Keeps the newest plan and hands it to whom it was promised, before or after it came.

    A run binds itself to the one publisher (`bind`); from then on another one in the graph, or one that was there in
    between, is named by `check` and no plan is handed out. rclpy does not tell who sent a message, so that two
    publishers cannot be told apart by it: with two there is no plan at all.
    """

    def __init__(self, node: Node, boundary: Boundary, base_frame: str) -> None:
        self._node, self._base_frame = node, base_frame
        self._newest: Received | None = None
        self._awaited: tuple[str, Callable[[Plan | Refusal], None]] | None = None
        self._source: Source | None = None
        self._joined = 0  # publishers that ever matched, those gone since included
        self._joined_at_bind: int | None = None
        self._topic = node.resolve_topic_name(TOPIC)
        boundary.subscribe(PlanMessage, TOPIC, parse_plan, self._receive, STATE_QOS, limit=PLAN_BYTES,
                           refused=self._refused, event_callbacks=SubscriptionEventCallbacks(matched=self._matched))

    def _sources(self) -> list[Source]:
        found = self._node.get_publishers_info_by_topic(self._topic)
        return sorted((bytes(e.endpoint_gid), _words(e)) for e in found)

    def _matched(self, event: QoSSubscriptionMatchedInfo) -> None:
        self._joined = event.total_count

    def bind(self) -> Refusal | None:
        """A run begins: its plans come from the one publisher there is now; the reason when there is not one."""
        sources = self._sources()
        if not sources:
            return Refusal(Reason.PEER_DEAD, f'no publisher of {self._topic}: is gripper_tracker running?')
        if len(sources) > 1:
            return Refusal(Reason.SOURCE_CHANGED, f'{len(sources)} publishers of {self._topic}: '
                           f'{", ".join(name for _, name in sources)}; end all but one of these sources')
        self._source, self._joined_at_bind, self._newest = sources[0], None, None
        return None

    def check(self) -> Refusal | None:
        """SOURCE_CHANGED when anybody else publishes plans than the publisher of `bind`, or did since."""
        if self._source is None:
            return None
        if self._joined_at_bind is None:
            self._joined_at_bind = self._joined
        foreign = [name for source, name in self._sources() if source != self._source[0]]
        if foreign:
            return Refusal(Reason.SOURCE_CHANGED, f'{", ".join(foreign)} publishes {self._topic} beside or instead of '
                           f'{self._source[1]}, the source that the run began with')
        if self._joined > self._joined_at_bind:
            return Refusal(Reason.SOURCE_CHANGED, f'another publisher of {self._topic} came and went during the run')
        return None

    def await_plan(self, plan_id: str, done: Callable[[Plan | Refusal], None]) -> None:
        """done(plan or refusal) once the plan with this id is here; the wait before is dropped."""
        self._awaited = plan_id, done
        self._deliver()

    def _receive(self, received: Received, number: int | None) -> None:
        self._newest = received
        self._deliver()

    def _refused(self, cause: str) -> None:
        """A message that is no plan ends the wait for one."""
        if self._awaited is not None:
            (_, done), self._awaited = self._awaited, None
            done(self.check() or Refusal(Reason.PLAN_INVALID, cause))

    def _deliver(self) -> None:
        if self._awaited is None or self._newest is None or self._newest.id != self._awaited[0]:
            return
        (_, done), self._awaited, received = self._awaited, None, self._newest
        answer = self.check() or received.answer
        if isinstance(answer, Plan) and received.frame_id != self._base_frame:
            answer = Refusal(Reason.TRANSFORM_MISSING,
                             f'the plan is in {received.frame_id!r}, expected {self._base_frame!r}')
        done(answer)


def _words(endpoint: Any) -> str:
    """Full name of an endpoint's node; the middleware hears of it a moment after the endpoint."""
    if 'UNKNOWN' in endpoint.node_name:
        return 'a node whose name is not known yet'
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'
