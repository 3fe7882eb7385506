"""The transform buffer: chains, interpolation at a stamp, and no extrapolation."""

import numpy as np
import pytest
from fakes.boundary import FakeBoundary
from hypothesis import given, settings
from hypothesis import strategies as st
from tf2_msgs.msg import TFMessage

from geo4d_ros.geometry.transforms import from_rotvec, invert, make_transform
from geo4d_ros.ros.observe.transforms import FRAMES, SAMPLES, TransformBuffer, TransformError, TransformListener
from geo4d_ros.ros.wire.conversions import transform_message

numbers = st.floats(-2, 2)
vectors = st.tuples(numbers, numbers, numbers).map(np.array)
poses = st.builds(from_rotvec, vectors, vectors)
SECOND = 1_000_000_000


def shift(x):
    return make_transform(None, np.array([x, 0, 0.0]))


@settings(max_examples=40, deadline=None)
@given(poses, poses, poses)
def test_lookup_goes_up_and_down_the_tree(A, B, C):
    buffer = TransformBuffer()
    buffer.add_static('base', 'camera', A)
    buffer.add('base', 'link', SECOND, B)
    buffer.add_static('link', 'tool', C)
    np.testing.assert_allclose(buffer.lookup('base', 'tool', SECOND), B @ C, atol=1e-9)
    np.testing.assert_allclose(buffer.lookup('camera', 'tool', SECOND), invert(A) @ B @ C, atol=1e-9)
    np.testing.assert_allclose(buffer.lookup('tool', 'camera', SECOND), invert(invert(A) @ B @ C), atol=1e-9)
    np.testing.assert_allclose(buffer.lookup('tool', 'tool', SECOND), np.eye(4), atol=1e-12)


def test_between_samples_it_interpolates_at_large_stamps():
    buffer, start = TransformBuffer(), 1_800_000_000 * SECOND
    buffer.add('base', 'tool', start, shift(0))
    buffer.add('base', 'tool', start + SECOND // 2, shift(1))
    assert buffer.lookup('base', 'tool', start + SECOND // 8)[0, 3] == pytest.approx(0.25)


def test_samples_may_arrive_out_of_order():
    buffer = TransformBuffer()
    for tenths in (20, 18, 22):
        buffer.add('base', 'tool', tenths * SECOND // 10, shift(tenths))
    assert buffer.lookup('base', 'tool', 19 * SECOND // 10)[0, 3] == pytest.approx(19)


@pytest.mark.parametrize('at, known', [(10.05, True), (17.95, True), (14.0, False), (10.2, False)])
def test_a_gap_is_not_interpolated_across(at, known):
    buffer = TransformBuffer()
    for stamp, x in ((9.9, 0.0), (10.0, 0.0), (18.0, 1.0)):
        buffer.add('base', 'tool', int(stamp * SECOND), shift(x))
    if known:
        assert buffer.lookup('base', 'tool', int(at * SECOND), 0.1)[0, 3] in (0.0, 1.0)
    else:
        with pytest.raises(TransformError, match=r'gap of 8\.000 s'):
            buffer.lookup('base', 'tool', int(at * SECOND), 0.1)


def test_a_jump_of_the_clock_forgets_what_moves_and_keeps_what_stands():
    buffer = TransformBuffer()
    buffer.add('base', 'tool', SECOND, shift(1))
    buffer.add_static('base', 'camera', shift(2))
    buffer.forget()
    assert buffer.lookup('base', 'camera')[0, 3] == 2
    with pytest.raises(TransformError, match="'base' and 'tool'"):
        buffer.lookup('base', 'tool')


def test_memory_is_bounded_and_strangers_do_not_drive_out_who_speaks():
    buffer = TransformBuffer()
    for i in range(3 * FRAMES):
        buffer.add('world', f'stranger{i}', SECOND + i, shift(0))
        buffer.add('base', 'tool', SECOND + i * 1_000_000, shift(i))
    assert len(buffer._moving) <= FRAMES and len(buffer._moving['tool'][1]) <= SAMPLES
    assert buffer.lookup('base', 'tool')[0, 3] == 3 * FRAMES - 1
    for _ in range(3 * SAMPLES):
        buffer.add('base', 'tool', 10 * SECOND, shift(0))
    assert len(buffer._moving['tool'][1]) <= SAMPLES


class StubReceiver:
    def __init__(self, boundary):
        self.node = boundary.node


def transform(stamp, parent='base', child='tool', x=1.0):
    return TFMessage(transforms=[transform_message(shift(x), stamp, parent, child)])


def test_bad_transforms_are_named_and_the_good_ones_of_the_message_used():
    boundary, buffer = FakeBoundary(), TransformBuffer()
    TransformListener(StubReceiver(boundary), boundary, buffer)
    now = boundary.node.now
    message = transform(now)
    bad = transform(now, child='bad').transforms[0]
    bad.transform.rotation.w = float('nan')
    message.transforms.insert(0, bad)
    boundary.say('/tf', message)
    assert 'base -> bad' in boundary.cause('/tf') and 'not a rigid transform' in boundary.cause('/tf')
    assert buffer.lookup('base', 'tool', now)[0, 3] == 1
    boundary.say('/tf', b'garbage' * 3)
    assert boundary.refused('/tf') == 2


def test_the_future_is_refused_and_the_present_taken_after_it():
    boundary, buffer = FakeBoundary(), TransformBuffer()
    TransformListener(StubReceiver(boundary), boundary, buffer)
    now = boundary.node.now
    boundary.say('/tf', transform(now + 100 * SECOND))
    assert 'ahead of' in boundary.cause('/tf')
    boundary.say('/tf', transform(now, '/base', '/tool'))
    assert buffer.lookup('base', 'tool', now)[0, 3] == 1, 'a leading slash is no other frame'



@pytest.mark.parametrize('late, held', [(0.05, True), (0.2, False), (-0.05, True), (-0.2, False)])
def test_it_holds_for_the_tolerance_and_then_refuses(late, held):
    buffer = TransformBuffer()
    buffer.add('base', 'tool', 10 * SECOND, shift(1))
    stamp = 10 * SECOND + int(late * SECOND)
    if held:
        assert buffer.lookup('base', 'tool', stamp, 0.1)[0, 3] == 1
    else:
        with pytest.raises(TransformError, match='away from the stamp'):
            buffer.lookup('base', 'tool', stamp, 0.1)


def test_unknown_frames_are_named_with_the_known_ones():
    buffer = TransformBuffer()
    buffer.add_static('base', 'camera', np.eye(4))
    with pytest.raises(TransformError, match=r"'camera' and 'tool'; known frames: camera"):
        buffer.lookup('camera', 'tool', 0)


def test_a_loop_is_refused_instead_of_followed():
    buffer = TransformBuffer()
    buffer.add_static('a', 'b', np.eye(4))
    buffer.add_static('b', 'a', np.eye(4))
    with pytest.raises(TransformError, match='loop'):
        buffer.lookup('a', 'b')


def test_old_samples_and_earlier_runs_are_forgotten():
    buffer = TransformBuffer(history_s=1.0)
    for stamp in range(100, 110):
        buffer.add('base', 'tool', stamp * SECOND, shift(stamp))
    with pytest.raises(TransformError):
        buffer.lookup('base', 'tool', 105 * SECOND)
    buffer.add('base', 'tool', SECOND, shift(1))
    assert buffer.lookup('base', 'tool')[0, 3] == 1
