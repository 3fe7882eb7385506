"""One video made ready for tracking: small images, masks, and points sorted by view and frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geo4d_ros.errors import require
from geo4d_ros.geometry.cameras import scale_intrinsics
from geo4d_ros.geometry.resampling import nearest_indices
from geo4d_ros.geometry.transforms import invert, transform_points
from geo4d_ros.types import Observation, Video4D

MAX_WIDTH_PX = 160
MIN_SIZE_PX = 8
MASK_LEVEL = 0.5


@dataclass
class Masks:
    """What a mask source says about every pixel, all (V, T+1, H, W) float32 in [0, 1].

    gripper: hand and fingers. fingers: the fingers alone, None where the source cannot tell. occluder: arm
    or object, what touches the gripper and may hide it, fixture: what stands about and may, None likewise.
    source: name for the record. landmarks (V, T+1, 4, H/2, W/2): the chance of each of `landmarks.MAPS` at a block of
    2x2 pixels, hidden or not.
    """

    gripper: np.ndarray
    source: str
    fingers: np.ndarray | None = None
    occluder: np.ndarray | None = None
    fixture: np.ndarray | None = None
    landmarks: np.ndarray | None = None


@dataclass
class Chunk:
    """A video at tracking size. rgb (V, T+1, H, W, 3); points (V, T+1, H, W, 3) float32 [m] in the reference
    frame; depth (V, T+1, H, W) float32 [m] in each view, 0 = invalid; K (V, 3, 3); T_ref_view (V, 4, 4)."""

    rgb: np.ndarray
    points: np.ndarray
    depth: np.ndarray
    K: np.ndarray
    T_ref_view: np.ndarray
    gripper_mask: np.ndarray | None

    @property
    def views(self) -> int:
        """Number of views."""
        return self.rgb.shape[0]

    @property
    def frames(self) -> int:
        """Number of frames, the observation included."""
        return self.rgb.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width [px]."""
        return self.rgb.shape[2:4]

    @property
    def T_view_ref(self) -> np.ndarray:
        """The reference frame in each view, (V, 4, 4)."""
        return invert(self.T_ref_view)

    def move_view(self, view: int, T_ref_ref: np.ndarray) -> None:
        """Correct one view's extrinsic: its camera and its points move by T_ref_ref (4, 4)."""
        self.T_ref_view = self.T_ref_view.copy()
        self.T_ref_view[view] = T_ref_ref @ self.T_ref_view[view]
        self.points = self.points.copy()
        self.points[view] = transform_points(T_ref_ref, self.points[view])

    def scale_depth(self, scale: np.ndarray) -> None:
        """Multiply each view's depths about its own camera by scale (V,)."""
        self.points = self.points.copy()
        self.depth = self.depth * scale[:, None, None, None].astype(np.float32)
        for view, factor in enumerate(scale):
            origin = self.T_ref_view[view, :3, 3].astype(np.float32)
            self.points[view] = origin + np.float32(factor) * (self.points[view] - origin)


def prepare(video: Video4D, observation: Observation, views: int | None = None) -> Chunk:
    """The video at most MAX_WIDTH_PX wide (nearest pixels: a mean would invent depths between surfaces).

    views: use only the first so many. Raises InvalidInputError on inputs that contradict each other.
    """
    require(observation.T_ref_gripper is not None,
            'tracking starts from the measured gripper pose: the observation lacks T_ref_gripper; '
            'give the hand pose from the robot\'s kinematics')
    require(len(observation.views) == video.views,
            f'the video has {video.views} views but the observation has {len(observation.views)}')
    height, width = video.rgb.shape[2:4]
    require(min(height, width) >= MIN_SIZE_PX, f'images should be at least {MIN_SIZE_PX} px but are {height}x{width}')
    require(video.frames >= 2, 'a video to track needs at least one frame after the observation')
    use = video.views if views is None else min(views, video.views)
    scale = min(1.0, MAX_WIDTH_PX / width)
    h, w = max(MIN_SIZE_PX, round(height * scale)), max(MIN_SIZE_PX, round(width * scale))
    rows, columns = nearest_indices(height, h), nearest_indices(width, w)

    def shrink(array: np.ndarray) -> np.ndarray:
        return array[:use] if scale == 1.0 else array[:use, :, rows[:, None], columns[None, :]]

    points, valid = shrink(video.points), shrink(video.valid)
    T_ref_view = video.T_ref_view[:use]
    axis, origin = T_ref_view[:, :3, 2], T_ref_view[:, :3, 3]
    depth = np.einsum('vthwi,vi->vthw', points, axis.astype(np.float32))
    depth -= np.einsum('vi,vi->v', origin, axis).astype(np.float32)[:, None, None, None]
    depth = np.where(valid & (depth > 0), depth, np.float32(0))
    K = np.stack([scale_intrinsics(k, w / width, h / height) for k in video.K[:use]])
    mask = None if video.gripper_mask is None else shrink(video.gripper_mask)
    return Chunk(shrink(video.rgb), points, depth, K, T_ref_view, mask)
