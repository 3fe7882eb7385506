"""Managed nodes (rclpy.lifecycle): configure loads and checks, activate arms, deactivate stops, cleanup lets go.

    class Counter(ManagedNode):
        def __init__(self):
            super().__init__('counter')
            self.parameters = NodeParameters(self, CounterParameters)  # with the fields of LifecycleParameters

        def set_up(self):
            thing = Thing(self)
            self.owned.callback(thing.close)

`bring_up(node)` takes a node to active, where its parameter `autostart` says so; `ros2 lifecycle set` does the rest.
"""

from __future__ import annotations

import traceback
from contextlib import ExitStack
from dataclasses import dataclass

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node

from geo4d_ros.errors import Geo4dError
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.serve.guarded_services import guard_services
from geo4d_ros.ros.serve.parameters import parameter

DONE, REFUSED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@dataclass(frozen=True)
class LifecycleParameters:
    """How the node comes up."""

    autostart: bool = parameter(True, 'Configure and activate by itself; false: wait for `ros2 lifecycle set`.',
                                read_only=True)


class ManagedNode(LifecycleNode):
    """What the nodes of the loop have in common.

    `set_up` opens what the node works with and says in `owned` how it is closed; `stand_down` stops what moves;
    `unfinished` says what has to end before anything may be closed. All of it runs in the node's executor.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.active = False  # whether requests are served; read from any thread
        self.owned = ExitStack()
        self.failure: Exception | None = None  # of the last `set_up`
        self._first: set[int] = set()

    def set_up(self) -> None:
        """Open everything; raises what is wrong, and then nothing of it stays."""

    def stand_down(self) -> None:
        """Stop at once what may be moving; called again and again it does no harm."""

    def unfinished(self) -> str:
        """What is still under way, '' when nothing is."""
        return ''

    @property
    def autostart(self) -> bool:
        """Whether it comes up by itself."""
        return bool(self.get_parameter('autostart').value)

    @property
    def inactive(self) -> Refusal | None:
        """NODE_INACTIVE unless the node is active."""
        return None if self.active else Refusal(Reason.NODE_INACTIVE, f'{self.get_fully_qualified_name()}: '
                                                f'`ros2 lifecycle set {self.get_fully_qualified_name()} activate`')

    # --- transitions ---

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and check."""
        self.failure, self._first = None, {id(entity) for entity in self._entities()}
        try:
            self.set_up()
        except Exception as error:
            self.failure = error
            text = str(error) if isinstance(error, Geo4dError) else traceback.format_exc()
            self.get_logger().error(f'cannot be configured: {text}')
            self._let_go()
            return REFUSED
        guard_services(self)
        return DONE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Serve requests."""
        self.active = True
        return DONE

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Serve none any more, and stop what moves; what watches it stays."""
        self.active = False
        self.stand_down()
        return DONE

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything; refused while something is still coming to rest."""
        left = self.unfinished()
        if left:
            self.get_logger().warning(f'not cleaned up: {left}; ask again')
            return REFUSED
        self._let_go()
        return DONE

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, then let go, whatever is under way."""
        self.active = False
        self.stand_down()
        self._let_go()
        return DONE

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition failed half way: stop, let go, and be unconfigured."""
        self.get_logger().error('a transition failed; the node is not configured any more')
        return self.on_shutdown(state)

    def close(self) -> None:
        """The process ends: release threads and processes; the entities go with the node."""
        self.active = False
        self.owned.close()

    def _let_go(self) -> None:
        self.owned.close()
        for entity in [entity for entity in self._entities() if id(entity) not in self._first]:
            self._destroy(entity)

    def _entities(self) -> list[object]:
        # Waitables hold the actions; those of publishers and subscriptions go with these.
        return [*self.waitables, *self.timers, *self.subscriptions, *self.services, *self.clients, *self.publishers]

    def _destroy(self, entity: object) -> None:
        from rclpy.action import ActionClient, ActionServer
        from rclpy.client import Client
        from rclpy.publisher import Publisher
        from rclpy.service import Service
        from rclpy.subscription import Subscription
        from rclpy.timer import Timer

        if isinstance(entity, (ActionClient, ActionServer)):
            entity.destroy()
        for kind, destroy in ((Timer, self.destroy_timer), (Subscription, self.destroy_subscription),
                              (Service, self.destroy_service), (Client, self.destroy_client),
                              (Publisher, self.destroy_publisher)):
            if isinstance(entity, kind):
                destroy(entity)


def bring_up(node: Node) -> None:
    """Configure and activate a managed node that starts by itself; raises what `set_up` raised."""
    if not isinstance(node, ManagedNode) or not node.autostart:
        return
    if node.trigger_configure() is not DONE:
        raise node.failure or Geo4dError(f'{node.get_name()} cannot be configured; see the log')
    if node.trigger_activate() is not DONE:
        raise Geo4dError(f'{node.get_name()} cannot be activated; see the log')
