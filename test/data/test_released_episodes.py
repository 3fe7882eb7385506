"""The authors' npz episodes, as documented: units, calibration, windows, and what is wrong with a file."""

import numpy as np
import pytest
import zarr

from geo4d_ros.data.readers.released_buffer import BufferEpisode
from geo4d_ros.data.readers.released_episodes import ReleasedEpisode, is_static, released_split
from geo4d_ros.errors import DatasetError
from geo4d_ros.training.unet.data import EpisodeWindows, list_data

FRAMES, HEIGHT, WIDTH = 31, 24, 32


def write_released(directory, cameras=('scene_1', 'scene_2', 'scene_13'), frames=FRAMES):
    """One episode with `cameras`; scene_13 is a test camera and must never be used for training."""
    processed = directory / 'session/diffusion_spartan/episode_0/processed'
    processed.mkdir(parents=True)
    rng = np.random.default_rng(0)
    observations, intrinsics, extrinsics = {}, {}, {}
    for i, camera in enumerate(cameras):
        observations[camera] = rng.integers(0, 255, (frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
        observations[f'{camera}_depth'] = np.full((frames, HEIGHT, WIDTH), 1000 + 100 * i, np.uint16)
        observations[f'{camera}_depth'][:, 0] = 2500  # beyond the range
        labels = np.full((frames, HEIGHT, WIDTH), 39)
        labels[:, 5:9, 5:9], labels[:, 10, 10] = 29, 32
        observations[f'{camera}_label'] = labels
        intrinsics[camera] = np.array([[30.0, 0, 15.5], [0, 30, 11.5], [0, 0, 1]])
        extrinsics[camera] = np.tile(np.eye(4), (frames, 1, 1))
        extrinsics[camera][:, 0, 3] = 0.1 * i
    for name, arrays in (('observations', observations), ('intrinsics', intrinsics), ('extrinsics', extrinsics)):
        np.savez(processed / f'{name}.npz', **arrays)
    return processed.parent


def test_window_has_metres_and_the_training_layout(tmp_path):
    write_released(tmp_path)
    windows = EpisodeWindows(list_data(tmp_path, 'released'), 'released', 2, 3, (12, 16), 0)
    for index in range(3):
        window = windows[index]
        assert window['rgb'].shape == (2, 4, 12, 16, 3)
        depth = window['depth'].numpy()
        assert set(np.unique(depth).round(3)) <= {0.0, 1.0, np.float32(1.1)}
        assert np.abs(window['T_ref_view'][1, 0, 3]) == pytest.approx(0.1)
        assert window['K'][0, 0, 0] == pytest.approx(15.0)
    full = ReleasedEpisode.open(windows.episodes[0]).window(np.random.default_rng(0), 2, 3)
    assert full['gripper'][0, 0].sum() == 16  # label 32 is not the gripper's


def test_test_cameras_are_never_used(tmp_path):
    episode = ReleasedEpisode.open(write_released(tmp_path))
    assert episode.cameras == ('scene_1', 'scene_2')


def test_short_episode_and_truncated_file_are_named(tmp_path):
    path = write_released(tmp_path / 'short', frames=10)
    with pytest.raises(DatasetError, match='10 frames, expected at least 16'):
        ReleasedEpisode.open(path).window(np.random.default_rng(0), 2, 3)
    path = write_released(tmp_path / 'cut')
    target = path / 'processed/observations.npz'
    target.write_bytes(target.read_bytes()[:5000])
    with pytest.raises(DatasetError, match=r'observations\.npz cannot be read'):
        ReleasedEpisode.open(path)
    with pytest.raises(DatasetError, match='holds no episode'):
        list_data(tmp_path / 'nothing', 'released')


def test_too_few_cameras_are_named(tmp_path):
    with pytest.raises(DatasetError, match='has 1 complete training cameras'):
        ReleasedEpisode.open(write_released(tmp_path, cameras=('scene_3', 'scene_14')))


def write_buffer(path, ends=(6, 14), cameras=('scene_1', 'scene_2', 'scene_13')):
    """A replay buffer at 2 Hz; pixels of frame i are i, so that windows can be told apart."""
    root = zarr.create_group(store=path, zarr_format=2)
    count = ends[-1]
    frames = np.arange(count, dtype=np.uint8)[:, None, None]
    arrays = {}
    for i, camera in enumerate(cameras):
        pose = np.tile(np.eye(4), (count, 1, 1))
        pose[:, 1, 3] = 0.2 * i
        arrays |= {
            f'obs.{camera}': np.broadcast_to(frames[..., None], (count, HEIGHT, WIDTH, 3)),
            f'obs.{camera}_depth': np.full((count, HEIGHT, WIDTH), 1500, np.float32),
            f'obs.{camera}_label': np.full((count, HEIGHT, WIDTH), 30),
            f'{camera}.intr': np.tile(np.array([[30.0, 0, 15.5], [0, 30, 11.5], [0, 0, 1]]), (count, 1, 1)),
            f'{camera}.extr': pose,
        }
    for name, value in arrays.items():
        root.create_array(f'data/{name}', data=np.ascontiguousarray(value))
    root.create_array('meta/episode_ends', data=np.array(ends))
    return path


def test_replay_buffer_gives_the_same_layout(tmp_path):
    write_buffer(tmp_path / 'buffer.zarr')
    paths = list_data(tmp_path, 'released', 'all')
    assert [p.name for p in paths] == ['0', '1']
    starts = set()
    for index in range(12):
        window = EpisodeWindows(paths, 'released', 2, 3, (HEIGHT, WIDTH), 0)[index]
        seen = window['rgb'][0, :, 0, 0, 0].numpy()
        np.testing.assert_array_equal(np.diff(seen), 1)
        assert seen[-1] < 6 or seen[0] >= 6  # never across two episodes
        starts.add(int(seen[0]))
        np.testing.assert_allclose(window['depth'], 1.5)
        assert window['gripper'].all()
        assert abs(float(window['T_ref_view'][1, 1, 3])) == pytest.approx(0.2)
    assert len(starts) > 3


def test_what_is_wrong_with_a_replay_buffer_is_named(tmp_path):
    buffer = write_buffer(tmp_path / 'short.zarr', ends=(3, 6))
    with pytest.raises(DatasetError, match='3 frames, expected at least 4'):
        BufferEpisode.open(buffer / '0').window(np.random.default_rng(0), 2, 3)
    with pytest.raises(DatasetError, match='no number 7'):
        BufferEpisode.open(buffer / '7')
    lonely = write_buffer(tmp_path / 'lonely.zarr', cameras=('scene_1', 'scene_13'))
    with pytest.raises(DatasetError, match='1 complete training cameras'):
        BufferEpisode.open(lonely / '0')
    wrong = write_buffer(tmp_path / 'wrong.zarr', ends=(5, 3))
    with pytest.raises(DatasetError, match='should rise'):
        list_data(wrong, 'released')


def test_windows_without_motion_are_drawn_again(tmp_path):
    path = write_buffer(tmp_path / 'buffer.zarr', ends=(20,))
    count = 20
    xyz = np.zeros((count, 3))
    xyz[8:, 0] = 0.03 * np.arange(count - 8)  # 0.06 m/s from frame 8 on, at rest before
    root = zarr.open_group(store=path)
    root.create_array('data/obs.robot__actual__poses__left::panda__xyz', data=xyz)
    windows = EpisodeWindows(list_data(tmp_path, 'released'), 'released', 2, 8, (HEIGHT, WIDTH), 0)
    starts = {int(windows[i]['rgb'][0, 0, 0, 0, 0]) for i in range(20)}
    assert min(starts) >= 5 and len(starts) > 3  # of five frames, at least two move
    assert is_static([xyz, xyz]) and not is_static([xyz, 10 * xyz[8:]]) and not is_static([])


def test_split_of_the_episodes_is_fixed(tmp_path):
    paths = [tmp_path / str(i) for i in range(30)]
    train, validation = (released_split(paths, split) for split in ('train', 'validation'))
    assert len(validation) == 3 and sorted(train + validation) == sorted(paths)
    assert validation == released_split(paths, 'validation')
    assert released_split(paths[:1], 'train') == paths[:1]
    with pytest.raises(DatasetError, match='train or validation'):
        released_split(paths, 'test')
