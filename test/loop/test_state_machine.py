"""The loop: what follows from every event of a normal run, and what is configured."""

from dataclasses import replace

import pytest
from loop_driver import AUTO, CLOSE, MANUAL, MOVE, Driver

from geo4d_ros.bench.safety.sequences import run_sequence
from geo4d_ros.errors import ConfigurationError, InvalidInputError
from geo4d_ros.loop.events import Event, EventKind
from geo4d_ros.loop.machine import LoopConfig, LoopState, Phase
from geo4d_ros.reasons import Kind, Reason

# --- the normal way ---

def test_a_fresh_loop_is_idle_in_dry_run_and_asks_for_approval():
    config = LoopConfig()
    assert config.dry_run and not config.auto and not config.recover
    assert LoopState().phase is Phase.IDLE and LoopState().gripper_closed is None
    assert LoopState() == LoopState(reason=None, detail='', now=0.0, deadline=None, cycle=0, cycles=0, refusals=0,
                                    started=0.0, single=False, done_count=0, segment=0, latch=False, escalated=False,
                                    recovery=None, blocked=0, misses=0)


def test_the_defaults_are_those_that_the_documentation_names():
    c = LoopConfig()
    assert (c.max_cycles, c.max_seconds, c.max_refusals, c.approval_seconds) == (30, 600.0, 3, 10.0)
    assert c.max_blocked == 3
    assert (c.observe_seconds, c.predict_seconds, c.plan_seconds) == (5.0, 30.0, 10.0)
    assert (c.execution_factor, c.execution_slack, c.gripper_seconds) == (1.3, 1.0, 10.0)
    assert (c.settle_seconds, c.stop_seconds, c.clock_tolerance) == (5.0, 2.0, 0.1)
    assert (c.done_excursion, c.done_turn, c.done_cycles) == (0.02, 0.2, 2)
    assert (c.progress_cycles, c.progress_distance, c.missed_opening) == (5, 0.01, 0.003)


def test_one_cycle_after_the_other(loop):
    loop.send('START')
    assert loop.state.phase is Phase.OBSERVING and loop.kinds == ['OBSERVE']
    assert loop.data('OBSERVE') == {'cycle': 1} and loop.state.cycles == 1
    assert loop.state.deadline == pytest.approx(loop.time + 5.0) and loop.state.started == loop.time
    loop.observed()
    assert loop.state.phase is Phase.PREDICTING and loop.data('PREDICT') == {'cycle': 1} and loop.kinds == ['PREDICT']
    assert loop.state.deadline == pytest.approx(loop.time + 30.0)
    loop.predicted()
    assert loop.state.phase is Phase.PLANNING and loop.data('PLAN') == {'cycle': 1} and loop.kinds == ['PLAN']
    assert loop.state.deadline == pytest.approx(loop.time + 10.0)
    loop.planned(MOVE, CLOSE, MOVE, switches=1)
    assert loop.state.phase is Phase.EXECUTING and loop.kinds == ['EXECUTE']
    assert loop.data('EXECUTE') == {'plan_id': 'plan-1', 'index': 0, 'segment': MOVE}
    assert loop.state.deadline == pytest.approx(loop.time + 1.3 * 2.0 + 1.0)
    loop.done()
    assert loop.data('EXECUTE') == {'plan_id': 'plan-1', 'index': 1, 'segment': CLOSE}
    assert loop.state.deadline == pytest.approx(loop.time + 1.3 * 0.5 + 1.0 + 10.0)
    assert loop.state.gripper_closed is None
    loop.done(opening=0.03)
    assert loop.data('EXECUTE')['index'] == 2 and loop.state.gripper_closed is True
    loop.done()
    assert loop.state.phase is Phase.SETTLING and loop.kinds == ['AWAIT_STANDSTILL']
    assert loop.state.deadline == pytest.approx(loop.time + 5.0)
    loop.send('STANDSTILL')
    assert loop.state.phase is Phase.OBSERVING and loop.data('OBSERVE') == {'cycle': 2} and loop.state.cycles == 2
    assert loop.kinds == ['OBSERVE'] and loop.state.plan_id is None and loop.state.segments == ()
    assert loop.state.gripper_closed is True and loop.state.reason is None


def test_an_empty_motion_settles_at_once(loop):
    loop.to(Phase.PLANNING).send('PLANNED', cycle=1, plan_id='x', segments=[], excursion=0.2, turn=0.0, switches=0)
    assert loop.state.phase is Phase.SETTLING and loop.kinds == ['AWAIT_STANDSTILL']


def test_a_step_is_one_cycle():
    loop = Driver()
    loop.send('STEP').observed().predicted().planned().done().send('STANDSTILL')
    assert loop.state.phase is Phase.DONE and loop.state.reason is Reason.STEP_DONE and loop.reports == ['STEP_DONE']
    assert loop.state.deadline is None and loop.state.segments == ()
    loop.send('STEP')
    assert loop.state.phase is Phase.OBSERVING and loop.state.cycle == 2 and loop.state.cycles == 1
    assert loop.state.reason is None


