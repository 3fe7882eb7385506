"""The ceiling of moving what frame 0 shows: its surfels under the true motion, holes filled from the other view.

Nothing is painted: what frame 0 does not show of object and robot stays unseen, so a model that paints may beat it.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from geo4d_ros.evaluation.metrics.regions import ARM, HAND, LAST_FINGER, OBJECT
from geo4d_ros.evaluation.simulated_truth import TruthClip
from geo4d_ros.generation.two_view.arm import bone_motions, nearest_bone
from geo4d_ros.geometry.cameras import project, unproject
from geo4d_ros.geometry.transforms import invert, make_transform, transform_points
from geo4d_ros.types import Video4D

LEFT_FINGER, FIRST_BONE = 3, 100
SUB = 3  # surfels per pixel and axis
FRONT_M = 0.012  # surfels this close behind the nearest are still candidates for a pixel
MAX_STEP_M = 0.03  # between neighbours of one surface


def oracle_motion_video(clip: TruthClip) -> Video4D:
    """The clip's frame 0, every body of it moved as it truly moved; same size, cameras and stamps as the truth.

    Raises nothing: without the object's or the arm's true poses they stay where they were.
    """
    true = clip.video
    X, colour, source, body = _surfels(clip)
    motions = _motions(clip)
    if clip.arm_points is not None:
        body[body == ARM] = FIRST_BONE + nearest_bone(
            torch.from_numpy(X[body == ARM])[None], torch.from_numpy(clip.arm_points[:1]))[0].numpy()
    moving = body > 0
    rgb, points, valid = true.rgb.copy(), true.points.copy(), true.valid.copy()
    plates = [_background(clip, view, X[~moving], colour[~moving], source[~moving]) for view in range(true.views)]
    for t in range(1, true.frames):
        Y = _moved(X[moving], body[moving], motions, t)
        for view in range(true.views):
            image, z, seen = _splat(Y, colour[moving], source[moving], clip, view)
            back, back_z = plates[view]
            front = seen & ((z < back_z + 0.01) | (back_z <= 0))
            depth = np.where(front, z, back_z)
            rgb[view, t] = np.clip(np.rint(np.where(front[..., None], image, back)), 0, 255).astype(np.uint8)
            valid[view, t] = depth > 0
            points[view, t] = transform_points(true.T_ref_view[view], unproject(depth, true.K[view]))
    motion = None if clip.T_ref_object is None else clip.T_ref_object @ invert(clip.T_ref_object[0])
    return Video4D(rgb, points.astype(np.float32), valid, true.stamps, true.K, true.T_ref_view,
                   T_ref_object_motion=motion)


def _surfels(clip: TruthClip) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points (N, 3) in the reference frame, colours (N, 3), source view (N,), class (N,) of frame 0, SUB x SUB a pixel.

    Classes: 0 rest, 1 arm, 2 hand, 3 left finger, 4 right finger, 5 object. Between pixels of one surface position
    and colour are interpolated.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    offsets = np.arange(SUB) / SUB - (SUB - 1) / (2 * SUB)
    for view in range(clip.video.views):
        P = clip.video.points[view, 0].astype(np.float64)
        C = clip.video.rgb[view, 0].astype(np.float64)
        labels = clip.labels[view, 0]
        kind = np.where(labels <= OBJECT, labels, 0)
        valid = clip.video.valid[view, 0]
        for a in offsets:
            for b in offsets:
                shift = (int(np.sign(b)) if abs(b) > 1e-9 else 0, int(np.sign(a)) if abs(a) > 1e-9 else 0)
                x, c = _between(P, C, kind, valid, shift, abs(b), abs(a))
                parts.append((x[valid], c[valid], np.full(valid.sum(), view), kind[valid]))
    X, colour, source, body = (np.concatenate(p) for p in zip(*parts, strict=True))
    return X, colour, source, body


def _between(P: np.ndarray, C: np.ndarray, kind: np.ndarray, valid: np.ndarray, shift: tuple[int, int], wy: float,
             wx: float) -> tuple[np.ndarray, np.ndarray]:
    """Points and colours a fraction of a pixel away, where all four pixels around belong to one surface."""
    def moved(x: np.ndarray, dy: int, dx: int) -> np.ndarray:
        padded = np.pad(x, ((1, 1), (1, 1)) + ((0, 0),) * (x.ndim - 2), mode='edge')
        return padded[1 + dy:1 + dy + x.shape[0], 1 + dx:1 + dx + x.shape[1]]

    near = [((0, 0), (1 - wy) * (1 - wx)), ((0, shift[1]), (1 - wy) * wx), ((shift[0], 0), wy * (1 - wx)),
            (shift, wy * wx)]
    one = np.all([(moved(kind, *k) == kind) & moved(valid, *k)
                  & (np.linalg.norm(moved(P, *k) - P, axis=-1) < MAX_STEP_M) for k, _ in near], axis=0)[..., None]
    return (np.where(one, sum(w * moved(P, *k) for k, w in near), P),
            np.where(one, sum(w * moved(C, *k) for k, w in near), C))


def _motions(clip: TruthClip) -> dict[int, np.ndarray]:
    """Motion since frame 0, (T+1, 4, 4) in the reference frame, of hand, fingers, object and the arm's bones."""
    T_gripper, opening = clip.track.T_ref_gripper, clip.track.opening
    hand = T_gripper @ invert(T_gripper[0])
    still = np.tile(np.eye(4), (clip.video.frames, 1, 1))
    out = {ARM: still, HAND: hand, OBJECT: still}
    for finger, side in ((LEFT_FINGER, 1.0), (LAST_FINGER, -1.0)):
        slide = np.stack([make_transform(None, np.array([0, side * (o - opening[0]) / 2, 0])) for o in opening])
        out[finger] = T_gripper @ slide @ invert(T_gripper[0])
    if clip.T_ref_object is not None:
        out[OBJECT] = clip.T_ref_object @ invert(clip.T_ref_object[0])
    if clip.arm_points is not None:
        joints = torch.from_numpy(clip.arm_points)
        moved = bone_motions(joints[:1], joints[None], torch.from_numpy(hand[None]))[0].numpy()
        out |= {FIRST_BONE + bone: moved[:, bone] for bone in range(moved.shape[1])}
    return out


