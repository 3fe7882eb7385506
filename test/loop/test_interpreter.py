"""The interpreter over a scripted state machine: one event at a time, in order, and errors that stop the arm."""

from types import SimpleNamespace

import pytest

from geo4d_ros.loop.events import Action, ActionKind, EventKind
from geo4d_ros.loop.interpreter import Interpreter
from geo4d_ros.reasons import Reason

OBSERVE, REPORT, STOP = (Action(kind, {'of': kind.value}) for kind in (
    ActionKind.OBSERVE, ActionKind.REPORT, ActionKind.STOP))


class Bench:
    """answers: actions by kind of event; done: what happens in which order; brings: event that an action brings."""

    def __init__(self, answers, brings=None, broken=()):
        self.done, self.changes, self.errors, self.returned = [], [], [], None
        watcher = SimpleNamespace(acted=lambda kind, data: None, changed=self.changes.append, erred=self.errors.append)

        def carry(data):
            kind = ActionKind(data['of'])
            self.done.append(kind)
            if kind in broken:
                raise RuntimeError('broken')
            if brings and brings[0] is kind:
                self.returned = self.interpreter.handle(brings[1])

        self.interpreter = Interpreter(SimpleNamespace(clock=lambda: 5), watcher, dict.fromkeys(ActionKind, carry))
        self.heard = []

        def handle(event):
            self.heard.append(event)
            return answers.get(event.kind, ())

        self.interpreter.loop = SimpleNamespace(handle=handle)


def test_what_an_action_brings_about_comes_after_the_actions_of_its_event():
    bench = Bench({EventKind.START: (OBSERVE, REPORT), EventKind.STOP: (STOP,)},
                  brings=(ActionKind.OBSERVE, EventKind.STOP))
    assert bench.interpreter.handle(EventKind.START) == (OBSERVE, REPORT)
    assert bench.done == [ActionKind.OBSERVE, ActionKind.REPORT, ActionKind.STOP]
    assert bench.returned == ()  # nothing is known yet of what the inner event will do


def test_after_an_event_the_next_is_heard_at_once():
    bench = Bench({EventKind.STOP: (STOP,)})
    assert bench.interpreter.handle(EventKind.START) == ()
    assert bench.interpreter.handle(EventKind.STOP) == (STOP,) and bench.done == [ActionKind.STOP]


def test_the_watcher_hears_of_every_change_with_its_report_and_of_no_idle_tick():
    bench = Bench({EventKind.START: (OBSERVE, REPORT)})
    bench.interpreter.handle(EventKind.TICK)
    assert bench.changes == []
    bench.interpreter.handle(EventKind.START)
    bench.interpreter.handle(EventKind.STOP)  # answered by nothing, and yet no tick
    assert bench.changes == [REPORT.data, None]


def test_a_tick_that_does_something_is_a_change():
    bench = Bench({EventKind.TICK: (OBSERVE,)})
    bench.interpreter.handle(EventKind.TICK)
    assert bench.changes == [None]


def test_an_error_in_an_action_becomes_a_fault():
    bench = Bench({EventKind.START: (OBSERVE,), EventKind.FAULT: (STOP,)}, broken=(ActionKind.OBSERVE,))
    bench.interpreter.handle(EventKind.START)
    fault = bench.heard[-1]
    assert fault.kind is EventKind.FAULT and fault.data == {
        'reason': Reason.INTERNAL_ERROR.code, 'detail': 'OBSERVE: RuntimeError: broken'}
    assert bench.done[-1] is ActionKind.STOP and 'RuntimeError: broken' in bench.errors[0]


@pytest.mark.parametrize('action', [STOP, REPORT])
def test_an_error_in_stop_or_report_goes_through_and_the_next_event_is_heard(action):
    bench = Bench({EventKind.STOP: (action,)}, broken=(action.kind,))
    with pytest.raises(RuntimeError, match='broken'):
        bench.interpreter.handle(EventKind.STOP)
    assert not bench.errors and bench.interpreter.handle(EventKind.TICK) == ()
    assert bench.heard[-1].kind is EventKind.TICK
