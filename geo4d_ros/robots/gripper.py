"""The gripper as three rigid parts: a hand and two fingers that slide apart along the tool frame's y axis."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypedDict

import numpy as np

from geo4d_ros.errors import ConfigurationError, InvalidInputError, require
from geo4d_ros.geometry.transforms import invert, rotation_angle, transform_points
from geo4d_ros.robots.description import RobotDescription
from geo4d_ros.robots.registry import load_robot
from geo4d_ros.robots.urdf import Urdf

logger = logging.getLogger(__name__)

HAND, LEFT_FINGER, RIGHT_FINGER = 0, 1, 2
# Along +y of the tool frame the left finger moves with half the opening, the right one against it.
FINGER_SIGN = np.array([0.0, 1.0, -1.0])
MIN_EXTENT_M, MAX_EXTENT_M = 0.03, 0.6
MAX_FACES = 600
FORWARD_STATIONS = 17  # openings at which the way of swinging fingers along the approach is kept


@dataclass(frozen=True)
class GripperModel:
    """Triangle meshes of the three parts in the tool frame, at opening 0.

    vertices: three (N, 3) float64 arrays [m]; faces: three (M, 3) int64 arrays. Order: hand, left finger
    (moves towards +y), right finger. max_opening [m]. half_turn: the shape is (nearly) the same after
    180 deg about the approach axis z, so a tracker may flip. forward: (opening, z) [m] stations, rising, of how far
    swinging fingers stand along the approach, relative to opening 0; () for sliding ones.
    """

    name: str
    vertices: tuple[np.ndarray, np.ndarray, np.ndarray]
    faces: tuple[np.ndarray, np.ndarray, np.ndarray]
    max_opening: float = 0.08
    half_turn: bool = True
    forward: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        require(len(self.vertices) == 3 and len(self.faces) == 3, 'a gripper has a hand, a left and a right finger')
        for vertices, faces in zip(self.vertices, self.faces, strict=True):
            require(vertices.ndim == 2 and vertices.shape[1] == 3 and len(vertices) >= 4,
                    f'mesh vertices should be (N >= 4, 3) but got {vertices.shape}')
            require(bool(np.isfinite(vertices).all()), 'mesh has NaN or infinite vertices')
            require(faces.ndim == 2 and faces.shape[1] == 3 and len(faces) >= 4,
                    f'mesh faces should be (M >= 4, 3) but got {faces.shape}')
        require(0 < self.max_opening < 0.5, f'max_opening should be metres in (0, 0.5) but got {self.max_opening}')
        check_extent(self.name, np.concatenate(self.vertices))

    @cached_property
    def closed(self) -> bool:
        """Whether every edge joins two faces of opposite direction: then faces seen from behind are never visible."""
        for faces in self.faces:
            edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
            forward, backward = np.sort(edges @ [1 << 20, 1]), np.sort(edges[:, ::-1] @ [1 << 20, 1])
            if not np.array_equal(forward, backward):
                return False
        return True

    @property
    def sha256(self) -> str:
        """Digest of the geometry: the key of everything that is cached for this gripper."""
        digest = hashlib.sha256()
        for array in (*self.vertices, *self.faces):
            digest.update(np.ascontiguousarray(array).tobytes())
        if self.forward:
            digest.update(np.array(self.forward).tobytes())
        return digest.hexdigest()

    def posed(self, opening: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices (N, 3), faces (M, 3) and part of each face (M,) at an opening [m], in the tool frame."""
        vertices, faces, part, offset = [], [], [], 0
        for index in range(3):
            vertices.append(self.vertices[index] + self.finger_shift(opening, index))
            faces.append(self.faces[index] + offset)
            part.append(np.full(len(self.faces[index]), index))
            offset += len(self.vertices[index])
        return np.concatenate(vertices), np.concatenate(faces), np.concatenate(part)

    def finger_shift(self, opening: float | np.ndarray, part: int) -> np.ndarray:
        """How far (..., 3) [m] a part stands from its place at opening 0, in the tool frame, at openings (...) [m]."""
        opening = np.asarray(opening, np.float64)
        shift = np.zeros((*opening.shape, 3))
        shift[..., 1] = FINGER_SIGN[part] * opening / 2
        if self.forward and part != HAND:
            shift[..., 2] = np.interp(opening, *zip(*self.forward, strict=True))
        return shift

    def surface_points(self, opening: float, count: int = 400) -> np.ndarray:
        """Area-weighted points (count, 3) [m] on the surface in the tool frame; always the same ones."""
        vertices, faces, _ = self.posed(opening)
        return sample_surface(vertices, faces, count)[0]


