"""How the loop gets itself out of where it is stuck, and when it gives up: events in, actions out."""

from dataclasses import replace

import pytest
from loop_driver import AUTO, CLOSE, MANUAL, MOVE, OPEN, Driver

from geo4d_ros.loop.machine import LoopConfig, Phase, Recovery
from geo4d_ros.loop.record import _loop_state
from geo4d_ros.reasons import Reason

STUCK = ('SINGULARITY', 'JOINT_LIMIT', 'JOINT_JUMP', 'COLLISION', 'IK_FAILED', 'STEP_TOO_LARGE', 'TABLE_CLEARANCE',
         'OUTSIDE_WORKSPACE', 'INSIDE_KEEP_OUT', 'TILT_TOO_LARGE', 'TRACK_LOST', 'PLAN_TOO_SHORT', 'PLAN_EMPTY',
         'CONFIDENCE_LOW', 'TIMING_FAILED', 'TIMED_DEVIATION', 'LIMITS_EXCEEDED', 'PATH_INCOMPLETE')
ELSEWHERE = ('ROBOT_MOVING', 'START_MISMATCH', 'PLAN_STALE', 'ROBOT_STATE_INVALID', 'TRACKING_FAILED', 'PLAN_INVALID')


def refuse(loop, reason='SINGULARITY'):
    """From OBSERVING through a refused plan."""
    return loop.observed().predicted().refused(reason)


def retreat(loop):
    """From SETTLING through the whole way back to the next look."""
    return loop.rested().planned(MOVE).done().rested()


# --- a plan that cannot be executed ---

@pytest.mark.parametrize('reason', STUCK)
def test_the_same_plan_would_be_refused_again_so_the_arm_goes_back_a_little(loop, reason):
    loop.send('START').observed().predicted()
    cycle = loop.state.cycle
    loop.refused(reason, detail='why')
    assert loop.kinds == ['REPORT', 'AWAIT_STANDSTILL'] and loop.data('REPORT') == {'reason': reason, 'detail': 'why'}
    assert loop.state.phase is Phase.SETTLING and loop.state.refusals == 1
    loop.rested()
    assert loop.kinds == ['PLAN_RECOVERY'] and loop.state.phase is Phase.PLANNING
    assert loop.data('PLAN_RECOVERY') == {'cycle': cycle + 1, 'recovery': 'RETREAT', 'again': 1}
    assert loop.state.deadline == pytest.approx(loop.time + 10.0)
    loop.planned(MOVE)
    assert loop.kinds == ['EXECUTE'] and loop.state.recovery is Recovery.RETREAT
    loop.done().rested()
    assert loop.kinds == ['OBSERVE'] and loop.state.recovery is None
    assert loop.state.refusals == 1 and loop.state.cycles == 2  # going back is no success


@pytest.mark.parametrize('reason', ELSEWHERE)
def test_what_another_place_cannot_mend_only_looks_again(loop, reason):
    assert refuse(loop.send('START'), reason).kinds == ['REPORT', 'OBSERVE']


@pytest.mark.parametrize('phase', [Phase.OBSERVING, Phase.PREDICTING, Phase.AWAITING_APPROVAL])
def test_only_a_refused_plan_makes_it_go_back(phase):
    assert Driver().to(phase).refused('SINGULARITY').kinds == ['REPORT', 'OBSERVE']


@pytest.mark.parametrize('reason', STUCK)
def test_unless_the_operator_chose_it_nothing_moves_after_a_refused_plan(reason):
    loop = Driver(LoopConfig(dry_run=False, auto=True)).send('START')
    for _ in range(2):
        assert refuse(loop, reason).kinds == ['REPORT', 'OBSERVE'] and loop.state.recovery is None
    refuse(loop, reason)
    assert loop.state.latch and loop.state.reason is Reason.TOO_MANY_REFUSALS
    assert loop.rested().state.phase is Phase.FAULT and loop.actions == ()


def test_unless_the_operator_chose_it_an_arm_that_is_held_up_waits_for_him():
    loop = blocked(Driver(LoopConfig(dry_run=False, auto=True)).send('START'))
    assert loop.kinds == ['STOP', 'REPORT'] and loop.reports == ['MOTION_BLOCKED'] and loop.state.latch
    assert loop.state.detail == '1, the last joint 6'
    assert loop.rested().state.phase is Phase.FAULT and loop.actions == ()


def test_a_dry_run_and_a_single_step_never_go_back():
    loop = Driver(LoopConfig(dry_run=True, auto=True, recover=True)).send('START')
    assert refuse(loop).kinds == ['REPORT', 'OBSERVE']
    loop = refuse(Driver().send('STEP'))
    assert loop.state.phase is Phase.DONE and loop.state.reason is Reason.SINGULARITY