def test_a_refused_step_ends_with_its_reason(loop):
    loop.send('STEP').refused('OBSERVATION_STALE', detail='0.9 s')
    assert loop.state.phase is Phase.DONE and loop.state.reason is Reason.OBSERVATION_STALE
    assert loop.state.detail == '0.9 s' and loop.reports == ['OBSERVATION_STALE'] and loop.kinds == ['REPORT']


def test_a_dry_run_plans_and_never_moves():
    loop = Driver(LoopConfig(auto=True))
    loop.send('START')
    for cycle in range(1, 6):
        loop.observed([0.4, 0, 0.3]).predicted().planned()
        assert loop.kinds == ['REPORT', 'OBSERVE'] and loop.reports == ['DRY_RUN']
        assert loop.data('OBSERVE') == {'cycle': cycle + 1}
    loop.send('STOP').send('STANDSTILL').send('STEP').observed().predicted().planned()
    assert loop.state.phase is Phase.DONE and loop.state.reason is Reason.DRY_RUN


def test_a_dry_run_forgets_refusals_after_a_good_plan():
    loop = Driver(LoopConfig())
    loop.send('START')
    loop.refused().refused()
    assert loop.state.refusals == 2
    loop.observed().predicted().planned()
    assert loop.state.refusals == 0


# --- approval ---

def test_without_auto_every_plan_waits_for_approval():
    loop = Driver(MANUAL).to(Phase.AWAITING_APPROVAL)
    assert loop.state.phase is Phase.AWAITING_APPROVAL and loop.kinds == ['ASK_APPROVAL']
    assert loop.data('ASK_APPROVAL') == {'plan_id': 'plan-1', 'expires': pytest.approx(loop.time + 10.0)}
    loop.send('APPROVE', 9.8, plan_id='plan-1')
    assert loop.state.phase is Phase.EXECUTING and loop.data('EXECUTE')['index'] == 0


def test_the_approval_of_another_plan_changes_nothing():
    loop = Driver(MANUAL).to(Phase.AWAITING_APPROVAL)
    before = loop.state
    loop.send('APPROVE', plan_id='plan-0')
    assert loop.kinds == ['REPORT'] and loop.reports == ['APPROVAL_WRONG_PLAN']
    assert replace(loop.state, now=before.now) == before
    assert 'plan-0' in loop.data('REPORT')['detail'] and 'plan-1' in loop.data('REPORT')['detail']


def test_an_approval_expires():
    loop = Driver(MANUAL).to(Phase.AWAITING_APPROVAL)
    loop.send('APPROVE', 10.1, plan_id='plan-1')
    assert loop.state.phase is Phase.OBSERVING and loop.state.refusals == 1
    assert loop.reports == ['APPROVAL_EXPIRED', 'NOT_ALLOWED_NOW'] and 'EXECUTE' not in loop.kinds


def test_an_approved_plan_cannot_be_approved_again():
    loop = Driver(MANUAL).to(Phase.AWAITING_APPROVAL)
    loop.send('APPROVE', plan_id='plan-1').send('APPROVE', plan_id='plan-1')
    assert loop.reports == ['NOT_ALLOWED_NOW'] and loop.kinds == ['REPORT']
    assert loop.data('REPORT')['detail'] == 'APPROVE in EXECUTING'


def test_the_waiting_plan_may_still_be_refused():
    loop = Driver(MANUAL).to(Phase.AWAITING_APPROVAL).refused('START_MOVED')
    assert loop.state.phase is Phase.OBSERVING and loop.reports == ['START_MOVED']


# --- refusals ---

@pytest.mark.parametrize('phase', [Phase.OBSERVING, Phase.PREDICTING, Phase.PLANNING, Phase.AWAITING_APPROVAL])
def test_a_refusal_looks_again(phase):
    loop = Driver().to(phase)
    assert loop.state.phase is phase
    loop.refused('OBSERVATION_STALE', detail='2 s')
    assert loop.state.phase is Phase.OBSERVING and loop.state.refusals == 1 and loop.state.plan_id is None
    assert loop.kinds == ['REPORT', 'OBSERVE']
    assert loop.data('REPORT') == {'reason': 'OBSERVATION_STALE', 'detail': '2 s'}
    assert loop.data('OBSERVE') == {'cycle': 2} and loop.state.cycles == 2


def test_refusals_in_a_row_latch(loop):
    loop.send('START').refused().refused()
    assert loop.state.phase is Phase.OBSERVING
    loop.refused('IK_FAILED', detail='7 mm')
    assert loop.state.phase is Phase.STOPPING and loop.state.reason is Reason.TOO_MANY_REFUSALS
    assert loop.state.detail == '3, the last IK_FAILED 7 mm' and loop.kinds == ['STOP', 'REPORT']
    loop.send('STANDSTILL')
    assert loop.state.phase is Phase.FAULT and loop.state.deadline is None


