"""Self and scene collision of the arm, with coal, on the URDF's collision shapes."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import coal
import numpy as np
import pinocchio as pin

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.robots.kinematics import RobotModel

_SAMPLES = 200  # random arm configurations that tell which pairs of links always touch
_ALWAYS = 0.95


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


class CollisionChecker:
    """Checks joint positions of one robot in one scene, keeping `margin` [m] between surfaces.

    Ignored pairs: links joined by a joint, links that touch in the robot's rest posture or in nearly
    every posture (their shapes overlap by design), and the fixed base against the scene it stands on.
    """

    def __init__(self, robot: RobotModel, scene: Scene, margin: float) -> None:
        self._model = robot.model
        self._data = robot.model.createData()
        self._fingers = robot.fingers
        self._geometry = robot.geometry.copy()
        self._geometry.removeAllCollisionPairs()
        links = list(range(self._geometry.ngeoms))
        parents = [g.parentJoint for g in self._geometry.geometryObjects]
        pairs = [(a, b) for a in links for b in links if a < b and abs(parents[a] - parents[b]) > 1]
        self._add_pairs(self._pairs_apart(robot, pairs, margin))
        for obstacle in scene.obstacles:
            index = self._geometry.addGeometryObject(_geometry_object(obstacle, robot.M_root_base))
            for link in links:
                if parents[link]:
                    self._geometry.addCollisionPair(pin.CollisionPair(link, index))
        self._geometry_data = self._prepare(margin)

    def first_collision(self, q: np.ndarray, opened: float = 1.0) -> tuple[int, str] | None:
        """Index of the first of the joint positions (N, n) that collides, and what touches; or None.

        opened: how far the fingers stand apart, as a share of their stroke (1: wide open).
        """
        share = min(max(opened, 0.0), 1.0) if opened == opened else 1.0
        for i, (shut, wide) in self._fingers.items():
            where = shut.translation + share * (wide.translation - shut.translation)
            self._geometry.geometryObjects[i].placement = pin.SE3(wide.rotation, where)
        for i, row in enumerate(q):
            if pin.computeCollisions(self._model, self._data, self._geometry, self._geometry_data, row, True):
                return i, self._touching_names()
        return None

    def _pairs_apart(self, robot: RobotModel, pairs: list[tuple[int, int]], margin: float) -> list[tuple[int, int]]:
        """The given pairs without those that touch in the posture or nearly always."""
        self._add_pairs(pairs)
        data = self._prepare(margin)
        rng = np.random.default_rng(0)
        random = rng.uniform(robot.lower, robot.upper, (_SAMPLES, robot.dof))
        hits = np.zeros(len(pairs))
        for q in random:
            pin.computeCollisions(self._model, self._data, self._geometry, data, q, False)
            hits += [r.isCollision() for r in data.collisionResults]
        pin.computeCollisions(self._model, self._data, self._geometry, data, robot.posture, False)
        at_rest = [r.isCollision() for r in data.collisionResults]
        self._geometry.removeAllCollisionPairs()
        return [p for p, n, rest in zip(pairs, hits, at_rest, strict=True) if not rest and n < _ALWAYS * _SAMPLES]

    def _add_pairs(self, pairs: list[tuple[int, int]]) -> None:
        for a, b in pairs:
            self._geometry.addCollisionPair(pin.CollisionPair(a, b))

    def _prepare(self, margin: float) -> pin.GeometryData:
        data = self._geometry.createData()
        for request in data.collisionRequests:
            request.security_margin = margin
        return data

    def _touching_names(self) -> str:
        for pair, result in zip(self._geometry.collisionPairs, self._geometry_data.collisionResults, strict=True):
            if result.isCollision():
                names = (self._geometry.geometryObjects[i].name for i in (pair.first, pair.second))
                return ' and '.join(names)
        return 'unknown'


def _geometry_object(obstacle: Obstacle, M_root_base: pin.SE3) -> pin.GeometryObject:
    shape = coal.Box(*obstacle.size) if obstacle.shape == 'box' else coal.Cylinder(*obstacle.size)
    placement = M_root_base * pin.SE3(pin.rpy.rpyToMatrix(0.0, 0.0, obstacle.yaw), np.array(obstacle.centre))
    return pin.GeometryObject(obstacle.name, 0, placement, shape)
