"""What a task is: a random layout, its MJCF, the geometry an expert needs, and what counts as done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.spatial.transform import Rotation

from geo4d_ros.geometry.transforms import make_transform

TABLE_X, TABLE_Y = (0.30, 0.75), (-0.38, 0.38)  # where things may stand [m]


def rotation_z(yaw: float) -> np.ndarray:
    """(3, 3) rotation about z [rad]."""
    return Rotation.from_euler('z', yaw).as_matrix()


def frame(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(3, 3) rotation with the given z axis and x as near as possible to the given one."""
    z = z / np.linalg.norm(z)
    y = np.cross(z, x)
    y /= np.linalg.norm(y)
    return np.column_stack([np.cross(y, z), y, z])


def gripper_down(yaw: float) -> np.ndarray:
    """(3, 3) gripper pointing straight down; yaw 0 has its x forward (as at home) [rad]."""
    return rotation_z(yaw) @ np.diag([1.0, -1.0, -1.0])


def heading(R: np.ndarray) -> float:
    """Yaw [rad] of a gripper's x axis seen from above, the inverse of `gripper_down`."""
    return float(np.arctan2(R[1, 0], R[0, 0]))


def wrap(angle: float) -> float:
    """Angle in (-pi, pi]."""
    return float(np.arctan2(np.sin(angle), np.cos(angle)))


def nearest_pose(candidates: list[np.ndarray], T: np.ndarray) -> np.ndarray:
    """The candidate (4, 4) whose rotation is nearest to T's."""
    return max(candidates, key=lambda C: float(np.trace(C[:3, :3].T @ T[:3, :3])))


@dataclass(frozen=True)
class Layout:
    """One random scene in the base frame.

    T_object, T_goal, T_container (4, 4): start of the object, the goal fixture and what holds the
    object at the start; colours: RGB per part; keep_out: (x, y, radius) circles [m] free of clutter; further: starts of
    the objects of later stages.
    """

    T_object: np.ndarray
    T_goal: np.ndarray
    T_container: np.ndarray
    colours: dict[str, tuple[float, float, float]]
    keep_out: tuple[tuple[float, float, float], ...]
    further: tuple[np.ndarray, ...] = ()


