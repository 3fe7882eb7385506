"""The parameters stand for the library's own defaults, and contradictions are named."""

from dataclasses import replace

import pytest

from geo4d_ros.errors import Geo4dError
from geo4d_ros.loop.machine import LoopConfig
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.ros.execute.executor_parameters import ExecutorParameters, loop_config, motion_limits, scene

DEFAULTS = ExecutorParameters()


def test_defaults_are_safe():
    config = loop_config(DEFAULTS)
    assert config.dry_run and not config.auto
    assert motion_limits(DEFAULTS).speed == MotionLimits().speed


def test_limits_are_the_librarys_own_but_for_the_clock_and_the_far_box():
    limits = motion_limits(DEFAULTS)
    own = replace(limits, future_tolerance=MotionLimits().future_tolerance, keep_out=())
    assert own == MotionLimits()


def test_every_loop_setting_reaches_the_state_machine():
    config = loop_config(replace(DEFAULTS, auto=True, dry_run=False, max_cycles=3, predict_seconds=7.0))
    assert config == replace(LoopConfig(), auto=True, dry_run=False, max_cycles=3, predict_seconds=7.0,
                             execution_factor=DEFAULTS.execution_factor, execution_slack=DEFAULTS.execution_slack)


def test_boxes_become_obstacles():
    boxes = scene(replace(DEFAULTS, collision_boxes=(0.0, 0, -0.05, 3, 3, 0.1, 0.5, 0.2, 0.1, 0.2, 0.1, 0.2)))
    assert [o.name for o in boxes.obstacles] == ['box1', 'box2']
    assert boxes.obstacles[1].centre == (0.5, 0.2, 0.1)


@pytest.mark.parametrize('change', [{'workspace': (1.0, 0, 0, 0.0, 1, 1)}, {'keep_out': (1.0, 2.0)},
                                    {'opening_switch': 0.06}])
def test_contradictions_are_errors(change):
    with pytest.raises(Geo4dError):
        motion_limits(replace(DEFAULTS, **change))


def test_a_box_needs_six_numbers():
    with pytest.raises(Geo4dError, match='six numbers'):
        scene(replace(DEFAULTS, collision_boxes=(1.0,) * 7))
