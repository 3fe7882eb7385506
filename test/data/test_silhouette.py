"""A gripper drawn where it is: the camera's place comes out of its silhouettes, and what is missing is one line."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from scipy import ndimage

from geo4d_ros.cli.main import main
from geo4d_ros.data.calibration.silhouette import calibrate
from geo4d_ros.data.readers import registry
from geo4d_ros.data.recordings import CameraRecording, ImageStream, Recording, StateTrack
from geo4d_ros.errors import DatasetError, RegistrationError
from geo4d_ros.geometry.cameras import intrinsics, look_at, project
from geo4d_ros.geometry.transforms import from_rotvec, invert, rotation_angle, transform_points
from geo4d_ros.robots.gripper import gripper_of
from geo4d_ros.ros.graph.launch_arguments import calibrated_pose

pytest.importorskip('cv2', reason='needs opencv-python-headless')
SIZE, STEPS = (240, 320), 16
K = intrinsics(300.0, SIZE[1], SIZE[0])
T_BASE_CAMERA = look_at(np.array([1.3, 0.4, 0.7]), np.array([0.5, 0.0, 0.2]))


def silhouette(T_base_gripper, opening):
    """Labels of the gripper alone: many points of its surface in a picture five times as fine, of which every pixel's
    middle is taken."""
    points = transform_points(invert(T_BASE_CAMERA) @ T_base_gripper, gripper_of().surface_points(opening, 60000))
    columns, rows = np.round(5 * project(points, K)[0] + 2).astype(int).T
    labels = np.zeros((5 * SIZE[0], 5 * SIZE[1]), bool)
    inside = (rows >= 0) & (rows < len(labels)) & (columns >= 0) & (columns < labels.shape[1])
    rows, columns = rows[inside], columns[inside]
    labels[rows, columns] = True
    part = slice(max(rows.min() - 10, 0), rows.max() + 10), slice(max(columns.min() - 10, 0), columns.max() + 10)
    labels[part] = ndimage.binary_closing(labels[part], iterations=4)
    return labels[2::5, 2::5].astype(np.uint8) * 2


@lru_cache
def recording(spread=1.0):
    rng = np.random.default_rng(0)
    stamps = np.arange(STEPS, dtype=np.int64) * 500_000_000
    poses = np.stack([np.block([[np.diag([1.0, -1, -1]), np.array([[0.5], [0], [0.25]])], [np.zeros(3), 1]])
                      @ from_rotvec(rng.uniform(-0.4, 0.4, 3), spread * rng.uniform(-0.15, 0.15, 3))
                      for _ in range(STEPS)])
    openings = rng.uniform(0.0, 0.08, STEPS)
    pictures = [silhouette(T, opening) for T, opening in zip(poses, openings, strict=True)]
    stream = ImageStream('labels', stamps, lambda indices: (pictures[i] for i in indices))
    camera = CameraRecording('left', stream, None, stream, K)
    return Recording('made', (camera,), T_base_gripper=StateTrack('gripper', stamps, poses),
                     opening=StateTrack('opening', stamps, openings))


def test_the_camera_comes_out_of_the_silhouettes():
    found, = calibrate(recording(), gripper_of())
    off = invert(T_BASE_CAMERA) @ found.T_base_camera
    assert found.pictures == STEPS and np.median(found.residual_px) < 1
    assert np.linalg.norm(off[:3, 3]) < 0.008 and rotation_angle(off, np.eye(4)) < np.radians(0.5)


def test_a_gripper_that_stays_in_one_place_is_refused():
    with pytest.raises(RegistrationError, match='camera left: the gripper stayed'):
        calibrate(recording(spread=0.05), gripper_of())


def test_what_is_missing_is_said():
    whole = recording()
    camera = whole.cameras[0]
    for less, words in ((replace(whole, T_base_gripper=None), 'no pose of the gripper'),
                        (replace(whole, opening=None), 'no opening of the gripper'),
                        (replace(whole, cameras=(replace(camera, labels=None),)), 'or calibrate with a board'),
                        (replace(whole, cameras=(replace(camera, K=None),)), 'no intrinsics')):
        with pytest.raises(DatasetError, match=words):
            calibrate(less, gripper_of())
    blind = ImageStream('labels', camera.colour.stamps, lambda indices: (np.zeros(SIZE, np.uint8) for _ in indices))
    with pytest.raises(RegistrationError, match='saw the whole gripper in 0 pictures'):
        calibrate(replace(whole, cameras=(replace(camera, labels=blind),)), gripper_of())


def test_a_gripper_behind_the_arm_is_refused():
    whole = recording()
    camera = whole.cameras[0]

    def hidden(indices):
        for labels in camera.labels.load(indices):
            rows = np.flatnonzero(labels.any(1))
            upper = (np.arange(len(labels)) < rows[0] + 2 * len(rows) // 3)[:, None]
            yield np.where(upper & (labels == 2), 1, labels)

    behind = replace(camera, labels=ImageStream('labels', camera.labels.stamps, hidden))
    with pytest.raises(RegistrationError, match='of the gripper, too little'):
        calibrate(replace(whole, cameras=(behind,)), gripper_of(), pictures=8)


def test_the_command_writes_what_the_launch_file_reads(monkeypatch, tmp_path, capsys):
    class Reader:
        def read(self, source, options):
            yield recording()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, 'find_sources', lambda source: [(Reader(), source)])
    assert main(['calibrate', 'made', '--by', 'silhouette', '--pictures', '10', '--robot', 'panda']) == 0
    pose = [float(v) for v in calibrated_pose('calibration.json', 'left').split()]
    np.testing.assert_allclose(pose[:3], T_BASE_CAMERA[:3, 3], atol=0.02)
    assert 'left: 10 pictures' in capsys.readouterr().out


def test_poses_of_another_clock_are_refused():
    whole = recording()
    late = replace(whole.T_base_gripper, values=np.roll(whole.T_base_gripper.values, 5, axis=0))
    with pytest.raises(RegistrationError, match='one clock'):
        calibrate(replace(whole, T_base_gripper=late), gripper_of())
