"""Who is alive: every node announces itself, the executor watches the announcements.

A topic `geo4d/alive/<node>` carries no data. Its QoS liveliness (automatic, 1.5 s lease) is renewed by the
middleware itself, so a node busy in a long prediction stays alive, while one that was killed or frozen is
reported within the lease instead of the 20 s after which DDS forgets a peer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rclpy.duration import Duration
from rclpy.event_handler import QoSLivelinessChangedInfo, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import LivelinessPolicy, QoSProfile
from std_msgs.msg import Empty

LEASE = 1.5  # [s]; a busy machine starves the renewal for most of a second


def _qos(lease: float) -> QoSProfile:
    return QoSProfile(depth=1, liveliness=LivelinessPolicy.AUTOMATIC, liveliness_lease_duration=Duration(seconds=lease))


def alive_topic(name: str) -> str:
    """The announcement topic of the node called `name`, in the namespace of whoever asks."""
    return f'geo4d/alive/{name}'


def announce(node: Node, name: str | None = None) -> Publisher:
    """Say that `node` lives, until its process ends; keep the publisher. `name` defaults to the node's."""
    return node.create_publisher(Empty, alive_topic(name or node.get_name()), _qos(LEASE))


class PeerMonitor:
    """Watches the announcements of `peers`; on_lost(name) is called when one that lived is gone.

    lease [s], at least LEASE: the silence that is still taken for life.
    """

    def __init__(self, node: Node, peers: Iterable[str], on_lost: Callable[[str], None], lease: float = LEASE) -> None:
        self._node, self._peers, self._on_lost = node, tuple(peers), on_lost
        self._subscriptions = [
            node.create_subscription(Empty, alive_topic(peer), lambda _: None, _qos(lease),
                                     event_callbacks=SubscriptionEventCallbacks(liveliness=self._listener(peer)))
            for peer in self._peers
        ]

    def _listener(self, peer: str) -> Callable[[QoSLivelinessChangedInfo], None]:
        def changed(event: QoSLivelinessChangedInfo) -> None:
            if event.alive_count == 0 and event.alive_count_change < 0:
                self._on_lost(peer)
        return changed

    @property
    def missing(self) -> list[str]:
        """Peers of which the graph knows nothing (it takes a few seconds to forget one that died)."""
        topics = {peer: self._node.resolve_topic_name(alive_topic(peer)) for peer in self._peers}
        return [peer for peer, topic in topics.items() if self._node.count_publishers(topic) == 0]
