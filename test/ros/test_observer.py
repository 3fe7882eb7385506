"""What is wrong with a look is named by its cause: the unit of the depth before the surfaces it lets disagree."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.observe import observer as module
from geo4d_ros.ros.observe.depth_unit import check_depth_unit, depth_ratio
from geo4d_ros.ros.observe.observer import Observer, ObserverParameters
from geo4d_ros.types import Observation

EXAMPLE = Observation.example()
ARM = np.array([[0.1, 0.0, 1.0], [0.0, 0.1, 1.0], [0.0, 0.0, 1.0]])  # [m] in the reference view, on a wall 1 m away


def observation(unit: float = 1.0) -> Observation:
    """A wall 1 m away with an arm before it, seen in a unit `unit` times too large."""
    views = tuple(replace(view, depth=np.full(view.depth.shape, unit, np.float32)) for view in EXAMPLE.views)
    return replace(EXAMPLE, views=views, T_ref_gripper=None, arm_points=ARM)


@pytest.mark.parametrize('factor', [10.0, 0.1, 1000.0, 0.001])
def test_a_wrong_unit_is_told_with_the_right_one(factor):
    refusal = check_depth_unit(observation(factor), 0.001)
    assert refusal.reason is Reason.OBSERVATION_INVALID and f'{0.001 / factor:g} would fit' in refusal.detail


@pytest.mark.parametrize('factor', [1.0, 0.7, 1.5, 4.0])
def test_an_arm_a_little_beside_its_place_is_no_matter_of_units(factor):
    assert depth_ratio(observation(factor)) == pytest.approx(factor)
    assert check_depth_unit(observation(factor), 0.001) is None


def test_too_few_points_in_view_tell_nothing():
    assert depth_ratio(replace(observation(10.0), arm_points=ARM - [0.0, 0.0, 2.0])) is None


@pytest.mark.parametrize(('unit', 'reason'), [(10.0, Reason.OBSERVATION_INVALID), (1.0, Reason.CAMERAS_SWAPPED)])
def test_cameras_that_disagree_by_the_unit_are_not_called_swapped(monkeypatch, unit, reason):
    seen = observation(unit)
    T = np.eye(4)
    T[0, 3] = 0.5
    look = Observer.__new__(Observer)
    look.parameters = lambda: ObserverParameters(finger_joints=())
    look.diagnostics = SimpleNamespace(set=lambda *a, **k: None)
    look.transforms = SimpleNamespace(lookup=lambda *a: T)
    look.sync = SimpleNamespace(pairing=SimpleNamespace(starts=0), wait=lambda *a: None)
    look._last = None
    monkeypatch.setattr(module, 'read_frames', lambda *a: seen.views)
    monkeypatch.setattr(module, 'view_agreement', lambda *a: 0.38)
    monkeypatch.setattr(look, '_robot_state', lambda *a: (None, None, ARM))
    refusal = look.look()
    assert isinstance(refusal, Refusal) and refusal.reason is reason
