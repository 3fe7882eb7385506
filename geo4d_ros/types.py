"""The contracts between the rooms: frozen dataclasses, checked on construction.

Conventions: OpenCV optical frames (x right, y down, z forward), metres, seconds, radians,
integer pixel centres, `T_a_b` = pose of b in a as (4, 4) float64. Depth 0 = invalid (REP-118
on the wire; NaN is turned into 0 by the readers). Stamps are integer nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypedDict

import numpy as np

from geo4d_ros.errors import InvalidInputError, require
from geo4d_ros.geometry.transforms import check_transform


class TrackStatus(str, Enum):
    """How far a tracked pose may be trusted; only a prefix of OK/DEGRADED frames is executed."""

    OK = 'OK'
    DEGRADED = 'DEGRADED'
    LOST = 'LOST'


class Verdict(str, Enum):
    """What a prediction says of the scene: there is work, it is done, there is none, or it is like no scene known."""

    PROCEED = 'PROCEED'
    DONE = 'DONE'
    NOTHING_TO_DO = 'NOTHING_TO_DO'
    UNFAMILIAR = 'UNFAMILIAR'


def _check_array(name: str, value: Any, shape: tuple[int | None, ...], dtype: type) -> None:
    """Check dtype and shape; a None in `shape` matches any size."""
    require(isinstance(value, np.ndarray), f'{name} should be a numpy array but got {type(value).__name__}')
    matches = value.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, value.shape, strict=True)
    )
    require(matches, f'{name} should have shape {shape} but got {value.shape}')
    require(value.dtype == dtype, f'{name} should be {np.dtype(dtype)} but got {value.dtype}')


def _check_intrinsics(name: str, K: np.ndarray) -> None:
    _check_array(name, K, (3, 3), np.float64)
    good = bool(np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0 and K[2, 2] == 1.0)
    require(good, f'{name} should be a finite pinhole matrix with positive focal lengths but got {K.tolist()}')


@dataclass(frozen=True)
class RgbdFrame:
    """One colour image with depth aligned to it.

    rgb (H, W, 3) uint8; depth (H, W) float32 [m], 0 = invalid; K (3, 3) float64 [px];
    stamp [ns]; frame_id names the optical frame.
    """

    rgb: np.ndarray
    depth: np.ndarray
    K: np.ndarray
    stamp: int = 0
    frame_id: str = 'camera_color_optical_frame'

    def __post_init__(self) -> None:
        _check_array('rgb', self.rgb, (None, None, 3), np.uint8)
        _check_array('depth', self.depth, self.rgb.shape[:2], np.float32)
        require(min(self.depth.shape) >= 2, f'image should be at least 2x2 but got {self.depth.shape}')
        require(bool(np.isfinite(self.depth).all()), 'depth has NaN or infinite pixels; use 0 for invalid')
        require(bool((self.depth >= 0).all()), 'depth has negative pixels; depth is in metres, 0 = invalid')
        _check_intrinsics('K', self.K)

    @classmethod
    def example(cls, height: int = 96, width: int = 128, seed: int = 0) -> RgbdFrame:
        """A random valid frame, for tests and docs."""
        rng = np.random.default_rng(seed)
        K = np.array([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1.0]])
        rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        return cls(rgb, rng.uniform(0.5, 1.5, (height, width)).astype(np.float32), K)


@dataclass(frozen=True)
class Observation:
    """What the cell looks like now.

    views[0] is the reference. T_ref_gripper (4, 4) is the tool centre point in the reference
    optical frame (x any, y along the finger opening, z approach), opening [m] between the pads.
    T_ref_view (V, 4, 4): the cameras' true poses where known, identity for view 0; evaluations give them, and only
    baselines that are told the poses read them. arm_points (J, 3) float64 [m]: measured origins of the arm's links,
    base first, hand last, in the reference frame, for generators that move the arm's pixels.
    instruction: what to do, a short text; None leaves it to the scene.
    """

    views: tuple[RgbdFrame, ...]
    T_ref_gripper: np.ndarray | None = None
    opening: float | None = None
    T_ref_view: np.ndarray | None = None
    arm_points: np.ndarray | None = None
    instruction: str | None = None

    def __post_init__(self) -> None:
        require(self.instruction is None or (isinstance(self.instruction, str) and len(self.instruction) <= 500),
                'instruction should be a text of up to 500 characters')
        require(len(self.views) >= 1, 'an observation needs at least one view')
        if self.T_ref_gripper is not None:
            check_transform('T_ref_gripper', self.T_ref_gripper)
        if self.opening is not None:
            require(bool(np.isfinite(self.opening) and -0.01 <= self.opening <= 0.5),
                    f'opening should be metres in [-0.01, 0.5] but got {self.opening}')
        if self.T_ref_view is not None:
            _check_array('T_ref_view', self.T_ref_view, (len(self.views), 4, 4), np.float64)
            for i, T in enumerate(self.T_ref_view):
                check_transform(f'T_ref_view[{i}]', T)
        if self.arm_points is not None:
            _check_array('arm_points', self.arm_points, (None, 3), np.float64)
            require(bool(np.isfinite(self.arm_points).all()), 'arm_points has NaN or infinite values')

    @property
    def stamp(self) -> int:
        """Stamp of the reference view [ns]."""
        return self.views[0].stamp

    @classmethod
    def example(cls, views: int = 2, seed: int = 0) -> Observation:
        """A random valid observation with robot state."""
        T_ref_gripper = np.eye(4)
        T_ref_gripper[2, 3] = 0.9
        arm = np.linspace([0.0, -0.5, 1.2], [0.0, 0.0, 0.8], 7)
        return cls(tuple(RgbdFrame.example(seed=seed + i) for i in range(views)), T_ref_gripper, 0.04, arm_points=arm)


class TrackDetails(TypedDict, total=False):
    """A backend's own figures, for diagnosis; F = T+1 frames. Only those that a backend has."""

    backend: str
    readout: str  # video or fused: whether a state stream was used
    masks: str  # where the masks come from
    opening: str  # network or masks
    reason: str  # why the track is lost, or from where on
    fault: str  # an outside tracker's
    fault_frame: int
    recovery_faults: list[str]
    registrations: int
    frame_zero: Any  # tracking.frame_zero.FrameZero
    agreement: list[Any]  # tracking.confidence.Agreement of every frame
    covariance: np.ndarray  # (F, 6, 6) rad, m
    opening_confidence: np.ndarray  # (F,)
    histories: np.ndarray  # (B, F, 4, 4)
    history_costs: np.ndarray  # (B,)
    state_distance_m: np.ndarray  # (F,) from the state stream
    believed: np.ndarray | None  # (F,) bool: frames that the state stream held
    raw_T_ref_gripper: np.ndarray  # (F, 4, 4), before gaps are bridged and the rest is held
    raw_opening: np.ndarray  # (F,) m, the same
    raw_confidence: np.ndarray  # (F,)
    timings: dict[str, float]  # name -> s


