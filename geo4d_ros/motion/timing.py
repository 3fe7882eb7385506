"""Timing of a checked joint path (toppra) and stopping from any state (ruckig)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import ruckig
import toppra
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, Slerp
from toppra.algorithm import TOPPRA
from toppra.constraint import JointAccelerationConstraint, JointVelocityConstraint

from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel

logging.getLogger('toppra').setLevel(logging.ERROR)

_RESERVE = 0.95  # share of the limits that toppra may use; sampling and corners take the rest
_STRETCHES = 6
_STOP_JERK = 500.0  # rad/s^3
_STOP_SCALE = 2.5  # a stop may brake harder than a motion accelerates, by this factor


@dataclass(frozen=True)
class MoveSegment:
    """A timed arm motion from rest to rest (a stop: from motion to rest).

    times (N,) [s] from its start; q, dq, ddq (N, n) [rad], [rad/s], [rad/s^2]. opened: how far the fingers stand
    apart meanwhile, as a share of their stroke.
    """

    times: np.ndarray
    q: np.ndarray
    dq: np.ndarray
    ddq: np.ndarray
    opened: float = 1.0

    @property
    def duration(self) -> float:
        """Length [s]."""
        return float(self.times[-1])

    def at(self, time: float) -> np.ndarray:
        """Joint positions (n,) at `time` [s], held at both ends, linear between the samples."""
        return np.array([np.interp(time, self.times, column) for column in self.q.T])


@dataclass(frozen=True)
class JointPath:
    """Checked samples of a path: q (N, n) [rad] and their tool poses T (N, 4, 4) in the base frame."""

    q: np.ndarray
    T: np.ndarray


def time_path(path: JointPath, robot: RobotModel, limits: MotionLimits) -> MoveSegment | Refusal:
    """Time a path from rest to rest within joint and Cartesian limits, as fast as they allow.

    The path is a C2 spline through the samples, over the time that tool and joints would need at their speed limits.
    toppra bounds joint velocity and acceleration, tool speed (through that parameter) and tool
    acceleration; what sampling leaves over is removed by stretching time uniformly.
    """
    s = _nominal_time(path, robot, limits)
    spline = CubicSpline(s, path.q, bc_type='natural')
    tool = CubicSpline(s, path.T[:, :3, 3], bc_type='natural')
    sampled = _toppra(spline, tool, s, robot, limits)
    if sampled is None:
        return Refusal(Reason.TIMING_FAILED, f'{len(path.q)} samples, {s[-1]:.2f} s at the speed limits')
    segment = sampled
    for _ in range(_STRETCHES):
        excess = limit_excess(segment, robot, limits)
        if excess <= 1.0:
            return segment
        segment = _stretch(segment, excess * 1.01)
    excess = limit_excess(segment, robot, limits)
    return Refusal(Reason.LIMITS_EXCEEDED, f'{excess:.2f} times the tightest limit', {'excess': excess})


def limit_excess(segment: MoveSegment, robot: RobotModel, limits: MotionLimits) -> float:
    """How much slower the segment has to run to keep every limit; at most 1 when it keeps them all.

    Joint limits are read off the samples, tool speeds and accelerations by finite differences of the
    forward kinematics, speeds also halfway between the samples, where a controller's cubic runs a little
    faster. Accelerations go with the square of time. Not finite: infinity.
    """
    if not (np.isfinite(segment.q).all() and np.isfinite(segment.dq).all()):
        return float('inf')
    velocity = limits.joint_velocity_scale * robot.velocity_limits
    acceleration = limits.joint_acceleration_scale * robot.acceleration_limits
    linear, angular = tool_velocities(segment, robot)
    between = tool_velocities(_halved(segment), robot)
    step = np.diff(segment.times).mean()
    ratios = [np.abs(segment.dq / velocity).max(), np.abs(segment.ddq / acceleration).max() ** 0.5,
              np.linalg.norm(between[0], axis=1).max() / limits.speed,
              np.linalg.norm(between[1], axis=1).max() / limits.angular_speed]
    if len(linear) > 1:
        ratios += [(np.linalg.norm(np.diff(linear, axis=0), axis=1).max() / step / limits.acceleration) ** 0.5,
                   (np.linalg.norm(np.diff(angular, axis=0), axis=1).max() / step / limits.angular_acceleration) ** 0.5]
    worst = float(np.max(ratios))
    return worst if np.isfinite(worst) else float('inf')


def tool_velocities(segment: MoveSegment, robot: RobotModel) -> tuple[np.ndarray, np.ndarray]:
    """Linear [m/s] and angular [rad/s] velocity of the tool between the samples, (N-1, 3) each, base frame."""
    T = robot.forward_batch(segment.q)
    dt = np.diff(segment.times)[:, None]
    R = T[:, :3, :3]
    turn = Rotation.from_matrix(R[1:] @ np.swapaxes(R[:-1], 1, 2)).as_rotvec()
    return np.diff(T[:, :3, 3], axis=0) / dt, turn / dt


def path_deviation(T_path: np.ndarray, T: np.ndarray, limits: MotionLimits) -> tuple[float, float]:
    """Largest distance [m] and angle [rad] of tool poses T (M, 4, 4) from a path of poses (N, 4, 4).

    Every pose is compared with the spot of the path that fits it best, both measured in units of
    their limits; the path is refined to about 1 mm and 0.5 deg, which bounds the error of the figure.
    """
    fine = _refine(T_path, 4)
    distance = np.linalg.norm(T[:, None, :3, 3] - fine[None, :, :3, 3], axis=2)
    cosine = np.abs(_quaternions(T) @ _quaternions(fine).T)
    angle = 2 * np.arccos(np.clip(cosine, 0.0, 1.0))
    best = np.maximum(distance / limits.deviation_distance, angle / limits.deviation_angle).argmin(axis=1)
    rows = np.arange(len(T))
    return float(distance[rows, best].max()), float(angle[rows, best].max())


def stop_trajectory(q: np.ndarray, dq: np.ndarray, ddq: np.ndarray, robot: RobotModel,
                    limits: MotionLimits) -> MoveSegment:
    """Brake every joint to rest from any state (n,) within the robot's acceleration limits, jerk-limited.

    Joints brake in step, so that the arm stays close to the line it was on.
    """
    n = robot.dof
    otg = ruckig.Ruckig(n, limits.period)
    problem = ruckig.InputParameter(n)
    problem.control_interface = ruckig.ControlInterface.Velocity
    problem.synchronization = ruckig.Synchronization.Phase
    brake = np.minimum(_STOP_SCALE * limits.joint_acceleration_scale, 1.0) * robot.acceleration_limits
    problem.current_position, problem.current_velocity = list(q), list(dq)
    problem.current_acceleration = list(np.clip(ddq, -brake, brake))
    problem.target_velocity, problem.target_acceleration = [0.0] * n, [0.0] * n
    problem.max_acceleration, problem.max_jerk = list(brake), [_STOP_JERK] * n
    trajectory = ruckig.Trajectory(n)
    result = otg.calculate(problem, trajectory)
    if result not in (ruckig.Result.Working, ruckig.Result.Finished):
        raise ValueError(f'no stop from velocities {dq}: {result}')
    times = _sample_times(trajectory.duration, limits.period)
    states = [trajectory.at_time(t) for t in times]
    q_t, dq_t, ddq_t = (np.array([state[i] for state in states]) for i in range(3))
    return MoveSegment(times, q_t, dq_t, ddq_t)


def _nominal_time(path: JointPath, robot: RobotModel, limits: MotionLimits) -> np.ndarray:
    """Time (N,) at which the arm reaches each sample when the tool or the fastest joint moves at its speed limit.

    Where joints turn far and the tool hardly moves (near a singularity), a spline over the tool's time alone would
    swing wide between the samples.
    """
    T = path.T
    distance = np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1)
    R = T[:, :3, :3]
    angle = np.linalg.norm(Rotation.from_matrix(np.swapaxes(R[:-1], 1, 2) @ R[1:]).as_rotvec(), axis=1)
    turn = (np.abs(np.diff(path.q, axis=0)) / (limits.joint_velocity_scale * robot.velocity_limits)).max(axis=1)
    step = np.maximum(np.maximum(distance / limits.speed, angle / limits.angular_speed), turn)
    return np.concatenate([[0.0], np.cumsum(np.maximum(step, 1e-4))])


def _toppra(spline: CubicSpline, tool: CubicSpline, s: np.ndarray, robot: RobotModel,
            limits: MotionLimits) -> MoveSegment | None:
    """Time-optimal timing of [joints, tool position, nominal time] under bounds on all of them."""
    path = _StackedPath(spline, tool, s[-1])
    n = robot.dof
    velocity = np.concatenate([limits.joint_velocity_scale * robot.velocity_limits, np.full(3, limits.speed), [1.0]])
    # Each axis gets the whole tool acceleration; the norm is kept by the stretch that follows.
    acceleration = np.concatenate([limits.joint_acceleration_scale * robot.acceleration_limits,
                                   np.full(3, limits.acceleration),
                                   [limits.acceleration / limits.speed]])
    bounds = [np.stack([-limit, limit], axis=1) * _RESERVE for limit in (velocity, acceleration)]
    grid = np.linspace(0, s[-1], int(np.clip(2 * len(s), 40, 200)))
    solver = TOPPRA([JointVelocityConstraint(bounds[0]), JointAccelerationConstraint(bounds[1])], path,
                    gridpoints=grid, solver_wrapper='seidel', parametrizer='ParametrizeConstAccel')
    timed = solver.compute_trajectory(0, 0)
    if timed is None or not np.isfinite(timed.duration):
        return None
    times = _sample_times(timed.duration, limits.period)
    q, dq, ddq = (timed(times, order)[:, :n] for order in range(3))
    dq[0] = dq[-1] = 0.0
    ddq[0] = ddq[-1] = 0.0
    return MoveSegment(times, q, dq, ddq)


class _StackedPath(toppra.interpolator.AbstractGeometricPath):
    """Joints, tool position and the nominal time itself as one path over the nominal time."""

    def __init__(self, spline: CubicSpline, tool: CubicSpline, end: float) -> None:
        self._spline, self._tool, self._end = spline, tool, end

    def __call__(self, position: np.ndarray | float, order: int = 0) -> np.ndarray:
        s = np.asarray(position, dtype=np.float64)
        own = (s, np.ones_like(s), np.zeros_like(s))[order]
        return np.concatenate([self._spline(s, order), self._tool(s, order), own[..., None]], axis=-1)

    @property
    def dof(self) -> int:
        return self._spline.c.shape[-1] + 4

    @property
    def path_interval(self) -> np.ndarray:
        return np.array([0.0, self._end])

    @property
    def waypoints(self) -> tuple[np.ndarray, np.ndarray]:
        return self._spline.x, self(self._spline.x)


def _halved(segment: MoveSegment) -> MoveSegment:
    """The segment with the middle of each cubic between two samples as a sample more; only times and q are set."""
    n = len(segment.times)
    dt = np.diff(segment.times)[:, None]
    times, q = np.empty(2 * n - 1), np.empty((2 * n - 1, segment.q.shape[1]))
    times[::2], q[::2] = segment.times, segment.q
    times[1::2] = (segment.times[:-1] + segment.times[1:]) / 2
    q[1::2] = (segment.q[:-1] + segment.q[1:]) / 2 + dt / 8 * (segment.dq[:-1] - segment.dq[1:])
    return MoveSegment(times, q, np.zeros_like(q), np.zeros_like(q))


def _stretch(segment: MoveSegment, factor: float) -> MoveSegment:
    """The same motion, `factor` times slower."""
    return MoveSegment(segment.times * factor, segment.q, segment.dq / factor, segment.ddq / factor**2)


def _sample_times(duration: float, period: float) -> np.ndarray:
    """Evenly spaced times from 0 to the duration, about one period apart, at least three."""
    return np.linspace(0.0, duration, max(int(np.ceil(duration / period)) + 1, 3))


def _refine(T: np.ndarray, times: int) -> np.ndarray:
    """Poses (N, 4, 4) with `times` - 1 interpolated ones between each two."""
    s = np.arange(len(T), dtype=np.float64)
    fine = np.linspace(0, len(T) - 1, times * (len(T) - 1) + 1)
    out = np.tile(np.eye(4), (len(fine), 1, 1))
    out[:, :3, :3] = Slerp(s, Rotation.from_matrix(T[:, :3, :3]))(fine).as_matrix()
    for axis in range(3):
        out[:, axis, 3] = np.interp(fine, s, T[:, axis, 3])
    return out


def _quaternions(T: np.ndarray) -> np.ndarray:
    return Rotation.from_matrix(T[:, :3, :3]).as_quat()
