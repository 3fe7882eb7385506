"""The authors' npz episodes, as documented: units, calibration, windows, and what is wrong with a file."""

import numpy as np
import pytest

from geo4d_ros.errors import DatasetError
from geo4d_ros.training.unet.data import EpisodeWindows, list_data
from geo4d_ros.training.unet.released_episodes import ReleasedEpisode

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
