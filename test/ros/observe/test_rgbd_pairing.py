"""Which images belong together: exact within a camera, within a slop between cameras, never stale."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.errors import InvalidInputError
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.observe.rgbd_pairing import CameraMessages, Match, RgbdPairing
from geo4d_ros.ros.observe.rgbd_sync import read_frame
from geo4d_ros.ros.wire.camera import parse_camera_info
from geo4d_ros.ros.wire.conversions import camera_info_message, image_message
from geo4d_ros.types import RgbdFrame

MS = 1_000_000


def pairing(cameras=2):
    out = RgbdPairing(tuple(f'camera{i}' for i in range(cameras)))
    for camera in range(cameras):
        out.add(camera, 'info', 0, f'info{camera}')
    return out


def send(out, camera, stamp_ms, kinds=('colour', 'depth')):
    for kind in kinds:
        out.add(camera, kind, stamp_ms * MS, f'{kind} {camera} {stamp_ms}')


def test_colour_and_depth_pair_only_when_their_stamps_are_equal():
    out = pairing(1)
    out.add(0, 'colour', 10 * MS, 'c10')
    out.add(0, 'depth', 13 * MS, 'd13')
    refusal = out.match(0.03)
    assert isinstance(refusal, Refusal) and 'never have the same stamp' in refusal.detail
    out.add(0, 'depth', 10 * MS, 'd10')
    match = out.match(0.03)
    assert match.cameras == (CameraMessages(10 * MS, 'c10', 'd10', 'info0'),) and match.skew == 0


@pytest.mark.parametrize('apart_ms, fits', [(1, True), (-2, True), (2.5, False)])
def test_colour_and_depth_of_one_trigger_may_be_stamped_2_ms_apart(apart_ms, fits):
    out = pairing(1)
    for start in (100, 133):
        out.add(0, 'depth', int((start + apart_ms) * MS), f'd{start}')
        out.add(0, 'colour', start * MS, f'c{start}')
    match = out.match(0.03)
    assert isinstance(match, Match) is fits
    if fits:
        assert match.cameras[0] == CameraMessages(133 * MS, 'c133', 'd133', 'info0')


def test_a_restarted_camera_or_clock_is_another_run():
    out = pairing(2)
    send(out, 0, 1000)
    send(out, 1, 1000)
    before = out.starts
    out.forget(1)
    assert out.starts == before + 1 and isinstance(out.match(0.03), Refusal)
    send(out, 1, 1001)
    assert out.match(0.03).stamp == 1000 * MS
    send(out, 0, 500)
    assert out.starts == before + 2, 'stamps that jump back'


@pytest.mark.parametrize('skew_ms, fits', [(0, True), (33, True), (34, True), (35, False), (-33, True), (-35, False)])
def test_cameras_pair_within_the_slop(skew_ms, fits):
    out = pairing()
    send(out, 0, 1000)
    send(out, 1, 1000 + skew_ms)
    match = out.match(0.034)
    if fits:
        assert match.skew == pytest.approx(abs(skew_ms) * 1e-3)
    else:
        assert match.reason is Reason.OBSERVATION_SKEWED and match.values['skew_s'] == pytest.approx(0.035)


def test_the_newest_complete_combination_wins():
    out = pairing()
    for stamp in (100, 133, 166):
        send(out, 0, stamp)
        send(out, 1, stamp + 5)
    send(out, 0, 200)  # its partner has not come yet
    assert out.match(0.02).stamp == 166 * MS


def test_what_is_older_than_asked_for_is_stale():
    out = pairing()
    send(out, 0, 100)
    send(out, 1, 100)
    assert isinstance(out.match(0.02, not_before=100 * MS), Match)
    refusal = out.match(0.02, not_before=150 * MS)
    assert refusal.reason is Reason.OBSERVATION_STALE and refusal.values['age_s'] == pytest.approx(0.05)


@pytest.mark.parametrize('kind', ['colour', 'depth', 'info'])
def test_a_missing_topic_is_named(kind):
    out = RgbdPairing(('left', 'right'))
    for camera in (0, 1):
        for sent in ('colour', 'depth', 'info'):
            if (camera, sent) != (1, kind):
                out.add(camera, sent, 5 * MS, sent)
    refusal = out.match(0.02)
    assert refusal.reason is Reason.OBSERVATION_TIMEOUT and f'right sends no {kind}' in refusal.detail


def test_a_clock_that_jumps_back_forgets_the_old_run():
    out = pairing(1)
    send(out, 0, 5000)
    send(out, 0, 10)
    assert out.match(0.02).stamp == 10 * MS


def test_waiting_ends_at_its_timeout():
    out = pairing()
    assert isinstance(out.wait(0.02, None, 0.01), Refusal)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 400)), max_size=40), st.integers(0, 60))
def test_a_match_is_always_what_was_asked_for(sent, slop_ms):
    out = pairing()
    for camera, stamp in sorted(sent, key=lambda item: item[1]):
        send(out, camera, stamp)
    match = out.match(slop_ms * 1e-3 + 1e-9, not_before=100 * MS)
    stamps = [[s for c, s in sent if c == camera][-8:] for camera in (0, 1)]
    if isinstance(match, Match):
        used = [camera.stamp // MS for camera in match.cameras]
        assert max(used) - min(used) <= slop_ms and min(used) >= 100
        assert used[0] in stamps[0] or used[0] in [s for c, s in sent if c == 0]
    else:
        recent = [sorted(s for c, s in sent if c == camera)[-8:] for camera in (0, 1)]
        assert not any(abs(a - b) <= slop_ms and min(a, b) >= 100 and
                       b == min(recent[1], key=lambda x, a=a: abs(x - a)) for a in recent[0] for b in recent[1])


def messages(frame, **changes):
    """A camera's messages as they are after reception; `changes` replaces any of colour, depth, info."""
    made = {'colour': image_message(frame.rgb, 0, 'cam'), 'depth': image_message(frame.depth, 0, 'cam'),
            'info': camera_info_message(frame.K, *frame.depth.shape, 0, 'cam'), 'depth_info': None, **changes}
    info, depth_info = (message and parse_camera_info(message) for message in (made['info'], made['depth_info']))
    return CameraMessages(0, made['colour'], made['depth'], info, depth_info)


