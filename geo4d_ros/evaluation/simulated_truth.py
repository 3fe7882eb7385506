"""What really happens in a window of time: frames, geometry and the gripper's path, from the simulator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geo4d_ros.errors import InvalidInputError, require
from geo4d_ros.evaluation.metrics.regions import Colours
from geo4d_ros.geometry.cameras import unproject
from geo4d_ros.geometry.transforms import invert, transform_points
from geo4d_ros.types import GripperTrack, Observation, RgbdFrame, TrackStatus, Video4D

GRIPPER_CLASSES = (2, 3, 4)  # hand, left finger, right finger
OBJECT_CLASS = 5


@dataclass(frozen=True)
class Recording:
    """T+1 moments of a cell seen by V still cameras.

    rgb (V, T+1, H, W, 3) uint8; depth (V, T+1, H, W) float32 [m], 0 = invalid; labels (V, T+1, H, W) uint8;
    K (V, 3, 3); T_base_camera (V, 4, 4); T_base_gripper (T+1, 4, 4); opening (T+1,) [m];
    arm_points (T+1, J, 3) [m] in the base frame, see `Observation`; stamps (T+1,) [ns];
    T_base_object (T+1, 4, 4), None where the object's pose is not known.
    """

    rgb: np.ndarray
    depth: np.ndarray
    labels: np.ndarray
    K: np.ndarray
    T_base_camera: np.ndarray
    T_base_gripper: np.ndarray
    opening: np.ndarray
    arm_points: np.ndarray
    stamps: np.ndarray
    T_base_object: np.ndarray | None = None

    def __len__(self) -> int:
        return self.rgb.shape[1]

    def window(self, start: int, frames: int, stride: int = 1) -> Recording:
        """The moments start, start + stride, ... (frames + 1 of them); past the end the last one repeats."""
        require(0 <= start < len(self), f'window start should lie in 0..{len(self) - 1} but got {start}')
        wanted = start + stride * np.arange(frames + 1)
        index = np.minimum(wanted, len(self) - 1)
        step = int(self.stamps[1] - self.stamps[0]) * stride if len(self) > 1 else 500_000_000
        stamps = self.stamps[start] + step * np.arange(frames + 1, dtype=np.int64)
        return Recording(self.rgb[:, index], self.depth[:, index], self.labels[:, index], self.K,
                         self.T_base_camera, self.T_base_gripper[index], self.opening[index],
                         self.arm_points[index], stamps,
                         None if self.T_base_object is None else self.T_base_object[index])


@dataclass(frozen=True)
class TruthClip:
    """An observation and what came after it: `video` and `track` hold the truth, `labels` its classes.

    T_ref_object (T+1, 4, 4) and arm_points (T+1, J, 3) in the reference frame; colours: those of the whole episode.
    """

    observation: Observation
    video: Video4D
    track: GripperTrack
    labels: np.ndarray
    task: str = ''
    seed: int = 0
    T_ref_object: np.ndarray | None = None
    arm_points: np.ndarray | None = None
    colours: Colours | None = None


def clip_of(recording: Recording, task: str = '', seed: int = 0,
            noisy_first: Observation | None = None, colours: Colours | None = None) -> TruthClip:
    """The whole recording as one clip; view 0 is the reference.

    `noisy_first` replaces the observation (sensor noise), the truth stays clean; `colours` are passed on.
    """
    if recording.rgb.ndim != 5:
        raise InvalidInputError(f'a recording should be (V, T+1, H, W, 3) but got {recording.rgb.shape}')
    T_ref_base = invert(recording.T_base_camera[0])
    T_ref_view = T_ref_base @ recording.T_base_camera
    points = np.stack([
        np.stack([transform_points(T, unproject(d, K)) for d in depths])
        for depths, K, T in zip(recording.depth, recording.K, T_ref_view, strict=True)
    ])
    n = len(recording)
    track = GripperTrack(T_ref_base @ recording.T_base_gripper, recording.opening.astype(np.float64),
                         np.ones(n), (TrackStatus.OK,) * n)
    gripper = np.isin(recording.labels, GRIPPER_CLASSES).astype(np.float32)
    video = Video4D(recording.rgb, points.astype(np.float32), recording.depth > 0, recording.stamps,
                    recording.K, T_ref_view, gripper)
    observation = noisy_first or observe(recording, 0)
    T_ref_object = None if recording.T_base_object is None else T_ref_base @ recording.T_base_object
    return TruthClip(observation, video, track, recording.labels, task, seed, T_ref_object,
                     transform_points(T_ref_base, recording.arm_points), colours)


def observe(recording: Recording, index: int) -> Observation:
    """The recording's moment `index` as an observation with robot state."""
    views = tuple(
        RgbdFrame(rgb[index], depth[index], K, int(recording.stamps[index]), f'view{i}_optical_frame')
        for i, (rgb, depth, K) in enumerate(zip(recording.rgb, recording.depth, recording.K, strict=True))
    )
    T_ref_base = invert(recording.T_base_camera[0])
    return Observation(views, T_ref_base @ recording.T_base_gripper[index], float(recording.opening[index]),
                       T_ref_base @ recording.T_base_camera,
                       transform_points(T_ref_base, recording.arm_points[index]))


def copy_video(clip: TruthClip) -> Video4D:
    """Predicts no change: frame 0 repeated, the second view placed by its true calibration."""
    v = clip.video

    def still(x: np.ndarray) -> np.ndarray:
        return np.repeat(x[:, :1], v.frames, axis=1)

    n = v.frames
    poses = np.repeat(clip.track.T_ref_gripper[:1], n, axis=0)
    track = GripperTrack(poses, np.repeat(clip.track.opening[:1], n), np.ones(n), (TrackStatus.OK,) * n)
    return Video4D(still(v.rgb), still(v.points), still(v.valid), v.stamps, v.K, v.T_ref_view,
                   still(v.gripper_mask), track)
