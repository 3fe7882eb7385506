"""Camera calibration without a board: the gripper's own silhouette, wherever the arm carried it, against its meshes.

Two steps: a perspective-n-point solution of the masks' centres, then all outlines together by least squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.optimize import least_squares
from scipy.spatial import cKDTree

from geo4d_ros.data.recordings import CameraRecording, Recording, StateTrack
from geo4d_ros.errors import BackendUnavailableError, DatasetError, RegistrationError, require
from geo4d_ros.geometry.cameras import project
from geo4d_ros.geometry.transforms import from_rotvec, invert, transform_points
from geo4d_ros.robots.gripper import GripperModel

GRIPPER_LABELS, HIDING_LABELS = (2, 3, 4), (1, 5)  # hand and fingers, as episodes label them; arm and object
MIN_PIXELS, MIN_OUTLINE, MIN_PICTURES = 30, 10, 8
MIN_SPREAD_M = 0.03  # of the gripper's places, along the second widest direction
POINTS, OUTLINE = 800, 100  # on the gripper's surface; on a mask's outline, at most
FAR_PX = 40.0  # nothing counts as farther off
MAX_GAP_NS = 200_000_000
MAX_ERROR_PX = 6.0  # a start from the centres alone is not better
MIN_VISIBLE = 0.6  # of the gripper; with less behind the arm a camera of the simulated cell was 2 cm off
MAX_RESIDUAL_PX = 3.0  # beyond, outlines do not fit: wrong meshes, poses or clocks


@dataclass(frozen=True)
class SilhouetteResult:
    """Calibration of one camera: pictures used, T_base_camera (4, 4), and per picture the outlines' root mean square
    distance [px] and [m] at the gripper's depth. visible: share of the gripper that the mask shows."""

    name: str
    pictures: int
    T_base_camera: np.ndarray
    residual_px: np.ndarray
    residual_m: np.ndarray
    visible: float


@dataclass(frozen=True)
class _Look:
    """One picture: points (N, 3) of the gripper in the base frame [m]; its mask (H, W); how far (H, W) [px] each pixel
    is from where the gripper may be, its mask and what can hide it; outline (n, 2): the mask's pixels beside anything
    else; centre (2,) of the mask [px] and (3,) of the gripper [m]."""

    points: np.ndarray
    mask: np.ndarray
    outside: np.ndarray
    outline: np.ndarray
    centre_px: np.ndarray
    centre: np.ndarray


def calibrate(recording: Recording, gripper: GripperModel, pictures: int = 24) -> list[SilhouetteResult]:
    """Every camera's place, from at most `pictures` pictures spread over the recording.

    DatasetError where it lacks intrinsics, labels, the gripper's pose or opening; RegistrationError where the gripper
    is seen too seldom, stays in one place, or its outlines do not fit.
    """
    for value, what in ((recording.T_base_gripper, 'pose of the gripper; record /tf, or give --gripper-frame'),
                        (recording.opening, 'opening of the gripper; record it in /joint_states (--gripper-joints)')):
        require(value is not None, f'{recording.source} has no {what}', DatasetError)
    assert recording.T_base_gripper is not None and recording.opening is not None
    return [_of_camera(camera, recording.T_base_gripper, recording.opening, gripper, pictures)
            for camera in recording.cameras]


def _of_camera(camera: CameraRecording, poses: StateTrack, openings: StateTrack, gripper: GripperModel,
               pictures: int) -> SilhouetteResult:
    require(camera.K is not None, f'camera {camera.name} has no intrinsics; record camera_info', DatasetError)
    require(camera.labels is not None, f'camera {camera.name} has no labels of the gripper; record segmentation, or '
            'calibrate with a board', DatasetError)
    assert camera.K is not None and camera.labels is not None
    stamps = camera.labels.stamps
    begin, end = max(poses.stamps[0], openings.stamps[0]), min(poses.stamps[-1], openings.stamps[-1])
    inside = np.flatnonzero((stamps >= begin) & (stamps <= end))
    chosen = [int(inside[k]) for k in np.unique(np.linspace(0, len(inside) - 1, min(pictures, len(inside))).astype(int))
              ] if len(inside) else []
    looks = []
    for index, labels in zip(chosen, camera.labels.load(chosen), strict=True):
        T = poses.at(int(stamps[index]), MAX_GAP_NS)
        look = _look(labels, T, float(openings.at(int(stamps[index]), MAX_GAP_NS)), gripper)
        looks += [look] if look is not None else []
    require(len(looks) >= MIN_PICTURES, f'camera {camera.name} saw the whole gripper in {len(looks)} pictures, at '
            f'least {MIN_PICTURES} are needed', RegistrationError)
    T_camera_base = _refined(looks, camera.K, _from_centres(looks, camera.K, camera.name))
    rms, metres = _residuals(looks, camera.K, T_camera_base)
    require(float(np.median(rms)) < MAX_RESIDUAL_PX, f"camera {camera.name}: the gripper's outlines are "
            f'{np.median(rms):.1f} px off; is it this --robot, and are poses and pictures of one clock?',
            RegistrationError)
    visible = float(np.median([_visible(look, camera.K, T_camera_base) for look in looks]))
    require(visible > MIN_VISIBLE, f'camera {camera.name} sees {visible:.0%} of the gripper, too little to be placed; '
            'move it where the arm does not hide it, or calibrate with a board', RegistrationError)
    return SilhouetteResult(camera.name, len(looks), invert(T_camera_base), rms, metres, visible)


