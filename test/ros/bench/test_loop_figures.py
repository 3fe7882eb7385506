"""The figures of the loop benchmark from a made-up record."""

import pytest

from geo4d_ros.ros.bench.loop import figures, spread


def event(kind, time, phase):
    return {'type': 'event', 'event': {'kind': kind, 'time': time, 'data': {}}, 'phase': phase}


def cycle(predict, generate, track, **more):
    stages = {'observe': 1.0, 'predict': predict, 'track': 2.0, 'gates': 50.0, 'execute': 9e3}
    return {'type': 'cycle', 'stages_ms': stages,
            'reply': {'timings_ms': {'generate': generate, 'track': track}}, 'observation_age_s': 1.5, **more}


RECORD = [
    {'type': 'header'},
    event('PLANNED', 10.0, 'EXECUTING'), cycle(1000.0, 600.0, 300.0),
    event('PLANNED', 20.0, 'PLANNING'),  # refused: no motion follows
    event('PLANNED', 30.0, 'EXECUTING'), cycle(2000.0, 600.0, 300.0),
    {'type': 'cycle', 'stages_ms': {'observe': 1.0}},  # a cycle that ended before a plan
]


def test_latencies_and_overhead():
    report = figures(RECORD, motion_starts=[10.04, 21.0, 30.06, 55.0])
    assert report['cycles'] == 3
    assert report['camera_to_plan_ms'] == {'p50': 1500.0, 'p95': 1500.0, 'n': 2}
    assert report['plan_to_motion_ms']['p50'] == pytest.approx(50.0)
    assert report['overhead_ms']['p50'] == pytest.approx((453.0 + 1453.0) / 2)
    assert report['overhead_without_tracker_ms']['p50'] == pytest.approx((153.0 + 1153.0) / 2)
    assert report['stages_ms']['prediction.generate'] == {'p50': 600.0, 'p95': 600.0, 'n': 2}


def test_nothing_measured_is_none():
    assert spread([]) is None
    assert figures([{'type': 'header'}], [])['plan_to_motion_ms'] is None