def test_going_back_does_not_count_but_every_refused_prediction_does(loop):
    loop.send('START')
    retreat(refuse(loop))
    refuse(loop).rested().refused('COLLISION', detail='no way back')
    assert loop.state.phase is Phase.OBSERVING and loop.state.refusals == 2
    assert loop.kinds == ['REPORT', 'OBSERVE'] and loop.data('REPORT')['detail'] == 'no way back'
    refuse(loop)
    assert loop.state.phase is Phase.STOPPING and loop.state.reason is Reason.TOO_MANY_REFUSALS and loop.state.latch


def test_each_time_it_goes_back_farther(loop):
    retreat(refuse(loop.send('START')))
    assert refuse(loop).rested().data('PLAN_RECOVERY')['again'] == 2
    loop.planned(MOVE).done().rested().observed().predicted().planned().done().rested()
    blocked(loop).rested().planned(MOVE).refused('TRACKING_ERROR')
    assert loop.rested().data('PLAN_RECOVERY')['again'] == 2


def test_an_executed_prediction_forgets_the_refusals(loop):
    retreat(refuse(loop.send('START')))
    loop.observed().predicted().planned().done().rested()
    assert loop.state.refusals == 0


def test_without_auto_the_way_back_waits_for_approval_too():
    loop = refuse(Driver(MANUAL).send('START')).rested().planned(MOVE)
    assert loop.kinds == ['ASK_APPROVAL'] and loop.state.phase is Phase.AWAITING_APPROVAL
    loop.send('APPROVE', plan_id=loop.state.plan_id)
    assert loop.kinds == ['EXECUTE']


def test_a_way_back_of_no_length_is_not_the_end_of_the_task(loop):
    loop.config = replace(AUTO, done_cycles=1)
    refuse(loop.send('START')).rested().planned(MOVE, excursion=0.0)
    assert loop.kinds == ['EXECUTE'] and loop.state.done_count == 0


@pytest.mark.parametrize('stage', [0, 1, 2, 3])
def test_the_operator_stops_a_way_back_anywhere(loop, stage):
    refuse(loop.send('START'))
    for go in (loop.rested, loop.planned, loop.done)[:stage]:
        go()
    loop.send('STOP')
    assert 'STOP' in loop.kinds and loop.state.recovery is None
    loop.rested()
    assert loop.state.phase is Phase.IDLE and loop.actions == ()


# --- an arm that is held up ---

def blocked(loop):
    """From OBSERVING into a motion that is held up."""
    return loop.observed().predicted().planned(MOVE).refused('TRACKING_ERROR', detail='joint 6')


def test_a_motion_that_is_held_up_is_stopped_and_the_arm_goes_back(loop):
    blocked(loop.send('START'))
    assert loop.kinds == ['STOP', 'REPORT'] and loop.state.phase is Phase.STOPPING and not loop.state.latch
    assert loop.data('REPORT') == {'reason': 'TRACKING_ERROR', 'detail': 'joint 6'}
    assert loop.state.deadline == pytest.approx(loop.time + 2.0)
    assert loop.state.segments == () and loop.state.plan_id is None and loop.state.blocked == 1
    loop.rested()
    assert loop.kinds == ['PLAN_RECOVERY'] and loop.data('PLAN_RECOVERY')['recovery'] == 'RETREAT'
    assert loop.state.reason is None and loop.state.detail == ''
    loop.planned(MOVE).done()
    assert loop.state.blocked == 1
    loop.rested()
    assert loop.kinds == ['OBSERVE'] and loop.state.refusals == 0


def test_held_up_again_and_again_latches(loop):
    loop.send('START')
    for _ in range(2):
        blocked(loop).rested().planned(MOVE).done().rested()
    blocked(loop)
    assert loop.state.phase is Phase.STOPPING and loop.state.latch and loop.state.reason is Reason.MOTION_BLOCKED
    assert loop.state.detail == '3, the last joint 6' and loop.kinds == ['STOP', 'REPORT']
    assert loop.rested().state.phase is Phase.FAULT


def test_a_way_back_that_is_held_up_counts(loop):
    blocked(loop.send('START')).rested().planned(MOVE).refused('TRACKING_ERROR')
    assert loop.state.blocked == 2 and loop.state.phase is Phase.STOPPING and not loop.state.latch
    loop.rested().planned(MOVE).refused('TRACKING_ERROR')
    assert loop.state.latch and loop.state.reason is Reason.MOTION_BLOCKED


def test_a_predicted_motion_that_arrives_forgets_it(loop):
    blocked(loop.send('START')).rested().planned(MOVE).done().rested()
    loop.observed().predicted().planned(MOVE, MOVE).done()
    assert loop.state.blocked == 0


def test_the_gripper_alone_is_no_motion_that_arrives(loop):
    blocked(loop.send('START')).rested().planned(MOVE).done().rested()
    loop.observed().predicted().planned(CLOSE, MOVE).done(opening=0.04)
    assert loop.state.blocked == 1


