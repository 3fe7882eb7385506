"""`geo4d predict` with a stand-in model, its output files, and one line for every bad input."""

import json

import numpy as np
import pytest
import trimesh
from PIL import Image

from geo4d_ros.cli.main import main
from geo4d_ros.errors import InvalidInputError
from geo4d_ros.observation_file import load_observation, save_observation
from geo4d_ros.types import Observation, Video4D


class Standing:
    """A generator that returns the example video."""

    name, frames, dt = 'standing', 10, 0.5

    def predict(self, observation, seed=0):
        return Video4D.example()


@pytest.fixture
def observation_path(tmp_path):
    path = tmp_path / 'observation.npz'
    save_observation(path, Observation.example())
    return path


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    from geo4d_ros.generation.manifest import write_manifest

    folder = tmp_path / 'model'
    folder.mkdir()
    (folder / 'config.json').write_text('{}')
    write_manifest(folder)
    monkeypatch.setattr('geo4d_ros.generation.loading.load_generator', lambda path, device: Standing())
    return folder


def test_an_observation_returns_from_its_file(observation_path):
    want, got = Observation.example(), load_observation(observation_path)
    np.testing.assert_array_equal(got.T_ref_gripper, want.T_ref_gripper)
    assert got.opening == want.opening and len(got.views) == len(want.views)
    for a, b in zip(want.views, got.views, strict=True):
        np.testing.assert_array_equal(a.rgb, b.rgb)
        np.testing.assert_array_equal(a.depth, b.depth)
        assert (a.stamp, a.frame_id) == (b.stamp, b.frame_id)


def test_robot_state_is_optional(tmp_path):
    save_observation(tmp_path / 'o.npz', Observation(Observation.example().views))
    assert load_observation(tmp_path / 'o.npz').T_ref_gripper is None


def test_it_writes_video_images_clouds_and_a_summary(observation_path, checkpoint, tmp_path, capsys):
    out, video = tmp_path / 'out', Video4D.example()
    assert main(['predict', '--observation', str(observation_path), '--out', str(out),
                 '--checkpoint', str(checkpoint), '--json', str(tmp_path / 'r.json')]) == 0
    assert (out / 'prediction.mp4').stat().st_size > 1000
    depth = np.asarray(Image.open(out / 'second' / 'depth_03.png'))
    np.testing.assert_allclose(depth * 1e-3, video.depth(1, 3), atol=6e-4)
    np.testing.assert_array_equal(np.asarray(Image.open(out / 'reference' / 'rgb_10.png')), video.rgb[0, 10])
    cloud = trimesh.load(out / 'points_10.ply')
    np.testing.assert_allclose(cloud.vertices, video.points[:, 10].reshape(-1, 3), atol=1e-6)
    np.testing.assert_array_equal(cloud.colors[:, :3], video.rgb[:, 10].reshape(-1, 3))
    with np.load(out / 'video.npz') as arrays:
        np.testing.assert_array_equal(arrays['points'], video.points)
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['frames'] == 11 and len(summary['model_sha256']) == 64 and summary == json.loads(
        (tmp_path / 'r.json').read_text())
    assert 'prediction.mp4' in capsys.readouterr().out


def broken(path, kind):
    """A file that is no observation in one of several ways."""
    view = Observation.example().views[0]
    arrays = {'version': 1, 'rgb_0': view.rgb, 'depth_0': view.depth, 'K_0': view.K}
    if kind == 'missing':
        return path
    if kind == 'text':
        path.write_text('hello')
    elif kind == 'empty':
        path.write_bytes(b'')
    elif kind == 'truncated':
        np.savez(path, **arrays)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == 'objects':
        np.savez(path, **arrays, opening=np.array([{}], dtype=object))
    elif kind == 'version':
        np.savez(path, **{**arrays, 'version': 9})
    elif kind == 'no depth':
        np.savez(path, **{k: v for k, v in arrays.items() if k != 'depth_0'})
    elif kind == 'no view':
        np.savez(path, version=1)
    elif kind == 'sizes':
        np.savez(path, **{**arrays, 'depth_0': view.depth[1:]})
    elif kind == 'nan':
        np.savez(path, **{**arrays, 'depth_0': view.depth * np.float32('nan')})
    return path


KINDS = ['missing', 'text', 'empty', 'truncated', 'objects', 'version', 'no depth', 'no view', 'sizes', 'nan']


@pytest.mark.parametrize('kind', KINDS)
def test_bad_observation_files_end_in_one_line(kind, tmp_path, checkpoint, capsys):
    path = broken(tmp_path / 'o.npz', kind)
    with pytest.raises(InvalidInputError):
        load_observation(path)
    code = main(['predict', '--observation', str(path), '--out', str(tmp_path / 'out'),
                 '--checkpoint', str(checkpoint)])
    error = capsys.readouterr().err.strip()
    assert code == 2 and str(path) in error and len(error.splitlines()) == 1


def test_unknown_checkpoint_and_unwritable_output(observation_path, checkpoint, tmp_path, capsys):
    arguments = ['predict', '--observation', str(observation_path), '--out']
    assert main([*arguments, str(tmp_path / 'out'), '--checkpoint', 'nowhere']) == 2
    assert 'nowhere' in capsys.readouterr().err
    (tmp_path / 'file').write_text('')
    assert main([*arguments, str(tmp_path / 'file' / 'out'), '--checkpoint', str(checkpoint)]) == 2
    assert 'cannot write' in capsys.readouterr().err
