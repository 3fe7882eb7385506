"""Camera calibration from a recording in which the gripper holds a ChArUco board in front of the cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geo4d_ros.data.recordings import CameraRecording, Recording
from geo4d_ros.errors import BackendUnavailableError, DatasetError, InvalidInputError, RegistrationError, require
from geo4d_ros.geometry.hand_eye import HandEye, solve_hand_eye
from geo4d_ros.geometry.transforms import from_rotvec

MIN_CORNERS = 6
MAX_GAP_NS = 200_000_000


@dataclass(frozen=True)
class Board:
    """A ChArUco board: squares across and down, sides of square and marker [m], OpenCV's name of the dictionary."""

    columns: int = 7
    rows: int = 5
    square: float = 0.04
    marker: float = 0.03
    dictionary: str = 'DICT_4X4_50'

    def opencv(self) -> Any:
        """The board as OpenCV has it; BackendUnavailableError without OpenCV."""
        try:
            import cv2
        except ImportError as error:
            raise BackendUnavailableError('calibration finds the board by OpenCV: pip install opencv-python-headless'
                                          ) from error
        known = getattr(cv2.aruco, self.dictionary, None)
        require(isinstance(known, int) and self.dictionary.startswith('DICT_'),
                f'unknown dictionary {self.dictionary!r}; OpenCV has DICT_4X4_50, DICT_5X5_100 and others')
        require(self.columns >= 3 and self.rows >= 3 and 0 < self.marker < self.square,
                'a board needs at least 3x3 squares and markers smaller than them', InvalidInputError)
        return cv2.aruco.CharucoBoard((self.columns, self.rows), self.square, self.marker,
                                      cv2.aruco.getPredefinedDictionary(known))


@dataclass(frozen=True)
class CameraResult:
    """Calibration of one camera: pictures used, corner error [px] and what `solve_hand_eye` found."""

    name: str
    pictures: int
    corner_error_px: float
    hand_eye: HandEye


def find_board(picture: np.ndarray, K: np.ndarray, board: Board) -> tuple[np.ndarray, float] | None:
    """T_camera_board (4, 4) and the root mean square corner error [px]; None where too few corners are seen."""
    import cv2

    made = board.opencv()
    corners, ids, _, _ = cv2.aruco.CharucoDetector(made).detectBoard(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    if ids is None or len(ids) < MIN_CORNERS:
        return None
    points = np.asarray(made.getChessboardCorners(), np.float64)[np.asarray(ids).ravel()]
    pixels = np.asarray(corners, np.float64).reshape(-1, 2)
    good, r, t = cv2.solvePnP(points, pixels, K, None, flags=cv2.SOLVEPNP_ITERATIVE)
    if not good:
        return None
    seen = cv2.projectPoints(points, r, t, K, None)[0].reshape(-1, 2)
    return from_rotvec(r.ravel(), t.ravel()), float(np.sqrt(np.mean(np.sum((seen - pixels) ** 2, axis=1))))


def calibrate(recording: Recording, board: Board, pictures: int = 60) -> list[CameraResult]:
    """Every camera's place, from at most `pictures` pictures spread over the recording.

    DatasetError where the recording lacks intrinsics or the gripper's pose; RegistrationError where the board is seen
    too seldom or turns too little.
    """
    track = recording.T_base_gripper
    if track is None:
        raise DatasetError(f'{recording.source} has no pose of the gripper; record /tf, or give --base-frame and '
                           '--gripper-frame')
    results = []
    for camera in recording.cameras:
        found = _board_poses(camera, board, pictures, track)
        require(len(found) >= 3, f'camera {camera.name} saw the board in {len(found)} pictures, at least 3 are needed',
                RegistrationError)
        gripper, seen, errors = (np.stack([row[k] for row in found]) for k in range(3))
        results.append(CameraResult(camera.name, len(found), float(np.median(errors)), solve_hand_eye(gripper, seen)))
    return results


def _board_poses(camera: CameraRecording, board: Board, pictures: int, track: Any) -> list[tuple[Any, Any, float]]:
    if camera.K is None:
        raise DatasetError(f'camera {camera.name} has no intrinsics; record camera_info')
    stamps = camera.colour.stamps
    inside = np.flatnonzero((stamps >= track.stamps[0]) & (stamps <= track.stamps[-1]))
    chosen = np.unique(np.linspace(0, len(inside) - 1, min(pictures, len(inside))).astype(int)) if len(inside) else []
    indices = [int(inside[k]) for k in chosen]
    found = []
    for index, picture in zip(indices, camera.colour.load(indices), strict=True):
        pose = find_board(picture, camera.K, board)
        if pose is not None:
            found.append((track.at(int(stamps[index]), MAX_GAP_NS), *pose))
    return found
