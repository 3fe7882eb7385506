"""The loop: what follows from every event, in every phase it may come in."""

from dataclasses import replace

import pytest

from geo4d_ros.errors import ConfigurationError, InvalidInputError
from geo4d_ros.evaluation.safety_sequences import run_sequence
from geo4d_ros.motion.events import ActionKind, Event, EventKind
from geo4d_ros.motion.reasons import Kind, Reason
from geo4d_ros.motion.state_machine import RESTING, LoopConfig, LoopState, Phase, Recovery, step

AUTO = LoopConfig(dry_run=False, auto=True)
MANUAL = LoopConfig(dry_run=False)
MOVE = {'kind': 'move', 'duration': 2.0}
CLOSE = {'kind': 'gripper', 'duration': 0.5, 'closing': True}
OPEN = {'kind': 'gripper', 'duration': 0.5, 'closing': False}
BUSY = [p for p in Phase if p not in (*RESTING, Phase.STOPPING)]


class Driver:
    """Feeds events and keeps the last answer."""

    def __init__(self, config=AUTO, time=100.0):
        self.config, self.time, self.state, self.actions = config, time, LoopState(), ()
        self.plans = 0

    def send(self, kind, dt=0.1, **data):
        self.time += dt
        self.state, self.actions = step(self.state, Event(EventKind[kind], self.time, data), self.config)
        return self

    @property
    def kinds(self):
        return [a.kind.value for a in self.actions]

    @property
    def reports(self):
        return [a.data['reason'] for a in self.actions if a.kind is ActionKind.REPORT]

    def data(self, kind):
        return next(a.data for a in self.actions if a.kind.value == kind)

    def observed(self, position=None, opening=0.08, dt=0.1):
        position = [0.1 * self.state.cycle, 0.0, 0.3] if position is None else position
        return self.send('OBSERVED', dt, cycle=self.state.cycle, position=position, opening=opening)

    def predicted(self):
        return self.send('PREDICTED', cycle=self.state.cycle)

    def planned(self, *segments, excursion=0.2, turn=0.0, switches=0, plan_id=None, dt=0.1):
        self.plans += 1
        return self.send('PLANNED', dt, cycle=self.state.cycle, plan_id=plan_id or f'plan-{self.plans}',
                         segments=list(segments or (MOVE,)), excursion=excursion, turn=turn, switches=switches)

    def refused(self, reason='OBSERVATION_STALE', **extra):
        return self.send('REFUSED', cycle=self.state.cycle, reason=reason, **extra)

    def done(self, opening=0.08, dt=0.1):
        return self.send('SEGMENT_DONE', dt, plan_id=self.state.plan_id, index=self.state.segment, opening=opening)

    def rested(self):
        return self.send('STANDSTILL')

    def to(self, phase):
        """Bring a fresh loop to `phase`."""
        if phase is Phase.IDLE:
            return self
        self.send('START')
        if phase is Phase.DONE:
            self.config = replace(self.config, max_cycles=1)
            return self.refused()
        if phase in (Phase.STOPPING, Phase.FAULT):
            self.send('FAULT', reason='PEER_DEAD', detail='tracker')
            return self.send('STANDSTILL') if phase is Phase.FAULT else self
        if phase is Phase.AWAITING_APPROVAL:
            self.config = replace(self.config, auto=False)
        for target, go in ((Phase.OBSERVING, self.observed), (Phase.PREDICTING, self.predicted),
                           (Phase.PLANNING, self.planned), (Phase.EXECUTING, self.done)):
            if phase in (target, Phase.AWAITING_APPROVAL) and self.state.phase is phase:
                return self
            go()
        return self


@pytest.fixture
def loop():
    return Driver()


# --- the normal way ---

def test_a_fresh_loop_is_idle_in_dry_run_and_asks_for_approval():
    config = LoopConfig()
    assert config.dry_run and not config.auto
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


# --- time ---

