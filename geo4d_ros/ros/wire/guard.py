"""The boundary of a node: messages are bounded, parsed and handled under one guard; whatever they do, the node lives.

A message is taken as bytes, refused where it is larger than its topic allows (building the Python objects of a path
of 100 000 poses holds the interpreter for nine seconds), turned into a typed value by a total parser, and handed on.
What is refused is counted on /diagnostics with its topic, its publishers and its cause.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message

from geo4d_ros.errors import Geo4dError
from geo4d_ros.ros.serve import diagnostics
from geo4d_ros.ros.serve.qos import SERVICE_QOS

T = TypeVar('T')
SMALL = 1 << 16  # [bytes] of a message of some numbers and names
SHOWN = 80  # characters of a refused value that are told
QUIET_SECONDS = 5.0  # without a refusal before a topic counts as good again
REPORT_SECONDS = 0.25  # between two reports of one topic


@dataclass(frozen=True)
class Malformed:
    """Why a message cannot be used: its field, the value found there, and what is wrong with it or would mend it."""

    field: str
    value: object
    why: str

    def __str__(self) -> str:
        return f'{self.field} = {shortened(self.value)}: {self.why}'


def shortened(value: object) -> str:
    """A value in at most `SHOWN` printable characters."""
    text = value[:2 * SHOWN] if isinstance(value, (str, bytes)) else value
    text = ' '.join((text if isinstance(text, str) else repr(text)).split())
    text = ''.join(c if c.isprintable() else '?' for c in text)
    return repr(text[:SHOWN]) if isinstance(value, str) else text[:SHOWN]


class Host(Protocol):
    """Whoever subscribes: a node, or the receiver of one."""

    def create_subscription(self, msg_type: Any, topic: str, callback: Any, qos_profile: Any, **more: Any) -> Any:
        """As rclpy's Node."""


@dataclass
class _Count:
    refused: int = 0
    last: float = -1e9  # [s] steady clock
    reported: float = -1e9
    cause: str = ''
    standing: bool = False  # told on /diagnostics and not taken back yet


class Boundary:
    """Subscriptions and services of `node` under one guard; thread-safe."""

    def __init__(self, node: Node, report: diagnostics.Diagnostics) -> None:
        self._node, self._report = node, report
        self._counts: dict[str, _Count] = {}
        self._lock = threading.Lock()

    def subscribe(self, kind: type, topic: str, parse: Callable[[Any], T | Malformed],
                  accept: Callable[[T, int | None], None], qos: QoSProfile, *, limit: int = SMALL,
                  refused: Callable[[str], None] | None = None, host: Host | None = None, **more: Any) -> Any:
        """Hear `topic`: accept(value, number) gets what `parse` made of a message of at most `limit` bytes.

        number: the publication's count at its publisher, None where the middleware does not tell. refused(cause) is
        called for each message that is not used, so that its owner fails closed. `more` goes to create_subscription.
        """
        name = self._node.resolve_topic_name(topic)

        def take(data: bytes, info: dict[str, int]) -> None:
            self.handle(name, kind, data, info.get('publication_sequence_number'), parse, accept, limit, refused)

        return (host or self._node).create_subscription(kind, topic, take, qos, raw=True, **more)

    def handle(self, topic: str, kind: type, data: bytes, number: int | None, parse: Callable[[Any], T | Malformed],
               accept: Callable[[T, int | None], None], limit: int, refused: Callable[[str], None] | None) -> None:
        """One message, from bytes to `accept`; never raises."""
        try:
            if len(data) > limit:
                wrong: T | Malformed = Malformed('message', f'{len(data)} bytes', f'at most {limit} are read')
            else:
                wrong = parse(_message(data, kind))
            if not isinstance(wrong, Malformed):
                accept(wrong, number)
                self._good(topic)
                return
            cause = str(wrong)
        except Exception as error:
            cause = f'{type(error).__name__}: {shortened(str(error))}'
            if not isinstance(error, Geo4dError):
                self._node.get_logger().error(traceback.format_exc(), throttle_duration_sec=5.0)
        self.refuse(topic, cause, refused)

    def refuse(self, topic: str, cause: str, refused: Callable[[str], None] | None = None) -> None:
        """Count a message of `topic` as unusable and say why; never raises."""
        try:
            if refused is not None:
                refused(f'{topic}: {cause}')
        except Exception:
            self._node.get_logger().error(traceback.format_exc(), throttle_duration_sec=5.0)
        now = time.monotonic()
        with self._lock:
            count = self._counts.setdefault(topic, _Count())
            count.refused += 1
            count.last, count.cause = now, cause
            due = now - count.reported > REPORT_SECONDS
            if due:
                count.reported, count.standing = now, True
        if due:
            self._tell(topic, count)

    def refused(self, topic: str) -> int:
        """How many messages of a topic were refused."""
        count = self._counts.get(self._node.resolve_topic_name(topic))
        return count.refused if count else 0

    def service(self, kind: type, name: str, handler: Callable[[Any, Any], Any],
                failed: Callable[[Any, str], Any], **more: Any) -> Any:
        """Serve `name`; where the handler raises, failed(response, cause) makes the answer."""
        def answer(request: Any, response: Any) -> Any:
            try:
                return handler(request, response)
            except Exception as error:
                self._node.get_logger().error(traceback.format_exc(), throttle_duration_sec=5.0)
                cause = f'{type(error).__name__}: {shortened(str(error))}'
                self.refuse(name, cause)
                return failed(kind.Response(), cause)  # type: ignore[attr-defined]

        return self._node.create_service(kind, name, answer, qos_profile=SERVICE_QOS, **more)

    def _good(self, topic: str) -> None:
        count = self._counts.get(topic)
        if count is None or not count.standing or time.monotonic() - count.last < QUIET_SECONDS:
            return
        count.standing = False
        self._report.set(f'input {topic}', diagnostics.OK, 'good again', refused=count.refused, last_cause=count.cause)

    def _tell(self, topic: str, count: _Count) -> None:
        try:
            publishers = ', '.join(self.publishers(topic)) or 'unknown'
            text = f'refused a message of {topic} from {publishers}: {count.cause}'
            self._node.get_logger().warning(text, throttle_duration_sec=1.0)
            self._report.set(f'input {topic}', diagnostics.WARN, text, topic=topic, publisher=publishers,
                             cause=count.cause, refused=count.refused)
        except Exception:  # a context that is being shut down
            self._node.get_logger().debug(traceback.format_exc())

    def publishers(self, topic: str) -> list[str]:
        """Full names of the nodes that publish `topic`."""
        found = self._node.get_publishers_info_by_topic(topic)
        return sorted({f'{e.node_namespace.rstrip("/")}/{e.node_name}' for e in found})


def _message(data: bytes, kind: type) -> Any:
    try:
        return deserialize_message(data, kind)
    except Exception as error:  # e.g. a string that is not UTF-8: rclpy would end the node
        raise Geo4dError(f'cannot be read as {kind.__name__}: {error}') from error