class Task(ABC):
    """One task, for one layout. All poses are in the base frame; nothing here depends on time.

    A longer one has `stages`, one object each, in the order in which they are to be done; what it says itself is then
    of the first.
    """

    name: ClassVar[str]
    grip_width: ClassVar[float]  # opening [m] with the object between the pads
    grip_slack: ClassVar[float] = 0.008  # how much less it may be when gripped off-centre [m]
    standoff: ClassVar[float]  # from the pre-grasp to the grasp, along the approach [m]
    transport_z: ClassVar[float]  # object height when carried freely [m]
    retreat_z: ClassVar[float]  # gripper height where the finished motion rests [m]
    goal_fixture: ClassVar[str]  # body that marks the goal
    # Tasks that fit on a table with it, by turns; () for none.
    partners: ClassVar[tuple[str, ...]] = ()
    may_be_dropped: ClassVar[bool] = False  # a recovery demonstration may let the object fall on the way
    seldom_served: ClassVar[bool] = False  # few layouts are in the arm's reach: asked before others are put around it
    # Makes the cell, (seed, start_noise, arrangement, robot) as `Cell` has them, where that is another environment's.
    cell: ClassVar[Callable[..., Any] | None] = None
    keeps_hold: ClassVar[bool] = False  # done with the object in the hand, at the release pose
    # Ways to ask for it; the first is the usual one. Training draws from `instructions` only.
    instructions: ClassVar[tuple[str, ...]]
    unseen_instructions: ClassVar[tuple[str, ...]]

    body: str = 'object'  # the free body that is handled

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def stages(self) -> tuple[Task, ...]:
        """What is to be done one after the other, of this same layout."""
        return (self,)

    @classmethod
    @abstractmethod
    def sample(cls, rng: np.random.Generator) -> Layout:
        """Draw a layout; the cell rejects those the arm cannot serve."""

    @abstractmethod
    def assets(self) -> str:
        """MJCF asset elements."""

    @abstractmethod
    def bodies(self) -> str:
        """MJCF bodies: the free body `object` (`object_*` of later stages), and fixtures named `fixture_*`."""

    @abstractmethod
    def grasps(self, T_object: np.ndarray, T_gripper: np.ndarray) -> list[np.ndarray]:
        """Gripper poses (4, 4) that would grip the object; the expert takes the nearest to the wrist now."""

    @abstractmethod
    def release_pose(self, T_object: np.ndarray, T_gripper: np.ndarray) -> np.ndarray:
        """Object pose (4, 4) at which the held object is to be let go."""

    @abstractmethod
    def between_fingers(self, T_gripper: np.ndarray, T_object: np.ndarray) -> bool:
        """Whether the object lies between the pads (whatever the opening)."""

    @abstractmethod
    def at_goal(self, T_object: np.ndarray) -> bool:
        """Whether the object is where the task wants it."""

    @abstractmethod
    def footprint(self) -> tuple[tuple[float, float, float], ...]:
        """Circles (x, y, radius) [m] on the table taken up by this task's things and the hand at
        work on them; the first is the object's."""

    def well_started(self, T_object: np.ndarray) -> bool:
        """Whether the object, at rest after being put there, stands as the task means it to."""
        T_start = self.layout.T_object
        return bool(np.linalg.norm(T_object[:3, 3] - T_start[:3, 3]) < 0.02 and T_object[2, 2] > 0.97)

    def settled(self, T_object: np.ndarray) -> np.ndarray:
        """Where the object comes to lie when let go of at the release pose."""
        T = T_object.copy()
        T[2, 3] = self.layout.T_object[2, 3]
        return T

    def carry_waypoints(self, T_object: np.ndarray, T_release: np.ndarray) -> list[np.ndarray]:
        """Object poses still to pass, release pose last: lift, above the goal, down."""
        near = np.linalg.norm(T_object[:2, 3] - T_release[:2, 3]) < 0.02
        turned = Rotation.from_matrix(T_release[:3, :3] @ T_object[:3, :3].T).magnitude()
        if near and turned < 0.2:
            return [T_release]
        over = T_release.copy()
        over[2, 3] = max(self.transport_z, T_release[2, 3])
        lift = make_transform(T_object[:3, :3], np.array([*T_object[:2, 3], self.transport_z]))
        return ([lift] if T_object[2, 3] < self.transport_z - 0.03 else []) + [over, T_release]

    def detour(self, T_gripper: np.ndarray, T_pregrasp: np.ndarray, T_object: np.ndarray) -> list[np.ndarray]:
        """Gripper poses to pass before the pre-grasp: straight up when low and not already there."""
        z = T_pregrasp[2, 3]
        far = np.linalg.norm(T_gripper[:2, 3] - T_pregrasp[:2, 3]) > 0.03
        if T_gripper[2, 3] >= z - 0.03 or not far:
            return []
        up = T_gripper.copy()
        up[2, 3] = z
        return [up]

    def rise_if_blocked(self, T_gripper: np.ndarray, T_pregrasp: np.ndarray, axis: np.ndarray, clearance: float,
                        height: float) -> list[np.ndarray]:
        """Straight up to `height` [m] when low and the way passes within `clearance` [m] of a vertical axis (2,)."""
        start, way = T_gripper[:2, 3], T_pregrasp[:2, 3] - T_gripper[:2, 3]
        fraction = np.clip((axis - start) @ way / max(way @ way, 1e-9), 0, 1)
        blocked = np.linalg.norm(start + fraction * way - axis) < clearance
        if not blocked or T_gripper[2, 3] > height - 0.02:
            return []
        up = T_gripper.copy()
        up[2, 3] = height
        return [up]

    def retreat(self, T_gripper: np.ndarray) -> list[np.ndarray]:
        """Gripper poses to pass after the release; empty when already clear."""
        if T_gripper[2, 3] > self.retreat_z - 0.01:
            return []
        up = T_gripper.copy()
        up[2, 3] = self.retreat_z
        return [up]
