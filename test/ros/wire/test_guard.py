"""The guard: nothing that a message does comes out of a callback, and everything is counted with its cause."""

import pytest
from fakes.boundary import FakeBoundary
from std_msgs.msg import String

from geo4d_ros.ros.serve.diagnostics import OK, WARN
from geo4d_ros.ros.wire import guard
from geo4d_ros.ros.wire.guard import Malformed, shortened


@pytest.fixture
def heard():
    return {'values': [], 'refused': []}


def listening(heard, parse=lambda message: message.data, accept=None, limit=1000):
    boundary = FakeBoundary()
    keep = accept or (lambda value, number: heard['values'].append((value, number)))
    boundary.subscribe(String, 'words', parse, keep, None, limit=limit, refused=heard['refused'].append)
    return boundary


def test_a_good_message_is_parsed_and_handed_on_with_its_number(heard):
    boundary = listening(heard)
    boundary.say('/words', String(data='a'))
    boundary.say('/words', String(data='b'))
    assert heard == {'values': [('a', 1), ('b', 2)], 'refused': []}


def explode(*args):
    raise KeyError('hidden')


@pytest.mark.parametrize('options, message, text', [
    ({'parse': lambda message: Malformed('data', message.data, 'too rude')}, String(data='x'), "data = 'x': too rude"),
    ({'parse': explode}, String(data='x'), 'KeyError'),
    ({'accept': explode}, String(data='x'), 'KeyError'),
    ({'limit': 10}, String(data='x' * 100), 'at most 10 are read'),
    ({}, b'\x00', 'cannot be read as String'),
])
def test_a_bad_one_is_counted_named_and_told_to_its_owner(heard, options, message, text):
    boundary = listening(heard, **options)
    boundary.say('/words', message)
    level, said, values = boundary.report.said['input /words']
    assert level == WARN and text in said and '/words' in said and values['refused'] == 1
    assert len(heard['refused']) == 1 and text in heard['refused'][0]
    assert heard['values'] == []


def test_a_message_that_is_too_large_is_never_deserialised(heard, monkeypatch):
    boundary = listening(heard, limit=10)
    monkeypatch.setattr(guard, 'deserialize_message', explode)
    boundary.say('/words', String(data='x' * 100))
    assert 'at most 10' in boundary.cause('/words')


def test_a_topic_is_good_again_after_a_while(heard, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(guard.time, 'monotonic', lambda: now[0])
    boundary = listening(heard, parse=lambda m: m.data if m.data == 'good' else Malformed('data', m.data, 'bad'))
    boundary.say('/words', String(data='bad'))
    boundary.say('/words', String(data='good'))
    assert boundary.report.said['input /words'][0] == WARN
    now[0] += 6.0
    boundary.say('/words', String(data='good'))
    assert boundary.report.said['input /words'][0] == OK
    assert boundary.refused('words') == 1


def test_an_owner_that_fails_while_it_is_told_does_not_matter():
    boundary = FakeBoundary()
    boundary.subscribe(String, 'words', explode, explode, None, refused=explode)
    boundary.say('/words', String(data='x'))
    assert boundary.refused('words') == 1


@pytest.mark.parametrize('value', ['x' * 100_000, b'\x00' * 100_000, list(range(100_000)), 'a\nb\x00c', None])
def test_values_are_shown_short_and_printable(value):
    text = shortened(value)
    assert len(text) < 200 and text.isprintable()
