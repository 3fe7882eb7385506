"""A board drawn where it is: the camera's place comes out, and what is missing is one line."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from geo4d_ros.cli.main import main
from geo4d_ros.data.calibration.board import Board, find_board
from geo4d_ros.geometry.cameras import intrinsics
from geo4d_ros.geometry.transforms import from_rotvec, invert, make_transform, pose_to_quaternion

cv2 = pytest.importorskip('cv2', reason='needs opencv-python-headless')
SIZE = (360, 480)
K = intrinsics(450.0, SIZE[1], SIZE[0])
BOARD = Board()
PX = 1000  # of the drawn board per metre
T_BASE_CAMERA = np.array([[0, 0, 1, -0.2], [-1, 0, 0, 0.1], [0, -1, 0, 0.5], [0, 0, 0, 1.0]])
T_GRIPPER_BOARD = from_rotvec(np.array([0.0, 0, 0.1]), np.array([0.0, 0.01, 0.03]))


def draw(T_camera_board):
    """The board's picture by the homography of its plane."""
    size = (round(BOARD.columns * BOARD.square * PX), round(BOARD.rows * BOARD.square * PX))
    flat = BOARD.opencv().generateImage(size)
    to_board = np.array([[1 / PX, 0, 0.5 / PX], [0, 1 / PX, 0.5 / PX], [0, 0, 1]])
    plane = K @ np.column_stack([T_camera_board[:3, 0], T_camera_board[:3, 1], T_camera_board[:3, 3]])
    grey = cv2.warpPerspective(flat, plane @ to_board, SIZE[::-1], flags=cv2.INTER_AREA, borderValue=128)
    return np.repeat(grey[..., None], 3, axis=2)


def boards(count, rng):
    """Poses of the board in front of the camera, tilted about all axes."""
    centre = make_transform(t=np.array([-BOARD.columns, -BOARD.rows, 0]) * BOARD.square / 2)
    return [from_rotvec(rng.uniform(-0.45, 0.45, 3), np.array([*rng.uniform(-0.04, 0.04, 2), rng.uniform(0.5, 0.65)]))
            @ centre for _ in range(count)]


def test_the_board_is_found_where_it_was_drawn():
    T = boards(1, np.random.default_rng(0))[0]
    found, error = find_board(draw(T), K, BOARD)
    assert error < 0.5
    assert np.linalg.norm(found[:3, 3] - T[:3, 3]) < 0.004
    assert find_board(np.full((*SIZE, 3), 128, np.uint8), K, BOARD) is None


def write_recording(folder, seen, poses=True):
    (folder / 'camera1/rgb').mkdir(parents=True)
    rows = []
    for i, T in enumerate(seen):
        Image.fromarray(draw(T)).save(folder / f'camera1/rgb/{i:06d}.png')
        T_base_gripper = T_BASE_CAMERA @ T @ invert(T_GRIPPER_BOARD)
        rows.append([i / 2, *T_base_gripper[:3, 3], *pose_to_quaternion(T_base_gripper)])
    (folder / 'camera1/camera.json').write_text(json.dumps({'K': K.tolist()}))
    (folder / 'recording.json').write_text(json.dumps({'rate_hz': 2}))
    if poses:
        with (folder / 'poses.csv').open('w', newline='') as file:
            csv.writer(file).writerows([['time', 'x', 'y', 'z', 'qx', 'qy', 'qz', 'qw'], *rows])


def test_the_command_finds_the_camera(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_recording(tmp_path / 'board', boards(10, np.random.default_rng(2)))
    assert main(['calibrate', 'board', '--json', 'report.json']) == 0
    T = np.array(json.loads((tmp_path / 'calibration.json').read_text())['camera1']['T_base_camera'])
    assert np.linalg.norm(T[:3, 3] - T_BASE_CAMERA[:3, 3]) < 0.005
    report = json.loads((tmp_path / 'report.json').read_text())['cameras'][0]
    assert report['pictures'] >= 8 and report['residual_mm_median'] < 4
    assert 'pose for cameras.launch.py' in capsys.readouterr().out


@pytest.mark.parametrize('poses,options,words', [
    (False, [], 'has no pose of the gripper'), (True, ['--dictionary', 'DICT_9'], 'unknown dictionary'),
    (True, ['--board', 'big'], '--board should be'), (True, [], 'saw the board in 2 pictures'),
])
def test_what_is_missing_is_one_line(tmp_path, monkeypatch, capsys, poses, options, words):
    monkeypatch.chdir(tmp_path)
    write_recording(tmp_path / 'board', boards(2, np.random.default_rng(2)), poses)
    assert main(['calibrate', 'board', *options]) == 2
    text = capsys.readouterr().err
    assert words in text and len(text.strip().splitlines()) == 1
