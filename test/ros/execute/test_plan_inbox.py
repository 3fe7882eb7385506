"""Plans come from the one publisher that was there when the run began, and from nobody else."""

from types import SimpleNamespace

import numpy as np
import pytest
from rclpy.serialization import serialize_message

from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.execute.plan_inbox import PlanInbox
from geo4d_ros.ros.wire.guard import Boundary
from geo4d_ros.ros.wire.plan_message import plan_message, refusal_message
from geo4d_ros.types import GripperTrack, Plan

STAMPS = 3_000_000_000 + np.arange(6, dtype=np.int64) * 500_000_000
TRACKER = SimpleNamespace(endpoint_gid=[1, 2], node_namespace='/', node_name='gripper_tracker')
INTRUDER = SimpleNamespace(endpoint_gid=[3, 4], node_namespace='/', node_name='intruder')


class StubNode:
    """A graph of publishers, and the one subscription."""

    def __init__(self):
        self.publishers = [TRACKER]

    def resolve_topic_name(self, name):
        return '/' + name.lstrip('/')

    def get_publishers_info_by_topic(self, topic):
        assert topic == '/geo4d/plan'
        return self.publishers

    def create_subscription(self, kind, topic, callback, qos, raw, event_callbacks):
        self.callback, self.matched = callback, event_callbacks.matched

    def get_logger(self):
        return SimpleNamespace(warning=lambda *a, **k: None, error=lambda *a, **k: None, debug=lambda *a: None)


@pytest.fixture
def node():
    return StubNode()


@pytest.fixture
def inbox(node):
    made = PlanInbox(node, Boundary(node, SimpleNamespace(set=lambda *a, **k: None)), 'base')
    node.matched(SimpleNamespace(total_count=1))
    assert made.bind() is None and made.check() is None
    return made


def send(node, message):
    node.callback(serialize_message(message), {})


def good(plan_id='p', frame='base'):
    return plan_message(plan_id, GripperTrack.example(6), np.eye(4), STAMPS, frame)


@pytest.mark.parametrize('early', [True, False])
def test_a_plan_is_handed_over_before_or_after_it_is_asked_for(node, inbox, early):
    got = []
    if early:
        send(node, good())
    inbox.await_plan('p', got.append)
    if not early:
        assert not got
        send(node, good('other'))
        assert not got
        send(node, good())
    (plan,) = got
    assert isinstance(plan, Plan) and plan.id == 'p' and plan.observation_stamp == STAMPS[0]
    send(node, good())
    assert len(got) == 1


def test_a_refused_plan_says_why(node, inbox):
    got = []
    inbox.await_plan('p', got.append)
    send(node, refusal_message('p', 5, Refusal(Reason.TRACK_LOST, 'hidden')))
    assert got == [Refusal(Reason.TRACK_LOST, 'hidden')]


def test_a_plan_in_another_frame_is_refused(node, inbox):
    got = []
    inbox.await_plan('p', got.append)
    send(node, good(frame='camera'))
    assert got[0].reason is Reason.TRANSFORM_MISSING and 'camera' in got[0].detail


@pytest.mark.parametrize('data', [b'', b'no message', None])
def test_what_is_no_plan_ends_the_wait(node, inbox, data):
    got = []
    inbox.await_plan('p', got.append)
    if data is None:
        message = good()
        message.seconds[2] = float('nan')
        data = serialize_message(message)
    node.callback(data, {})
    assert got[0].reason is Reason.PLAN_INVALID
    send(node, good())
    assert len(got) == 1


def test_no_run_begins_without_a_publisher_or_with_two(node, inbox):
    node.publishers = []
    assert inbox.bind().reason is Reason.PEER_DEAD
    node.publishers = [TRACKER, INTRUDER]
    refusal = inbox.bind()
    assert refusal.reason is Reason.SOURCE_CHANGED and '/intruder' in refusal.detail


@pytest.mark.parametrize('publishers', [[TRACKER, INTRUDER], [INTRUDER]])
def test_a_plan_beside_another_publisher_is_not_handed_over(node, inbox, publishers):
    got = []
    inbox.await_plan('p', got.append)
    node.publishers = publishers
    send(node, good())
    assert got[0].reason is Reason.SOURCE_CHANGED and '/intruder' in got[0].detail
    assert inbox.check().reason is Reason.SOURCE_CHANGED


def test_a_publisher_that_came_and_went_is_noticed(node, inbox):
    node.matched(SimpleNamespace(total_count=2))
    got = []
    inbox.await_plan('p', got.append)
    send(node, good())
    assert got[0].reason is Reason.SOURCE_CHANGED and 'came and went' in got[0].detail
    assert inbox.bind() is None and inbox.check() is None  # the next run begins anew


def test_a_tracker_that_is_gone_is_no_matter_of_the_source(node, inbox):
    node.publishers = []
    assert inbox.check() is None


def test_nothing_of_an_earlier_run_is_handed_over(node, inbox):
    send(node, good())
    inbox.bind()
    got = []
    inbox.await_plan('p', got.append)
    assert not got


def test_before_the_first_run_nothing_is_bound(node):
    made = PlanInbox(node, Boundary(node, SimpleNamespace(set=lambda *a, **k: None)), 'base')
    node.publishers = [INTRUDER]
    assert made.check() is None