def _look(labels: np.ndarray, T_base_gripper: np.ndarray, opening: float, gripper: GripperModel) -> _Look | None:
    """None where the gripper is not seen, or only in part: cut by the picture's edge."""
    mask = np.isin(labels, GRIPPER_LABELS)
    if mask.sum() < MIN_PIXELS or mask[[0, -1]].any() or mask[:, [0, -1]].any():
        return None
    possible = mask | np.isin(labels, HIDING_LABELS)
    outline = np.argwhere(mask & ~ndimage.binary_erosion(possible))[:, ::-1].astype(np.float64)
    if len(outline) < MIN_OUTLINE:
        return None
    outline = outline[np.linspace(0, len(outline) - 1, min(OUTLINE, len(outline))).astype(int)]
    points = transform_points(T_base_gripper, gripper.surface_points(opening, POINTS))
    centre_px = np.argwhere(mask)[:, ::-1].mean(0)
    return _Look(points, mask, ndimage.distance_transform_edt(~possible), outline, centre_px, points.mean(0))


def _from_centres(looks: Sequence[_Look], K: np.ndarray, name: str) -> np.ndarray:
    """T_camera_base (4, 4) that puts the gripper's centres onto the masks' centres."""
    try:
        import cv2
    except ImportError as error:
        raise BackendUnavailableError('calibration needs OpenCV: pip install opencv-python-headless') from error
    centres, pixels = (np.stack([getattr(look, key) for look in looks]) for key in ('centre', 'centre_px'))
    spread = np.linalg.svd(centres - centres.mean(0), compute_uv=False) / np.sqrt(len(centres))
    require(spread[1] > MIN_SPREAD_M, f'camera {name}: the gripper stayed on a line or in one place; move it through '
            'the picture, to and fro and up and down', RegistrationError)
    good, r, t, kept = cv2.solvePnPRansac(centres, pixels, K, None, reprojectionError=MAX_ERROR_PX, confidence=0.999,
                                          iterationsCount=500, flags=cv2.SOLVEPNP_SQPNP)
    require(bool(good) and kept is not None and len(kept) >= MIN_PICTURES // 2, f"camera {name}: the masks' places do "
            'not fit the poses; are the labels of the gripper, and poses and pictures of one clock?', RegistrationError)
    return from_rotvec(r.ravel(), t.ravel())


def _refined(looks: Sequence[_Look], K: np.ndarray, T: np.ndarray) -> np.ndarray:
    def errors(x: np.ndarray) -> np.ndarray:
        moved = from_rotvec(x[:3], x[3:]) @ T
        return np.concatenate([part / np.sqrt(len(part)) for look in looks for part in _distances(look, K, moved)])

    x = np.zeros(6)
    for loss in ('linear', 'soft_l1'):  # what lies far off pulls first; then, hidden parts should not
        x = least_squares(errors, x, loss=loss, f_scale=0.1, x_scale=0.01, diff_step=1e-4, ftol=1e-4).x
    return from_rotvec(x[:3], x[3:]) @ T


def _distances(look: _Look, K: np.ndarray, T_camera_base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[px] of the gripper's points from the mask (N,), and of the mask's outline from the nearest point (n,)."""
    pixels, depth = project(transform_points(T_camera_base, look.points), K)
    if (depth < 0.05).any():
        return np.full(len(pixels), FAR_PX), np.full(len(look.outline), FAR_PX)
    height, width = look.outside.shape
    inside = np.clip(pixels, 0, [width - 1, height - 1])
    outside = ndimage.map_coordinates(look.outside, inside[:, ::-1].T, order=1)
    # The edge lies half a pixel beyond the middles of the mask's last pixels.
    outside = np.maximum(0.0, outside - 0.5) + np.linalg.norm(pixels - inside, axis=1)
    return np.minimum(outside, FAR_PX), np.minimum(cKDTree(pixels).query(look.outline)[0], FAR_PX)


def _visible(look: _Look, K: np.ndarray, T_camera_base: np.ndarray) -> float:
    """Share of the gripper's points that lie on its mask, not on what hides it."""
    columns, rows = np.round(project(transform_points(T_camera_base, look.points), K)[0]).astype(int).T
    height, width = look.mask.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    near = ndimage.binary_dilation(look.mask)
    return float(near[rows[inside], columns[inside]].sum() / len(rows))


def _residuals(looks: Sequence[_Look], K: np.ndarray, T_camera_base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = [np.concatenate(_distances(look, K, T_camera_base)) for look in looks]
    rms = np.array([float(np.sqrt(np.mean(part ** 2))) for part in parts])
    depth = np.array([transform_points(T_camera_base, look.centre)[2] for look in looks])
    return rms, rms * depth / K[0, 0]