@dataclass(frozen=True)
class GripperTrack:
    """The gripper through the video; index 0 is the measured state.

    T_ref_gripper (T+1, 4, 4) float64; opening (T+1,) float64 [m]; confidence (T+1,) float64 in
    [0, 1]; status: one `TrackStatus` per frame. `details` holds a backend's own figures.
    """

    T_ref_gripper: np.ndarray
    opening: np.ndarray
    confidence: np.ndarray
    status: tuple[TrackStatus, ...]
    details: TrackDetails = field(default_factory=TrackDetails)

    def __post_init__(self) -> None:
        n = len(self.status)
        require(n >= 1, 'a track needs at least one frame')
        _check_array('T_ref_gripper', self.T_ref_gripper, (n, 4, 4), np.float64)
        for i, T in enumerate(self.T_ref_gripper):
            check_transform(f'T_ref_gripper[{i}]', T)
        _check_array('opening', self.opening, (n,), np.float64)
        _check_array('confidence', self.confidence, (n,), np.float64)
        require(bool(np.isfinite(self.opening).all()), 'opening has NaN or infinite values')
        require(bool(((self.confidence >= 0) & (self.confidence <= 1)).all()), 'confidence should lie in [0, 1]')

    def __len__(self) -> int:
        return len(self.status)

    @property
    def trusted(self) -> int:
        """How many leading frames come before the first LOST one (frame 0 included)."""
        return next((i for i, s in enumerate(self.status) if s is TrackStatus.LOST), len(self.status))

    @classmethod
    def example(cls, frames: int = 11) -> GripperTrack:
        """A straight 2 cm-per-frame descent that closes half way."""
        T = np.tile(np.eye(4), (frames, 1, 1))
        T[:, 2, 3] = 0.7 + 0.02 * np.arange(frames)
        opening = np.where(np.arange(frames) < frames // 2, 0.08, 0.03)
        return cls(T, opening, np.ones(frames), (TrackStatus.OK,) * frames)


@dataclass(frozen=True)
class Video4D:
    """A predicted (or recorded) RGB + pointmap video of V views; index 0 is the observation itself.

    rgb (V, T+1, H, W, 3) uint8; points (V, T+1, H, W, 3) float32 [m], all in the reference optical
    frame; valid (V, T+1, H, W) bool; stamps (T+1,) int64 [ns]; K (V, 3, 3) float64 at this size;
    T_ref_view (V, 4, 4) float64: each view's optical frame in the reference frame, as the producer
    estimated it from frame 0 (identity for view 0). Optional: gripper_mask (V, T+1, H, W) float32
    in [0, 1]; state, a track predicted jointly with the video; T_ref_object_motion (T+1, 4, 4), the rigid motion since
    frame 0 of the object that is handled, where the producer has one; scene, the producer's own figures of what it sees
    (as `object_pixels`), by which a verdict is reached; origin (V, T+1, H, W) uint8, where each pixel comes from, as
    numbered by `generation.two_view.composer.Origin`, of producers that compose. timings: stage -> [s].
    """

    rgb: np.ndarray
    points: np.ndarray
    valid: np.ndarray
    stamps: np.ndarray
    K: np.ndarray
    T_ref_view: np.ndarray
    gripper_mask: np.ndarray | None = None
    state: GripperTrack | None = None
    timings: dict[str, float] = field(default_factory=dict)
    T_ref_object_motion: np.ndarray | None = None
    scene: dict[str, float] | None = None
    origin: np.ndarray | None = None

    def __post_init__(self) -> None:
        _check_array('rgb', self.rgb, (None, None, None, None, 3), np.uint8)
        shape = self.rgb.shape[:4]
        _check_array('points', self.points, (*shape, 3), np.float32)
        _check_array('valid', self.valid, shape, np.bool_)
        _check_array('stamps', self.stamps, (shape[1],), np.int64)
        require(bool((np.diff(self.stamps) > 0).all()), 'stamps should increase')
        require(bool(np.isfinite(self.points[self.valid]).all()), 'valid points should be finite')
        _check_array('K', self.K, (shape[0], 3, 3), np.float64)
        for i, K in enumerate(self.K):
            _check_intrinsics(f'K[{i}]', K)
        _check_array('T_ref_view', self.T_ref_view, (shape[0], 4, 4), np.float64)
        for i, T in enumerate(self.T_ref_view):
            check_transform(f'T_ref_view[{i}]', T)
        if self.gripper_mask is not None:
            _check_array('gripper_mask', self.gripper_mask, shape, np.float32)
        if self.origin is not None:
            _check_array('origin', self.origin, shape, np.uint8)
        if self.T_ref_object_motion is not None:
            _check_array('T_ref_object_motion', self.T_ref_object_motion, (shape[1], 4, 4), np.float64)
        if self.state is not None and len(self.state) != shape[1]:
            raise InvalidInputError(f'state should have {shape[1]} frames but got {len(self.state)}')

    @property
    def views(self) -> int:
        """Number of views V."""
        return self.rgb.shape[0]

    @property
    def frames(self) -> int:
        """Number of frames T+1, the observation included."""
        return self.rgb.shape[1]

    def depth(self, view: int, frame: int) -> np.ndarray:
        """z of the points in the view's own optical frame, (H, W) float32 [m], 0 = invalid."""
        T = self.T_ref_view[view]
        z = (self.points[view, frame] - T[:3, 3]) @ T[:3, 2]
        return np.where(self.valid[view, frame] & (z > 0), z, 0).astype(np.float32)

    @classmethod
    def example(cls, views: int = 2, frames: int = 11, height: int = 24, width: int = 32) -> Video4D:
        """A random valid video."""
        rng = np.random.default_rng(0)
        shape = (views, frames, height, width)
        K = np.array([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1.0]])
        return cls(
            rgb=rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
            points=rng.uniform(0.3, 1.0, (*shape, 3)).astype(np.float32),
            valid=np.ones(shape, bool),
            stamps=np.arange(frames, dtype=np.int64) * 500_000_000,
            K=np.tile(K, (views, 1, 1)),
            T_ref_view=np.tile(np.eye(4), (views, 1, 1)),
        )


