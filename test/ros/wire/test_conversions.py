"""Messages carry what numpy had, in every encoding, and refuse what cannot be read."""

import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image

from geo4d_ros.errors import InvalidInputError
from geo4d_ros.geometry.image_messages import read_colour, read_depth
from geo4d_ros.geometry.transforms import from_rotvec
from geo4d_ros.ros.wire import conversions as c

K = np.array([[50, 0, 3.5], [0, 51, 2.5], [0, 0, 1.0]])
RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
DEPTH = np.random.default_rng(1).uniform(0.2, 3, (6, 8)).astype(np.float32)
numbers = st.floats(-2, 2)
vectors = st.tuples(numbers, numbers, numbers).map(np.array)
poses = st.builds(from_rotvec, vectors, vectors)


def wire(message):
    """Through the middleware's own serialisation, as a real subscriber gets it."""
    return deserialize_message(serialize_message(message), type(message))


def test_colour_survives_the_wire():
    message = wire(c.image_message(RGB, 5_000_000_001, 'camera'))
    np.testing.assert_array_equal(read_colour(message), RGB)
    assert c.to_nanoseconds(message.header.stamp) == 5_000_000_001 and message.header.frame_id == 'camera'
    assert isinstance(message.data, array.array)


@pytest.mark.parametrize('encoding, order', [('bgr8', [2, 1, 0]), ('rgba8', [0, 1, 2, 0]), ('bgra8', [2, 1, 0, 0])])
def test_colour_encodings_are_put_in_order(encoding, order):
    pixels = np.ascontiguousarray(RGB[..., order])
    message = Image(height=6, width=8, encoding=encoding, step=8 * len(order), data=pixels.tobytes())
    np.testing.assert_array_equal(read_colour(message), RGB)


def test_rows_may_be_padded():
    padded = np.zeros((6, 32), np.uint8)
    padded[:, :24] = RGB.reshape(6, 24)
    message = Image(height=6, width=8, encoding='rgb8', step=32, data=padded.tobytes())
    np.testing.assert_array_equal(read_colour(message), RGB)


def test_depth_units_follow_the_encoding():
    millimetres = np.rint(DEPTH * 1000).astype(np.uint16)
    np.testing.assert_allclose(read_depth(wire(c.image_message(millimetres, 0, ''))), millimetres * 0.001, rtol=1e-6)
    np.testing.assert_array_equal(read_depth(wire(c.image_message(DEPTH, 0, ''))), DEPTH)


def test_big_endian_depth_is_read():
    message = c.image_message(np.rint(DEPTH * 1000).astype(np.uint16), 0, '')
    swapped = Image(height=6, width=8, encoding='16UC1', step=16, is_bigendian=1,
                    data=np.frombuffer(message.data, '<u2').astype('>u2').tobytes())
    np.testing.assert_array_equal(read_depth(swapped), read_depth(message))


def test_invalid_depth_becomes_zero():
    depth = DEPTH.copy()
    depth[0, :4] = [np.nan, np.inf, -np.inf, -1]
    assert (read_depth(c.image_message(depth, 0, ''))[0, :4] == 0).all()


def test_a_view_that_is_not_contiguous_is_written_right():
    mirrored = RGB[:, ::-1]
    np.testing.assert_array_equal(read_colour(c.image_message(mirrored, 0, '')), mirrored)


@pytest.mark.parametrize('change, text', [
    ({'encoding': 'yuv422'}, 'yuv422'), ({'step': 5}, 'step 5'), ({'height': 7}, 'bytes'), ({'width': 0}, 'empty'),
])
def test_unreadable_images_are_refused(change, text):
    message = c.image_message(RGB, 0, 'camera')
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(InvalidInputError, match=text):
        read_colour(message)


def test_a_colour_image_is_no_depth():
    with pytest.raises(InvalidInputError, match='rgb8'):
        read_depth(c.image_message(RGB, 0, ''))


def test_point_cloud_layout_is_what_rviz_reads():
    points = DEPTH.reshape(-1, 3)
    message = wire(c.point_cloud_message(points, RGB.reshape(-1, 3)[:16], 9, 'camera'))
    assert [f.name for f in message.fields] == ['x', 'y', 'z', 'rgb'] and message.width == 16
    raw = np.frombuffer(message.data, np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(raw[:, :12].copy().view('<f4'), points)
    np.testing.assert_array_equal(raw[:, [14, 13, 12]], RGB.reshape(-1, 3)[:16])


@settings(max_examples=50, deadline=None)
@given(poses)
def test_poses_and_transforms_return(T):
    np.testing.assert_allclose(c.read_pose(c.pose_message(T)), T, atol=1e-9)
    np.testing.assert_allclose(c.read_transform(c.transform_message(T, 0, 'a', 'b').transform), T, atol=1e-9)


def test_a_quaternion_that_is_none_is_refused():
    message = c.pose_message(np.eye(4))
    message.orientation.w = 0.0
    with pytest.raises(InvalidInputError, match='not a rigid transform'):
        c.read_pose(message)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_are_exact(nanoseconds):
    assert c.to_nanoseconds(c.to_stamp(nanoseconds)) == nanoseconds


def test_a_path_carries_poses_with_their_stamps():
    T = np.stack([from_rotvec(np.array([0, 0, 0.1 * i]), np.array([0.1 * i, 0, 0.3])) for i in range(4)])
    stamps = 10**18 + np.arange(4) * 500_000_000
    path = wire(c.path_message(T, stamps, 'base'))
    np.testing.assert_allclose(np.stack([c.read_pose(p.pose) for p in path.poses]), T, atol=1e-9)
    assert [c.to_nanoseconds(p.header.stamp) for p in path.poses] == stamps.tolist()
    assert c.to_nanoseconds(path.header.stamp) == stamps[0] and path.header.frame_id == 'base'

