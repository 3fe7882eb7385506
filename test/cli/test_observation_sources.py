"""`geo4d observation make` and `geo4d predict --from-*`: cell, recordings and cameras become the same observation."""

import json

import numpy as np
import pytest

from geo4d_ros.cli.main import main
from geo4d_ros.data.moments import observation_of
from geo4d_ros.data.recordings import CameraRecording, ImageStream, Recording, StateTrack
from geo4d_ros.errors import DatasetError
from geo4d_ros.observation_file import load_observation

K = np.array([[50.0, 0, 15.5], [0, 50.0, 11.5], [0, 0, 1]])
STAMPS = 10**9 + np.arange(5, dtype=np.int64) * 250_000_000


def stream(name, pictures, delay=0):
    return ImageStream(name, STAMPS + delay, lambda indices: (pictures[i] for i in indices))


def recording(delay=0, **changes):
    colour = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((24, 32, 3), np.uint8)
    depth = np.ones((5, 24, 32), np.float32)
    T_base_camera = np.eye(4)
    T_base_camera[:3, 3] = 1.0, 0.0, 0.0
    cameras = tuple(CameraRecording(n, stream(n, colour, d), stream(n, depth, d), K=K, T_base_camera=T_base_camera)
                    for n, d in (('a', 0), ('b', delay)))
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 0, 3] = np.arange(5) * 0.1
    return Recording(**{'source': 'here', 'cameras': cameras, 'opening': StateTrack('o', STAMPS, np.arange(5) * 0.01),
                        'T_base_gripper': StateTrack('T', STAMPS, poses), **changes})


def test_a_moment_has_pictures_and_state_of_one_stamp():
    observation = observation_of(recording(delay=10_000_000), 0.5)
    assert [int(view.rgb[0, 0, 0]) for view in observation.views] == [2, 2]
    assert observation.views[0].stamp == int(STAMPS[2])
    assert observation.opening == pytest.approx(0.02)
    np.testing.assert_allclose(observation.T_ref_gripper[:3, 3], [0.2 - 1.0, 0, 0], atol=1e-12)
    assert observation.arm_points is None


def test_cameras_apart_a_time_outside_and_a_missing_depth_are_refused():
    with pytest.raises(DatasetError, match='80 ms away'):
        observation_of(recording(delay=80_000_000), 0.5)
    with pytest.raises(DatasetError, match='no look at 9 s'):
        observation_of(recording(), 9.0)
    blind = tuple(CameraRecording(c.name, c.colour, K=K) for c in recording().cameras)
    with pytest.raises(DatasetError, match='no depth'):
        observation_of(recording(cameras=blind))


def test_the_simulated_cell_gives_everything_that_the_shipped_model_wants(tmp_path):
    assert main(['observation', 'make', '--from-sim', '--out', str(tmp_path / 'look')]) == 0
    observation = load_observation(tmp_path / 'look.npz')
    assert len(observation.views) == 2 and observation.arm_points.shape == (7, 3)
    assert observation.opening is not None and observation.T_ref_gripper is not None


def test_a_recorded_folder_gives_what_the_cameras_saw(tmp_path, capsys):
    from geo4d_ros.cameras.recording import FolderWriter
    from geo4d_ros.cameras.simulated import SimulatedRig

    rig = SimulatedRig(size=(48, 64), noise='none')
    frames = []
    for camera in rig.cameras:
        writer = FolderWriter(tmp_path / 'recorded', camera)
        frames.append(camera.read())
        writer.write(frames[-1])
        writer.close()
    rig.close()
    argv = ['observation', 'make', '--from-folder', str(tmp_path / 'recorded'), '--out', str(tmp_path / 'look.npz'),
            '--json', str(tmp_path / 'look.json')]
    assert main(argv) == 0, capsys.readouterr().err
    for seen, kept in zip(frames, load_observation(tmp_path / 'look.npz').views, strict=True):
        np.testing.assert_array_equal(kept.rgb, seen.rgb)
        np.testing.assert_allclose(kept.depth, seen.depth, atol=0.0006)
    assert json.loads((tmp_path / 'look.json').read_text())['state'] == []


@pytest.mark.parametrize('argv, text', [
    (['--from-sim', 'cube'], 'unknown task cube'), (['--from-folder', 'nowhere'], 'nowhere does not exist'),
    (['--from-cameras', 'nothing'], "there is no camera 'nothing'"), ([], 'one of the arguments')])
def test_a_wrong_source_is_one_line(argv, text, tmp_path, capsys):
    code = 0
    try:
        code = main(['observation', 'make', *argv, '--out', str(tmp_path / 'look.npz')])
    except SystemExit as end:
        code = end.code
    err = capsys.readouterr().err
    assert code == 2 and text in err and len(err.strip().splitlines()) == 1
