"""What a tracker is compared with: library ICP on the masked points, and the paper's opening threshold."""

from __future__ import annotations

import numpy as np

from geo4d_ros.errors import BackendUnavailableError
from geo4d_ros.geometry.transforms import invert
from geo4d_ros.robots.gripper import GripperModel
from geo4d_ros.tracking.clip import MASK_LEVEL, prepare
from geo4d_ros.tracking.segmentation.masks import MaskSource
from geo4d_ros.types import GripperTrack, Observation, TrackStatus, Video4D

MAX_CORRESPONDENCE_M = 0.05


class IcpTracker:
    """Point-to-plane ICP of the masked points of all views to the gripper's surface, frame after frame (small_gicp,
    MIT): what a good library gives without outlines and without a motion prior."""

    name, readout = 'icp', 'video'

    def __init__(self, gripper: GripperModel, masks: MaskSource) -> None:
        """Raises BackendUnavailableError without the small_gicp package."""
        try:
            import small_gicp
        except ImportError as error:
            raise BackendUnavailableError('the ICP baseline needs small_gicp; pip install small_gicp, or pass '
                                          '--no-baseline') from error
        self._gicp, self._gripper, self._masks = small_gicp, gripper, masks

    def close(self) -> None:
        """Nothing to release."""

    def track(self, video: Video4D, observation: Observation) -> GripperTrack:
        """Every pose starts from the previous one; nothing is known about confidence."""
        chunk = prepare(video, observation)
        opening = float(np.clip(observation.opening or self._gripper.max_opening, 0, self._gripper.max_opening))
        masks = self._masks(chunk, observation.T_ref_gripper, opening)
        model = self._gripper.surface_points(opening, 4000)
        n = chunk.frames
        T = np.tile(observation.T_ref_gripper, (n, 1, 1)).astype(np.float64)
        for t in range(1, n):
            seen = (masks.gripper[:, t] > MASK_LEVEL) & (chunk.depth[:, t] > 0)
            points = chunk.points[:, t][seen].astype(np.float64)
            T[t] = T[t - 1]
            if len(points) < 20:
                continue
            result = self._gicp.align(model, points, invert(T[t - 1]), registration_type='PLANE_ICP',
                                      downsampling_resolution=0.003, num_threads=1, max_iterations=30,
                                      max_correspondence_distance=MAX_CORRESPONDENCE_M)
            T[t] = invert(np.asarray(result.T_target_source, np.float64))
        return GripperTrack(T, np.full(n, opening), np.ones(n), (TrackStatus.OK,) * n, {'backend': self.name})


def finger_distance(probabilities: np.ndarray, points: np.ndarray, valid: np.ndarray, left: int, right: int,
                    min_pixels: int = 3) -> np.ndarray:
    """Distance [m] of the two fingers' centroids per frame, (T+1,), the mean over the views; NaN where unseen.

    The paper's reading of the opening. probabilities (V, T+1, C, H, W); points (V, T+1, H, W, 3); valid
    (V, T+1, H, W); left, right: class indices.
    """
    label = probabilities.argmax(2)
    views, frames = label.shape[:2]
    distance = np.full((views, frames), np.nan)
    for view in range(views):
        for t in range(frames):
            centres = []
            for finger in (left, right):
                seen = (label[view, t] == finger) & valid[view, t]
                if seen.sum() >= min_pixels:
                    centres.append(np.median(points[view, t][seen], axis=0))
            if len(centres) == 2:
                distance[view, t] = np.linalg.norm(centres[0] - centres[1])
    seen = np.isfinite(distance)
    total = np.where(seen, distance, 0).sum(0)
    return np.where(seen.any(0), total / np.maximum(seen.sum(0), 1), np.nan)


def threshold_rule(distance: np.ndarray, threshold: float, closed_at_start: bool) -> np.ndarray:
    """Closed per frame, (T+1,) bool: below the threshold [m]; where the fingers are not seen the last answer holds."""
    closed = np.zeros(len(distance), bool)
    closed[0] = closed_at_start
    for t in range(1, len(distance)):
        closed[t] = closed[t - 1] if np.isnan(distance[t]) else distance[t] < threshold
    return closed


def best_threshold(distances: list[np.ndarray], closed_true: list[np.ndarray]) -> tuple[float, float]:
    """Threshold [m] with the highest accuracy on these very sequences (a bound in the rule's favour), and that."""
    candidates = np.linspace(0.02, 0.14, 49)
    accuracy = [np.mean(np.concatenate([threshold_rule(d, c, bool(true[0]))[1:] == true[1:]
                                        for d, true in zip(distances, closed_true, strict=True)]))
                for c in candidates]
    best = int(np.argmax(accuracy))
    return float(candidates[best]), float(accuracy[best])
