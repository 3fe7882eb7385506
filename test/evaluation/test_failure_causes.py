"""Sorting failed episodes by cause."""

import json

import pytest

from geo4d_ros.evaluation.closed_loop.failure_causes import CAUSES, CycleRecord, cause_of
from geo4d_ros.reasons import Kind, Reason

GOOD = CycleRecord(plan_error_m=0.005, prediction_error_m=0.005)


def test_nothing_ran_is_a_timeout():
    assert cause_of([]) == 'timeout'


@pytest.mark.parametrize(('reason', 'cause'), [
    ('TRACK_LOST', 'tracking'), ('CONFIDENCE_LOW', 'tracking'), ('PREDICTION_INVALID', 'prediction'),
    ('OUTSIDE_WORKSPACE', 'gate_refusal'), ('COLLISION', 'gate_refusal'), ('IK_FAILED', 'gate_refusal'),
    ('TRACKING_ERROR', 'motion'), ('SETTLE_TIMEOUT', 'motion'), ('GRIPPER_FAILED', 'motion'),
])
def test_the_end_decides(reason, cause):
    assert cause_of([GOOD, CycleRecord(reason)]) == cause


def test_too_many_refusals_are_blamed_on_what_refused():
    cycles = [GOOD, CycleRecord('TRACK_LOST'), CycleRecord('COLLISION'), CycleRecord('TOO_MANY_REFUSALS')]
    assert cause_of(cycles) == 'gate_refusal'


def test_a_refusal_in_the_middle_does_not_decide():
    assert cause_of([CycleRecord('COLLISION'), GOOD]) == 'timeout'


def test_a_bad_plan_is_blamed_on_the_video_when_the_video_was_bad():
    off = CycleRecord(plan_error_m=0.05, prediction_error_m=0.06, closed=True)
    assert cause_of([GOOD, off, GOOD]) == 'prediction'
    off = CycleRecord(plan_error_m=0.05, prediction_error_m=0.005, closed=True)
    assert cause_of([GOOD, off, GOOD]) == 'tracking'


def test_a_good_plan_that_lost_the_object_is_a_grasp_failure():
    closing = CycleRecord(plan_error_m=0.006, prediction_error_m=0.006, closed=True)
    assert cause_of([GOOD, closing, CycleRecord('GRASP_MISSED', missed=True)]) == 'grasp'


def test_without_a_grasp_the_worst_plan_decides():
    assert cause_of([GOOD, CycleRecord(plan_error_m=0.2, prediction_error_m=0.2), GOOD]) == 'prediction'


@pytest.mark.parametrize('reason', [r.code for r in Reason if r.kind is not Kind.END])
def test_every_reason_has_a_cause(reason):
    assert cause_of([GOOD, CycleRecord(reason)]) in CAUSES


def test_records_are_json():
    assert json.loads(json.dumps(GOOD.to_json()))['plan_error_m'] == 0.005
