"""Frame 0 moved by a predicted motion: background, objects' surfels, the robot's mesh; each pixel with its origin."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntEnum

import numpy as np
import torch
from scipy import ndimage

from geo4d_ros.generation.two_view import shading
from geo4d_ros.generation.two_view.background import Background, background_of, finer_points
from geo4d_ros.generation.two_view.robot_surface import ARM, RobotSurface
from geo4d_ros.generation.two_view.splatting import at_pixels, close_gaps, front_points, pixel_directions
from geo4d_ros.geometry.transforms import invert

ROBOT_DEPTH_M = 0.02  # a pixel this near to the drawn robot shows it
RIM_DEPTH_M = 0.03  # next to it, this near
GAP_DEPTH_M = 0.08  # in a gap of its mask, this near
IN_FRONT_M = 0.003  # the drawn robot's depth is truer than a moved surfel's
MOST_CORRECTION_M = 0.008


class Origin(IntEnum):
    """Where a predicted pixel comes from."""

    COPIED = 0  # the same pixel of frame 0
    MOVED = 1  # surfels of an object
    DRAWN = 2  # the robot's mesh
    OTHER_VIEW = 3  # what the other camera sees of the resting scene
    GUESSED = 4  # no camera sees it


@dataclass(frozen=True)
class Layers:
    """A composed video; index 0 is the observation.

    rgb (V, T+1, H, W, 3) u8; depth (V, T+1, H, W) float32 [m]; origin (V, T+1, H, W) u8 of `Origin`; robot
    (V, T+1, H, W) u8: 0 none, else the link's group.
    """

    rgb: np.ndarray
    depth: np.ndarray
    origin: np.ndarray
    robot: np.ndarray


@dataclass(frozen=True)
class Views:
    """Frame 0 of V views: rgb (V, H, W, 3) u8, depth (V, H, W) float32 [m], K (V, 3, 3), T_base_view (V, 4, 4) with
    the base's z axis up, seen (V,) bool: whose place is known; objects (V, H, W) int: not 0 where the
    handled object is.
    """

    rgb: np.ndarray
    depth: np.ndarray
    K: np.ndarray
    T_base_view: np.ndarray
    seen: np.ndarray
    objects: np.ndarray

    def only(self, chosen: np.ndarray) -> Views:
        """The chosen views (V,) bool."""
        return Views(*(getattr(self, f.name)[chosen] for f in fields(self)))


@dataclass(frozen=True)
class Drawn:
    """The robot in F images: depth (F, H, W) [m], 0 = none; normals (F, H, W, 3) in the base frame; link (F, H, W),
    -1 = none; rays (F, H, W, 3) in the base frame.
    """

    depth: np.ndarray
    normals: np.ndarray
    link: np.ndarray
    rays: np.ndarray


def draw_robot(surface: RobotSurface, T_base_link: np.ndarray, K: np.ndarray, T_base_view: np.ndarray,
               size: tuple[int, int]) -> Drawn:
    """One camera's pictures of the robot at T_base_link (F, L, 4, 4), from the points on its meshes."""
    T = torch.from_numpy(invert(T_base_view) @ T_base_link).float()
    pieces = list(zip(surface.bounds[:-1], surface.bounds[1:], strict=True))
    points = torch.cat([surface.points[a:b] @ T[:, i, :3, :3].transpose(1, 2) + T[:, i, None, :3, 3]
                        for i, (a, b) in enumerate(pieces)], 1)
    eye = -(T[..., :3, :3].transpose(-1, -2) @ T[..., :3, 3:])[..., 0]  # the camera in every link's frame
    along = (surface.points * surface.normals).sum(-1)
    facing = torch.cat([along[a:b] < eye[:, i] @ surface.normals[a:b].T for i, (a, b) in enumerate(pieces)], 1)
    camera = torch.from_numpy(K).float()[None].expand(len(T), 3, 3)
    index = front_points(points, facing, camera, size)
    for _ in range(3):
        index = close_gaps(index, at_pixels(index, points[..., 2:])[..., 0])
    on = index >= 0
    link = torch.where(on, surface.link_of_point[index.clamp(min=0)], -1)
    frame, row, column = on.nonzero(as_tuple=True)
    turned, rays = T[frame, link[on], :3, :3], pixel_directions(camera[:1], size)
    n = torch.einsum('nij,nj->ni', turned, surface.normals[index[on]])
    p, ray = points[frame, index[on]], rays[0, row, column]
    # Where the pixel's own ray meets the tangent plane: the point itself lies a fraction of a pixel beside it.
    along = (ray * n).sum(-1).clamp(max=-0.2)
    correction = ((p * n).sum(-1) / along - p[:, 2]) * ((ray * n).sum(-1) < -0.2)
    depth, normals = torch.zeros(index.shape), torch.zeros((*index.shape, 3))
    depth[on] = p[:, 2] + correction.clamp(-MOST_CORRECTION_M, MOST_CORRECTION_M)
    R = torch.from_numpy(T_base_view[:3, :3]).float()
    normals[on] = torch.einsum('nij,nj->ni', R @ turned, surface.smooth_normals[index[on]])
    return Drawn(depth.numpy(), normals.numpy(), link.numpy(), (rays @ R.T).expand(*index.shape, 3).numpy())


