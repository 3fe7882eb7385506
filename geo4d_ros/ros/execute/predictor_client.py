"""The executor's side of the generator: ask /geo4d/predict for a prediction."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from geo4d_interfaces.srv import Predict
from rclpy.node import Node, NodeNameNonExistentError

from geo4d_ros.loop.port import Predicted, ReplyValues
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.wire.conversions import to_nanoseconds
from geo4d_ros.ros.wire.plan_message import read_judgement

SERVICE = 'geo4d/predict'


class PredictClient:
    """Calls the service; the answer may come late or never, so the caller keeps its own deadline."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._client = node.create_client(Predict, SERVICE)
        self._name = node.resolve_service_name(SERVICE)
        self._future: Any = None

    @property
    def ready(self) -> bool:
        """Whether the service is known."""
        return self._client.service_is_ready()

    def check(self) -> Refusal | None:
        """SOURCE_CHANGED when more than one node serves predictions: which of them answers is chance."""
        if self._node.count_services(self._name) <= 1:
            return None
        return Refusal(Reason.SOURCE_CHANGED, f'several servers of {self._name}: {", ".join(self._servers())}; end all '
                       'but one of them')

    def _servers(self) -> list[str]:
        found = []
        for name, namespace in self._node.get_node_names_and_namespaces():
            with contextlib.suppress(NodeNameNonExistentError):  # it left meanwhile
                served = self._node.get_service_names_and_types_by_node(name, namespace)
                found += [f'{namespace.rstrip("/")}/{name}'] * any(service == self._name for service, _ in served)
        return sorted(found)

    def call(self, instruction: str, done: Callable[[Predicted | Refusal], None]) -> None:
        """Ask for a prediction; an earlier question that is still open is dropped."""
        if self._future is not None:
            self._client.remove_pending_request(self._future)
            self._future = None
        if not self.ready:
            done(Refusal(Reason.PREDICTION_FAILED, f'no {self._name} service'))
            return
        future = self._future = self._client.call_async(Predict.Request(instruction=instruction))

        def answered(future: Any) -> None:
            if future is self._future:
                self._future = None
                done(read_reply(future.result()))

        future.add_done_callback(answered)


def read_reply(response: Predict.Response) -> Predicted | Refusal:
    """The reply, or the reason the node gave for having none. An odd one is a failure."""
    if response.reason and response.reason in Reason.__members__:
        return Refusal(Reason[response.reason], response.detail[:1000])
    stamp, judgement = to_nanoseconds(response.stamp), read_judgement(response.verdict, response.verdict_text)
    good = response.success and not response.reason and response.plan_id and 0 < stamp < 2**62
    if not good or judgement is None:
        return Refusal(Reason.PREDICTION_FAILED, f'an odd reply: {response.reason!r}, {response.detail[:200]!r}, '
                       f'plan {response.plan_id[:80]!r}')
    return Predicted(response.plan_id, stamp, reply_values(response), judgement)


def reply_values(response: Predict.Response) -> ReplyValues:
    """A reply as plain values, for a record or a terminal."""
    return {'plan': response.plan_id, 'stamp': to_nanoseconds(response.stamp), 'frames': response.frames,
            'generator': response.generator, 'skew_ms': round(response.skew_ms, 2), 'age_ms': round(response.age_ms, 1),
            'verdict': response.verdict, 'verdict_text': response.verdict_text,
            'timings_ms': {k: round(v, 1) for k, v in zip(response.stages, response.stages_ms, strict=False)}}