def test_a_single_step_that_is_held_up_latches():
    loop = blocked(Driver().send('STEP'))
    assert loop.state.latch and loop.state.reason is Reason.MOTION_BLOCKED
    assert loop.state.detail == '1, the last joint 6'


def test_an_arm_that_is_held_up_and_does_not_stop_is_reported(loop):
    blocked(loop.send('START')).send('TICK', 2.1)
    assert loop.kinds == ['STOP'] and loop.data('STOP') == {'escalate': True} and loop.state.recovery is None
    loop.send('TICK', 2.1)
    assert loop.state.phase is Phase.FAULT and loop.state.reason is Reason.STOP_NOT_CONFIRMED


def test_an_arm_that_had_to_be_stopped_twice_does_not_go_on(loop):
    blocked(loop.send('START')).send('TICK', 2.1).rested()
    assert loop.state.phase is Phase.FAULT and loop.state.reason is Reason.TRACKING_ERROR


def test_a_stop_while_it_comes_to_rest_ends_the_run(loop):
    blocked(loop.send('START')).send('STOP')
    assert loop.state.reason is Reason.OPERATOR_STOP and loop.state.recovery is None and 'STOP' in loop.kinds
    assert loop.rested().state.phase is Phase.IDLE and loop.actions == ()


def test_a_fault_while_it_comes_to_rest_latches(loop):
    blocked(loop.send('START')).send('FAULT', reason='PEER_DEAD', detail='tracker')
    assert loop.state.latch and loop.state.reason is Reason.PEER_DEAD and loop.state.recovery is None
    assert loop.rested().state.phase is Phase.FAULT


@pytest.mark.parametrize('phase', [Phase.OBSERVING, Phase.PLANNING])
def test_what_does_not_move_cannot_be_held_up(phase):
    loop = Driver().to(phase).refused('TRACKING_ERROR')
    assert loop.kinds == ['REPORT', 'OBSERVE'] and loop.state.blocked == 0


# --- fingers that creep ---

def test_fingers_that_creep_on_something_open_and_leave(loop):
    loop.send('START').observed().predicted().planned(CLOSE, MOVE).refused('GRASP_UNSETTLED', detail='opening 0.03 m')
    assert loop.reports == ['GRASP_MISSED'] and loop.kinds == ['REPORT', 'AWAIT_STANDSTILL']
    assert loop.data('REPORT')['detail'] == 'opening 0.03 m' and loop.state.gripper_closed is True
    loop.rested()
    assert loop.data('PLAN_RECOVERY')['recovery'] == 'OPEN'
    loop.planned(OPEN, MOVE).done().done().rested()
    assert loop.state.phase is Phase.OBSERVING and loop.state.gripper_closed is False


@pytest.mark.parametrize('segment', [OPEN, MOVE])
def test_only_closing_fingers_may_creep(loop, segment):
    loop.send('START').observed().predicted().planned(segment).refused('GRASP_UNSETTLED', detail='0.03 m')
    assert loop.state.phase is Phase.STOPPING and loop.state.latch and loop.state.reason is Reason.GRIPPER_FAILED
    assert loop.state.detail == '0.03 m'


def test_fingers_that_creep_while_a_recovery_opens_are_a_fault(loop):
    loop.send('START').observed().predicted().planned(CLOSE).done(opening=0.0).rested()
    loop.planned(OPEN, MOVE).refused('GRASP_UNSETTLED')
    assert loop.state.latch and loop.state.reason is Reason.GRIPPER_FAILED


def test_after_a_reset_the_measured_opening_tells_whether_the_gripper_is_closed(loop):
    """One that failed to close and then to open would else count as closed for ever, and never close again."""
    loop.send('START').observed().predicted().planned(CLOSE).refused('GRASP_UNSETTLED').rested()
    loop.planned(OPEN, MOVE).refused('GRIPPER_FAILED').rested()
    assert loop.state.phase is Phase.FAULT and loop.state.gripper_closed is True
    assert loop.send('RESET').state.gripper_closed is None


def test_an_arm_that_does_not_come_to_rest_after_a_missed_grasp_is_stopped(loop):
    loop.send('START').observed().predicted().planned(CLOSE).done(opening=0.0).send('TICK', 5.1)
    assert loop.state.phase is Phase.STOPPING and loop.state.reason is Reason.SETTLE_TIMEOUT and loop.state.latch


def test_a_recovery_survives_a_record(loop):
    refuse(loop.send('START'))
    assert _loop_state(loop.state.to_json()) == loop.state


def test_after_each_missed_grasp_it_looks_from_farther_until_one_holds(loop):
    loop.send('START')
    for again in (1, 2, 3):
        loop.observed().predicted().planned(CLOSE).done(opening=0.0).rested()
        assert loop.data('PLAN_RECOVERY')['again'] == again == loop.state.misses
        loop.planned(OPEN, MOVE).done().done().rested()
    loop.observed().predicted().planned(CLOSE).done(opening=0.03).rested()
    assert loop.state.misses == 0