def frame_zero_masks(depth: np.ndarray, drawn: Drawn, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Robot (H, W) and objects (H, W) int of one view's frame 0: the robot where its mesh says so and depth agrees.

    The rim of an object belongs to neither it nor the background: its pixels are mixtures.
    """
    z = np.where(drawn.depth[0] > 0, drawn.depth[0], 99.0)
    beside = np.abs(ndimage.minimum_filter(z, 3) - depth) < RIM_DEPTH_M
    around = np.abs(ndimage.minimum_filter(z, 5) - depth) < GAP_DEPTH_M
    on_mesh = (z < 99) & ((np.abs(z - depth) < ROBOT_DEPTH_M) | (depth == 0))
    robot = on_mesh | beside & (objects == 0)
    robot |= ndimage.binary_closing(robot, iterations=2) & around & (objects == 0)
    return robot, np.where(robot, 0, objects)


def compose(surface: RobotSurface, views: Views, q: np.ndarray, opening: np.ndarray, motion: np.ndarray) -> Layers:
    """The video of joint positions (T+1, 7) [rad] with openings (T+1,) [m], and of the object's motion (T+1, 4, 4)
    since frame 0 in the base frame.

    A view whose place is unknown repeats its frame 0.
    """
    if not views.seen.all():
        return _with_still(compose(surface, views.only(views.seen), q, opening, motion), views)
    steps, (count, height, width) = len(opening), views.depth.shape
    size = (height, width)
    T_base_link = surface.link_poses(q, opening)
    drawn = [draw_robot(surface, T_base_link, K, T, size)
             for K, T in zip(views.K, views.T_base_view, strict=True)]
    masks = [frame_zero_masks(views.depth[v], drawn[v], views.objects[v]) for v in range(count)]
    robot, objects = np.stack([m[0] for m in masks]), np.stack([m[1] for m in masks])
    apart = np.stack([ndimage.binary_dilation(o > 0) for o in objects])
    resting = ~robot & ~apart
    # What one view lends the other keeps off the robot's rim, whose pixels are mixtures.
    lent = resting & ~np.stack([ndimage.binary_dilation(r) for r in robot])
    background = background_of(views.rgb, views.depth, resting, lent, views.K, views.T_base_view, views.seen)
    moving = _object(views, objects, motion)
    colours = _shade(surface, drawn, views.rgb, views.depth)
    out = [_layered(views, v, background, moving, drawn[v], colours[v], objects, steps) for v in range(count)]
    rgb, depth, origin, shown = (np.stack(part) for part in zip(*out, strict=True))
    groups = np.where(shown >= 0, surface.groups[shown], 0).astype(np.uint8)
    return Layers(rgb, depth, origin, groups)


def _with_still(layers: Layers, views: Views) -> Layers:
    """Layers of the views that are seen, and frame 0 all along for the others."""
    steps = layers.rgb.shape[1]
    whole = {}
    for name, still in (('rgb', views.rgb), ('depth', views.depth), ('origin', np.zeros_like(views.rgb[..., 0])),
                        ('robot', np.zeros_like(views.rgb[..., 0]))):
        whole[name] = np.repeat(still[:, None], steps, 1)
        whole[name][views.seen] = getattr(layers, name)
    return replace(layers, **whole)


@dataclass(frozen=True)
class _Moving:
    """An object's surfels: points (N, 3) in the base frame, colours (N, 3), the view each is from; its motion."""

    points: torch.Tensor
    colours: torch.Tensor
    view: torch.Tensor
    motion: np.ndarray


def _object(views: Views, objects: np.ndarray, motion: np.ndarray) -> _Moving | None:
    """The surfels of all objects' pixels; None without any."""
    parts = []
    for v in range(len(objects)):
        points, colours = finer_points(views.rgb[v], views.depth[v], views.K[v], objects[v] > 0)
        T = torch.from_numpy(views.T_base_view[v]).float()
        parts.append((points @ T[:3, :3].T + T[:3, 3], colours, torch.full((len(points),), v)))
    points, colours, view = (torch.cat(part) for part in zip(*parts, strict=True))
    return _Moving(points, colours, view, motion) if len(points) else None


def _shade(surface: RobotSurface, drawn: list[Drawn], rgb: np.ndarray, depth: np.ndarray) -> list[np.ndarray]:
    """Colours (T+1, H, W, 3) float32 of the drawn robot of every view, as frame 0 shows its links."""
    values, seen, links = [], [], []
    for v, d in enumerate(drawn):
        use = (d.link[0] >= 0) & (np.abs(d.depth[0] - depth[v]) < ROBOT_DEPTH_M / 2)
        values.append(shading.features(d.normals[0][use], d.rays[0][use]))
        seen.append(rgb[v][use].astype(np.float64))
        links.append(d.link[0][use])
    groups = surface.groups[np.concatenate(links)] - ARM
    fitted = shading.fit(np.concatenate(values), np.concatenate(seen), groups, 3)
    out = []
    for d in drawn:
        picture = np.zeros((*d.link.shape, 3), np.float32)
        on = d.link >= 0
        values_on = shading.features(d.normals[on], np.broadcast_to(d.rays, d.normals.shape)[on])
        picture[on] = np.einsum('nf,nfc->nc', values_on, fitted[surface.groups[d.link[on]] - ARM])
        out.append(picture.clip(0, 255))
    return out


def _layered(views: Views, v: int, background: Background, moving: _Moving | None, drawn: Drawn,
             colours: np.ndarray, objects: np.ndarray, steps: int) -> tuple[np.ndarray, ...]:
    """rgb, depth, origin and link shown (-1 none) of one view's frames."""
    shape = views.depth.shape[1:]
    kept = background.own[v]
    base = np.where(kept, Origin.COPIED, np.where(background.other[v], Origin.OTHER_VIEW, Origin.GUESSED))
    base_rgb = np.where(kept[..., None], views.rgb[v], background.rgb[v])
    rgb = np.repeat(base_rgb[None].astype(np.float32), steps, 0)
    depth = np.repeat(background.depth[v][None], steps, 0)
    origin = np.repeat(base[None].astype(np.uint8), steps, 0)
    if moving is not None:
        around = ndimage.binary_dilation(objects[v] > 0) & (drawn.link[0] < 0)
        z, colour, still = _object_pictures(moving, views, v, shape, around)
        put = (z > 0) & ((z < depth + 0.01) | (depth == 0))
        rgb[put], depth[put] = colour[put], z[put]
        origin[put] = np.where(still, Origin.COPIED, Origin.MOVED)[put]
    front = (drawn.link >= 0) & ((depth == 0) | (drawn.depth < depth + IN_FRONT_M) | (origin >= Origin.OTHER_VIEW))
    rgb[front], depth[front], origin[front] = colours[front], drawn.depth[front], Origin.DRAWN
    link = np.where(front, drawn.link, -1)
    rgb[0], depth[0], origin[0] = views.rgb[v], views.depth[v], Origin.COPIED
    return np.rint(rgb).clip(0, 255).astype(np.uint8), depth, origin, link


def _object_pictures(thing: _Moving, views: Views, v: int, shape: tuple[int, int], mask: np.ndarray,
                     ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth (T+1, H, W), colour (T+1, H, W, 3) and where the pixel is frame 0's own (T+1, H, W) of a moved object.

    A view's own surfels win over the other's, which are registered a few millimetres off.
    """
    T = torch.from_numpy(invert(views.T_base_view[v]) @ thing.motion).float()
    points = thing.points @ T[:, :3, :3].transpose(1, 2) + T[:, None, :3, 3]
    own = thing.view == v
    camera = torch.from_numpy(views.K[v]).float()[None].expand(len(T), 3, 3)
    index = front_points(points + torch.where(own, 0.0, 0.012)[:, None] * points / points[..., 2:],
                            torch.ones(points.shape[:2], dtype=torch.bool), camera, shape)
    z, colour = at_pixels(index, points[..., 2:])[..., 0].numpy(), at_pixels(index, thing.colours).numpy()
    rests = np.abs(thing.motion - np.eye(4)).max((1, 2)) < 1e-6
    still = rests[:, None, None] & mask
    z[still], colour[still] = np.broadcast_to(views.depth[v], z.shape)[still], np.broadcast_to(
        views.rgb[v], colour.shape)[still]
    z[rests] *= mask
    return z, colour, still