@pytest.mark.parametrize(('phase', 'seconds', 'reason'), [
    (Phase.OBSERVING, 5.0, 'OBSERVATION_TIMEOUT'), (Phase.PREDICTING, 30.0, 'PREDICTION_TIMEOUT'),
    (Phase.PLANNING, 10.0, 'TRACKING_FAILED'), (Phase.AWAITING_APPROVAL, 10.0, 'APPROVAL_EXPIRED'),
])
def test_no_answer_in_time_is_a_refusal(phase, seconds, reason):
    loop = Driver().to(phase).send('TICK', seconds - 0.01)
    assert loop.actions == () and loop.state.phase is phase
    loop.send('TICK', 0.02)
    assert loop.state.phase is Phase.OBSERVING and loop.reports == [reason] and loop.state.refusals == 1
    assert loop.data('REPORT')['detail'] == 'no answer in time'


@pytest.mark.parametrize(('segment', 'seconds', 'reason'), [
    (MOVE, 3.6, 'EXECUTION_TIMEOUT'), (OPEN, 11.65, 'GRIPPER_FAILED')])
def test_a_segment_that_takes_too_long_stops(loop, segment, seconds, reason):
    loop.to(Phase.PLANNING).planned(segment).send('TICK', seconds - 0.01)
    assert loop.actions == ()
    loop.send('TICK', 0.02)
    assert loop.state.phase is Phase.STOPPING and loop.reports == [reason] and loop.state.latch
    assert loop.state.detail == 'no answer in time'


def test_an_arm_that_does_not_settle_stops(loop):
    loop.to(Phase.SETTLING)
    assert loop.state.phase is Phase.SETTLING
    loop.send('TICK', 5.01)
    assert loop.state.phase is Phase.STOPPING and loop.reports == ['SETTLE_TIMEOUT'] and loop.state.latch
    assert loop.state.detail == ''


def test_a_deadline_is_met_on_the_dot(loop):
    loop.to(Phase.OBSERVING)
    loop.send('TICK', loop.state.deadline - loop.time)
    assert loop.actions == ()


def test_an_answer_after_the_deadline_is_not_taken(loop):
    loop.to(Phase.PLANNING).planned(dt=10.1)
    assert loop.state.phase is Phase.OBSERVING and loop.reports == ['TRACKING_FAILED', 'NOT_ALLOWED_NOW']


@pytest.mark.parametrize('phase', [p for p in BUSY if p is not Phase.AWAITING_APPROVAL])
def test_the_run_time_is_limited(phase):
    loop = Driver(replace(AUTO, max_seconds=3.0, execution_slack=100.0)).to(phase)
    loop.send('TICK', loop.state.started + 3.0 - loop.time)
    assert loop.actions == () and loop.state.phase is phase
    loop.send('TICK', 0.01)
    assert loop.state.phase is Phase.STOPPING and loop.reports == ['TIME_LIMIT'] and not loop.state.latch
    assert loop.data('REPORT')['detail'] == ''
    loop.send('TICK', 0.01)
    assert loop.actions == ()
    loop.send('STANDSTILL')
    assert loop.state.phase is Phase.DONE and loop.state.reason is Reason.TIME_LIMIT


@pytest.mark.parametrize('phase', RESTING)
def test_time_does_not_matter_at_rest(phase):
    loop = Driver().to(phase)
    before = loop.state
    for dt in (1e6, -2e6):
        loop.send('TICK', dt)
        assert loop.actions == () and replace(loop.state, now=before.now) == before
        assert loop.state.now == loop.time


@pytest.mark.parametrize('phase', BUSY)
def test_a_clock_that_jumps_back_stops_and_latches(phase):
    loop = Driver().to(phase).send('TICK', -0.2)
    assert loop.state.phase is Phase.STOPPING and loop.reports == ['CLOCK_JUMP'] and loop.kinds == ['STOP', 'REPORT']
    assert loop.state.latch and loop.state.now == loop.time
    assert '0.200 s' in loop.state.detail
    assert loop.state.deadline == pytest.approx(loop.time + 2.0)


def test_events_a_little_out_of_order_are_fine(loop):
    loop.to(Phase.PREDICTING)
    now = loop.time
    loop.send('TICK', -0.09)
    assert loop.actions == () and loop.state.phase is Phase.PREDICTING and loop.state.now == now


