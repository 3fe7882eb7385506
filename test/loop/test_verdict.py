"""The judgement on a prediction, and a loop that ends by it, or does not grasp where it missed before."""

from dataclasses import replace

import numpy as np
import pytest

from geo4d_ros.loop.events import ActionKind, Event, EventKind
from geo4d_ros.loop.machine import step
from geo4d_ros.loop.state import LoopConfig, LoopState, Phase, Recovery
from geo4d_ros.loop.verdict import judge
from geo4d_ros.reasons import Reason
from geo4d_ros.types import GripperTrack, Verdict, Video4D

CONFIG = LoopConfig(dry_run=False, auto=True, recover=True)


def video(pixels=None, moves=True, **scene):
    track = GripperTrack.example()
    if not moves:
        track = replace(track, T_ref_gripper=np.repeat(track.T_ref_gripper[:1], 11, axis=0),
                        opening=np.full(11, 0.08))
    figures = {**({} if pixels is None else {'object_pixels': float(pixels)}), **scene}
    return replace(Video4D.example(), state=track, scene=figures or None)


def test_an_object_and_a_motion_mean_work():
    assert judge(video(60), 0.08).verdict is Verdict.PROCEED


def test_no_object_is_nothing_to_do_and_no_motion_is_done():
    nothing = judge(video(2), 0.08)
    assert nothing.verdict is Verdict.NOTHING_TO_DO and '2 pixels' in nothing.text
    assert judge(video(60, moves=False), 0.08).verdict is Verdict.DONE


def test_closed_fingers_may_hide_what_they_hold():
    assert judge(video(0), 0.05).verdict is Verdict.PROCEED
    assert judge(video(60, moves=False), 0.05).verdict is Verdict.PROCEED


def test_what_is_not_reported_decides_nothing():
    assert judge(video(), 0.08).verdict is Verdict.PROCEED
    assert judge(replace(Video4D.example(), scene=None)).verdict is Verdict.PROCEED


def test_an_unfamiliar_scene_comes_first():
    assert judge(video(0, unfamiliar=3.0), 0.08).verdict is Verdict.UNFAMILIAR
    assert judge(video(60, unfamiliar=0.9), 0.08).verdict is Verdict.PROCEED


def predicting(**state):
    return LoopState(phase=Phase.PREDICTING, cycle=3, cycles=1, **state)


def answered(state, verdict):
    return step(state, Event(EventKind.PREDICTED, 0.0, {'cycle': 3, 'verdict': verdict.value, 'detail': 'why'}), CONFIG)


@pytest.mark.parametrize(('verdict', 'reason'), [(Verdict.NOTHING_TO_DO, Reason.NOTHING_TO_DO),
                                                 (Verdict.DONE, Reason.TASK_DONE)])
def test_the_loop_looks_twice_before_it_ends(verdict, reason):
    state, actions = answered(predicting(), verdict)
    assert state.phase is Phase.OBSERVING and actions[0].kind is ActionKind.OBSERVE
    state, _ = answered(predicting(idle_count=state.idle_count), verdict)
    assert state.phase is Phase.DONE and state.reason is reason and state.detail == 'why'


def test_work_in_between_starts_the_count_anew():
    state, _ = answered(predicting(idle_count=1), Verdict.PROCEED)
    assert state.phase is Phase.PLANNING and state.idle_count == 0


def test_a_gripper_that_holds_something_is_not_done():
    state, _ = answered(predicting(idle_count=1, gripper_closed=True), Verdict.NOTHING_TO_DO)
    assert state.phase is Phase.PLANNING


def test_an_object_seen_before_in_the_run_is_only_hidden():
    state, _ = answered(predicting(work_seen=True, idle_count=1), Verdict.NOTHING_TO_DO)
    assert state.phase is Phase.PLANNING
    state, _ = answered(predicting(work_seen=True, idle_count=1), Verdict.DONE)
    assert state.phase is Phase.DONE
    assert not step(LoopState(phase=Phase.DONE, work_seen=True), Event(EventKind.START, 1.0, {}), CONFIG)[0].work_seen


def test_fingers_that_are_going_to_close_are_not_at_rest():
    still = video(60, moves=False)
    closing = replace(still.state, opening=np.linspace(0.08, 0.03, 11))
    assert judge(replace(still, state=closing), 0.08).verdict is Verdict.PROCEED


def test_an_unfamiliar_scene_is_refused_and_then_asked_about():
    state, actions = answered(predicting(), Verdict.UNFAMILIAR)
    assert state.phase is Phase.OBSERVING and actions[0].data['reason'] == 'SCENE_UNFAMILIAR'
    state, _ = answered(predicting(refusals=CONFIG.max_refusals - 1), Verdict.UNFAMILIAR)
    assert state.phase is Phase.STOPPING and state.reason is Reason.TOO_MANY_REFUSALS


SEGMENTS = ({'kind': 'move', 'duration': 1.0}, {'kind': 'gripper', 'duration': 1.0, 'closing': True})


def ended(state, index, opening, position):
    state = replace(state, phase=Phase.EXECUTING, plan_id='p', segments=SEGMENTS, segment=index, recovery=None)
    return step(state, Event(EventKind.SEGMENT_DONE, 0.0, {'plan_id': 'p', 'index': index, 'opening': opening,
                                                           'position': position}), CONFIG)


def test_the_gripper_does_not_close_twice_on_nothing_at_one_place():
    state, _ = ended(LoopState(), 1, 0.0, [0.5, 0.1, 0.03])
    assert state.missed_at == ((0.5, 0.1, 0.03),) and state.recovery is Recovery.OPEN
    again, actions = ended(state, 0, 0.08, [0.505, 0.1, 0.03])
    assert [a.data['reason'] for a in actions if a.kind is ActionKind.REPORT] == ['GRASP_REPEATED']
    assert not any(a.kind is ActionKind.EXECUTE for a in actions) and again.recovery is Recovery.RETREAT
    elsewhere, actions = ended(state, 0, 0.08, [0.53, 0.1, 0.03])
    assert actions[0].kind is ActionKind.EXECUTE and elsewhere.segment == 1


def test_a_grasp_that_held_may_be_repeated_at_its_place():
    state, _ = ended(LoopState(), 1, 0.05, [0.5, 0.1, 0.03])
    assert state.missed_at == ()


def test_the_places_of_one_run_are_forgotten_in_the_next():
    state = LoopState(phase=Phase.DONE, missed_at=((0.5, 0.1, 0.03),), idle_count=1)
    fresh, _ = step(state, Event(EventKind.START, 1.0, {}), CONFIG)
    assert fresh.missed_at == () and fresh.idle_count == 0


def test_an_object_where_it_belongs_is_done():
    assert judge(video(60, done=0.999), 0.08).verdict is Verdict.DONE
    assert judge(video(60, done=0.95), 0.08).verdict is Verdict.PROCEED
    assert judge(video(60, done=0.999), 0.03).verdict is Verdict.PROCEED
