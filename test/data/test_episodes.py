"""Episodes round-trip exactly, and anything damaged is named and never read as data."""

import itertools
import logging
import shutil

import numpy as np
import pytest
import zarr

from geo4d_ros.data import episodes
from geo4d_ros.data.episodes import Episode, decode_depth, encode_depth, iter_episodes, write_episode
from geo4d_ros.data.windows import HORIZON, WindowSampler, cut_window
from geo4d_ros.errors import DatasetError
from geo4d_ros.geometry.cameras import intrinsics


def synthetic_arrays(cameras=3, frames=15, height=12, width=16, seed=0, joints=7):
    rng = np.random.default_rng(seed)
    sizes = {'C': cameras, 'N': frames, 'H': height, 'W': width, 'J': joints}
    arrays = {}
    for name, (dtype, dims) in episodes.SCHEMA.items():
        shape = tuple(sizes.get(d, d) for d in dims)
        values = rng.integers(1, 200, shape) if 'int' in dtype else rng.uniform(size=shape)
        arrays[name] = values.astype(dtype)
    for name in ('T_base_camera', 'T_base_gripper', 'object_pose'):
        arrays[name][:] = np.eye(4)
        arrays[name][:, :3, 3] = rng.uniform(size=(len(arrays[name]), 3))
    arrays['K'][:] = intrinsics(20.0, width, height)
    arrays['times'] = np.arange(frames) / 4.0
    arrays['opening'] = np.arange(frames) * 1e-3
    return arrays


def attributes(seed=0):
    return {'task': 'apple', 'seed': seed, 'success': True, 'perturbed': False}


def test_round_trip(tmp_path):
    arrays = synthetic_arrays()
    path = write_episode(tmp_path, arrays, attributes(7))
    assert [p.name for p in tmp_path.iterdir()] == ['apple-000007.zarr'] == [path.name]
    episode = Episode.open(path)
    assert (episode.task, episode.seed, episode.cameras, episode.frames) == ('apple', 7, 3, 15)
    for name, value in episode.load().items():
        assert np.array_equal(value, arrays[name]) and value.dtype == arrays[name].dtype
    frame = episode.frame(2, 4)
    assert np.array_equal(frame.rgb, arrays['rgb'][2, 4]) and frame.stamp == 1_000_000_000


def test_any_number_of_joints_and_cameras(tmp_path):
    names = [f'axis_{i}' for i in range(5)]
    path = write_episode(tmp_path, synthetic_arrays(cameras=1, joints=5), attributes() | {'joint_names': names})
    episode = Episode.open(path)
    assert episode.joint_names == tuple(names) and episode.read('joints').shape == (15, 5) and episode.cameras == 1
    with pytest.raises(DatasetError, match='joint_names should be 5 distinct'):
        write_episode(tmp_path, synthetic_arrays(joints=5), attributes() | {'joint_names': ['a'] * 5})


def test_what_a_recording_lacks_is_absent_and_named(tmp_path):
    arrays = {k: v for k, v in synthetic_arrays().items() if k in ('rgb', 'depth', 'K', 'times')}
    episode = Episode.open(write_episode(tmp_path, arrays, attributes()))
    assert episode.missing == ('labels', 'T_base_camera', 'T_base_gripper', 'joints', 'opening', 'opening_command',
                               'object_pose')
    assert set(episode.load()) == set(arrays) and episode.joint_names == ()
    with pytest.raises(DatasetError, match='has no joints'):
        episode.read('joints')
    with pytest.raises(DatasetError, match=r'has no labels, joints, which this training needs'):
        episode.need(('rgb', 'labels', 'joints'), 'this training')
    window = cut_window(episode.load(), 0, (0, 1), np.array([1]))
    assert 'labels' not in window and window['depth'].shape == (2, 2, 12, 16)
    with pytest.raises(DatasetError, match=r'no usable episode; .*has no labels'):
        next(iter(WindowSampler(tmp_path, np.random.default_rng(0))))
    sampler = WindowSampler(tmp_path, np.random.default_rng(0), needs=('rgb', 'depth'), buffer=4)
    assert next(iter(sampler))['rgb'].shape[0] == 2


def test_without_pictures_there_is_no_episode(tmp_path):
    with pytest.raises(DatasetError, match='rgb is missing'):
        write_episode(tmp_path, {k: v for k, v in synthetic_arrays().items() if k != 'rgb'}, attributes())


def test_version_1_still_reads(tmp_path):
    path = write_episode(tmp_path, synthetic_arrays(), attributes() | {'version': 1})
    group = zarr.open_group(path, mode='a')
    group.update_attributes({'version': 1})
    del group.attrs['arrays']
    episode = Episode.open(path)
    assert episode.missing == () and episode.joint_names == tuple(f'joint{i}' for i in range(1, 8))
    shutil.rmtree(path / 'labels')
    with pytest.raises(DatasetError, match='labels is missing'):
        Episode.open(path)