def sample_surface(vertices: np.ndarray, faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Area-weighted points and unit normals, both (count, 3), of a triangle mesh; seeded."""
    rng = np.random.default_rng(0)
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    area = np.linalg.norm(normal, axis=1)
    require(bool(area.sum() > 0), 'mesh has no area')
    pick = rng.choice(len(faces), count, p=area / area.sum())
    u, v = rng.random((2, count, 1))
    flip = (u + v) > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    return a[pick] + u * (b - a)[pick] + v * (c - a)[pick], normal[pick] / area[pick][:, None]


def check_extent(name: str, vertices: np.ndarray) -> None:
    """Raise unless the size and place of a mesh can be a gripper in metres, in its tool frame."""
    size = float(np.ptp(vertices, axis=0).max())
    expected = f'expected {MIN_EXTENT_M} to {MAX_EXTENT_M} m'
    if size > MAX_EXTENT_M:
        guess = f'; {size / 1000:.3f} m if the file is in millimetres: set scale 0.001' if size > 20 else ''
        raise InvalidInputError(f'gripper {name!r} is {size:.3g} m wide, {expected}{guess}')
    require(size >= MIN_EXTENT_M, f'gripper {name!r} is {size:.3g} m wide, {expected}; check the scale')
    centre = float(np.linalg.norm((vertices.max(0) + vertices.min(0)) / 2))
    require(centre <= 0.3, f'gripper {name!r} lies {centre:.2f} m from its tool frame, expected at most 0.3 m; '
                           'move the mesh so that its origin is the tool centre point')


def _loft(hulls: tuple, z_offset: float, mirror: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mesh of the union of convex hulls of rectangular sections; `mirror` turns it half a turn about z."""
    from scipy.spatial import ConvexHull

    vertices, faces, offset = [], [], 0
    for sections in hulls:
        points = np.array([(x, y, z + z_offset) for z, half, y0, y1 in sections
                           for x in (-half, half) for y in (y0, y1)])
        if mirror:
            points[:, :2] *= -1
        hull = ConvexHull(points)
        triangles = hull.simplices.copy()
        a, b, c = (points[triangles[:, i]] for i in range(3))
        inwards = np.einsum('ij,ij->i', np.cross(b - a, c - a), hull.equations[:, :3]) < 0
        triangles[inwards] = triangles[inwards][:, ::-1]
        vertices.append(points)
        faces.append(triangles + offset)
        offset += len(points)
    return np.concatenate(vertices), np.concatenate(faces).astype(np.int64)


def gripper_of(robot: RobotDescription | None = None) -> GripperModel:
    """The gripper of a described robot (the default one), for the tracker.

    From its convex hulls where it has them, else from the visual meshes of its hand links and of the first link of
    each finger, which has to keep its direction as the gripper opens. Raises SimulationError without the meshes.
    """
    return _gripper_of(robot or load_robot())


@lru_cache(maxsize=8)
def _gripper_of(robot: RobotDescription) -> GripperModel:
    shape, urdf = robot.gripper, robot.urdf
    if not shape.hulls:
        return _gripper_of_meshes(robot)
    tool_z = _height(urdf, shape.hand[0], robot.tool_frame)
    finger_z = _height(urdf, shape.hand[0], shape.left_finger[0])
    parts = (_loft(shape.hulls['hand_hulls'], -tool_z, False), _loft(shape.hulls['finger_hulls'], finger_z - tool_z,
                                                                     False),
             _loft(shape.hulls['finger_hulls'], finger_z - tool_z, True))
    return GripperModel(shape.shape or robot.name, tuple(p[0] for p in parts), tuple(p[1] for p in parts),
                        shape.stroke, shape.half_turn)


def _gripper_of_meshes(robot: RobotDescription) -> GripperModel:
    shape, stations = robot.gripper, np.linspace(0.0, robot.gripper.stroke, FORWARD_STATIONS)
    T_tool_link = []
    for opening in stations:
        poses = robot.urdf.link_poses(robot.finger_positions(float(opening)))
        T_tool_link.append({name: invert(poses[robot.tool_frame]) @ T for name, T in poses.items()})
    left = shape.left_finger[0]
    turned = max(float(rotation_angle(T[left], T_tool_link[0][left])) for T in T_tool_link)
    require(turned < 0.02, f'{robot.name}: finger link {left!r} turns by {turned:.2f} rad as the gripper opens; name '
            'the link that keeps its direction first in left_finger and right_finger', ConfigurationError)
    parts = [_link_mesh(robot, links, T_tool_link[0]) for links in (shape.hand, shape.left_finger[:1],
                                                                    shape.right_finger[:1])]
    z = np.array([T[left][2, 3] for T in T_tool_link])
    forward = tuple(zip(stations.tolist(), (z - z[0]).tolist(), strict=True)) if np.ptp(z) > 1e-4 else ()
    return GripperModel(shape.shape or robot.name, tuple(p[0] for p in parts), tuple(p[1] for p in parts),
                        shape.stroke, shape.half_turn, forward)


def _link_mesh(robot: RobotDescription, links: tuple[str, ...], T_tool_link: dict[str, np.ndarray],
               ) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces, offset = [], [], 0
    for link in links:
        for visual in robot.urdf.links[link].visuals:
            if visual.kind == 'mesh':
                points, triangles = _read_mesh(robot.mesh_path(visual.file), np.array(visual.size))
                vertices.append(transform_points(T_tool_link[link] @ visual.origin.T, points))
                faces.append(triangles + offset)
                offset += len(points)
    require(bool(vertices), f'{robot.name}: gripper links {links} have no visual meshes', ConfigurationError)
    return np.concatenate(vertices), np.concatenate(faces)


def _height(urdf: Urdf, link: str, below: str) -> float:
    """How far [m] along z a link is from another one above it in the tree, all joints at 0."""
    T = np.eye(4)
    for joint in urdf.chain(link, below):
        T = T @ joint.origin.T
    return float(T[2, 3])


def _read_mesh(path: Path, scale: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [m] and at most MAX_FACES faces of a mesh file."""
    import trimesh

    require(path.is_file(), f'gripper mesh {path} does not exist; give the path of an STL, OBJ, PLY or GLB file',
            ConfigurationError)
    try:
        mesh = trimesh.load(path, force='mesh')
    except (ValueError, TypeError, KeyError, IndexError, NotImplementedError) as error:
        raise ConfigurationError(f'gripper mesh {path} cannot be read ({error}); export it as STL or OBJ') from error
    require(isinstance(mesh, trimesh.Trimesh) and len(mesh.faces) >= 4, f'gripper mesh {path} has no surface',
            ConfigurationError)
    if not mesh.is_watertight:
        logger.warning('gripper mesh %s is not watertight: inside and outside are guessed from the normals', path)
    vertices, faces = np.asarray(mesh.vertices, np.float64) * scale, np.asarray(mesh.faces, np.int64)
    return simplify(vertices, faces) if len(faces) > MAX_FACES else (vertices, faces)


def simplify(vertices: np.ndarray, faces: np.ndarray, max_faces: int = MAX_FACES) -> tuple[np.ndarray, np.ndarray]:
    """Vertex clustering on ever coarser grids (Rossignac and Borrel 1993) until `max_faces` is met."""
    size = float(np.ptp(vertices, axis=0).max())
    for cells in (80, 56, 40, 28, 20, 14, 10, 7, 5):
        cell = np.floor((vertices - vertices.min(0)) / (size / cells)).astype(np.int64)
        _, label = np.unique(cell, axis=0, return_inverse=True)
        label = label.ravel()
        count = np.bincount(label)
        merged = np.stack([np.bincount(label, vertices[:, i]) / count for i in range(3)], axis=1)
        kept = label[faces]
        solid = (kept[:, 0] != kept[:, 1]) & (kept[:, 1] != kept[:, 2]) & (kept[:, 0] != kept[:, 2])
        kept = kept[solid]
        _, first = np.unique(np.sort(kept, axis=1), axis=0, return_index=True)
        kept = kept[np.sort(first)]
        if len(kept) <= max_faces:
            break
    require(len(kept) >= 4, 'mesh cannot be simplified; give a coarser one')
    return merged, kept


class GripperFile(TypedDict, total=False):
    """A described gripper, before it is checked; see `load_gripper`."""

    name: str
    hand: str
    left_finger: str
    right_finger: str
    T_tool_hand: list[list[float]]
    T_tool_left_finger: list[list[float]]
    T_tool_right_finger: list[list[float]]
    scale: float
    max_opening: float
    half_turn: bool


def load_gripper(description: GripperFile, folder: Path = Path('.')) -> GripperModel:
    """A gripper from mesh files.

    description: name; hand, left_finger, right_finger: mesh paths (relative to `folder`) of the parts at
    opening 0; T_tool_<part>: optional 4x4 pose of each mesh in the tool frame; scale (1.0; 0.001 for
    millimetres); max_opening [m]; half_turn. Raises ConfigurationError or InvalidInputError.
    """
    known = {'name', 'scale', 'max_opening', 'half_turn', 'hand', 'left_finger', 'right_finger',
             'T_tool_hand', 'T_tool_left_finger', 'T_tool_right_finger'}
    unknown = sorted(set(description) - known)
    require(not unknown, f'unknown gripper key {unknown[0]!r}; known: {sorted(known)}' if unknown else '',
            ConfigurationError)
    vertices, faces = [], []
    for part in ('hand', 'left_finger', 'right_finger'):
        require(part in description, f'the gripper description lacks {part!r}, the path of its mesh',
                ConfigurationError)
        points, triangles = _read_mesh(folder / description[part], float(description.get('scale', 1.0)))
        T = np.asarray(description.get(f'T_tool_{part}', np.eye(4)), np.float64)
        require(T.shape == (4, 4), f'T_tool_{part} should be 4x4 but got {T.shape}', ConfigurationError)
        vertices.append(points @ T[:3, :3].T + T[:3, 3])
        faces.append(triangles)
    return GripperModel(str(description.get('name', 'gripper')), tuple(vertices), tuple(faces),
                        float(description.get('max_opening', 0.08)), bool(description.get('half_turn', True)))


def nearest_symmetric(T: np.ndarray, T_previous: np.ndarray, half_turn: bool) -> np.ndarray:
    """The pose among T and its half turn about z whose rotation is nearest to the previous pose."""
    if not half_turn:
        return T
    turned = T @ np.diag([-1.0, -1.0, 1.0, 1.0])
    nearer = np.trace(T_previous[:3, :3].T @ turned[:3, :3]) > np.trace(T_previous[:3, :3].T @ T[:3, :3])
    return turned if nearer else T


def read_gripper(path: Path) -> GripperModel:
    """A gripper from a YAML file as `load_gripper` takes it, mesh paths relative to the file."""
    import yaml

    try:
        description = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f'gripper description {path} cannot be read: {error}') from error
    require(isinstance(description, dict), f'gripper description {path} should be a YAML mapping', ConfigurationError)
    return load_gripper(description, path.parent)
