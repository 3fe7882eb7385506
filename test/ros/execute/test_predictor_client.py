"""What the executor makes of the generator's answer."""

from types import SimpleNamespace

import pytest
from builtin_interfaces.msg import Time
from geo4d_interfaces.srv import Predict

from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.execute.predictor_client import PredictClient, read_reply
from geo4d_ros.types import Verdict

GOOD = {'success': True, 'plan_id': 'p', 'stamp': Time(nanosec=5), 'frames': 11, 'stages': ['track'],
        'stages_ms': [1.25]}


def test_a_good_reply():
    reply = read_reply(Predict.Response(**GOOD))
    assert (reply.plan_id, reply.stamp, reply.values['frames']) == ('p', 5, 11)
    assert reply.judgement.verdict is Verdict.PROCEED
    assert reply.values['timings_ms'] == {'track': 1.2}


def test_a_refused_prediction():
    answer = read_reply(Predict.Response(reason='OBSERVATION_STALE', detail='old'))
    assert answer == Refusal(Reason.OBSERVATION_STALE, 'old')


@pytest.mark.parametrize('changes', [
    {'success': False}, {'plan_id': ''}, {'stamp': Time()}, {'stamp': Time(sec=-1)}, {'reason': 'NO_SUCH_CODE'},
    {'verdict': 9}])
def test_odd_replies_are_failures(changes):
    reply = read_reply(Predict.Response(**{**GOOD, **changes}))
    assert isinstance(reply, Refusal) and reply.reason is Reason.PREDICTION_FAILED


def test_a_reply_that_succeeds_with_a_reason_did_not():
    assert read_reply(Predict.Response(**{**GOOD, 'reason': 'TRACK_LOST'})).reason is Reason.TRACK_LOST


def test_the_verdict_of_a_reply():
    reply = read_reply(Predict.Response(**{**GOOD, 'verdict': 3, 'verdict_text': 'odd'}))
    assert (reply.judgement.verdict, reply.judgement.text) == (Verdict.UNFAMILIAR, 'odd')


@pytest.mark.parametrize('servers', [('a',), ('a', 'b')])
def test_two_servers_are_named(servers):
    node = SimpleNamespace(
        create_client=lambda *args: None, resolve_service_name=lambda name: '/cell/geo4d/predict',
        count_services=lambda name: len(servers), get_node_names_and_namespaces=lambda: [('a', '/'), ('b', '/x')],
        get_service_names_and_types_by_node=lambda name, namespace: [('/cell/geo4d/predict', [''])])
    refusal = PredictClient(node).check()
    assert (refusal is None) == (len(servers) == 1)
    if refusal:
        assert refusal.reason is Reason.SOURCE_CHANGED and '/a, /x/b' in refusal.detail
