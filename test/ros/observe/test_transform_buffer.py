"""The transform buffer: chains, interpolation at a stamp, and no extrapolation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.geometry.transforms import from_rotvec, invert, make_transform
from geo4d_ros.ros.observe.transforms import TransformBuffer, TransformError

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
    buffer.add('base', 'tool', start + SECOND, shift(1))
    assert buffer.lookup('base', 'tool', start + SECOND // 4)[0, 3] == pytest.approx(0.25)


def test_samples_may_arrive_out_of_order():
    buffer = TransformBuffer()
    for stamp in (2, 1, 3):
        buffer.add('base', 'tool', stamp * SECOND, shift(stamp))
    assert buffer.lookup('base', 'tool', 3 * SECOND // 2)[0, 3] == pytest.approx(1.5)


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
