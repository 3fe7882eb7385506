"""The loop: answers that come late or wrong, stops and faults in every phase."""

from dataclasses import replace

import pytest
from loop_driver import BUSY, MOVE, Driver

from geo4d_ros.loop.events import EventKind
from geo4d_ros.loop.machine import RESTING, Phase
from geo4d_ros.reasons import Reason

# --- late and wrong answers ---

@pytest.mark.parametrize(('phase', 'kind', 'data'), [
    (Phase.OBSERVING, 'OBSERVED', {'position': [0, 0, 0], 'opening': 0.08}), (Phase.PREDICTING, 'PREDICTED', {}),
    (Phase.PLANNING, 'PLANNED', {'plan_id': 'x', 'segments': [MOVE], 'excursion': 1, 'turn': 0, 'switches': 0}),
    (Phase.PLANNING, 'REFUSED', {'reason': 'COLLISION'}),
])
@pytest.mark.parametrize('offset', [-1, 1])
def test_answers_of_another_cycle_are_ignored(phase, kind, data, offset):
    loop = Driver().to(phase)
    before = loop.state
    loop.send(kind, cycle=before.cycle + offset, **data)
    assert loop.reports == ['NOT_ALLOWED_NOW'] and replace(loop.state, now=before.now) == before


@pytest.mark.parametrize('wrong', [{'plan_id': 'other'}, {'index': 1}])
def test_only_the_present_segment_can_be_done(loop, wrong):
    loop.to(Phase.EXECUTING)
    before = loop.state
    loop.send('SEGMENT_DONE', **{'plan_id': 'plan-1', 'index': 0, 'opening': 0.08, **wrong})
    assert loop.reports == ['NOT_ALLOWED_NOW'] and replace(loop.state, now=before.now) == before


ALLOWED = {
    Phase.IDLE: {'START', 'STEP'}, Phase.DONE: {'START', 'STEP', 'RESET'}, Phase.FAULT: {'RESET'},
    Phase.OBSERVING: {'OBSERVED', 'REFUSED'}, Phase.PREDICTING: {'PREDICTED', 'REFUSED'},
    Phase.PLANNING: {'PLANNED', 'REFUSED'}, Phase.AWAITING_APPROVAL: {'APPROVE', 'REFUSED'},
    Phase.EXECUTING: {'SEGMENT_DONE', 'REFUSED'}, Phase.SETTLING: {'STANDSTILL'}, Phase.STOPPING: {'STANDSTILL'},
}


@pytest.mark.parametrize('phase', list(Phase))
@pytest.mark.parametrize('kind', [k for k in EventKind if k.value not in ('STOP', 'FAULT', 'TICK')])
def test_what_does_not_fit_the_phase_changes_nothing(phase, kind):
    loop = Driver().to(phase)
    assert loop.state.phase is phase
    before = loop.state
    loop.send(kind.value, cycle=before.cycle, plan_id=before.plan_id, index=0, opening=0.08, position=[0, 0, 0],
              segments=[MOVE], excursion=1.0, turn=0.0, switches=0, reason='COLLISION')
    if kind.value in ALLOWED[phase]:
        assert replace(loop.state, now=before.now) != before
    else:
        assert loop.reports == ['NOT_ALLOWED_NOW'] and replace(loop.state, now=before.now) == before
        assert loop.kinds == ['REPORT']


# --- stop ---

@pytest.mark.parametrize('phase', BUSY)
def test_the_operator_stops_any_phase(phase):
    loop = Driver().to(phase)
    cycle = loop.state.cycle
    loop.send('STOP')
    assert loop.state.phase is Phase.STOPPING and loop.kinds == ['STOP', 'REPORT']
    assert loop.data('STOP') == {'escalate': False} and loop.reports == ['OPERATOR_STOP']
    assert loop.state.segments == () and loop.state.plan_id is None and loop.state.segment == 0
    assert loop.state.cycle == cycle + 1  # no answer under way fits any more
    assert loop.state.deadline == pytest.approx(loop.time + 2.0) and not loop.state.latch
    loop.send('STANDSTILL')
    assert loop.state.phase is Phase.IDLE and loop.state.reason is Reason.OPERATOR_STOP and loop.actions == ()
    assert loop.state.deadline is None
    loop.send('START')
    assert loop.state.phase is Phase.OBSERVING


@pytest.mark.parametrize('phase', RESTING)
def test_a_stop_is_sent_even_at_rest(phase):
    loop = Driver().to(phase)
    before = loop.state
    loop.send('STOP')
    assert loop.kinds == ['STOP'] and loop.data('STOP') == {'escalate': False}
    assert replace(loop.state, now=before.now) == before


