"""The quality-of-service profiles of the graph, each in one place, and what a user's parameters make of them."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from geo4d_ros.errors import ConfigurationError, require

# Camera images: the newest one or none; matches reliable and best-effort publishers.
IMAGE_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
# A predicted video is a burst of frames: none may be lost.
PREDICTION_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=32, reliability=ReliabilityPolicy.RELIABLE)
STATE_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE,
                       durability=DurabilityPolicy.TRANSIENT_LOCAL)
SENSOR_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)
TF_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.RELIABLE)
TF_STATIC_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.RELIABLE,
                           durability=DurabilityPolicy.TRANSIENT_LOCAL)
# As many requests wait as may come at once: the next after a full queue is dropped without an answer.
SERVICE_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1000, reliability=ReliabilityPolicy.RELIABLE)

# rclpy gives every publisher and subscription two handlers that warn of a peer with another QoS or type, and looks at
# all of them whenever the node wakes, 250 times a second beside a simulation. The topics of a prediction go without:
# whoever subscribes is warned by his own node.
NO_PUBLISHER_EVENTS = PublisherEventCallbacks(use_default_callbacks=False)
NO_SUBSCRIPTION_EVENTS = SubscriptionEventCallbacks(use_default_callbacks=False)


def overridden(node: Node, topic: str, qos: QoSProfile, role: str) -> QoSProfile:
    """`qos` with what the parameters `qos_overrides.<topic>.<role>.{history,depth,reliability}` of `node` say.

    role: 'subscription' or 'publisher'. Named as rclpy's QoSOverridingOptions has them, which is not used: it would
    change the profile that all share, and declares on the node of the entity, where ours may be a helper that no
    parameter reaches. Durability is not open: a latched topic that is not is another topic. Raises ConfigurationError.
    """
    name = f'qos_overrides.{node.resolve_topic_name(topic)}.{role}.'

    def value(policy: str, default: Any) -> Any:
        if node.has_parameter(name + policy):
            return node.get_parameter(name + policy).value
        what = ParameterDescriptor(description=f'QoS of this {role}: {policy}.', read_only=True)
        return node.declare_parameter(name + policy, default, what).value

    def choice(policy: str, kind: Any, allowed: tuple[str, ...]) -> Any:
        text = value(policy, getattr(qos, policy).name.lower())
        require(text in allowed, f'parameter {name}{policy} should be one of {", ".join(allowed)} but is {text!r}',
                ConfigurationError)
        return kind[text.upper()]

    history = choice('history', HistoryPolicy, ('keep_last', 'keep_all'))
    reliability = choice('reliability', ReliabilityPolicy, ('best_effort', 'reliable'))
    depth = value('depth', qos.depth)
    require(0 < depth <= 10_000, f'parameter {name}depth should lie in [1, 10000] but is {depth}', ConfigurationError)
    return QoSProfile(history=history, depth=depth, reliability=reliability, durability=qos.durability)