@dataclass(frozen=True)
class Plan:
    """What may be executed: the trusted prefix only, in the robot's base frame.

    T_base_gripper (n, 4, 4) float64, poses AFTER now; opening (n,) float64 [m], commanded;
    time_from_start (n,) float64 [s] since the observation; T_base_gripper_start: frame 0.
    """

    id: str
    T_base_gripper: np.ndarray
    opening: np.ndarray
    time_from_start: np.ndarray
    observation_stamp: int
    T_base_gripper_start: np.ndarray
    opening_start: float
    confidence: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.T_base_gripper)
        _check_array('T_base_gripper', self.T_base_gripper, (n, 4, 4), np.float64)
        _check_array('opening', self.opening, (n,), np.float64)
        _check_array('time_from_start', self.time_from_start, (n,), np.float64)
        if self.confidence is not None:
            _check_array('confidence', self.confidence, (n,), np.float64)

    @classmethod
    def of_track(cls, track: GripperTrack, T_base_ref: np.ndarray, stamps: np.ndarray, plan_id: str) -> Plan:
        """The trusted frames of a track in the base frame; T_base_ref (4, 4), stamps (T+1,) int64 [ns]."""
        n = track.trusted
        T = T_base_ref @ track.T_ref_gripper
        return cls(plan_id, T[1:n].copy(), track.opening[1:n].copy(), (stamps[1:n] - stamps[0]) * 1e-9,
                   int(stamps[0]), T[0].copy(), float(track.opening[0]), track.confidence[1:n].copy())

    @classmethod
    def example(cls, poses: int = 5) -> Plan:
        """A straight descent in front of the robot, gripper pointing down."""
        T_start = np.diag([1.0, -1.0, -1.0, 1.0])
        T_start[:3, 3] = [0.45, 0.0, 0.4]
        T = np.tile(T_start, (poses, 1, 1))
        T[:, 2, 3] -= 0.03 * np.arange(1, poses + 1)
        times = 0.5 * np.arange(1, poses + 1)
        return cls('example', T, np.full(poses, 0.08), times, 0, T_start, 0.08)
