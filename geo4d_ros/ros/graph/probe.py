"""The operator's view of a running graph: call services, follow /geo4d/state, measure when the arm moves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypedDict

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geo4d_interfaces.srv import Approve, Predict
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from geo4d_ros.loop.port import ReplyValues
from geo4d_ros.ros.execute.predictor_client import reply_values
from geo4d_ros.ros.execute.status import LoopStatus
from geo4d_ros.ros.serve.qos import SENSOR_QOS, STATE_QOS

ANSWER_SECONDS = 5.0
DISCOVERY_SECONDS = 0.3
MOVING = 0.01  # [rad/s] of the fastest joint


class NoReply(TypedDict, total=False):
    """Why a prediction was not made."""

    code: str
    detail: str


class LoopProbe:
    """A node in a context of its own, spun by the caller's waits only. Use as a context manager.

    Relative names are those of the cell in `namespace`. All times are on the steady clock, which every process of the
    host shares. `states` holds (time, values) of every geo4d/state message, `errors` (time, name, message) of every
    diagnostics ERROR, `joints` the newest position of each joint, `speed` [rad/s] that of the fastest.
    """

    def __init__(self, domain_id: int | None = None, joint_states: str = 'joint_states',
                 namespace: str = '') -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = rclpy.create_node('loop_probe', context=self._context, namespace=namespace)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._clients: dict[tuple[type, str], Any] = {}
        self.states: list[tuple[float, LoopStatus]] = []
        self.errors: list[tuple[float, str, str]] = []
        self.last_motion = -np.inf
        self.speed = float('nan')
        self.joints: dict[str, float] = {}
        self.joint_listeners: list[Callable[[], None]] = []  # called after every joint state
        self.node.create_subscription(String, 'geo4d/state', self._on_state, STATE_QOS)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self.node.create_subscription(JointState, joint_states, self._on_joints, SENSOR_QOS)

    def __enter__(self) -> LoopProbe:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _on_state(self, message: String) -> None:
        self.states.append((time.monotonic(), json.loads(message.data)))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.errors += [(time.monotonic(), status.name, status.message) for status in message.status
                        if status.level == DiagnosticStatus.ERROR]

    def _on_joints(self, message: JointState) -> None:
        self.joints = dict(zip(message.name, message.position, strict=True))
        self.speed = max(map(abs, message.velocity), default=float('nan'))
        if self.speed > MOVING:
            self.last_motion = time.monotonic()
        for listener in self.joint_listeners:
            listener()

    @property
    def state(self) -> LoopStatus:
        """The newest state, {} before the first."""
        return self.states[-1][1] if self.states else {}

    def spin(self, seconds: float) -> None:
        """Listen for a while."""
        self.wait_for(lambda: False, seconds)

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Listen until the condition holds, at most for `seconds`; whether it held."""
        end = time.monotonic() + seconds
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._executor.spin_once(timeout_sec=min(left, 0.05))
        return True

    def wait_for_phase(self, *phases: str, seconds: float) -> bool:
        """Listen until /geo4d/state is one of the phases."""
        return self.wait_for(lambda: self.state.get('state') in phases, seconds)

    def call(self, name: str, seconds: float = 10.0) -> tuple[bool, dict[str, Any]]:
        """Call a Trigger service; (success, the reply's JSON), or (False, {}) when nobody answers in time."""
        reply = self._request(Trigger, name, Trigger.Request(), seconds)
        return (reply.success, _values(reply.message)) if reply is not None else (False, {})

    def predict(self, seconds: float = 10.0) -> tuple[bool, ReplyValues | NoReply]:
        """Call /geo4d/predict; (success, the reply's values, or code and detail), (False, {}) without an answer."""
        reply = self._request(Predict, 'geo4d/predict', Predict.Request(), seconds)
        if reply is None:
            return False, {}
        return reply.success, reply_values(reply) if reply.success else {'code': reply.reason, 'detail': reply.detail}

    def approve(self, plan_id: str, seconds: float = 10.0) -> tuple[bool, str]:
        """Call /geo4d/approve; (success, reason code)."""
        reply = self._request(Approve, 'geo4d/approve', Approve.Request(plan_id=plan_id), seconds)
        return (reply.success, reply.reason) if reply is not None else (False, '')

    def begin(self, name: str = 'geo4d/start', seconds: float = 60.0) -> None:
        """Start the loop, asking again while the graph is not complete.

        Raises TimeoutError with the last reason.
        """
        end = time.monotonic() + seconds
        while True:
            accepted, values = self.call(name, ANSWER_SECONDS)
            if not values and self.state.get('state') not in (None, 'IDLE', 'DONE', 'FAULT'):
                return  # it runs: only the answer was lost
            if accepted:
                return
            if time.monotonic() > end:
                raise TimeoutError(f'{name} was not accepted: {values or "no answer"}')
            self.spin(0.2)

    def set_parameter(self, node: str, name: str, value: Any, seconds: float = 10.0) -> bool:
        """Set a parameter of another node."""
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        reply = self._request(SetParameters, f'{node}/set_parameters', request, seconds)
        return reply is not None and reply.results[0].successful

    def _request(self, kind: type, name: str, request: Any, seconds: float) -> Any:
        end = time.monotonic() + seconds
        if (kind, name) not in self._clients:
            self._clients[kind, name] = self.node.create_client(kind, name)
            # The server may know our requests before our answers' way: its first answer could be lost.
            self.wait_for(self._clients[kind, name].service_is_ready, seconds)
            self.spin(DISCOVERY_SECONDS)
        client = self._clients[kind, name]
        if not self.wait_for(client.service_is_ready, max(0.1, end - time.monotonic())):
            return None
        future = client.call_async(request)
        if not self.wait_for(future.done, max(0.1, end - time.monotonic())):
            client.remove_pending_request(future)
            return None
        return future.result()


def _values(message: str) -> dict[str, Any]:
    try:
        values = json.loads(message)
    except ValueError:
        return {'message': message}
    return values if isinstance(values, dict) else {'message': message}
