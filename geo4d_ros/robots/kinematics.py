"""The arm: forward and inverse kinematics and its limits, from URDF text, on Pinocchio."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pinocchio as pin

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.robots.description import RobotDescription
from geo4d_ros.robots.registry import load_robot

_DAMPING = 1e-6  # squared, of the least-squares step; small, since a path never starts far away
TURNS = 16 * np.pi  # [rad] to either side that a continuous joint may be wound up
_ITERATIONS = 40
_CONVERGED = np.array([2e-5] * 3 + [1e-4] * 3)  # m, rad: well inside the residual gate
_MAX_ITERATION_STEP = 0.3  # rad in one joint, so that the solver cannot hop to another branch
_NULL_SPACE_STEP = 0.01  # rad in one sample of a path


@dataclass(frozen=True)
class IkResult:
    """Joint positions q (n,) [rad] and how far the tool is from the asked pose [m], [rad]."""

    q: np.ndarray
    distance: float
    angle: float


class UrdfArguments(TypedDict):
    """Every argument of `RobotModel.from_urdf` with its defaults filled in: a record builds the same model again."""

    text: str
    tool_frame: str
    arm_joints: list[str]
    base_frame: str
    posture: list[float]
    velocity_limits: list[float]
    acceleration_limits: list[float]
    package_dirs: list[str]
    fingers: dict[str, list[float]] | None
    never_touch: list[list[str]]


class RobotModel:
    """A serial arm with its tool centre point, all other joints locked.

    lower, upper (n,) [rad]; velocity_limits (n,) [rad/s]; acceleration_limits (n,) [rad/s^2];
    posture (n,) [rad] is what redundancy is resolved towards.
    """

    def __init__(self, model: pin.Model, geometry: pin.GeometryModel, tool_frame: str, base_frame: str,
                 posture: np.ndarray, velocity_limits: np.ndarray, acceleration_limits: np.ndarray) -> None:
        self.model, self.geometry = model, geometry
        self.data = model.createData()
        self.tool_frame, self.base_frame = tool_frame, base_frame
        self.joint_names = tuple(model.names[1:])
        self.dof = model.nv
        self.lower = model.lowerPositionLimit.copy()
        self.upper = model.upperPositionLimit.copy()
        self.velocity_limits, self.acceleration_limits = velocity_limits, acceleration_limits
        self.posture = posture
        # Shapes of the fingers: index in `geometry`, placements at openings evenly from shut to wide open.
        self.fingers: dict[int, tuple[pin.SE3, ...]] = {}
        self.never_touch: frozenset[frozenset[str]] = frozenset()  # pairs of links that self-collision leaves out
        self.spec: UrdfArguments | None = None  # for a record
        self._tool = model.getFrameId(tool_frame)
        pin.framesForwardKinematics(model, self.data, pin.neutral(model))
        self.M_root_base: pin.SE3 = self.data.oMf[model.getFrameId(base_frame)].copy()
        self._base_moves = bool(model.frames[model.getFrameId(base_frame)].parentJoint)
        require(not self._base_moves, f'base frame {base_frame} moves with the arm; name the frame it is bolted to',
                ConfigurationError)

    @classmethod
    def of(cls, robot: RobotDescription) -> RobotModel:
        """The model of a described robot. Raises SimulationError where its meshes are not installed."""
        return cls.from_urdf(robot.urdf_text, robot.tool_frame, robot.joints, robot.base_frame, robot.posture,
                             acceleration_limits=robot.planned_acceleration,
                             fingers=finger_stations(robot), never_touch=robot.never_touch)

    @classmethod
    def from_urdf(cls, text: str, tool_frame: str | None = None, arm_joints: Sequence[str] | None = None,
                  base_frame: str | None = None, posture: Sequence[float] | None = None,
                  velocity_limits: Sequence[float] | None = None,
                  acceleration_limits: Sequence[float] | float = 10.0, package_dirs: Sequence[str] = (),
                  fingers: Mapping[str, Sequence[float]] | None = None,
                  never_touch: Sequence[Sequence[str]] = ()) -> RobotModel:
        """Build from URDF text; every joint outside `arm_joints` is locked, the fingers' fully open.

        Frames and joints default to those of the default robot, the posture to its own or else to mid-range.
        velocity_limits default to the URDF's; URDF has no acceleration limits, hence the argument. fingers: positions
        of each finger joint at openings evenly from shut to wide open; None: prismatic ones from their lower to their
        upper limit. never_touch: pairs of links that self-collision leaves out.
        Raises ConfigurationError when the text, a joint or a frame cannot be used.
        """
        usual = load_robot()
        arm_joints = usual.joints if arm_joints is None else arm_joints
        tool_frame, base_frame = tool_frame or usual.tool_frame, base_frame or usual.base_frame
        full, geometry = _parsed(text, package_dirs)
        _check_names(full, arm_joints, (tool_frame, base_frame))
        locked, stations = _locked_joints(full, arm_joints, fingers)
        placed = [pin.buildReducedModel(full, geometry, locked, q)[1] for q in stations[:-1]]
        model, geometry = pin.buildReducedModel(full, geometry, locked, stations[-1])
        require(tuple(model.names[1:]) == tuple(arm_joints),
                f'arm joints should be given from base to tool: {list(model.names)[1:]}', ConfigurationError)
        n = model.nv
        velocity = model.velocityLimit.copy() if velocity_limits is None else np.asarray(velocity_limits, float)
        acceleration = np.broadcast_to(np.asarray(acceleration_limits, float), (n,)).copy()
        middle = (model.lowerPositionLimit + model.upperPositionLimit) / 2
        default = usual.posture if tuple(arm_joints) == usual.joints else middle
        q_posture = np.asarray(default if posture is None else posture, float)
        for name, value in (('velocity_limits', velocity), ('acceleration_limits', acceleration)):
            good = value.shape == (n,) and bool(np.isfinite(value).all() and (value > 0).all())
            require(good, f'{name} should be {n} positive numbers but got {value}', ConfigurationError)
        require(q_posture.shape == (n,), f'posture should have {n} values but got {q_posture.shape}',
                ConfigurationError)
        robot = cls(model, geometry, tool_frame, base_frame, q_posture, velocity, acceleration)
        for i, shapes in enumerate(zip(*(g.geometryObjects for g in (*placed, geometry)), strict=True)):
            if any(shape.placement != shapes[-1].placement for shape in shapes):
                robot.fingers[i] = tuple(shape.placement for shape in shapes)
        robot.never_touch = frozenset(frozenset(pair) for pair in never_touch)
        robot.spec = {'text': text, 'tool_frame': tool_frame, 'arm_joints': list(arm_joints), 'base_frame': base_frame,
                      'posture': q_posture.tolist(), 'velocity_limits': velocity.tolist(),
                      'acceleration_limits': acceleration.tolist(), 'package_dirs': list(package_dirs),
                      'fingers': None if fingers is None else {k: list(v) for k, v in fingers.items()},
                      'never_touch': [list(pair) for pair in never_touch]}
        return robot

    def forward(self, q: np.ndarray) -> np.ndarray:
        """T_base_tool (4, 4) at joint positions q (n,) [rad]."""
        return self._placement(q).homogeneous

    def forward_batch(self, q: np.ndarray) -> np.ndarray:
        """T_base_tool (N, 4, 4) at joint positions (N, n) [rad]."""
        return np.stack([self._placement(row).homogeneous for row in q]) if len(q) else np.zeros((0, 4, 4))

    def jacobian(self, q: np.ndarray) -> np.ndarray:
        """(6, n) Jacobian of the tool: linear then angular velocity, in the tool frame."""
        return pin.computeFrameJacobian(self.model, self.data, q, self._tool, pin.ReferenceFrame.LOCAL)

    def condition_number(self, q: np.ndarray) -> float:
        """Ratio of the largest to the smallest singular value of the Jacobian; large near a singularity."""
        s = np.linalg.svd(self.jacobian(q), compute_uv=False)
        return float(s[0] / s[-1]) if s[-1] > 1e-12 else float('inf')

    def condition_numbers(self, q: np.ndarray) -> np.ndarray:
        """The same for joint positions (N, n)."""
        s = np.linalg.svd(np.stack([self.jacobian(row) for row in q]), compute_uv=False)
        return s[:, 0] / np.maximum(s[:, -1], 1e-12)

    def inverse(self, T_base_tool: np.ndarray, seed: np.ndarray, relax: bool = True, margin: float = 0.0) -> IkResult:
        """Joint positions near `seed` (n,) that put the tool at T_base_tool (4, 4), and the residual.

        Damped least squares (Buss 2009) from one seed only, so the branch of the arm never changes; with `relax`,
        one small null-space step towards the posture. A joint that gets within `margin` [rad] of its limit is taken
        out of the step, so that the others take over; one that is nearer than that in the seed gets no nearer.
        Never raises; the caller gates on the residual.
        """
        target = self.M_root_base * pin.SE3(T_base_tool[:3, :3], T_base_tool[:3, 3])
        q = np.clip(seed, self.lower, self.upper)
        bounds = np.minimum(self.lower + margin, q), np.maximum(self.upper - margin, q)
        if relax:
            q = np.clip(q + self._null_space_step(q), *bounds)
        error = self._error(q, target)
        for _ in range(_ITERATIONS):
            if (np.abs(error) < _CONVERGED).all():
                break
            q = self._step(q, error, bounds)
            error = self._error(q, target)
        return IkResult(q, float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:])))

    def within_limits(self, q: np.ndarray, margin: float = 0.0) -> bool:
        """Whether all joint positions (..., n) are finite and inside the limits by `margin` [rad]."""
        return bool(np.isfinite(q).all() and (q >= self.lower + margin).all() and (q <= self.upper - margin).all())

    def _placement(self, q: np.ndarray) -> pin.SE3:
        pin.forwardKinematics(self.model, self.data, np.asarray(q, dtype=np.float64))
        return self.M_root_base.actInv(pin.updateFramePlacement(self.model, self.data, self._tool))

    def _error(self, q: np.ndarray, target: pin.SE3) -> np.ndarray:
        pin.forwardKinematics(self.model, self.data, q)
        return pin.log6(pin.updateFramePlacement(self.model, self.data, self._tool).actInv(target)).vector

    def _step(self, q: np.ndarray, error: np.ndarray, bounds: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        J, (lower, upper) = self.jacobian(q), bounds
        for _ in range(2):
            dq = J.T @ np.linalg.solve(J @ J.T + _DAMPING * np.eye(6), error)
            dq *= min(1.0, _MAX_ITERATION_STEP / max(float(np.abs(dq).max()), 1e-9))
            blocked = (q + dq < lower) | (q + dq > upper)
            if not blocked.any():
                break
            J = np.where(blocked, 0.0, J)
        return np.clip(q + dq, lower, upper)

    def _null_space_step(self, q: np.ndarray) -> np.ndarray:
        J = self.jacobian(q)
        pull = 0.1 * (self.posture - q)
        step = pull - J.T @ np.linalg.solve(J @ J.T + _DAMPING * np.eye(6), J @ pull)
        return step * min(1.0, _NULL_SPACE_STEP / max(float(np.abs(step).max()), 1e-9))


def finger_stations(robot: RobotDescription) -> dict[str, list[float]]:
    """Positions of each finger joint at openings evenly from shut to wide open, for `RobotModel.from_urdf`.

    Two for fingers that slide, more for those on curves, which are straight pieces between them.
    """
    openings = np.linspace(0.0, robot.gripper.stroke, 2 if len(robot.gripper.motion.openings) == 2 else 9)
    stations = [robot.finger_positions(float(opening)) for opening in openings]
    return {name: [at[name] for at in stations] for name in robot.finger_joints}


def _parsed(text: str, package_dirs: Sequence[str]) -> tuple[pin.Model, pin.GeometryModel]:
    try:
        text = _turned(text)
        full = pin.buildModelFromXML(text)
        return full, pin.buildGeomFromUrdfString(full, text, pin.GeometryType.COLLISION,
                                                 package_dirs=list(package_dirs))
    except (ValueError, RuntimeError, ElementTree.ParseError) as error:
        raise ConfigurationError(f'the robot description cannot be read: {str(error).splitlines()[0]}') from error


def _turned(text: str) -> str:
    """The URDF with continuous joints as revolute ones of many turns: Pinocchio gives those two coordinates, for which
    a driver's one position does not stand."""
    if 'continuous' not in text:
        return text
    root = ElementTree.fromstring(text)
    for joint in root.iter('joint'):
        if joint.get('type') == 'continuous':
            limit = joint.find('limit')
            limit = ElementTree.SubElement(joint, 'limit', effort='0', velocity='0') if limit is None else limit
            joint.set('type', 'revolute')
            limit.set('lower', str(-TURNS))
            limit.set('upper', str(TURNS))
    return ElementTree.tostring(root, encoding='unicode')


