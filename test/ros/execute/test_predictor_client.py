"""What the executor makes of the generator's answer and of the tracker's three topics."""

import json

import numpy as np
import pytest
from std_msgs.msg import String
from std_srvs.srv import Trigger

from geo4d_ros.loop.port import Predicted
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.execute.predictor_client import PlanInbox, read_reply
from geo4d_ros.ros.wire.conversions import opening_message, path_message
from geo4d_ros.types import Plan

STAMP = 3_000_000_000


class StubNode:
    def __init__(self):
        self.callbacks = {}

    def create_subscription(self, kind, topic, callback, qos):
        self.callbacks[topic] = callback


@pytest.fixture
def inbox():
    node, plans = StubNode(), []
    box = PlanInbox(node, 'base')
    box.await_plan(STAMP, plans.append)
    return box, node.callbacks, plans


def parts(n=4, stamp=STAMP, frame='base', confidence=None, plan='p'):
    stamps = stamp + np.arange(n, dtype=np.int64) * 500_000_000
    T = np.tile(np.eye(4), (n, 1, 1))
    T[:, 0, 3] = 0.1 * np.arange(n)
    info = {'plan': plan, 'stamp': stamp, 'confidence': [1.0] * n if confidence is None else confidence}
    return {'/geo4d/plan/path': path_message(T, stamps, frame),
            '/geo4d/plan/gripper': opening_message(np.linspace(0.08, 0.02, n), stamps),
            '/geo4d/plan/info': String(data=json.dumps(info))}


@pytest.mark.parametrize('order', [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_plan_is_whole_when_its_last_part_comes(inbox, order):
    box, callbacks, plans = inbox
    messages = list(parts().items())
    for i in order:
        assert not plans
        topic, message = messages[i]
        callbacks[topic](message)
    (plan,) = plans
    assert isinstance(plan, Plan)
    assert plan.observation_stamp == STAMP
    np.testing.assert_allclose(plan.time_from_start, [0.5, 1.0, 1.5])
    np.testing.assert_allclose(plan.T_base_gripper[:, 0, 3], [0.1, 0.2, 0.3])
    assert plan.opening_start == pytest.approx(0.08)
    assert not box.complete(STAMP)


def test_parts_of_different_observations_do_not_mix(inbox):
    box, callbacks, plans = inbox
    callbacks['/geo4d/plan/path'](parts()['/geo4d/plan/path'])
    for topic, message in list(parts(stamp=STAMP + 1).items())[1:]:
        callbacks[topic](message)
    assert not plans
    assert not box.complete(STAMP) and not box.complete(STAMP + 1)


def test_a_refusal_needs_no_path(inbox):
    _, callbacks, plans = inbox
    callbacks['/geo4d/plan/info'](String(data=json.dumps({'plan': 'p', 'stamp': STAMP, 'code': 'TRACK_LOST'})))
    assert [p.reason for p in plans] == [Reason.TRACK_LOST]


@pytest.mark.parametrize(('changes', 'reason'), [
    ({'frame': 'camera'}, Reason.TRANSFORM_MISSING),
    ({'confidence': [1.0]}, Reason.PLAN_INVALID),
    ({'confidence': ['much', 'more', 'most', 'all']}, Reason.PLAN_INVALID),
    ({'n': 1}, Reason.TRACK_LOST),
])
def test_bad_plans_are_refused(inbox, changes, reason):
    _, callbacks, plans = inbox
    for topic, message in parts(**changes).items():
        callbacks[topic](message)
    (refusal,) = plans
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason


@pytest.mark.parametrize('text', ['', 'nonsense', '[]', '{"plan": "p"}', '{"stamp": "soon"}'])
def test_unreadable_info_is_no_plan(inbox, text):
    _, callbacks, plans = inbox
    callbacks['/geo4d/plan/info'](String(data=text))
    assert not plans


def test_only_a_few_plans_are_kept(inbox):
    box, callbacks, _ = inbox
    for k in range(10):
        callbacks['/geo4d/plan/path'](parts(stamp=STAMP + k)['/geo4d/plan/path'])
    assert len(box._parts) <= 4


def test_replies():
    good = Trigger.Response(success=True, message=json.dumps({'plan': 'p', 'stamp': 5, 'frames': 11}))
    assert read_reply(good) == Predicted('p', 5, {'plan': 'p', 'stamp': 5, 'frames': 11})
    refused = Trigger.Response(success=False, message=json.dumps({'code': 'OBSERVATION_STALE', 'detail': 'old'}))
    assert read_reply(refused) == Refusal(Reason.OBSERVATION_STALE, 'old')


@pytest.mark.parametrize('message', ['', 'boom', '{}', '{"plan": "p"}', '{"plan": "p", "stamp": null}', '[1]'])
@pytest.mark.parametrize('success', [True, False])
def test_odd_replies_are_failures(success, message):
    reply = read_reply(Trigger.Response(success=success, message=message))
    assert isinstance(reply, Refusal)
    assert reply.reason is Reason.PREDICTION_FAILED
