"""Who stands in front of a graph of node processes: hears what it says, calls its services, judges what it did."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geo4d_interfaces.srv import Approve, Predict
from rcl_interfaces.srv import ListParameters, SetParameters
from rclpy.context import Context
from rclpy.executors import MultiThreadedExecutor
from rclpy.parameter import Parameter
from std_msgs.msg import String
from std_srvs.srv import Trigger

from geo4d_ros.ros.serve.qos import SERVICE_QOS, STATE_QOS

PATIENCE = 60.0  # [s] for whatever takes a moment on an idle machine


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE) -> bool:
    """Whether the condition came true in time; somebody else spins."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Operator:
    """Nodes of this process in one domain, spun by a thread; `add(make)` puts another one beside them.

    `said` holds (steady time, text) of every diagnostics entry and every reply, `states` those of /geo4d/state.
    """

    def __init__(self, domain_id: int) -> None:
        self.domain_id, self.context = domain_id, Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.executor = MultiThreadedExecutor(3, context=self.context)
        self.nodes: list[Any] = []
        self.said: list[tuple[float, str]] = []
        self.states: list[tuple[float, dict[str, Any]]] = []
        self._clients: dict[str, Any] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self.node = self.add(lambda **options: rclpy.create_node('operator', **options))
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._diagnostics, 100)
        self.node.create_subscription(String, '/geo4d/state', self._state, STATE_QOS)

    def add(self, make: Callable[..., Any]) -> Any:
        """A node made in this context."""
        node = make(context=self.context)
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def begin(self) -> None:
        """Spin, after the first nodes were added."""
        self._thread.start()

    def _spin(self) -> None:
        while not self._ending.is_set():
            self.executor.spin_once(timeout_sec=0.1)

    def close(self) -> None:
        """Leave the graph."""
        self._ending.set()
        self._thread.join()
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    @contextlib.contextmanager
    def stranger(self, name: str) -> Iterator[Any]:
        """A node of another participant, as another process would be."""
        context = Context()
        rclpy.init(context=context, domain_id=self.domain_id)
        node = rclpy.create_node(name, context=context)
        try:
            yield node
        finally:
            node.destroy_node()
            rclpy.try_shutdown(context=context)
            time.sleep(0.3)

    def _diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = ' '.join(f'{v.key}={v.value}' for v in status.values)
            self.said.append((time.monotonic(), f'{status.name}: {status.message} [{values}]'))

    def _state(self, message: String) -> None:
        self.states.append((time.monotonic(), json.loads(message.data)))

    @property
    def state(self) -> str:
        """The executor's phase, '' before the first."""
        return self.states[-1][1]['state'] if self.states else ''

    # --- asking ---

    def request(self, kind: type, name: str, request: Any, seconds: float = PATIENCE) -> Any:
        """The answer, None without one in time."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name, qos_profile=SERVICE_QOS)
            wait_for(self._clients[name].service_is_ready, seconds)
            time.sleep(0.3)
        client = self._clients[name]
        if not wait_for(client.service_is_ready, seconds):
            return None
        future = client.call_async(request)
        if not wait_for(future.done, seconds):
            client.remove_pending_request(future)
            return None
        return future.result()

    def call(self, name: str, seconds: float = PATIENCE) -> tuple[bool | None, str]:
        """A Trigger service: success and message, which counts as said; (None, '') without an answer."""
        reply = self.request(Trigger, name, Trigger.Request(), seconds)
        return (None, '') if reply is None else self._heard(name, reply.success, reply.message)

    def predict(self, seconds: float = PATIENCE) -> tuple[bool | None, str]:
        """/geo4d/predict."""
        reply = self.request(Predict, '/geo4d/predict', Predict.Request(), seconds)
        return (None, '') if reply is None else self._heard('predict', reply.success, f'{reply.reason}: {reply.detail}')

    def approve(self, plan_id: str) -> tuple[bool | None, str]:
        """/geo4d/approve."""
        reply = self.request(Approve, '/geo4d/approve', Approve.Request(plan_id=plan_id))
        return (None, '') if reply is None else self._heard('approve', reply.success, f'{reply.reason}: {reply.detail}')

    def _heard(self, name: str, success: bool, text: str) -> tuple[bool, str]:
        self.said.append((time.monotonic(), f'{name}: {text}'))
        return success, text

    def set(self, node: str, **values: Any) -> bool:
        """Set parameters of a node."""
        request = SetParameters.Request(parameters=[Parameter(k, value=v).to_parameter_msg()
                                                    for k, v in values.items()])
        reply = self.request(SetParameters, f'/{node}/set_parameters', request)
        return reply is not None and all(result.successful for result in reply.results)

    def answers(self, node: str) -> bool:
        """Whether a node's parameter service answers."""
        return self.request(ListParameters, f'/{node}/list_parameters', ListParameters.Request(), 20.0) is not None

    # --- judging ---

    def named(self, since: float, *patterns: str) -> str:
        """The first thing said after steady time `since` in which every pattern is found, '' for none."""
        for when, text in list(self.said):
            if when >= since and all(re.search(p, text, re.IGNORECASE | re.DOTALL) for p in patterns):
                return text
        return ''

    def heard(self, since: float) -> str:
        """All that was said, for a failure's message."""
        return '\n'.join(dict.fromkeys(text[:300] for when, text in self.said if when >= since))
