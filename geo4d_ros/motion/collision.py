"""Self and scene collision of the arm and of what it holds, with coal, on the URDF's collision shapes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import isfinite
from typing import NamedTuple

import coal
import numpy as np
import pinocchio as pin

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.motion.limits import Box, MotionLimits
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel

_SAMPLES = 200  # random arm configurations that tell which pairs of links always touch
_ALWAYS = 0.95
_NEAR_BY_DESIGN = 0.5  # share of their distance at rest that links keep which are built closer than the margin
_SHORTFALL = 0.001  # m: so far below the margin a motion may get between two samples that keep it
# m: how far the arm may get from a looked-at state before the next one, finest and coarsest first and last
_REACHES = tuple(0.00025 * 2.0**i for i in range(8))
_IN_CONTACT = 0.008  # m: so deep a held object may seem to be in what it rests on; its box is read off noisy points


@dataclass(frozen=True)
class Obstacle:
    """A box (size = x, y, z extents) or an upright cylinder (size = radius, height) in the base frame.

    centre [m], size [m], yaw about z [rad].
    """

    name: str
    shape: str
    centre: tuple[float, float, float]
    size: tuple[float, ...]
    yaw: float = 0.0

    def __post_init__(self) -> None:
        wanted = {'box': 3, 'cylinder': 2}.get(self.shape)
        require(wanted is not None, f'obstacle {self.name} should be a box or a cylinder but got {self.shape!r}',
                ConfigurationError)
        good = (len(self.size) == wanted and len(self.centre) == 3
                and all(map(isfinite, (*self.size, *self.centre, self.yaw))) and min(self.size) > 0)
        require(good, f'obstacle {self.name}: a {self.shape} needs 3 centre and {wanted} positive size values [m]',
                ConfigurationError)


@dataclass(frozen=True)
class Scene:
    """What the arm must not touch: the obstacles known beforehand, the table among them."""

    obstacles: tuple[Obstacle, ...] = ()

    @classmethod
    def table(cls, height: float = 0.0) -> Scene:
        """A 3 m x 3 m slab whose top is at `height` [m]."""
        return cls((Obstacle('table', 'box', (0.0, 0.0, height - 0.05), (3.0, 3.0, 0.1)),))

    def with_obstacles(self, *obstacles: Obstacle) -> Scene:
        """The same scene with more in it."""
        return Scene(self.obstacles + obstacles)


@dataclass(frozen=True)
class HeldBox:
    """A box around what the gripper holds, in the tool frame: centre and size (x, y, z extents) [m]."""

    centre: tuple[float, float, float]
    size: tuple[float, float, float]

    def __post_init__(self) -> None:
        good = len(self.centre) == len(self.size) == 3 and all(map(isfinite, (*self.centre, *self.size)))
        require(good and min(self.size) > 0, 'a held box needs 3 centre and 3 positive size values [m] but got '
                f'{self.centre}, {self.size}', ConfigurationError)


class Contact(NamedTuple):
    """What touches: index of the joint positions, names of the pair, the reason code it is refused by."""

    sample: int
    pair: str
    reason: Reason

    @property
    def refusal(self) -> Refusal:
        """The refusal of the motion that would get there."""
        return Refusal(self.reason, self.pair, {'pair': self.pair})


def zones(limits: MotionLimits, scene: Scene) -> tuple[tuple[Obstacle, Reason], ...]:
    """The borders of `limits` as bodies for the whole arm: keep-out boxes, and the table where the scene has none.

    A table higher than the base reaches as far as the workspace: the arm stands behind it, or goes through it.
    """
    found = [(_box(f'keep-out box {i + 1}', box), Reason.INSIDE_KEEP_OUT) for i, box in enumerate(limits.keep_out)]
    x0, y0, _, x1, y1, _ = limits.workspace
    top = limits.table_height
    if not any(_is_table(o, (x0, y0, x1, y1), top) for o in scene.obstacles):
        if top <= 0.0:
            x0, y0, x1, y1 = min(x0, -1.5), min(y0, -1.5), max(x1, 1.5), max(y1, 1.5)
        found.append((_box('table top', (x0, y0, top - 0.1, x1, y1, top)), Reason.TABLE_CLEARANCE))
    return tuple(found)


def _box(name: str, box: Box) -> Obstacle:
    x0, y0, z0, x1, y1, z1 = box
    return Obstacle(name, 'box', ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2), (x1 - x0, y1 - y0, z1 - z0))


def _is_table(o: Obstacle, area: tuple[float, ...], top: float) -> bool:
    """Whether an obstacle fills the area (x, y min, x, y max) right under `top`."""
    if o.shape != 'box' or o.yaw % np.pi:
        return False
    low, high = np.array(o.centre) - np.array(o.size) / 2, np.array(o.centre) + np.array(o.size) / 2
    covers = (low[:2] <= area[:2]).all() and (high[:2] >= area[2:]).all()
    return bool(covers and low[2] < top - 0.01 and high[2] >= top - 1e-9)


class CollisionChecker:
    """Checks joint positions of one robot in one scene, keeping `margin` [m] between surfaces.

    Ignored pairs: links joined by a joint, those that the robot's SRDF says
    never touch, links whose shapes overlap in the robot's rest posture or in nearly
    every posture (by design), and the fixed base against the scene it stands on. Links that are built closer
    than the margin keep half their distance at rest (`nearer_by_design`: names and distance [m]). What is held
    may rest on the scene, and is checked against it and against the arm up to the last joint but one.
    """

    def __init__(self, robot: RobotModel, scene: Scene, margin: float,
                 borders: tuple[tuple[Obstacle, Reason], ...] = (), held: HeldBox | None = None) -> None:
        self._model = robot.model
        self._data = robot.model.createData()
        self._fingers = robot.fingers
        self._finger_travel = max((_travel(robot.geometry.geometryObjects[i], stations)
                                   for i, stations in robot.fingers.items()), default=0.0)
        self._geometry = robot.geometry.copy()
        self._geometry.removeAllCollisionPairs()
        links = list(range(self._geometry.ngeoms))
        self._reasons: dict[int, Reason] = {}
        self.nearer_by_design: dict[str, float] = {}
        margins = self._add_links(robot, margin)
        bodies = self._add_obstacles(robot, [(o, Reason.COLLISION) for o in scene.obstacles] + list(borders))
        margins += self._add_pairs([(link, body) for body in bodies for link in links
                                    if self._geometry.geometryObjects[link].parentJoint], margin)
        self._make_empty = None if held is None else lambda: CollisionChecker(robot, scene, margin, borders)
        if held is not None:
            margins += self._add_held(robot, held, links, bodies)
        self._reach = self._reach_of_joints()
        self._margins, self._shortfall = margins, min(_SHORTFALL, margin / 2)
        self._geometry_data = self._prepare(0.0)
        self._swept: dict[int, pin.GeometryData] = {}  # level -> requests for so much more distance; made when needed

    @cached_property
    def without_held(self) -> CollisionChecker:
        """The checker of the empty hand."""
        return self if self._make_empty is None else self._make_empty()

    def first_collision(self, q: np.ndarray, opened: float = 1.0) -> Contact | None:
        """The first of the joint positions (N, n) where the arm touches something; or None.

        opened: how far the fingers stand apart, as a share of their stroke (1: wide open).
        """
        self._spread(opened)
        for i, row in enumerate(q):
            if pin.computeCollisions(self._model, self._data, self._geometry, self._geometry_data, row, True):
                return self._contact(i, self._geometry_data)
        return None

    def first_contact_on_the_way(self, control: np.ndarray, opened: float = 1.0) -> Contact | None:
        """As `first_collision`, of everything on the way along Bezier curves: control points (N, d + 1, n) [rad].

        Nothing between the samples is missed: from a state looked at, no point of the arm gets farther than the
        joints' ways times their reach, and that much more distance is asked for there; where it is not found,
        the curve is halved. `sample` is the index of the curve.
        """
        self._spread(opened)
        waiting = [(0, len(control), control)] if len(control) else []
        while waiting:
            first, last, curves = waiting.pop()
            low, high = curves.min(axis=(0, 1)), curves.max(axis=(0, 1))
            reach = float((high - low) / 2 @ self._reach)
            level = next((i for i, r in enumerate(_REACHES) if reach <= r), None)
            if level is not None:
                data = self._at_level(level)
                if not pin.computeCollisions(self._model, self._data, self._geometry, data, (low + high) / 2, True):
                    continue
                if level == 0:
                    return self._contact(first, data)
            waiting += reversed(_halves(first, last, curves))
        return None

    def fingers_are_free(self, q: np.ndarray, opened: float, wider: float) -> bool:
        """Whether the fingers touch nothing all the way from `opened` to `wider` (shares), the arm at q (n,)."""
        middle = (opened + wider) / 2
        travel = self._finger_travel * abs(wider - opened) / 2
        self._spread(middle)
        level = next((i for i, r in enumerate(_REACHES) if travel <= r), None)
        if level is not None:
            data = self._at_level(level)
            if not pin.computeCollisions(self._model, self._data, self._geometry, data, q, True):
                return True
            if level == 0:
                return False
        return self.fingers_are_free(q, opened, middle) and self.fingers_are_free(q, middle, wider)

    def _spread(self, opened: float) -> None:
        """Put the fingers at a share of their stroke; wide open where it is not a number."""
        share = min(max(opened, 0.0), 1.0) if opened == opened else 1.0
        for i, stations in self._fingers.items():
            self._geometry.geometryObjects[i].placement = _between(stations, share)

    def _add_links(self, robot: RobotModel, margin: float) -> list[float]:
        """Pairs of links that can touch, and the distance that each keeps."""
        pairs, at_rest = _links_apart(robot)
        self._add_pairs(pairs, margin)
        margins = [margin if rest > margin else _NEAR_BY_DESIGN * rest for rest in at_rest]
        names = [g.name for g in self._geometry.geometryObjects]
        self.nearer_by_design = {f'{names[a]} and {names[b]}': kept for (a, b), kept in
                                 zip(pairs, margins, strict=True) if kept < margin}
        return margins

    def _add_obstacles(self, robot: RobotModel, obstacles: list[tuple[Obstacle, Reason]]) -> list[int]:
        indices = []
        for obstacle, reason in obstacles:
            index = self._geometry.addGeometryObject(_geometry_object(obstacle, robot.M_root_base))
            self._reasons[index] = reason
            indices.append(index)
        return indices

    def _add_held(self, robot: RobotModel, held: HeldBox, links: list[int], bodies: list[int]) -> list[float]:
        tool = robot.model.frames[robot.model.getFrameId(robot.tool_frame)]
        placement = tool.placement * pin.SE3(np.eye(3), np.array(held.centre))
        body = pin.GeometryObject('held object', tool.parentJoint, placement, coal.Box(*held.size))
        index = self._geometry.addGeometryObject(body)
        parents = [self._geometry.geometryObjects[i].parentJoint for i in links]
        arm = [(i, index) for i, parent in zip(links, parents, strict=True) if parent < tool.parentJoint - 1]
        return (self._add_pairs(arm, 0.0)
                + self._add_pairs([(index, other) for other in bodies], -_IN_CONTACT))

    def _add_pairs(self, pairs: list[tuple[int, int]], margin: float) -> list[float]:
        for a, b in pairs:
            self._geometry.addCollisionPair(pin.CollisionPair(a, b))
        return [margin] * len(pairs)

    def _reach_of_joints(self) -> np.ndarray:
        """(n,): how far a point of the arm beyond joint i can move per unit of that joint's motion, in any posture.

        [m/rad] for a turning joint: the greatest distance of any shape beyond it; 1 for a sliding one.
        """
        model, beyond = self._model, np.zeros(self._model.njoints)
        for i, body in enumerate(self._geometry.geometryObjects):
            body.geometry.computeLocalAABB()
            centre, radius = np.asarray(body.geometry.aabb_center), float(body.geometry.aabb_radius)
            for placement in (body.placement, *self._fingers.get(i, ())):
                far = float(np.linalg.norm(placement.act(centre))) + radius
                beyond[body.parentJoint] = max(beyond[body.parentJoint], far)
        slides = np.array(['P' in joint.shortname() for joint in model.joints])
        stroke = np.where(slides[1:], np.maximum(abs(model.lowerPositionLimit), abs(model.upperPositionLimit)), 0.0)
        for i in range(model.njoints - 1, 0, -1):
            step = float(np.linalg.norm(model.jointPlacements[i].translation))
            parent = model.parents[i]
            beyond[parent] = max(beyond[parent], step + stroke[i - 1] + beyond[i])
        return np.where(slides[1:], 1.0, beyond[1:])

    def _at_level(self, level: int) -> pin.GeometryData:
        if level not in self._swept:
            self._swept[level] = self._prepare(_REACHES[level] - self._shortfall)
        return self._swept[level]

    def _prepare(self, more: float) -> pin.GeometryData:
        data = self._geometry.createData()
        for request, margin in zip(data.collisionRequests, self._margins, strict=True):
            request.security_margin = margin + more
        return data

    def _contact(self, sample: int, data: pin.GeometryData) -> Contact:
        for pair, result in zip(self._geometry.collisionPairs, data.collisionResults, strict=True):
            if result.isCollision():
                names = (self._geometry.geometryObjects[i].name for i in (pair.first, pair.second))
                return Contact(sample, ' and '.join(names), self._reasons.get(pair.second, Reason.COLLISION))
        return Contact(sample, 'unknown', Reason.COLLISION)


def _between(stations: tuple[pin.SE3, ...], share: float) -> pin.SE3:
    """Where a finger is at a share of the stroke: straight on between two stations, which sliding needs no more of."""
    at = share * (len(stations) - 1)
    i = min(int(at), len(stations) - 2)
    a, b = stations[i], stations[i + 1]
    if np.allclose(a.rotation, b.rotation, atol=1e-12):
        return pin.SE3(b.rotation, a.translation + (at - i) * (b.translation - a.translation))
    return pin.SE3.Interpolate(a, b, at - i)


def _travel(body: pin.GeometryObject, stations: tuple[pin.SE3, ...]) -> float:
    """How far [m] a point of the finger moves at most per share of the stroke."""
    body.geometry.computeLocalAABB()
    centre, radius = np.asarray(body.geometry.aabb_center), float(body.geometry.aabb_radius)
    steps = [float(np.linalg.norm(b.act(centre) - a.act(centre)))
             + radius * float(np.linalg.norm(pin.log3(a.rotation.T @ b.rotation)))
             for a, b in pairwise(stations)]
    return max(steps) * (len(stations) - 1)


def _halves(first: int, last: int, curves: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Two parts of a stretch of Bezier curves (N, d + 1, n), each with the index of its first and after its last."""
    if len(curves) > 1:
        middle = len(curves) // 2
        return [(first, first + middle, curves[:middle]), (first + middle, last, curves[middle:])]
    points, left, right = curves[0], [curves[0][0]], [curves[0][-1]]
    while len(points) > 1:  # de Casteljau
        points = (points[1:] + points[:-1]) / 2
        left.append(points[0])
        right.append(points[-1])
    return [(first, last, np.array(left)[None]), (first, last, np.array(right[::-1])[None])]


