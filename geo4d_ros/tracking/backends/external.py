"""Trackers whose poses come from outside (FoundationPose, Isaac ROS), judged by the same confidence as our own."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from geo4d_ros.errors import ConfigurationError, Geo4dError, require
from geo4d_ros.geometry.transforms import invert
from geo4d_ros.robots.gripper import GripperModel, nearest_symmetric
from geo4d_ros.tracking.confidence import Agreement, view_overlap
from geo4d_ros.tracking.frame_zero import FrameZero
from geo4d_ros.tracking.model_tracker import ModelTracker, ModelTrackerConfig
from geo4d_ros.tracking.objective import Problem
from geo4d_ros.tracking.segmentation.masks import MaskSource, kinematic_mask
from geo4d_ros.tracking.solver import Solution
from geo4d_ros.types import GripperTrack, RgbdFrame, TrackDetails, Video4D

# An outside tracker gives no covariance: what FoundationPose shows on good depth, per axis.
SIGMA_RAD, SIGMA_M = 0.05, 0.005


class PoseBackendFault(Geo4dError):
    """An outside tracker failed in the middle of a chunk: the frames from there on are LOST."""


class PoseBackend(Protocol):
    """A rigid-body tracker for one or more views; poses are T_view_gripper (4, 4), optical frame, metres.

    All methods raise PoseBackendFault when they fail and BackendUnavailableError when they never can succeed.
    A backend that follows fewer views says so with an attribute `max_views`.
    """

    def begin(self, opening: float) -> None:
        """A new chunk; the gripper's opening [m] at frame 0."""
        ...

    def start(self, view: int, T_view_gripper: np.ndarray, frame: RgbdFrame, mask: np.ndarray) -> None:
        """Seed a view with frame 0: the known pose, the image, and the projected gripper (H, W) bool."""
        ...

    def step(self, view: int, rgb: np.ndarray, depth: np.ndarray, K: np.ndarray) -> np.ndarray:
        """The pose in the next frame: rgb (H, W, 3) uint8, depth (H, W) float32 [m], K (3, 3)."""
        ...

    def register(self, view: int, rgb: np.ndarray, depth: np.ndarray, mask: np.ndarray, K: np.ndarray) -> np.ndarray:
        """The pose found anew inside mask (H, W) bool."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


class ExternalTracker(ModelTracker):
    """Every view is tracked on its own; per frame the view that agrees best with its image is taken (the paper's
    rule: selection, not averaging). Where a view no longer agrees, registration is tried once."""

    def __init__(self, name: str, backend: PoseBackend, gripper: GripperModel, masks: MaskSource, readout: str,
                 config: ModelTrackerConfig | None = None, recover_below: float = 0.3) -> None:
        super().__init__(gripper, masks, readout, config)
        self.name, self._backend, self._recover_below = name, backend, recover_below

    def close(self) -> None:
        """End the backend."""
        self._backend.close()

    def _poses(self, problem: Problem, video: Video4D, T_0: np.ndarray, opening: float, state: GripperTrack | None,
               details: TrackDetails) -> Solution:
        n = problem.chunk.frames
        T = np.tile(T_0, (n, 1, 1))
        covariance = np.tile(np.diag(np.repeat([SIGMA_RAD**2, SIGMA_M**2], 3)), (n, 1, 1))
        covariance[0] = 0
        try:
            self._backend.begin(opening)
            views = [view for view in problem.views if problem.raster(view, T_0, opening) is not None]
            views = views[:getattr(self._backend, 'max_views', None)]
            for view in views:
                self._start(problem, video, view, problem.T_view_ref[view] @ T_0, opening)
            for t in range(1, n):
                T[t] = self._frame(problem, video, views, t, T[t - 1], opening, details)
        except PoseBackendFault as error:
            details['fault'] = str(error)
            details['fault_frame'] = next((t for t in range(1, n) if np.array_equal(T[t], T_0)), n - 1)
        # For the comparison with the images: what lies far from the poses found is not the gripper's.
        problem.focus(np.arange(1, n), T[1:], np.full(n - 1, opening))
        return Solution(T, covariance)

    def _start(self, problem: Problem, video: Video4D, view: int, T: np.ndarray, opening: float) -> None:
        K = video.K[view]
        mask = kinematic_mask(self.gripper, T, opening, K, video.rgb.shape[2:4])
        self._backend.start(view, T, RgbdFrame(video.rgb[view, 0], video.depth(view, 0), K), mask)

    def _frame(self, problem: Problem, video: Video4D, views: list[int], t: int, T_previous: np.ndarray, opening: float,
               details: TrackDetails) -> np.ndarray:
        best, best_overlap = T_previous, -1.0
        for view in views:
            rgb, depth, K = video.rgb[view, t], video.depth(view, t), video.K[view]
            T = invert(problem.T_view_ref[view]) @ self._backend.step(view, rgb, depth, K)
            overlap = view_overlap(problem, view, t, T, opening)
            if overlap is not None and overlap < self._recover_below:
                T, overlap = self._recover(problem, video, view, t, T, overlap, opening, details)
            if (overlap or 0.0) > best_overlap:
                best, best_overlap = T, overlap or 0.0
        return nearest_symmetric(best, T_previous, self.gripper.half_turn)

    def _recover(self, problem: Problem, video: Video4D, view: int, t: int, T: np.ndarray, overlap: float,
                 opening: float, details: TrackDetails) -> tuple[np.ndarray, float]:
        mask = problem.mask(view, t)
        if mask.sum() < 8:
            return T, overlap
        size = video.rgb.shape[2:4]
        rows = np.minimum((np.arange(size[0]) * mask.shape[0]) // size[0], mask.shape[0] - 1)
        columns = np.minimum((np.arange(size[1]) * mask.shape[1]) // size[1], mask.shape[1] - 1)
        full = np.ascontiguousarray(mask[rows[:, None], columns[None, :]])
        try:
            found = self._backend.register(view, video.rgb[view, t], video.depth(view, t), full, video.K[view])
        except PoseBackendFault as error:
            details.setdefault('recovery_faults', []).append(str(error))
            return T, overlap
        T_found = invert(problem.T_view_ref[view]) @ found
        again = view_overlap(problem, view, t, T_found, opening) or 0.0
        details['registrations'] = details.get('registrations', 0) + 1
        return (T_found, again) if again > overlap else (T, overlap)

    def _confidence(self, solution: Solution, found: list[Agreement], zero: FrameZero, state: GripperTrack | None,
                    details: TrackDetails) -> np.ndarray:
        confidence = super()._confidence(solution, found, zero, state, details)
        if 'fault_frame' in details:
            confidence[details['fault_frame']:] = 0.0
        return confidence


def foundationpose_tracker(gripper: GripperModel, masks: MaskSource, readout: str, config: ModelTrackerConfig,
                           **options: Any) -> ExternalTracker:
    """FoundationPose in a process of its own; options are those of `FoundationPoseOptions`."""
    from geo4d_ros.tracking.backends.foundationpose import FoundationPoseClient, FoundationPoseOptions

    client = FoundationPoseClient(FoundationPoseOptions.parse(options), gripper)
    return ExternalTracker('foundationpose', client, gripper, masks, readout, config)


def isaac_tracker(gripper: GripperModel, masks: MaskSource, readout: str, config: ModelTrackerConfig,
                  **options: Any) -> ExternalTracker:
    """Isaac ROS's tracker, reached through the `client` of a ROS node."""
    require(set(options) == {'client'}, 'the isaac backend runs inside a ROS node: it takes one option, client '
            '(geo4d_ros.ros.observe.isaac_tracker.IsaacPoseClient)', ConfigurationError)
    return ExternalTracker('isaac', options['client'], gripper, masks, readout, config)
