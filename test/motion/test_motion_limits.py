"""Limits: safe defaults, checked on construction, readable from plain values."""

from dataclasses import asdict, fields, replace
from math import inf, nan

import pytest

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.motion.limits import SPEED_CAP, MotionLimits


def test_defaults_are_the_documented_ones():
    limits = MotionLimits()
    assert (limits.speed, SPEED_CAP, limits.angular_speed) == (0.1, 0.25, 0.5)
    assert (limits.start_distance, limits.prefix, limits.joint_jump, limits.ik_distance) == (0.01, 1, 0.2, 0.001)
    assert 0.1 <= limits.joint_velocity_scale <= 0.2 and limits.step_distance == 0.08 and limits.dwell >= 0.5


def test_the_speed_cap_cannot_be_raised():
    assert MotionLimits(speed=SPEED_CAP).speed == SPEED_CAP
    with pytest.raises(ConfigurationError, match=r'0\.25'):
        MotionLimits(speed=0.2501)


@pytest.mark.parametrize('field', [f.name for f in fields(MotionLimits)
                                   if f.name not in ('workspace', 'keep_out', 'held_box')])
@pytest.mark.parametrize('value', [nan, inf, -inf])
def test_every_number_has_to_be_finite(field, value):
    with pytest.raises(ConfigurationError, match=field):
        MotionLimits(**{field: value})


@pytest.mark.parametrize('field', ['speed', 'acceleration', 'joint_velocity_scale', 'step_distance', 'ik_angle',
                                   'joint_state_age', 'plan_age', 'prefix', 'period', 'stroke', 'condition_number'])
@pytest.mark.parametrize('value', [0, -1.0])
def test_what_has_to_be_positive(field, value):
    with pytest.raises(ConfigurationError, match=field):
        MotionLimits(**{field: value})


@pytest.mark.parametrize('changes', [
    {'workspace': (0, 0, 0, 1, 1)}, {'workspace': (0, 0, 0, 1, 1, 0)}, {'workspace': (0, 0, nan, 1, 1, 1)},
    {'keep_out': ((0, 0, 0, 1, -1, 1),)}, {'joint_velocity_scale': 1.1}, {'opening_switch': 0.05}, {'confidence': 1.5},
    {'speed': None},
])
def test_contradictions_are_refused(changes):
    with pytest.raises(ConfigurationError):
        MotionLimits(**changes)


def test_limits_survive_a_record():
    limits = replace(MotionLimits(), keep_out=((0.1, 0.1, 0.1, 0.2, 0.2, 0.2),), tilt=0.5,
                     held_box=(0.0, 0.0, 0.05, 0.1, 0.1, 0.1))
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(limits).items()}
    assert MotionLimits.from_dict(plain) == limits


def test_unknown_limits_are_named():
    with pytest.raises(ConfigurationError, match='sped'):
        MotionLimits.from_dict({'sped': 0.1})
