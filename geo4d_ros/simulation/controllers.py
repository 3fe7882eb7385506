"""What a robot's controllers do with trajectories and gripper commands: sample, check, stop smoothly.

The embedded twins of ros2_control's joint_trajectory_controller and parallel_gripper_action_controller,
without ROS: the simulated cell's action servers call them once per control tick.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from ruckig import ControlInterface, InputParameter, Result, Ruckig, Synchronization, Trajectory
from scipy.interpolate import BPoly

from geo4d_ros.errors import require

HELD_UP = 0.03  # [rad] behind its command: what servo lag and a light touch never reach


class Outcome(Enum):
    """How a goal ended; the names follow control_msgs/action/FollowJointTrajectory and action_msgs."""

    SUCCEEDED = 'SUCCEEDED'
    PATH_TOLERANCE_VIOLATED = 'PATH_TOLERANCE_VIOLATED'
    GOAL_TOLERANCE_VIOLATED = 'GOAL_TOLERANCE_VIOLATED'
    CANCELED = 'CANCELED'
    PREEMPTED = 'PREEMPTED'


@dataclass(frozen=True)
class JointPath:
    """A timed joint trajectory.

    times (n,) [s] from the start, not negative, strictly increasing; positions (n, j) [rad]; velocities
    (n, j) [rad/s] and accelerations (n, j) [rad/s^2] may be None: the interpolation's order follows them.
    """

    times: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray | None = None
    accelerations: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.times)
        require(n >= 1, 'a trajectory needs at least one point')
        require(
            bool(np.isfinite(self.times).all() and (np.diff(self.times) > 0).all() and self.times[0] >= 0),
            'time_from_start should be finite, not negative and strictly increasing',
        )
        for name in ('positions', 'velocities', 'accelerations'):
            value = getattr(self, name)
            if value is None:
                continue
            require(
                value.shape == self.positions.shape and len(value) == n,
                f'{name} should have shape {(n, self.positions.shape[-1])} but got {value.shape}',
            )
            require(bool(np.isfinite(value).all()), f'{name} has NaN or infinite values')
        require(
            self.velocities is not None or self.accelerations is None, 'accelerations need velocities too'
        )


@dataclass(frozen=True)
class Tolerances:
    """Path and goal tolerance per joint [rad] (inf = unchecked).

    stopped_velocity [rad/s] counts as standing still; goal_time [s] is the patience after the last point.
    """

    path: np.ndarray
    goal: np.ndarray
    stopped_velocity: float = 0.02
    goal_time: float = 0.8


@dataclass
class Goal:
    """One trajectory goal; `outcome` is None while it runs, `message` says why it failed."""

    duration: float
    target: np.ndarray
    tolerances: Tolerances
    outcome: Outcome | None = None
    message: str = ''


class TrajectoryController:
    """Follows one trajectory at a time; cancel and every failure end in a stop within the limits.

    `update` is called once per control tick with the controller's time [s] and the measured joints.
    q, dq, ddq (j,) are the commanded state, `error` is commanded minus measured [rad] of the last tick.
    """

    def __init__(
        self,
        q: np.ndarray,
        max_velocity: np.ndarray,
        max_acceleration: np.ndarray,
        stop_acceleration_scale: float = 0.4,
        stop_time_to_full_acceleration: float = 0.05,
    ) -> None:
        self.max_velocity = max_velocity
        self.stop_acceleration = stop_acceleration_scale * max_acceleration
        self.stop_jerk = self.stop_acceleration / stop_time_to_full_acceleration
        self.hold(q)

    def hold(self, q: np.ndarray) -> None:
        """Forget everything and hold `q` (j,) [rad]: for a start or a reset, with the arm at rest there."""
        self.q = np.array(q, float)
        self.dq, self.ddq, self.error = (np.zeros_like(self.q) for _ in range(3))
        self._measured_dq = np.zeros_like(self.q)
        self.goal: Goal | None = None
        self._stop: Trajectory | None = None
        self._t0 = 0.0

    @property
    def active(self) -> bool:
        """Whether a goal runs."""
        return self.goal is not None

    @property
    def moving(self) -> bool:
        """Whether a goal runs or the arm still decelerates."""
        return self.goal is not None or self._stop is not None

    def check(self, path: JointPath) -> str:
        """Empty when the path may start from here, else why it is refused (one sentence)."""
        if path.positions.shape[1] != len(self.q):
            return f'positions should have {len(self.q)} joints but got {path.positions.shape[1]}'
        knots = _with_start(path, *self._begin())
        steps = np.abs(np.diff(knots.positions, axis=0)) / np.diff(knots.times)[:, None]
        worst = int(np.argmax((steps / self.max_velocity).max(axis=0)))
        speed = float(steps[:, worst].max())
        if speed > self.max_velocity[worst]:
            return (
                f'joint {worst + 1} would need {speed:.2f} rad/s, its limit is '
                f'{self.max_velocity[worst]:.2f}; slow the trajectory down'
            )
        return ''

    def start(self, path: JointPath, tolerances: Tolerances, now: float) -> Goal:
        """Begin a goal at controller time `now` [s]; one that still runs is preempted without a jump."""
        self._end(Outcome.PREEMPTED, 'a newer goal took over')
        knots = _with_start(path, *self._begin())
        known = [v for v in (knots.positions, knots.velocities, knots.accelerations) if v is not None]
        self._path = BPoly.from_derivatives(knots.times, np.stack(known, axis=1))
        self._velocity = self._path.derivative()
        self._acceleration = self._velocity.derivative()
        self._stop, self._t0 = None, now
        self.goal = Goal(float(knots.times[-1]), knots.positions[-1], tolerances)
        return self.goal

    def stop(self, outcome: Outcome, message: str, now: float) -> None:
        """End the goal and decelerate within the limits from the commanded state."""
        self._end(outcome, message)
        if self._stop is None:
            self._stop = plan_stop(*self._begin(), self.stop_acceleration, self.stop_jerk)
            self._t0 = now

    def _begin(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where a stop or a new path begins: the commanded state, or the measured one of an arm that is held up.

        So an arm that met something is not pressed on against it (ros2_control begins from the measured state).
        """
        if np.abs(self.error).max() <= HELD_UP:
            return self.q, self.dq, self.ddq
        return self.q - self.error, self._measured_dq, np.zeros_like(self.q)

    def stop_at_once(self, message: str) -> None:
        """End the goal without a deceleration: the arm itself is about to be replaced."""
        self._end(Outcome.PREEMPTED, message)

    def update(self, now: float, q: np.ndarray, dq: np.ndarray) -> np.ndarray:
        """Commanded joints (j,) [rad] at `now`; q, dq (j,) are the measured ones."""
        t = now - self._t0
        if self._stop is not None:
            self._sample_stop(t)
        elif self.goal is not None:
            self._sample_path(t)
        self.error, self._measured_dq = self.q - q, np.array(dq, float)
        if self.goal is not None:
            self._judge(self.goal, t, now, dq)
        return self.q

    def _end(self, outcome: Outcome, message: str) -> None:
        if self.goal is not None:
            self.goal.outcome, self.goal.message = outcome, message
            self.goal = None

    def _sample_stop(self, t: float) -> None:
        q, dq, ddq = self._stop.at_time(min(t, self._stop.duration))
        self.q, self.dq, self.ddq = np.array(q), np.array(dq), np.array(ddq)
        if t >= self._stop.duration:
            self._stop = None
            self.dq, self.ddq = np.zeros_like(self.q), np.zeros_like(self.q)

    def _sample_path(self, t: float) -> None:
        if t >= self.goal.duration:
            self.q = self.goal.target.copy()
            self.dq, self.ddq = np.zeros_like(self.q), np.zeros_like(self.q)
            return
        self.q, self.dq, self.ddq = self._path(t), self._velocity(t), self._acceleration(t)

    def _judge(self, goal: Goal, t: float, now: float, dq: np.ndarray) -> None:
        error, allowed = np.abs(self.error), goal.tolerances
        if t < goal.duration:
            j = int(np.argmax(error - allowed.path))
            if error[j] > allowed.path[j]:
                self.stop(
                    Outcome.PATH_TOLERANCE_VIOLATED,
                    f'joint {j + 1} is {error[j]:.3f} rad off the path, tolerance {allowed.path[j]:.3f}',
                    now,
                )
        elif (error <= allowed.goal).all() and np.abs(dq).max() <= allowed.stopped_velocity:
            self._end(Outcome.SUCCEEDED, '')
        elif t > goal.duration + allowed.goal_time:
            j = int(np.argmax(error - allowed.goal))
            self.stop(
                Outcome.GOAL_TOLERANCE_VIOLATED,
                f'joint {j + 1} is {error[j]:.3f} rad from the goal '
                f'{allowed.goal_time:.1f} s late, tolerance {allowed.goal[j]:.3f}',
                now,
            )


