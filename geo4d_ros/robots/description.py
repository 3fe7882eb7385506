"""A robot as the rest of the package sees it: a URDF, an SRDF and one YAML file, read into frozen values.

Nothing outside these files knows a robot by name. `load_robot` finds the shipped ones, those of installed packages
(entry points `geo4d_ros.robots`) and YAML files by their path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.robots.finger_motion import FingerMotion
from geo4d_ros.robots.meshes import MeshSource, mesh_dir
from geo4d_ros.robots.urdf import Urdf, parse_urdf

GRIPPER_KINDS = ('sliding', 'swinging', 'function')


@dataclass(frozen=True)
class GripperDescription:
    """A gripper of two fingers, in the words of the URDF.

    kind: sliding (prismatic fingers), swinging (revolute ones, the others mimic them) or function (a named function
    gives the joints). joints: driven together, all at one position; the URDF's mimic joints follow. motion: opening
    [m] <-> that position. pads: names of the two collision shapes that grip. hand, left_finger, right_finger: links;
    along +y of the tool frame the left finger opens. half_turn: looks the same after half a turn about the approach.
    force [N or N m]: of the driven joints, from the URDF. hulls: the shape that the tracker fits where it is not that
    of the meshes, see `gripper.hull_gripper`.
    """

    kind: str
    joints: tuple[str, ...]
    motion: FingerMotion
    pads: tuple[str, str]
    hand: tuple[str, ...]
    left_finger: tuple[str, ...]
    right_finger: tuple[str, ...]
    half_turn: bool = True
    shape: str = ''
    hulls: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stroke(self) -> float:
        """Widest opening [m]."""
        return self.motion.stroke


@dataclass(frozen=True)
class Controllers:
    """Action names and types of the robot's controllers, and MoveIt's planning group."""

    arm_action: str = 'joint_trajectory_controller/follow_joint_trajectory'
    gripper_action: str = 'gripper_controller/gripper_cmd'
    gripper_type: str = 'ParallelGripperCommand'
    moveit_group: str = ''


@dataclass(frozen=True)
class SimulatedDrives:
    """What a simulator needs beyond the URDF.

    servo (n, 2): kp [N m/rad] and kv [N m s/rad] of each arm joint; finger_servo: kp and kv of the sum of the driven
    finger joints; armature and damping of arm and finger joints; pad_friction: sliding, turning, rolling.
    """

    servo: tuple[tuple[float, float], ...]
    finger_servo: tuple[float, float]
    joint_armature: float = 0.1
    joint_damping: float = 1.0
    finger_armature: float = 0.1
    finger_damping: float = 10.0
    pad_friction: tuple[float, float, float] = (2.5, 0.05, 0.001)


@dataclass(frozen=True, eq=False)
class RobotDescription:
    """An arm with its gripper.

    urdf_source: the URDF as written; `urdf_text` has its meshes' paths resolved. base_frame: what plans are in;
    flange: the arm's last link; tool_frame: tool centre point, z the approach, y the finger opening. joints: the
    arm's, base to tool, of which rest and posture (n,) [rad] are where it waits and what redundancy is resolved
    towards. arm_frames: links between whose origins the arm is straight, base first. acceleration (n,) [rad/s^2]
    limits of the joints; planned_acceleration [rad/s^2] what motions are planned with. never_touch: pairs of links
    that self-collision leaves out (the SRDF's). folder, meshes: where its files are. Descriptions are equal when they
    are the same object: `load_robot` gives one per name. checkpoint: name of a shipped model or folder of one that
    knows this robot, '' where there is none yet.
    """

    name: str
    urdf_source: str
    base_frame: str
    flange: str
    tool_frame: str
    joints: tuple[str, ...]
    arm_frames: tuple[str, ...]
    rest: tuple[float, ...]
    posture: tuple[float, ...]
    acceleration: tuple[float, ...]
    planned_acceleration: float
    gripper: GripperDescription
    controllers: Controllers
    drives: SimulatedDrives
    never_touch: tuple[tuple[str, str], ...] = ()
    folder: Path = Path('.')
    meshes: MeshSource | None = None
    checkpoint: str = ''

    def __post_init__(self) -> None:
        n = len(self.joints)
        require(n >= 1, f'{self.name}: the arm has no joints')
        for name in ('rest', 'posture', 'acceleration'):
            value = getattr(self, name)
            require(len(value) == n and bool(np.isfinite(value).all()),
                    f'{self.name}: {name} should be {n} finite numbers but got {value}')
        require(len(self.drives.servo) == n, f'{self.name}: servo needs kp and kv for each of {n} joints')

    @cached_property
    def urdf(self) -> Urdf:
        """The URDF, read."""
        return parse_urdf(self.urdf_source)

    @cached_property
    def urdf_text(self) -> str:
        """The URDF with every mesh as a file:// path. Raises SimulationError where the meshes are not installed."""
        return re.sub(r'(<mesh\b[^>]*?\bfilename=")([^"]+)"', lambda m: f'{m[1]}file://{self.mesh_path(m[2])}"',
                      self.urdf_source)

    def prepare(self) -> None:
        """Make the meshes' cache now. Raises SimulationError where the meshes are not installed."""
        if self.meshes is not None:
            mesh_dir(self.meshes)

    def mesh_path(self, file: str) -> Path:
        """Where a mesh of the URDF lies: file://, package://, or relative to `meshes` or the description's folder."""
        if file.startswith('file://'):
            return Path(file[7:])
        if self.meshes is not None and file.startswith('meshes/'):
            return mesh_dir(self.meshes) / file[7:]
        if file.startswith('package://'):
            return find_in_ros_package(*file[10:].split('/', 1))
        return (self.folder / file).resolve()

    @property
    def dof(self) -> int:
        """Number of arm joints."""
        return len(self.joints)

    @property
    def home(self) -> np.ndarray:
        """`rest` as an array (n,) [rad]."""
        return np.array(self.rest)

    @cached_property
    def joint_limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper limits (n,), (n,) [rad]."""
        joints = [self.urdf.joint(name) for name in self.joints]
        return np.array([j.lower for j in joints]), np.array([j.upper for j in joints])

    @cached_property
    def velocity_limits(self) -> np.ndarray:
        """(n,) [rad/s]."""
        return np.array([self.urdf.joint(name).velocity for name in self.joints])

    @cached_property
    def finger_joints(self) -> tuple[str, ...]:
        """All moving joints outside the arm, the driven ones first."""
        others = [j.name for j in self.urdf.joints if j.kind in ('revolute', 'prismatic', 'continuous')]
        rest = [n for n in others if n not in self.joints and n not in self.gripper.joints]
        return (*self.gripper.joints, *rest)

    def finger_positions(self, opening: float) -> dict[str, float]:
        """Positions [m or rad] of all joints outside the arm at an opening [m]."""
        at = self.gripper.motion.position(opening)
        known = self.urdf.positions({name: at for name in self.gripper.joints})
        return {name: known[name] for name in self.finger_joints}

    def group_of(self, link: str) -> str:
        """arm, hand, left_finger or right_finger."""
        for part in ('hand', 'left_finger', 'right_finger'):
            if link in getattr(self.gripper, part):
                return part
        return 'arm'


def find_in_ros_package(package: str, path: str) -> Path:
    """A file of an installed ROS package, found by AMENT_PREFIX_PATH; ConfigurationError where it is not there."""
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        found = Path(prefix) / 'share' / package / path
        if prefix and found.is_file():
            return found
    raise ConfigurationError(f'package://{package}/{path} is in no folder of AMENT_PREFIX_PATH; source its workspace')