def test_refusals_count_only_in_a_row(loop):
    loop.send('START').refused().refused().observed().predicted().planned().done().send('STANDSTILL')
    assert loop.state.refusals == 0
    loop.refused().refused()
    assert loop.state.phase is Phase.OBSERVING


def test_a_refusal_without_detail_has_an_empty_one(loop):
    loop.send('START').refused()
    assert loop.data('REPORT')['detail'] == ''


@pytest.mark.parametrize('phase', [Phase.OBSERVING, Phase.PLANNING, Phase.EXECUTING])
def test_a_refusal_with_the_code_of_a_fault_is_one(phase):
    loop = Driver().to(phase).refused('BACKEND_UNAVAILABLE', detail='gone')
    assert loop.state.phase is Phase.STOPPING and loop.state.latch and loop.state.detail == 'gone'
    assert loop.state.reason is Reason.BACKEND_UNAVAILABLE


def test_a_segment_that_was_not_sent_waits_for_rest_and_looks_again(loop):
    loop.to(Phase.EXECUTING).refused('START_MOVED', detail='0.1 rad')
    assert loop.state.phase is Phase.SETTLING and loop.kinds == ['REPORT', 'AWAIT_STANDSTILL']
    assert loop.data('REPORT') == {'reason': 'START_MOVED', 'detail': '0.1 rad'}
    loop.send('STANDSTILL')
    assert loop.state.phase is Phase.OBSERVING and loop.state.refusals == 1
    loop.observed().predicted().planned().refused('START_MOVED')
    loop.send('STANDSTILL').observed().predicted().planned().refused('START_MOVED')
    assert loop.state.phase is Phase.STOPPING and loop.state.latch and loop.state.reason is Reason.START_MOVED


def test_a_step_that_was_not_sent_is_stopped(loop):
    loop.send('STEP').observed().predicted().planned().refused('START_MOVED')
    assert loop.state.phase is Phase.STOPPING and loop.state.latch and loop.data('REPORT')['detail'] == ''


def test_a_plan_is_executed_once(loop):
    loop.send('START').observed().predicted().planned(plan_id='twice').done().send('STANDSTILL')
    loop.observed().predicted().planned(plan_id='twice')
    assert loop.state.phase is Phase.OBSERVING and loop.reports == ['PLAN_REPEATED']
    assert loop.data('REPORT')['detail'] == 'twice'


def test_used_plans_outlive_stop_reset_and_start(loop):
    loop.to(Phase.PLANNING).planned(plan_id='old').send('FAULT', reason='PEER_DEAD').send('STANDSTILL').send('RESET')
    assert loop.state.phase is Phase.IDLE
    loop.send('START').observed().predicted().planned(plan_id='old')
    assert loop.reports == ['PLAN_REPEATED']


def test_only_the_last_plans_are_remembered(loop):
    loop.config = replace(AUTO, max_cycles=100)
    loop.send('START')
    for _ in range(40):
        loop.observed().predicted().planned().done().send('STANDSTILL')
    assert loop.state.used_plans == tuple(f'plan-{i}' for i in range(9, 41))


# --- events and configuration ---

@pytest.mark.parametrize(('kind', 'data'), [
    ('OBSERVED', {}), ('PLANNED', {'cycle': 1}), ('FAULT', {}), ('FAULT', {'reason': 'NONSENSE'}),
    ('FAULT', {'reason': 'TASK_DONE'}), ('REFUSED', {'cycle': 1, 'reason': 'GRASP_MISSED'}), ('APPROVE', {}),
])
def test_incomplete_events_are_errors(kind, data):
    with pytest.raises(InvalidInputError, match=kind):
        Event(EventKind[kind], 0.0, data)


@pytest.mark.parametrize('time', [float('nan'), float('inf')])
def test_events_have_a_time(time):
    with pytest.raises(InvalidInputError, match='time'):
        Event(EventKind.TICK, time)


@pytest.mark.parametrize('name', ['max_cycles', 'max_seconds', 'max_refusals', 'approval_seconds', 'stop_seconds'])
@pytest.mark.parametrize('value', [0, -1, float('nan')])
def test_limits_of_the_loop_are_positive(name, value):
    with pytest.raises(ConfigurationError, match=name):
        LoopConfig(**{name: value})


def test_the_state_is_plain_for_a_record(loop):
    plain = loop.to(Phase.FAULT).state.to_json()
    assert plain['phase'] == 'FAULT' and plain['reason'] == 'PEER_DEAD' and LoopState().to_json()['reason'] is None


def test_every_reason_has_a_sentence_of_its_own():
    sentences = [reason.sentence for reason in Reason]
    assert len(set(sentences)) == len(sentences) == len(Reason.__members__)
    assert all(isinstance(r.kind, Kind) and r.code == r.name and len(r.sentence) > 10 for r in Reason)


@pytest.mark.parametrize('index', range(60))
def test_random_events_never_command_what_they_must_not(index):
    wrong, codes = run_sequence(20_000, index)
    assert wrong == []
    assert set(codes) <= set(Reason.__members__)