def _with_start(path: JointPath, q: np.ndarray, dq: np.ndarray, ddq: np.ndarray) -> JointPath:
    """The path with the commanded state as its first knot, as ros2_control does."""
    if path.times[0] > 0:
        times, skip = np.concatenate([[0.0], path.times]), 0
    else:
        # A first point at t = 0 describes the state it was planned from: ours takes its place.
        times, skip = np.array(path.times, float), 1
    if len(times) == 1:
        times, skip = np.array([0.0, 0.05]), 0

    def join(start: np.ndarray, rest: np.ndarray | None) -> np.ndarray | None:
        return None if rest is None else np.concatenate([start[None], rest[skip:]])

    return JointPath(times, join(q, path.positions), join(dq, path.velocities), join(ddq, path.accelerations))


def plan_stop(
    q: np.ndarray, dq: np.ndarray, ddq: np.ndarray, max_acceleration: np.ndarray, max_jerk: np.ndarray
) -> Trajectory:
    """Jerk-limited trajectory from (q, dq, ddq) to standstill, all joints on their own clock (ruckig)."""
    inp = InputParameter(len(q))
    inp.control_interface = ControlInterface.Velocity
    inp.synchronization = Synchronization.No
    inp.current_position, inp.current_velocity = list(q), list(dq)
    inp.current_acceleration = list(np.clip(ddq, -max_acceleration, max_acceleration))
    inp.target_velocity = [0.0] * len(q)
    inp.target_acceleration = [0.0] * len(q)
    inp.max_acceleration, inp.max_jerk = list(max_acceleration), list(max_jerk)
    trajectory = Trajectory(len(q))
    result = Ruckig(len(q)).calculate(inp, trajectory)
    require(result in (Result.Working, Result.Finished), f'no stop from this state: ruckig says {result}')
    return trajectory


