"""The loop: grasps that hold, miss or are lost."""

import pytest
from loop_driver import CLOSE, MOVE, OPEN

from geo4d_ros.loop.machine import Phase, Recovery
from geo4d_ros.reasons import Reason

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