def test_black_images_are_written_too(tmp_path):
    arrays = synthetic_arrays()
    arrays['rgb'][:], arrays['labels'][:] = 0, 0
    assert Episode.open(write_episode(tmp_path, arrays, attributes())).read('rgb').sum() == 0


def test_depth_units():
    depth = np.array([0, 0.30004, 2.5, 2.6, -1], np.float32)
    assert encode_depth(depth).tolist() == [0, 3000, 25000, 0, 0]
    assert decode_depth(encode_depth(depth)) == pytest.approx([0, 0.3, 2.5, 0, 0])
    assert decode_depth(encode_depth(depth)).dtype == np.float32


def remove_chunk(path):
    shutil.rmtree(path / 'depth' / 'c' / '1')


def truncate_chunk(path):
    chunk = next(p for p in (path / 'rgb' / 'c').rglob('*') if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-20])


def flip_bit(path):
    chunk = next(p for p in (path / 'labels' / 'c').rglob('*') if p.is_file())
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 4
    chunk.write_bytes(bytes(data))


def truncate_metadata(path):
    (path / 'zarr.json').write_text('{"zarr_format": 3, "node_ty')


def remove_array(path):
    shutil.rmtree(path / 'opening')


def other_version(path):
    zarr.open_group(path, mode='a').attrs['version'] = 99


@pytest.mark.parametrize('damage', [remove_chunk, truncate_chunk, flip_bit, truncate_metadata, remove_array,
                                    other_version])
def test_damage_is_named_and_skipped(tmp_path, caplog, damage):
    for seed in range(2):
        write_episode(tmp_path, synthetic_arrays(seed=seed), attributes(seed))
    damage(tmp_path / 'apple-000001.zarr')
    with pytest.raises(DatasetError, match='apple-000001'):
        Episode.open(tmp_path / 'apple-000001.zarr').load()
    with caplog.at_level(logging.WARNING):
        sampler = WindowSampler(tmp_path, np.random.default_rng(0), windows_per_episode=2, buffer=8)
        seeds = {w['seed'] for w in itertools.islice(sampler, 60)}
    assert seeds == {0}
    assert 'apple-000001' in caplog.text


def test_iteration_skips_the_unreadable(tmp_path, caplog):
    write_episode(tmp_path, synthetic_arrays(), attributes(0))
    (tmp_path / 'apple-000001.zarr').mkdir()
    assert [e.seed for e in iter_episodes(tmp_path)] == [0]
    assert 'apple-000001' in caplog.text


def test_wrong_arrays_are_refused_and_leave_nothing(tmp_path):
    arrays = synthetic_arrays()
    arrays['depth'] = arrays['depth'][:, :-1]
    with pytest.raises(DatasetError, match='depth'):
        write_episode(tmp_path, arrays, attributes())
    with pytest.raises(DatasetError, match='success'):
        write_episode(tmp_path, synthetic_arrays(), {'task': 'apple', 'seed': 1, 'perturbed': False})
    assert list(tmp_path.iterdir()) == []


def test_missing_directory():
    with pytest.raises(DatasetError, match='geo4d collect'):
        WindowSampler('nowhere', np.random.default_rng(0))


def test_window_shapes_and_padding():
    arrays = synthetic_arrays(frames=15)
    window = cut_window(arrays, 13, (2, 0), np.array([3, 10]))
    assert window['rgb'].shape == (2, 3, 12, 16, 3) and window['depth'].shape == (2, 3, 12, 16)
    assert np.array_equal(window['rgb'][0], arrays['rgb'][2, [13, 14, 14]])
    assert window['opening'] == pytest.approx([13e-3] + [14e-3] * HORIZON)
    assert window['T_ref_gripper'].shape == (HORIZON + 1, 4, 4)
    assert np.allclose(window['T_ref_view'][0], np.eye(4))
    T = np.linalg.inv(arrays['T_base_camera'][2]) @ arrays['T_base_gripper'][14]
    assert np.allclose(window['T_ref_gripper'][-1], T)
    assert cut_window(arrays, 0, (0, 1), np.array([1]))['opening'][1] == pytest.approx(2e-3)


def test_sampler_finds_new_episodes_and_is_reproducible(tmp_path):
    write_episode(tmp_path, synthetic_arrays(), attributes(0))
    samplers = [WindowSampler(tmp_path, np.random.default_rng(5), 2, buffer=4, rescan_s=0) for _ in range(2)]
    a, b = (next(iter(s)) for s in samplers)
    assert a['start'] == b['start'] and np.array_equal(a['rgb'], b['rgb']) and len(a['steps']) == 2
    write_episode(tmp_path, synthetic_arrays(seed=1), attributes(1))
    assert {w['seed'] for w in itertools.islice(samplers[0], 80)} == {0, 1}
