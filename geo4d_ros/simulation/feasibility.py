"""Whether the arm can do what the expert plans: joints that follow the path, and clear of other things."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import mujoco
import numpy as np

from geo4d_ros.geometry.transforms import interpolate, invert, pose_to_quaternion
from geo4d_ros.robots.description import RobotDescription
from geo4d_ros.robots.inverse_kinematics import shared_kinematics
from geo4d_ros.simulation.expert import Scene, is_held, plan_segments
from geo4d_ros.simulation.tasks import Task

CLEARANCE = 0.015  # of the expert's path from other tasks' things [m]: a predicted path is not as exact
_CHECK_PERIOD = 0.25  # between the poses checked [s]
_MAX_JOINT_STEP = 0.4  # between them [rad]
_JOINT_MARGIN = 0.06  # from the joint limits: an executor with gates of its own has to get there too [rad]
_MAX_CONDITION = 50.0  # of the Jacobian (m, rad)


@dataclass(frozen=True)
class PathPoint:
    """One moment of the expert's motion: joints (n,) [rad], opening [m], T_base_object (4, 4)."""

    q: np.ndarray
    opening: float
    T_object: np.ndarray


def joint_path(robot: RobotDescription, task: Task, seen: Scene, q: np.ndarray) -> list[PathPoint] | None:
    """The expert's whole motion as joints from q (n,) on; None at a jump, a joint limit or a singularity."""
    kinematics = shared_kinematics(robot)
    lower, upper = robot.joint_limits
    path = []
    for scene_now, segment in plan_segments(task, seen):
        held = is_held(task, scene_now)
        steps = max(1, int(np.ceil(segment.duration / _CHECK_PERIOD)))
        for T in interpolate(scene_now.T_gripper, segment.T_gripper, np.arange(1, steps + 1) / steps):
            solution = kinematics.solve(T, q, iterations=25, rest=0.01)
            if not solution.reached or np.abs(solution.q - q).max() > _MAX_JOINT_STEP:
                return None
            q = solution.q
            if np.minimum(q - lower, upper - q).min() < _JOINT_MARGIN:
                return None
            if np.linalg.cond(kinematics.jacobian()) > _MAX_CONDITION:
                return None
            T_object = T @ invert(scene_now.T_gripper) @ scene_now.T_object if held else scene_now.T_object
            path.append(PathPoint(q, max(scene_now.opening, segment.opening), T_object))
    return path


def can_follow(robot: RobotDescription, task: Task, seen: Scene, q: np.ndarray) -> bool:
    """Whether the joints, from q (n,), can follow the expert's whole motion: no jump, limit or singularity."""
    return joint_path(robot, task, seen, q) is not None


def pose_values(T: np.ndarray) -> np.ndarray:
    """(7,) of a free joint: position and quaternion w x y z."""
    x, y, z, w = pose_to_quaternion(T)
    return np.array([*T[:3, 3], w, x, y, z])


def path_is_clear(model: mujoco.MjModel, data: mujoco.MjData, path: Iterable[np.ndarray],
                  movers: np.ndarray, others: np.ndarray) -> bool:
    """Whether the geoms `movers` stay CLEARANCE away from the geoms `others` along the path; leaves `data` moved.

    path: qpos (nq,) of each moment.
    """
    moves, stands = np.isin(np.arange(model.ngeom), movers), np.isin(np.arange(model.ngeom), others)
    margins = model.geom_margin.copy()
    model.geom_margin[stands] = CLEARANCE
    try:
        for qpos in path:
            data.qpos[:] = qpos
            mujoco.mj_kinematics(model, data)
            mujoco.mj_collision(model, data)
            a, b = data.contact.geom[:data.ncon].T
            if ((moves[a] & stands[b]) | (moves[b] & stands[a])).any():
                return False
    finally:
        model.geom_margin[:] = margins
    return True
