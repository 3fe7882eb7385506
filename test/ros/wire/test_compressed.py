"""Compressed pictures, in and out, under image_transport's names and formats."""

import io
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as PilImage
from sensor_msgs.msg import CompressedImage, Image

from geo4d_ros.data.readers.ros_images import read_depth
from geo4d_ros.errors import Geo4dError
from geo4d_ros.reasons import Refusal
from geo4d_ros.ros.observe.rgbd_pairing import CameraMessages, Match
from geo4d_ros.ros.observe.rgbd_sync import RgbdSync, read_frame, read_frames
from geo4d_ros.ros.wire.camera import parse_camera_info, parse_image_header
from geo4d_ros.ros.wire.compressed import compressed_colour, compressed_depth
from geo4d_ros.ros.wire.conversions import camera_info_message
from geo4d_ros.types import RgbdFrame

SMOOTH = np.linspace(0, 255, 48 * 64).reshape(48, 64).astype(np.uint8)
FRAME = RgbdFrame(np.stack([SMOOTH, SMOOTH[::-1], SMOOTH[:, ::-1]], -1), (0.5 + SMOOTH / 400).astype(np.float32),
                  RgbdFrame.example(48, 64).K)


def camera(colour, depth):
    info = parse_camera_info(camera_info_message(FRAME.K, 48, 64, 0, 'cam'))
    return CameraMessages(0, colour, depth, info)


def test_what_goes_out_comes_in_again():
    depth = FRAME.depth.copy()
    depth[:5] = 0
    seen = read_frame(camera(compressed_colour(FRAME.rgb, 5, 'cam'), compressed_depth(depth, 5, 'cam')))
    assert np.abs(seen.rgb.astype(int) - FRAME.rgb).mean() < 4
    np.testing.assert_allclose(seen.depth, depth, atol=6e-4)
    assert (seen.depth[:5] == 0).all() and seen.frame_id == 'cam'


def test_the_unit_of_a_camera_counts_for_compressed_depth_too():
    message = compressed_depth(FRAME.depth, 0, 'cam')
    np.testing.assert_allclose(read_depth(message, 1e-4), FRAME.depth / 10, atol=6e-5)


def test_quantised_metres_are_unfolded_by_their_header():
    a, b = 100.0, 10.0
    counts = np.where(FRAME.depth > 0.6, np.rint(a / FRAME.depth + b), 0).astype(np.uint16)
    picture = io.BytesIO()
    PilImage.fromarray(counts).save(picture, format='PNG')
    message = CompressedImage(format='32FC1; compressedDepth png')
    message.data.frombytes(struct.pack('<iff', 0, a, b) + picture.getvalue())
    depth = read_depth(message)
    assert (depth[counts == 0] == 0).all()
    np.testing.assert_allclose(depth[counts > 0], FRAME.depth[counts > 0], rtol=0.01)


@pytest.mark.parametrize('data, kind', [
    (b'', '16UC1; compressedDepth png'), (b'\x00' * 12 + b'no picture', '16UC1; compressedDepth png'),
    (b'\x00' * 40, '16UC1; compressedDepth rvl'), (b'\x00' * 40, 'rgb8; jpeg'),
    (b'\x00' * 12 + bytes(compressed_colour(FRAME.rgb, 0, '').data), '16UC1; compressedDepth png')])
def test_depth_that_cannot_be_read_is_refused_with_the_cause(data, kind):
    message = CompressedImage(format=kind)
    message.data.frombytes(data)
    with pytest.raises(Geo4dError, match='compressed'):
        read_depth(message)
    refusal = read_frames(Match((camera(compressed_colour(FRAME.rgb, 0, 'cam'), message),), 0.0))
    assert isinstance(refusal, Refusal) and refusal.reason.code == 'OBSERVATION_INVALID'


def test_a_small_file_that_unfolds_to_a_huge_picture_is_not_unfolded():
    picture = io.BytesIO()
    PilImage.new('L', (20_000, 8_000)).save(picture, format='PNG')
    message = CompressedImage(format='16UC1; compressedDepth png')
    message.data.frombytes(b'\x00' * 12 + picture.getvalue())
    with pytest.raises(Geo4dError, match='20000x8000'):
        read_depth(message)


@pytest.mark.parametrize('compressed, kind, colour, depth', [
    (False, Image, 'a/color/image_raw', 'a/aligned_depth_to_color/image_raw'),
    (True, CompressedImage, 'a/color/image_raw/compressed', 'a/aligned_depth_to_color/image_raw/compressedDepth')])
def test_the_names_that_are_heard(compressed, kind, colour, depth):
    heard = {}
    boundary = SimpleNamespace(subscribe=lambda kind, topic, parse, accept, qos, **more: heard.update({topic: kind}))
    sync = RgbdSync(SimpleNamespace(node=None), boundary, ('a',), compressed)
    assert heard[colour] is heard[depth] is kind and len(heard) == 5 and sync.pairing.names == ('a',)
    assert parse_image_header(compressed_colour(FRAME.rgb, 0, 'cam')).format.startswith('rgb8')