def test_a_clock_jump_while_stopping_neither_unlatches_nor_waits_for_ever(loop):
    loop.to(Phase.EXECUTING).send('STOP').send('TICK', -1000.0)
    assert loop.state.phase is Phase.STOPPING and loop.state.latch and loop.state.reason is Reason.CLOCK_JUMP
    assert loop.kinds == ['STOP', 'REPORT']
    loop.send('TICK', 2.1).send('TICK', 2.1)
    assert loop.state.phase is Phase.FAULT and loop.state.reason is Reason.STOP_NOT_CONFIRMED


# --- limits of the run ---

def test_cycles_are_limited():
    loop = Driver(replace(AUTO, max_cycles=2)).send('START')
    loop.observed().predicted().planned().done().send('STANDSTILL')
    assert loop.state.phase is Phase.OBSERVING
    loop.observed().predicted().planned().done().send('STANDSTILL')
    assert loop.state.phase is Phase.DONE and loop.state.reason is Reason.CYCLE_LIMIT
    assert loop.state.detail == '2 cycles' and loop.kinds == ['REPORT']
    loop.send('START')
    assert loop.state.cycles == 1 and loop.state.phase is Phase.OBSERVING


@pytest.mark.parametrize(('quiet', 'done'), [
    ({'excursion': 0.019, 'turn': 0.19, 'switches': 0}, True),
    ({'excursion': 0.02, 'turn': 0.19, 'switches': 0}, False),
    ({'excursion': 0.019, 'turn': 0.2, 'switches': 0}, False),
    ({'excursion': 0.019, 'turn': 0.19, 'switches': 1}, False),
])
def test_still_predictions_end_the_run(loop, quiet, done):
    loop.send('START').observed().predicted().planned(**quiet)
    assert loop.state.phase is Phase.EXECUTING and loop.state.done_count == int(done)
    loop.done().send('STANDSTILL').observed().predicted().planned(**quiet)
    assert (loop.state.phase is Phase.DONE) == done
    if done:
        assert loop.state.reason is Reason.TASK_DONE and 'EXECUTE' not in loop.kinds
        assert loop.state.detail == '2 still predictions'


def test_only_still_predictions_in_a_row_count(loop):
    loop.send('START')
    for excursion in (0.0, 0.2, 0.0):
        loop.observed().predicted().planned(excursion=excursion).done().send('STANDSTILL')
    assert loop.state.phase is Phase.OBSERVING and loop.state.done_count == 1


def test_no_progress_is_a_fault():
    loop = Driver(replace(AUTO, progress_cycles=3)).send('START')
    for _ in range(3):
        loop.observed([0.4, 0.0, 0.3]).predicted().planned().done().send('STANDSTILL')
        assert loop.state.phase is Phase.OBSERVING
    loop.observed([0.409, 0.0, 0.3])
    assert loop.state.phase is Phase.STOPPING and loop.state.reason is Reason.NO_PROGRESS and loop.state.latch
    assert loop.state.detail == '3 cycles'


@pytest.mark.parametrize('moved', [0, 1, 2, 3])
def test_one_move_is_progress(moved):
    loop = Driver(replace(AUTO, progress_cycles=3)).send('START')
    for i in range(4):
        loop.observed([0.4101 if i == moved else 0.4, 0.0, 0.3])
        if i < 3:
            loop.predicted().planned().done().send('STANDSTILL')
    assert loop.state.phase is Phase.PREDICTING


def test_positions_are_remembered_no_longer_than_needed():
    loop = Driver(replace(AUTO, progress_cycles=2)).send('START')
    for i in range(6):
        loop.observed([0.1 * i, 0, 0.3]).predicted().planned().done().send('STANDSTILL')
    assert loop.state.positions == ((0.30000000000000004, 0, 0.3), (0.4, 0, 0.3), (0.5, 0, 0.3))


def test_a_gripper_action_is_progress():
    loop = Driver(replace(AUTO, progress_cycles=2)).send('START')
    for _ in range(5):
        loop.observed([0.4, 0, 0.3]).predicted().planned(MOVE, OPEN, switches=1).done().done().send('STANDSTILL')
        assert loop.state.phase is Phase.OBSERVING and loop.state.positions == ()


# --- the gripper ---

