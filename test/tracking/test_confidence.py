"""The calibrated confidence: what raises it, what lowers it."""

from dataclasses import replace

from geo4d_ros.tracking.confidence import Agreement, ConfidenceModel

GOOD = Agreement(iou=0.9, views=2, visible=0.9, sigma_m=0.004, sigma_rad=0.03, met=0.95)
MODEL = ConfidenceModel()


def test_every_sign_of_trouble_lowers_it():
    good = MODEL.probability(GOOD, GOOD)
    assert good > MODEL.ok
    for trouble in ({'iou': 0.4}, {'met': 0.3}, {'views': 1}, {'sigma_m': 0.03}, {'sigma_rad': 0.3}):
        assert MODEL.probability(replace(GOOD, **trouble), GOOD) < good
    assert MODEL.probability(replace(GOOD, views=0), GOOD) == 0


def test_a_video_of_one_view_is_trusted_less_than_a_frame_that_only_one_view_sees():
    seen_once = replace(GOOD, views=1)
    assert MODEL.probability(seen_once, seen_once) < MODEL.probability(seen_once, GOOD)