@pytest.mark.parametrize('phase', BUSY)
def test_a_fault_stops_any_phase_and_latches(phase):
    loop = Driver().to(phase).send('FAULT', reason='TRACKING_ERROR', detail='0.2 rad')
    assert loop.state.phase is Phase.STOPPING and loop.kinds == ['STOP', 'REPORT'] and loop.state.latch
    assert loop.data('REPORT') == {'reason': 'TRACKING_ERROR', 'detail': '0.2 rad'}
    loop.send('STANDSTILL')
    assert loop.state.phase is Phase.FAULT and loop.state.reason is Reason.TRACKING_ERROR
    assert loop.state.detail == '0.2 rad'
    for kind in ('START', 'STEP', 'TICK'):
        loop.send(kind)
        assert loop.state.phase is Phase.FAULT
    loop.send('RESET')
    assert loop.state.phase is Phase.IDLE and loop.state.reason is None and loop.actions == ()
    loop.send('START')
    assert loop.kinds == ['OBSERVE']


@pytest.mark.parametrize('phase', RESTING)
def test_a_fault_at_rest_is_reported_and_latches_nothing(phase):
    loop = Driver().to(phase)
    before = loop.state
    loop.send('FAULT', reason='CAMERA_SILENT')
    assert loop.reports == ['CAMERA_SILENT'] and loop.kinds == ['REPORT'] and loop.data('REPORT')['detail'] == ''
    assert replace(loop.state, now=before.now) == before


def test_a_fault_during_a_stop_latches_it(loop):
    loop.to(Phase.EXECUTING).send('STOP').send('FAULT', reason='JOINT_STATES_STALLED', detail='a')
    assert loop.kinds == ['STOP', 'REPORT']
    loop.send('FAULT', reason='PEER_DEAD', detail='b').send('STANDSTILL')
    assert loop.state.phase is Phase.FAULT and loop.state.reason is Reason.JOINT_STATES_STALLED
    assert loop.state.detail == 'a'


def test_a_second_stop_does_not_unlatch_a_fault(loop):
    loop.to(Phase.STOPPING).send('STOP')
    assert loop.kinds == ['STOP', 'REPORT'] and loop.state.reason is Reason.PEER_DEAD
    loop.send('STANDSTILL')
    assert loop.state.phase is Phase.FAULT


def test_a_second_stop_does_not_lengthen_the_wait(loop):
    loop.to(Phase.EXECUTING).send('STOP')
    deadline = loop.state.deadline
    loop.send('STOP', 1.0)
    assert loop.state.deadline == deadline


def test_an_arm_that_does_not_stop_is_told_again_and_reported(loop):
    loop.to(Phase.EXECUTING).send('STOP').send('TICK', 1.9)
    assert loop.actions == ()
    loop.send('TICK', 0.2)
    assert loop.state.phase is Phase.STOPPING and loop.kinds == ['STOP'] and loop.data('STOP') == {'escalate': True}
    assert loop.state.deadline == pytest.approx(loop.time + 2.0) and loop.state.escalated
    loop.send('STOP')
    assert loop.data('STOP') == {'escalate': True}
    loop.send('TICK', 2.1)
    assert loop.state.phase is Phase.FAULT and loop.state.reason is Reason.STOP_NOT_CONFIRMED
    assert loop.kinds == ['STOP', 'REPORT'] and loop.data('STOP') == {'escalate': True}
    assert loop.data('REPORT') == {'reason': 'STOP_NOT_CONFIRMED', 'detail': 'after OPERATOR_STOP'}
    assert loop.state.detail == 'after OPERATOR_STOP' and loop.state.deadline is None


def test_an_arm_that_stops_after_the_second_order_is_fine(loop):
    loop.to(Phase.EXECUTING).send('STOP').send('TICK', 2.1).send('STANDSTILL')
    assert loop.state.phase is Phase.IDLE
    loop.to(Phase.EXECUTING).send('STOP')
    assert not loop.state.escalated and loop.data('STOP') == {'escalate': False}


def test_an_operator_cannot_reset_a_fault_in_the_moment_it_appears(loop):
    loop.to(Phase.STOPPING).send('TICK', 2.1).send('RESET', 2.1)
    assert loop.state.phase is Phase.FAULT and loop.reports == ['STOP_NOT_CONFIRMED', 'NOT_ALLOWED_NOW']


def test_a_stop_overrules_a_deadline_that_passed(loop):
    loop.to(Phase.OBSERVING).send('STOP', 100.0)
    assert loop.state.phase is Phase.STOPPING and loop.kinds == ['STOP', 'REPORT']
    loop = Driver().to(Phase.OBSERVING).send('FAULT', 100.0, reason='PEER_DEAD')
    assert loop.kinds == ['STOP', 'REPORT'] and loop.state.latch
