"""geo4d_interfaces/Plan: what goes out comes in, and whatever cannot be true is named by its field."""

import numpy as np
import pytest
from geo4d_interfaces.msg import Plan as PlanMessage
from rclpy.serialization import deserialize_message, serialize_message

from geo4d_ros.geometry.transforms import make_transform
from geo4d_ros.loop.verdict import Judgement
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.wire.guard import Malformed
from geo4d_ros.ros.wire.plan_message import (
    MAX_POSES,
    PLAN_BYTES,
    VERDICTS,
    checked_plan,
    parse_plan,
    plan_message,
    predict_reply,
    read_judgement,
    refusal_message,
)
from geo4d_ros.types import GripperTrack, Plan, Verdict

STAMP = 3_000_000_000
STAMPS = STAMP + np.arange(6, dtype=np.int64) * 500_000_000
TRACK = GripperTrack.example(6)
T_BASE_REF = make_transform(None, np.array([1.0, 2, 3]))


def good(**options):
    return plan_message('p', TRACK, T_BASE_REF, STAMPS, 'base', **options)


def test_a_plan_returns_as_it_went():
    message = deserialize_message(serialize_message(good()), PlanMessage)
    received = parse_plan(message)
    assert (received.id, received.stamp, received.frame_id) == ('p', STAMP, 'base')
    plan, expected = received.answer, Plan.of_track(TRACK, T_BASE_REF, STAMPS, 'p')
    np.testing.assert_allclose(plan.T_base_gripper, expected.T_base_gripper, atol=1e-9)
    np.testing.assert_allclose(plan.T_base_gripper_start, expected.T_base_gripper_start, atol=1e-9)
    np.testing.assert_allclose(plan.opening, expected.opening)
    np.testing.assert_allclose(plan.time_from_start, expected.time_from_start)
    np.testing.assert_allclose(plan.confidence, expected.confidence)
    assert plan.id == 'p' and plan.observation_stamp == STAMP and plan.opening_start == expected.opening_start
    assert checked_plan(message) is message


def test_a_refusal_returns_with_its_reason():
    received = parse_plan(refusal_message('p', STAMP, Refusal(Reason.TRACK_LOST, 'hidden')))
    assert received.answer == Refusal(Reason.TRACK_LOST, 'hidden') and received.stamp == STAMP


def test_the_verdict_travels_with_the_plan_and_with_the_reply():
    judgement = Judgement(Verdict.DONE, 'still')
    message = good(judgement=judgement)
    assert (message.verdict, message.verdict_text) == (PlanMessage.DONE, 'still')
    reply = predict_reply(message, judgement, STAMP, {'track': 1.0}, frames=6)
    assert reply.success and reply.plan_id == 'p' and reply.stages == ['track'] and reply.frames == 6
    assert read_judgement(reply.verdict, reply.verdict_text) == judgement
    assert read_judgement(9, '') is None


@pytest.mark.parametrize(('verdict', 'success'), [(Verdict.PROCEED, False), (Verdict.NOTHING_TO_DO, True)])
def test_a_plan_that_is_not_there_is_a_failure_where_there_is_something_to_plan(verdict, success):
    refused = refusal_message('p', STAMP, Refusal(Reason.TRACK_LOST, 'hidden'))
    reply = predict_reply(refused, Judgement(verdict), STAMP, {})
    assert reply.success is success and reply.reason == ('' if success else 'TRACK_LOST')


def test_every_verdict_has_its_number():
    assert {v.name: VERDICTS[v] for v in Verdict} == {'PROCEED': 0, 'DONE': 1, 'NOTHING_TO_DO': 2, 'UNFAMILIAR': 3}


SPOILERS = {
    'id': lambda m: setattr(m, 'id', ''),
    'header.stamp': lambda m: setattr(m.header.stamp, 'sec', -1),
    'verdict': lambda m: setattr(m, 'verdict', 9),
    'reason': lambda m: setattr(m, 'reason', 'NO_SUCH_CODE'),
    'poses': lambda m: setattr(m, 'poses', m.poses[:1]),
    'seconds': lambda m: m.seconds.__setitem__(3, 0.1),
    'openings': lambda m: m.openings.__setitem__(0, float('nan')),
    'confidences': lambda m: m.confidences.pop(),
    'poses[2]': lambda m: setattr(m.poses[2].orientation, 'w', 9.0),
    'poses[1]': lambda m: setattr(m.poses[1].position, 'x', float('inf')),
}


@pytest.mark.parametrize('field', SPOILERS)
def test_what_cannot_be_true_is_named(field):
    message = good()
    SPOILERS[field](message)
    wrong = parse_plan(message)
    assert isinstance(wrong, Malformed) and wrong.field == field
    assert checked_plan(message).field == field


@pytest.mark.parametrize('change', [
    lambda m: setattr(m, 'id', 'x' * 257), lambda m: setattr(m.header.stamp, 'nanosec', 2 * 10**9),
    lambda m: setattr(m, 'seconds', [v + 0.1 for v in m.seconds]), lambda m: m.openings.append(0.0),
    lambda m: setattr(m, 'poses', m.poses * MAX_POSES)])
def test_other_impossible_messages(change):
    message = good()
    change(message)
    assert isinstance(parse_plan(message), Malformed)


def test_the_longest_plan_fits_the_limit_of_the_topic():
    n = MAX_POSES
    message = good()
    message.poses, message.seconds = [message.poses[0]] * n, [float(i) for i in range(n)]
    message.openings, message.confidences = [0.0] * n, [1.0] * n
    assert isinstance(parse_plan(message).answer, Plan) and len(serialize_message(message)) < PLAN_BYTES
