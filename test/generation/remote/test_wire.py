"""What goes over the wire comes back equal, and nothing that is not of the schema gets in."""

import dataclasses

import msgpack
import numpy as np
import pytest

from geo4d_ros.errors import ConfigurationError, InvalidInputError
from geo4d_ros.generation.remote.address import Address, is_remote
from geo4d_ros.generation.remote.arrays import COMPRESSIONS, Budget, pack, pack_array, unpack, unpack_array
from geo4d_ros.generation.remote.messages import decode, encode
from geo4d_ros.types import GripperTrack, Observation, TrackStatus, Video4D


def there_and_back(value, compression='zstd'):
    return decode(type(value), unpack(pack({'v': encode(value, compression)}))['v'], Budget(1 << 26))


def same(a, b):
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype and np.array_equal(x, y), field.name
        elif dataclasses.is_dataclass(x):
            same(x, y)
        elif isinstance(x, tuple) and x and dataclasses.is_dataclass(x[0]):
            assert len(x) == len(y)
            for i, j in zip(x, y, strict=True):
                same(i, j)
        else:
            assert x == y, field.name


@pytest.mark.parametrize('compression', ['none', 'zstd'])
@pytest.mark.parametrize('value', [Observation.example(), Video4D.example(), GripperTrack.example(),
                                   Observation(Observation.example(1).views)], ids=lambda v: type(v).__name__)
def test_contract_types_come_back_equal(value, compression):
    same(value, there_and_back(value, compression))


def test_nested_track_and_holes_survive():
    video = Video4D.example(frames=4)
    valid = np.random.default_rng(1).random(video.valid.shape) > 0.5
    points = np.where(valid[..., None], video.points, np.float32('nan'))
    state = dataclasses.replace(GripperTrack.example(4), status=(TrackStatus.OK,) * 3 + (TrackStatus.LOST,))
    back = there_and_back(dataclasses.replace(video, valid=valid, points=points, state=state))
    assert np.array_equal(back.valid, valid) and np.array_equal(back.points, points, equal_nan=True)
    assert back.state.status[-1] is TrackStatus.LOST and back.state.trusted == 3


@pytest.mark.parametrize('compression, colour_error', [('png', 0), ('jpeg', 255)])
def test_pictures_keep_depth_to_half_a_millimetre_and_invalid_pixels(compression, colour_error):
    frame = Observation.example().views[0]
    depth = frame.depth.copy()
    depth[:10] = 0
    frame = dataclasses.replace(frame, depth=depth, rgb=np.full_like(frame.rgb, 77))
    back = there_and_back(frame, compression)
    assert np.abs(back.depth - depth).max() <= 0.000501 and (back.depth[:10] == 0).all()
    assert np.abs(back.rgb.astype(int) - 77).max() <= min(colour_error, 3)
    assert np.array_equal(back.K, frame.K)


def test_compression_makes_messages_smaller():
    ramp = np.broadcast_to(np.arange(320, dtype=np.uint8)[None, :, None], (240, 320, 3)).copy()
    size = {name: len(pack_array(ramp, name)['data']) for name in COMPRESSIONS}
    assert max(size['zstd'], size['png'], size['jpeg']) < size['none'] / 4


GOOD = pack_array(np.arange(12, dtype=np.float32).reshape(3, 4), 'none')


@pytest.mark.parametrize('change', [
    {'dtype': '|O'}, {'dtype': '<U4'}, {'dtype': 5}, {'shape': [3, 5]}, {'shape': [-3, -4]},
    {'shape': [2**40, 2**40]},
    {'shape': [True, 12]}, {'shape': 12}, {'shape': [1] * 40}, {'codec': 'pickle'}, {'codec': 'zstd'},
    {'codec': 'jpeg'}, {'codec': 'png16'}, {'codec': ['zstd']}, {'data': b''}, {'data': 'text'},
    {'data': GOOD['data'] + b'x'}, {'more': 1},
    {'data': None}])
def test_malformed_arrays_are_refused(change):
    with pytest.raises(InvalidInputError):
        unpack_array('x', {**GOOD, **change}, Budget(1 << 20))


def test_a_bomb_is_refused_before_it_unfolds():
    bomb = pack_array(np.zeros(1 << 20, np.uint8), 'zstd')
    assert len(bomb['data']) < 1000
    with pytest.raises(InvalidInputError, match='exceed the limit'):
        unpack_array('x', bomb, Budget(1 << 19))
    with pytest.raises(InvalidInputError, match='stated size'):
        unpack_array('x', {**bomb, 'shape': [10]}, Budget(1 << 19))
    picture = pack_array(np.zeros((2000, 2000, 3), np.uint8), 'png')
    with pytest.raises(InvalidInputError, match='stated size'):
        unpack_array('x', {**picture, 'shape': [2, 2, 3]}, Budget(1 << 19))


@pytest.mark.parametrize('data', [
    b'', b'\xc1', b'\x81', 'text', msgpack.packb([1]), msgpack.packb(5), msgpack.packb([{}]),
    msgpack.packb({'a': msgpack.ExtType(42, b'x')}), b'\x91' * 5000, msgpack.packb({1: 2}),
    b'\x81\xa1a\xdc\x0f\xff' + (b'\xdc\x0f\xff' + b'\x90' * 4095) * 4095], ids=lambda d: repr(d[:8]))
def test_what_is_no_message_is_refused(data):
    with pytest.raises(InvalidInputError):
        unpack(data)


@pytest.mark.parametrize('change', [
    {'views': []}, {'views': [1]}, {'views': {}}, {'opening': 'wide'}, {'opening': float('nan')}, {'opening': True},
    {'T_ref_gripper': 3}, {'T_ref_gripper': pack_array(np.ones((4, 4)), 'none')}, {'unheard_of': 1}])
def test_observations_that_break_the_contract_are_refused(change):
    with pytest.raises(InvalidInputError):
        decode(Observation, {**encode(Observation.example()), **change}, Budget(1 << 26))


def test_addresses():
    address = Address.parse('remotes://gpu.local:99?timeout=2.5&compression=jpeg&ca=/etc/ca.pem')
    assert (address.uri, address.timeout, address.compression, address.tls) == ('wss://gpu.local:99', 2.5, 'jpeg', True)
    assert Address.parse('remote://[::1]').uri == 'ws://[::1]:8642'
    assert is_remote('remote://a') and not is_remote('models/geo4d-sim-small')
    for bad in ('remote://', 'remote://h:99999', 'remote://h:1/path', 'remote://h?x=1', 'remote://h?timeout=0', 'http://h',
                'remote://token@h', 'remote://h?compression=lzma'):
        with pytest.raises(ConfigurationError, match=r'remote|timeout|compression'):
            Address.parse(bad)
