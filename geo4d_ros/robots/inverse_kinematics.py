"""Inverse kinematics of an arm: damped least squares, null space towards home, several seeds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from geo4d_ros.errors import require
from geo4d_ros.robots import mjcf
from geo4d_ros.robots.description import RobotDescription
from geo4d_ros.robots.registry import load_robot

POSITION_TOLERANCE = 1e-3  # [m]
ROTATION_TOLERANCE = 5e-3  # [rad]
_LIMIT_MARGIN = 0.03  # [rad] kept from the joint limits


@dataclass(frozen=True)
class IkSolution:
    """Joint angles (n,) [rad] and what is left of the error [m], [rad]."""

    q: np.ndarray
    position_error: float
    rotation_error: float

    @property
    def reached(self) -> bool:
        """Whether both errors are within tolerance."""
        return self.position_error < POSITION_TOLERANCE and self.rotation_error < ROTATION_TOLERANCE


class ArmKinematics:
    """Forward and inverse kinematics on a private arm-only model; not thread-safe, make one per thread."""

    def __init__(self, robot: RobotDescription) -> None:
        self.robot = robot
        xml = (f'<mujoco><compiler angle="radian"/><default>{mjcf.defaults(robot)}</default>'
               f'<worldbody>{mjcf.body(robot, shapes=False)}</worldbody></mujoco>')
        self._model = mujoco.MjModel.from_xml_string(xml)
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site(robot.tool_frame).id
        self._jacobian = np.zeros((6, self._model.nv))
        self._qpos = np.array([self._model.joint(n).qposadr[0] for n in robot.joints])
        dofs = [int(self._model.joint(n).dofadr[0]) for n in robot.joints]
        require(dofs == list(range(dofs[0], dofs[0] + len(dofs))), f'the arm of {robot.name} is no serial chain')
        self._dofs = slice(dofs[0], dofs[-1] + 1)
        lower, upper = robot.joint_limits
        self._lower, self._upper = lower + _LIMIT_MARGIN, upper - _LIMIT_MARGIN

    def forward(self, q: np.ndarray) -> np.ndarray:
        """T_base_gripper (4, 4) at joint angles q (n,) [rad]."""
        self._data.qpos[self._qpos] = q
        mujoco.mj_kinematics(self._model, self._data)
        T = np.eye(4)
        T[:3, :3] = self._data.site_xmat[self._site].reshape(3, 3)
        T[:3, 3] = self._data.site_xpos[self._site]
        return T

    def arm_points(self, q: np.ndarray) -> np.ndarray:
        """Origins (..., J, 3) [m] of the robot's `arm_frames` in the base frame at joint angles q (..., n) [rad]."""
        points = []
        for angles in q.reshape(-1, self.robot.dof):
            self.forward(angles)
            points.append([self._data.body(name).xpos.copy() for name in self.robot.arm_frames])
        return np.reshape(points, (*q.shape[:-1], len(self.robot.arm_frames), 3))

    def jacobian(self) -> np.ndarray:
        """Geometric Jacobian (6, n) of the tool centre point at the last `forward`, in the base frame."""
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
        return self._jacobian[:, self._dofs]

    def solve(self, T: np.ndarray, q_start: np.ndarray, iterations: int = 60, rest: float = 0.05) -> IkSolution:
        """Nearest solution found from q_start (n,); `rest` pulls the elbow towards home per iteration."""
        q = np.clip(q_start, self._lower, self._upper)
        for i in range(iterations + 1):
            error = self._error(self.forward(q), T)
            position, rotation = float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:]))
            if i == iterations or (position < 2e-4 and rotation < 1e-3):
                break
            J = self.jacobian()
            scale = min(1.0, 0.3 / max(rotation, 1e-9), 0.15 / max(position, 1e-9))
            inverse = J.T @ np.linalg.inv(J @ J.T + 1e-4 * np.eye(6))
            pull = rest * (self.robot.home - q)
            q = np.clip(q + inverse @ (scale * error - J @ pull) + pull, self._lower, self._upper)
        return IkSolution(q, position, rotation)

    def solve_any(self, T: np.ndarray, q_start: np.ndarray | None = None, seeds: int = 6) -> IkSolution:
        """Best of several starts: q_start, home, then fixed pseudo-random ones around home."""
        rng = np.random.default_rng(0)
        home = self.robot.home
        starts = [home] if q_start is None else [q_start, home]
        best = None
        for i in range(seeds):
            start = starts[i] if i < len(starts) else home + rng.uniform(-0.8, 0.8, self.robot.dof)
            solution = self.solve(T, start)
            if solution.reached:
                return solution
            if best is None or solution.position_error < best.position_error:
                best = solution
        assert best is not None
        return best

    @staticmethod
    def _error(T_now: np.ndarray, T_goal: np.ndarray) -> np.ndarray:
        error = np.empty(6)
        error[:3] = T_goal[:3, 3] - T_now[:3, 3]
        # Logarithm of the rotation: the cross-product error stalls near 180 degrees.
        error[3:] = Rotation.from_matrix(T_goal[:3, :3] @ T_now[:3, :3].T).as_rotvec()
        return error


@lru_cache(maxsize=8)
def _kinematics_of(robot: RobotDescription) -> ArmKinematics:
    return ArmKinematics(robot)


def shared_kinematics(robot: RobotDescription | str | None = None) -> ArmKinematics:
    """One instance per robot, or name of one (None: the default), for single-threaded users: the expert, trainings."""
    return _kinematics_of(robot if isinstance(robot, RobotDescription) else load_robot(robot))