def _links_apart(robot: RobotModel) -> tuple[list[tuple[int, int]], list[float]]:
    """Pairs of links more than one joint apart whose shapes do not overlap by design, and their distances at rest.

    Worked out once per robot: it takes some 200 postures.
    """
    known = _LINKS_APART.get(id(robot))
    if known is None or known[0] is not robot:
        while len(_LINKS_APART) >= 4:
            _LINKS_APART.pop(next(iter(_LINKS_APART)))
        known = _LINKS_APART[id(robot)] = (robot, *_find_links_apart(robot))
    return known[1], known[2]


_LINKS_APART: dict[int, tuple[RobotModel, list[tuple[int, int]], list[float]]] = {}


def _find_links_apart(robot: RobotModel) -> tuple[list[tuple[int, int]], list[float]]:
    geometry, data = robot.geometry.copy(), robot.model.createData()
    geometry.removeAllCollisionPairs()
    parents = [g.parentJoint for g in geometry.geometryObjects]
    count = len(parents)
    pairs = [(a, b) for b in range(count) for a in range(b) if abs(parents[a] - parents[b]) > 1]
    for a, b in pairs:
        geometry.addCollisionPair(pin.CollisionPair(a, b))
    results = geometry.createData()
    hits = np.zeros(len(pairs))
    for q in np.random.default_rng(0).uniform(robot.lower, robot.upper, (_SAMPLES, robot.dof)):
        pin.computeCollisions(robot.model, data, geometry, results, q, False)
        hits += [r.isCollision() for r in results.collisionResults]
    pin.computeDistances(robot.model, data, geometry, results, robot.posture)
    at_rest = [r.min_distance for r in results.distanceResults]
    links = [_link_of(robot, g) for g in geometry.geometryObjects]
    kept = [i for i, (a, b) in enumerate(pairs) if at_rest[i] > 0 and hits[i] < _ALWAYS * _SAMPLES
            and frozenset((links[a], links[b])) not in robot.never_touch]
    return [pairs[i] for i in kept], [float(at_rest[i]) for i in kept]


def _link_of(robot: RobotModel, body: pin.GeometryObject) -> str:
    """Name of the link that a shape belongs to."""
    return str(robot.model.frames[body.parentFrame].name)


def _geometry_object(obstacle: Obstacle, M_root_base: pin.SE3) -> pin.GeometryObject:
    shape = coal.Box(*obstacle.size) if obstacle.shape == 'box' else coal.Cylinder(*obstacle.size)
    placement = M_root_base * pin.SE3(pin.rpy.rpyToMatrix(0.0, 0.0, obstacle.yaw), np.array(obstacle.centre))
    return pin.GeometryObject(obstacle.name, 0, placement, shape)
