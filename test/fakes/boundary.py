"""A node's boundary without DDS: `say` puts a message in as if it had come from a publisher."""

from types import SimpleNamespace

from rclpy.serialization import serialize_message

from geo4d_ros.ros.wire.guard import SMALL, Boundary


class StubLog:
    def __getattr__(self, name):
        return lambda *args, **more: None


class StubReport:
    """Keeps the newest diagnostics: subject -> (level, message, values)."""

    def __init__(self):
        self.said = {}

    def set(self, subject, level, message, **values):
        self.said[subject] = (level, message, values)


class StubNode:
    """As much of a node as a boundary needs; `now` [ns] is its clock."""

    def __init__(self):
        self.now = 10_000_000_000

    def resolve_topic_name(self, name):
        return name if name.startswith('/') else f'/{name}'

    def get_logger(self):
        return StubLog()

    def get_publishers_info_by_topic(self, topic):
        return []

    def get_clock(self):
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=self.now))


class FakeBoundary(Boundary):
    """Real guard and parsers; `say(topic, message)` instead of a subscription."""

    def __init__(self, node=None):
        self.node, self.report = node or StubNode(), StubReport()
        super().__init__(self.node, self.report)
        self.heard, self.numbers = {}, {}

    def subscribe(self, kind, topic, parse, accept, qos, *, limit=SMALL, refused=None, **more):
        name = self.node.resolve_topic_name(topic)
        self.heard[name] = lambda data, number: self.handle(name, kind, data, number, parse, accept, limit, refused)

    def say(self, topic, message, number='next', source=0):
        """Publish as publisher `source`; its messages are counted unless a number is given."""
        self.numbers[topic, source] = self.numbers.get((topic, source), 0) + 1
        data = message if isinstance(message, bytes) else serialize_message(message)
        self.heard[topic](data, self.numbers[topic, source] if number == 'next' else number)

    def cause(self, topic):
        """What /diagnostics says of a topic."""
        return self.report.said.get(f'input {topic}', (None, '', {}))[1]
