"""From decoded images to a checked `Video4D`: scale, view poses, motion gate, validity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from geo4d_ros.generation.unet import pointmaps
from geo4d_ros.generation.unet.anchoring import depth_scale, view_similarity
from geo4d_ros.generation.unet.streams import POINTS, RGB, Stream
from geo4d_ros.geometry.cameras import unproject
from geo4d_ros.geometry.transforms import transform_points
from geo4d_ros.types import GripperTrack, Observation, RgbdFrame, TrackStatus, Video4D

MOTION_THRESHOLD = 0.5


@dataclass
class Prediction:
    """What the network produced for V views and T frames, and what it saw."""

    frames: tuple[RgbdFrame, ...]
    maps: torch.Tensor  # (V, 3, H, W) conditioning pointmap images
    valid: torch.Tensor  # (V, H, W) their validity
    decoded: dict[Stream, torch.Tensor]  # (T, 3, H, W) images in [-1, 1]
    T_ref_view: np.ndarray | None  # (V, 4, 4) registered poses, None when still to be estimated
    auxiliary: np.ndarray | None  # (V, 2, T, H, W) probabilities of gripper and motion
    states: tuple[np.ndarray, np.ndarray] | None  # poses (T, 4, 4) and openings (T,)


def assemble_video(
    prediction: Prediction, observation: Observation, dt: float, anchor: bool, invalid_moved: bool = False
) -> Video4D:
    """The video with the observation as frame 0; points in the reference frame, colours clipped to uint8.

    invalid_moved: the model puts pixels without depth at the view's camera centre, else at the origin.
    """
    views = [_assemble_view(prediction, v, anchor, invalid_moved) for v in range(len(prediction.frames))]
    rgb, points, valid, poses, masks = (list(parts) for parts in zip(*views, strict=True))
    frames = rgb[0].shape[0]
    stamps = observation.stamp + (np.arange(frames) * round(dt * 1e9)).astype(np.int64)
    return Video4D(
        rgb=np.stack(rgb),
        points=np.stack(points),
        valid=np.stack(valid),
        stamps=stamps,
        K=np.stack([f.K for f in prediction.frames]),
        T_ref_view=np.stack(poses),
        gripper_mask=None if prediction.auxiliary is None else np.stack(masks),
        state=_track(prediction, observation),
    )


def _assemble_view(prediction: Prediction, view: int, anchor: bool, invalid_moved: bool) -> tuple:
    """RGB (T+1, H, W, 3), points, valid, T_ref_view and gripper mask of one view."""
    frame = prediction.frames[view]
    own_valid = prediction.valid[view].cpu().numpy()
    own = unproject(np.where(own_valid, frame.depth, 0).astype(np.float32), frame.K)
    image = prediction.decoded.get(Stream(view, POINTS))
    if image is None:  # a model of RGB alone: every frame has the depth of frame 0
        T, now = prediction.T_ref_view[view], _placed(prediction.T_ref_view[view], own, own_valid)
        count = len(prediction.decoded[Stream(view, RGB)])
        points, valid = np.repeat(now[None], count, 0), np.repeat(own_valid[None], count, 0)
    else:
        points = pointmaps.denormalise(image).cpu().numpy().astype(np.float32)
        valid = pointmaps.validity(torch.from_numpy(points)).numpy()
        T, scale = _pose_and_scale(prediction, view, own, own_valid, points[0], valid[0])
        if invalid_moved:
            centre = torch.from_numpy(T[:3, 3] / scale).float().clamp(*pointmaps.RANGE_M)
            valid &= pointmaps.validity(torch.from_numpy(points), centre).numpy()
            points = np.where(valid[..., None], points, 0)
        if anchor:
            points = points * np.float32(scale)
        now = _placed(T, own, own_valid)
    colours = _colours(prediction, view)
    mask = None
    if prediction.auxiliary is not None:
        moving = prediction.auxiliary[view, 1] > MOTION_THRESHOLD  # (T, H, W)
        points = np.where(moving[..., None], points, now)
        valid = np.where(moving, valid, own_valid)
        if Stream(view, RGB) in prediction.decoded:
            colours = np.where(moving[..., None], colours, frame.rgb)
        gripper = prediction.auxiliary[view, 0]
        mask = np.concatenate([gripper[:1], gripper]).astype(np.float32)
    return (
        np.concatenate([frame.rgb[None], colours]),
        np.concatenate([now[None], points]),
        np.concatenate([own_valid[None], valid]),
        T,
        mask,
    )


def _placed(T_ref_view: np.ndarray, own: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """A view's own points (H, W, 3) in the reference frame, float32, zero where invalid."""
    return np.where(valid[..., None], transform_points(T_ref_view, own), 0).astype(np.float32)


def _pose_and_scale(
    prediction: Prediction,
    view: int,
    own: np.ndarray,
    own_valid: np.ndarray,
    first: np.ndarray,
    first_valid: np.ndarray,
) -> tuple[np.ndarray, float]:
    """T_ref_view, and the factor that brings the view's predicted points to the observation's scale."""
    if view == 0 or prediction.T_ref_view is not None:
        T = np.eye(4) if prediction.T_ref_view is None else prediction.T_ref_view[view]
        observed = np.where(own_valid, transform_points(T, own)[..., 2], 0)
        return T, depth_scale(observed, np.where(first_valid, first[..., 2], 0))
    T, scale = view_similarity(own, first, own_valid & first_valid)
    return T, 1 / scale


def _colours(prediction: Prediction, view: int) -> np.ndarray:
    """(T, H, W, 3) uint8; black where the view's RGB was not asked for."""
    image = prediction.decoded.get(Stream(view, RGB))
    if image is None:
        points = prediction.decoded[Stream(view, POINTS)]
        return np.zeros((len(points), *points.shape[-2:], 3), np.uint8)
    return ((image.movedim(1, -1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def _track(prediction: Prediction, observation: Observation) -> GripperTrack | None:
    """The state stream's track, frame 0 measured."""
    if prediction.states is None:
        return None
    T, opening = prediction.states
    count = len(opening) + 1
    return GripperTrack(
        np.concatenate([observation.T_ref_gripper[None], T]).astype(np.float64),
        np.concatenate([[observation.opening], opening]).astype(np.float64),
        np.ones(count),
        (TrackStatus.OK,) * count,
    )