@pytest.mark.parametrize('opening', [0.003, 0.0, -0.001, float('nan')])
def test_a_missed_grasp_is_recovered(loop, opening):
    loop.send('START').observed().predicted().planned(CLOSE, MOVE, switches=1)
    cycle = loop.state.cycle
    loop.done(opening=opening)
    assert loop.kinds == ['REPORT', 'AWAIT_STANDSTILL'] and loop.reports == ['GRASP_MISSED']
    assert loop.state.phase is Phase.SETTLING and loop.state.deadline == pytest.approx(loop.time + 5.0)
    loop.rested()
    assert loop.state.phase is Phase.PLANNING
    assert loop.kinds == ['PLAN_RECOVERY']
    assert loop.data('PLAN_RECOVERY') == {'cycle': cycle + 1, 'recovery': 'OPEN', 'again': 1}
    assert loop.state.deadline == pytest.approx(loop.time + 10.0) and loop.state.plan_id is None
    assert loop.state.segments == () and loop.state.segment == 0 and loop.state.recovery is Recovery.OPEN
    assert loop.state.done_count == 0 and loop.state.positions == () and loop.state.cycles == 1
    loop.planned(OPEN, MOVE, switches=1).done(opening=0.08)
    assert loop.state.gripper_closed is False
    loop.done().send('STANDSTILL')
    assert loop.state.phase is Phase.OBSERVING and loop.state.recovery is None


def test_the_opening_of_a_missed_grasp_is_reported(loop):
    loop.send('START').observed().predicted().planned(CLOSE).done(opening=0.002)
    assert loop.data('REPORT')['detail'] == 'opening 2.0 mm'


def test_a_grasp_goes_on_with_the_plan(loop):
    loop.send('START').observed().predicted().planned(CLOSE, MOVE).done(opening=0.0031)
    assert loop.kinds == ['EXECUTE'] and loop.state.gripper_closed is True


def test_opening_is_never_a_missed_grasp(loop):
    loop.send('START').observed().predicted().planned(OPEN, MOVE).done(opening=0.0)
    assert loop.kinds == ['EXECUTE'] and loop.state.gripper_closed is False


@pytest.mark.parametrize('opening', [0.003, float('nan')])
def test_a_lost_object_is_recovered_at_the_next_look(loop, opening):
    loop.send('START').observed().predicted().planned(CLOSE).done(opening=0.04).send('STANDSTILL')
    loop.observed(opening=opening)
    assert loop.reports == ['GRASP_MISSED'] and loop.rested().kinds == ['PLAN_RECOVERY']


def test_a_gripper_that_was_not_told_to_close_may_be_closed(loop):
    loop.send('START').observed(opening=0.0)
    assert loop.state.phase is Phase.PREDICTING
    loop.predicted().planned(OPEN).done().send('STANDSTILL').observed(opening=0.0)
    assert loop.state.phase is Phase.PREDICTING


def test_a_recovery_that_closes_the_gripper_is_a_fault(loop):
    loop.send('START').observed().predicted().planned(CLOSE).done(opening=0.0).rested()
    loop.planned(CLOSE).done(opening=0.0)
    assert loop.state.phase is Phase.STOPPING and loop.state.reason is Reason.GRIPPER_FAILED and loop.state.latch
    assert 'recovery' in loop.state.detail


def test_a_refused_recovery_counts_as_a_refusal(loop):
    loop.send('START').observed().predicted().planned(CLOSE).done(opening=0.0).rested().refused('COLLISION')
    assert loop.state.phase is Phase.OBSERVING and loop.state.refusals == 1
    loop.observed(opening=0.0)
    assert loop.kinds == ['REPORT', 'AWAIT_STANDSTILL']


def test_what_the_gripper_holds_outlives_stop_and_reset(loop):
    loop.send('START').observed().predicted().planned(CLOSE, MOVE).done(opening=0.04)
    loop.send('FAULT', reason='PEER_DEAD').send('STANDSTILL').send('RESET')
    assert loop.state.gripper_closed is True
    loop.send('START')
    assert loop.state.gripper_closed is True


def test_cycle_numbers_never_come_back(loop):
    loop.to(Phase.FAULT)
    cycle = loop.state.cycle
    loop.send('RESET').send('START')
    assert loop.state.cycle == cycle + 1


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
