"""A service whose answer takes its time, served beside the node it belongs to."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node

from geo4d_ros.ros.serve.qos import SERVICE_QOS


class BlockingService:
    """Serves `name` with `callback` in threads of its own; `node` goes on under a single-threaded executor.

    A multi-threaded executor for a whole node wakes and builds its wait set anew for every message of /clock, /tf
    and /joint_states: that held the interpreter lock for most of the time, and each of a prediction's thousand
    small steps waited for it. This one has a single entity and wakes for requests only. Two requests may overlap: while
    one computes, `callback` is called for the others, which it should answer at once (BUSY).
    """

    def __init__(self, node: Node, service_type: type, name: str, callback: Callable[[Any, Any], Any]) -> None:
        self._node = rclpy.create_node(f'{node.get_name()}_requests', namespace=node.get_namespace(),
                                       context=node.context, use_global_arguments=False,
                                       start_parameter_services=False, enable_rosout=False)
        # Remappings of the caller hold for it through resolve_service_name.
        self._node.create_service(service_type, node.resolve_service_name(name), callback, qos_profile=SERVICE_QOS,
                                  callback_group=ReentrantCallbackGroup())
        self._executor = MultiThreadedExecutor(2, context=node.context)
        self._executor.add_node(self._node)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._spin, name='requests', daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException, KeyboardInterrupt):
            while not self._ending.is_set() and self._node.context.ok():
                try:
                    self._executor.spin_once(timeout_sec=0.2)
                except Exception:
                    if self._node.context.ok():  # else the signal came while it was spinning: nothing failed
                        raise

    def close(self) -> None:
        """End the thread, after the answer under way."""
        self._ending.set()
        self._thread.join()
        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