class GripperController:
    """Opens or closes to a position; standing still before it is `stalled` (on an object, when closing)."""

    def __init__(
        self,
        tolerance: float = 0.002,
        stall_speed: float = 0.002,
        stall_time: float = 0.4,
        deadline: float = 7.0,
    ) -> None:
        self.tolerance, self.stall_speed, self.stall_time, self.deadline = (
            tolerance,
            stall_speed,
            stall_time,
            deadline,
        )
        self.active = self.reached = self.stalled = False
        self.target = 0.0

    def start(self, target: float, now: float) -> None:
        """Begin a command to `target` [m of opening]."""
        self.target, self.active, self.reached, self.stalled = target, True, False, False
        self._t0 = self._moved_at = now
        self._last: tuple[float, float] | None = None

    def cancel(self) -> None:
        """Give the command up; the fingers keep the last target."""
        self.active = False

    def update(self, now: float, opening: float) -> None:
        """Judge progress with the measured opening [m] at controller time [s]."""
        if not self.active:
            return
        if self._last is None or now - self._last[0] >= 0.02:
            if self._last is None or abs(opening - self._last[1]) > self.stall_speed * (now - self._last[0]):
                self._moved_at = now
            self._last = (now, opening)
        self.reached = abs(opening - self.target) <= self.tolerance
        self.stalled = not self.reached and now - self._moved_at >= self.stall_time
        if self.reached or self.stalled or now - self._t0 > self.deadline:
            self.active = False
