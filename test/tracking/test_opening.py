"""From likelihoods to an opening, and from openings to open or closed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.tracking.opening import OpeningModel, decode, is_closed, prior, transition

MODEL = OpeningModel()
LEVELS = np.linspace(0, 0.08, 9)


def scores_of(openings, sharpness=4.0):
    return -sharpness * np.abs(LEVELS[None] - np.asarray(openings)[:, None]) / 0.01


def test_clear_evidence_is_followed():
    truth = np.array([0.08] * 5 + [0.03] * 6)
    opening, confidence = decode(scores_of(truth), LEVELS, 0.08, MODEL)
    np.testing.assert_allclose(opening, truth, atol=0.006)
    assert confidence.min() > 0.5


def test_one_frame_of_weak_contradiction_does_not_switch():
    truth = np.array([0.08] * 11)
    scores = scores_of(truth, 1.0)
    scores[5] = scores_of([0.0], 0.3)[0]
    opening, _ = decode(scores, LEVELS, 0.08, MODEL)
    assert not is_closed(opening, 0.08).any()


def test_without_evidence_the_measured_opening_holds():
    opening, confidence = decode(np.zeros((11, 9)), LEVELS, 0.08, MODEL)
    assert opening[0] == 0.08 and confidence[0] == 1
    assert opening[1] > 0.07


def test_chances_are_chances():
    matrix = transition(LEVELS, MODEL)
    np.testing.assert_allclose(matrix.sum(1), 1)
    assert (matrix > 0).all() and (np.diag(matrix) > 0.5).all()
    assert LEVELS[prior(LEVELS, 0.031).argmax()] == pytest.approx(0.03)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 0.08), min_size=2, max_size=11), st.floats(-50, 50))
def test_openings_stay_in_the_stroke(openings, offset):
    opening, confidence = decode(scores_of(openings) + offset, LEVELS, openings[0], MODEL)
    assert (opening >= -1e-12).all() and (opening <= 0.08 + 1e-12).all()
    assert (confidence >= 0).all() and (confidence <= 1).all()


def test_hysteresis_sees_a_wide_object_and_a_release():
    opening = np.array([0.08, 0.079, 0.065, 0.054, 0.054, 0.055, 0.053, 0.069, 0.08])
    assert is_closed(opening, 0.08).tolist() == [False, False, True, True, True, True, True, False, False]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-0.005, 0.005), min_size=3, max_size=12), st.booleans())
def test_small_wobble_never_switches(wobble, closed):
    start = 0.03 if closed else 0.08
    opening = start + np.array([0.0, *wobble])
    assert (is_closed(opening, 0.08) == closed).all()