def _check_names(full: pin.Model, arm_joints: Sequence[str], frames: Sequence[str]) -> None:
    for name in arm_joints:
        require(full.existJointName(name), f'joint {name} is not in the robot description, which has '
                f'{list(full.names)[1:]}', ConfigurationError)
    for frame in frames:
        require(full.existFrame(frame), f'frame {frame} is not in the robot description', ConfigurationError)


def _locked_joints(model: pin.Model, arm_joints: Sequence[str], fingers: Mapping[str, Sequence[float]] | None,
                   ) -> tuple[list[int], list[np.ndarray]]:
    """Ids of the joints outside the arm, and the configurations from shut to wide open.

    The last one, wide open, is the widest hand: the safe side for collision checks.
    """
    locked = [i for i, name in enumerate(model.names) if i and name not in arm_joints]
    if fingers is None:
        slides = [i for i in locked if model.joints[i].nq == 1 and 'P' in model.joints[i].shortname()]
        ends = [(model.lowerPositionLimit[model.joints[i].idx_q], model.upperPositionLimit[model.joints[i].idx_q])
                for i in slides]
        fingers = {model.names[i]: end for i, end in zip(slides, ends, strict=True)}
    count = max((len(v) for v in fingers.values()), default=2)
    stations = [pin.neutral(model) for _ in range(count)]
    for name, positions in fingers.items():
        require(model.existJointName(name) and model.getJointId(name) in locked and len(positions) == count,
                f'finger joint {name} is not in the robot description, or has other than {count} positions',
                ConfigurationError)
        for q, position in zip(stations, positions, strict=True):
            q[model.joints[model.getJointId(name)].idx_q] = position
    return locked, stations
