"""Subscriptions in a thread of their own, which can rest while the process computes."""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import rclpy
from rclpy.clock import Clock
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy

from geo4d_ros.ros.serve.qos import NO_SUBSCRIPTION_EVENTS, overridden


class Receiver:
    """What `node` hears, under its remappings, on a helper node with a single-threaded executor.

    Its wait set is small, so that a message costs little, and no message is taken during `resting`: every one that is
    handled holds the interpreter lock, for which each of a prediction's thousand small steps would wait.
    clock: hear /clock too, so that `clock` is as new as the messages however long the node's own thread is busy.
    """

    def __init__(self, node: Node, name: str, clock: bool = False) -> None:
        self.node = node
        simulated = node.get_parameter('use_sim_time').value if clock else False
        # Its name must not become the one that a launch file gives `node`: no global arguments.
        self._helper = rclpy.create_node(f'{node.get_name()}_{name}', namespace=node.get_namespace(),
                                         context=node.context, use_global_arguments=False,
                                         start_parameter_services=False, enable_rosout=False,
                                         parameter_overrides=[Parameter('use_sim_time', value=simulated)])
        self._follows = clock
        if clock:
            node.add_post_set_parameters_callback(self._follow)
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(self._helper)
        self._ending, self._listening = threading.Event(), threading.Event()
        self._listening.set()
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)

    @property
    def clock(self) -> Clock:
        """The node's clock as this thread hears it."""
        return self._helper.get_clock()

    def _follow(self, parameters: list[Parameter]) -> None:
        """The node changed between the system's and simulated time."""
        self._helper.set_parameters([p for p in parameters if p.name == 'use_sim_time'])

    def start(self) -> None:
        """Begin to receive, after the last `create_subscription`: rclpy's executors are not made for more later."""
        self._thread.start()

    def create_subscription(self, message_type: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile,
                            raw: bool = False) -> None:
        """As a node's, with the topic's name resolved by `node`."""
        qos = overridden(self.node, topic, qos, 'subscription')
        # A best-effort subscription fits every publisher: nothing to be warned of.
        events = NO_SUBSCRIPTION_EVENTS if qos.reliability is ReliabilityPolicy.BEST_EFFORT else None
        self._helper.create_subscription(message_type, self.node.resolve_topic_name(topic), callback, qos,
                                         event_callbacks=events, raw=raw)

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Nothing is received inside; afterwards what the queues kept comes first."""
        self._listening.clear()
        try:
            yield
        finally:
            self._listening.set()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException, KeyboardInterrupt):
            while not self._ending.is_set() and self.node.context.ok():
                if not self._listening.wait(0.2):
                    continue
                try:
                    self._executor.spin_once(timeout_sec=0.2)
                except ExternalShutdownException:
                    raise
                except Exception:  # of a callback: whoever waits for what it should have kept says so
                    if not self.node.context.ok():
                        return  # the signal came while it was spinning: nothing failed
                    self.node.get_logger().error(traceback.format_exc())

    def close(self) -> None:
        """End the thread; a process that exits inside a spinning thread aborts."""
        if self._follows:
            self.node.remove_post_set_parameters_callback(self._follow)
            self._follows = False
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._executor.shutdown()
        self._helper.destroy_node()
