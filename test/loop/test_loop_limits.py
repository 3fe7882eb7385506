"""The loop: deadlines, clocks, and the limits of a run."""

from dataclasses import replace

import pytest
from loop_driver import AUTO, BUSY, MOVE, OPEN, Driver

from geo4d_ros.loop.machine import RESTING, Phase
from geo4d_ros.reasons import Reason

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