def _moved(X: np.ndarray, body: np.ndarray, motions: dict[int, np.ndarray], t: int) -> np.ndarray:
    Y = X.copy()
    for kind in np.unique(body):
        Y[body == kind] = transform_points(motions[int(kind)][t], X[body == kind])
    return Y


def _splat(X: np.ndarray, colour: np.ndarray, source: np.ndarray, clip: TruthClip, view: int
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest surfels as a picture (H, W, 3), depth (H, W) and what is covered; own view's surfels win."""
    height, width = clip.video.rgb.shape[2:4]
    pixels, z = project(transform_points(invert(clip.video.T_ref_view[view]), X), clip.video.K[view])
    near = np.rint(pixels).astype(np.int64)
    inside = (z > 0.05) & (near >= 0).all(1) & (near < [width, height]).all(1)
    index = np.flatnonzero(inside)
    flat = near[index, 1] * width + near[index, 0]
    front = np.full(height * width, np.inf)
    np.minimum.at(front, flat, z[index])
    keep = z[index] <= front[flat] + FRONT_M
    index, flat = index[keep], flat[keep]
    cost = ((pixels[index] - near[index])**2).sum(1) + 4.0 * (source[index] != view)
    order = np.lexsort((cost, flat))
    first = order[np.r_[True, flat[order][1:] != flat[order][:-1]]] if len(order) else order
    image, depth = np.zeros((height * width, 3)), np.zeros(height * width)
    image[flat[first]], depth[flat[first]] = colour[index[first]], z[index[first]]
    return image.reshape(height, width, 3), depth.reshape(height, width), (depth > 0).reshape(height, width)


def _background(clip: TruthClip, view: int, X: np.ndarray, colour: np.ndarray, source: np.ndarray
                ) -> tuple[np.ndarray, np.ndarray]:
    """What rests: the view's own frame 0, holes from the other view, the rest from the nearest background pixel."""
    labels = clip.labels[view, 0]
    rest = (labels == 0) | (labels > OBJECT)
    depth = np.where(clip.video.valid[view, 0],
                     transform_points(invert(clip.video.T_ref_view[view]),
                                      clip.video.points[view, 0].astype(np.float64))[..., 2], 0)
    image = np.where(rest[..., None], clip.video.rgb[view, 0], 0).astype(np.float64)
    other = source != view
    if other.any():
        seen_image, seen_z, seen = _splat(X[other], colour[other], source[other], clip, view)
        # Behind the thing that stands there, or it is what hides it.
        fill = ~rest & seen & (seen_z > depth - 0.01)
        image[fill], depth[fill], rest = seen_image[fill], seen_z[fill], rest | fill
    if rest.any() and not rest.all():
        nearest = distance_transform_edt(~rest, return_distances=False, return_indices=True)
        image, depth = image[tuple(nearest)], depth[tuple(nearest)]
    return image, depth