FRAME = RgbdFrame.example(12, 16)


@pytest.mark.parametrize('change, text', [
    ({'depth': image_message(FRAME.depth[:6], 0, 'cam')}, 'enable depth alignment'),
    ({'depth': image_message(FRAME.depth, 0, 'camera1_depth_optical_frame')}, 'not aligned to colour'),
    ({'depth_info': camera_info_message(FRAME.K * [[0.7], [0.7], [1]], 12, 16, 0, 'cam')}, 'not aligned to colour'),
    ({'depth_info': camera_info_message(FRAME.K, 12, 16, 0, 'depth')}, 'not aligned to colour'),
    ({'info': camera_info_message(FRAME.K, 480, 640, 0, 'cam')}, 'camera_info is for 640x480'),
    ({'info': camera_info_message(FRAME.K, 12, 16, 0, 'stranger')}, "of the frame 'stranger'"),
    ({'depth': image_message(FRAME.depth * 0, 0, 'cam')}, r'only 0\.0% of the depth is valid'),
    ({'depth': image_message(FRAME.depth * float('nan'), 0, 'cam')}, r'only 0\.0% of the depth is valid'),
    ({'colour': image_message(FRAME.depth, 0, 'cam')}, "encoding '32FC1'"),
    ({'depth': image_message(FRAME.rgb, 0, 'cam')}, "encoding 'rgb8'"),
])
def test_frames_that_cannot_be_used_are_refused_with_the_cause(change, text):
    with pytest.raises(InvalidInputError, match=text):
        read_frame(messages(FRAME, **change))


def test_a_good_frame_is_read():
    frame = read_frame(messages(FRAME, depth_info=camera_info_message(FRAME.K, 12, 16, 0, '/cam')))
    assert frame.frame_id == 'cam' and (frame.rgb == FRAME.rgb).all() and (frame.depth == FRAME.depth).all()


def test_the_depth_unit_counts_for_integers_only():
    counts = image_message((FRAME.depth * 10000).astype('uint16'), 0, 'cam')
    assert read_frame(messages(FRAME, depth=counts), depth_unit=1e-4).depth == pytest.approx(FRAME.depth, abs=1e-4)
    assert (read_frame(messages(FRAME), depth_unit=1e-4).depth == FRAME.depth).all()
