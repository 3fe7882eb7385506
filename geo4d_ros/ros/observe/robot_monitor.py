"""What the executor knows of the cell: measured joints, the robot description, the cameras' pulse, the clock."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
from rclpy.clock import Clock
from sensor_msgs.msg import CameraInfo, JointState
from std_msgs.msg import String

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.motion import gates
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import RobotState
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.ros.serve.qos import IMAGE_QOS, SENSOR_QOS, STATE_QOS
from geo4d_ros.ros.wire.camera import CameraModel, parse_camera_info
from geo4d_ros.ros.wire.guard import Boundary, Host, Malformed
from geo4d_ros.ros.wire.joint_state import JointSample, parse_joint_state
from geo4d_ros.ros.wire.sources import Sources

SETTLE_SECONDS = 0.2  # of rest, measured, before the arm counts as standing
REST_WINDOW = 0.2  # [s] in which positions may not move farther than the rest velocity takes them
REST_KEPT = 5.0  # [s] of positions at rest that are kept
REMEMBERED = 2.0  # [s] a refused message stands in the way, unless usable ones came later
BOUNDS_TOLERANCE = 1e-4  # [rad] beyond a joint limit that is rounding of the encoder
DESCRIPTION_BYTES = 32 << 20
CLOCK_BACK = 100_000_000  # [ns] the node's clock may go back (NTP) before it is a fault


class RobotMonitor:
    """Measured joints from /joint_states, the model from /robot_description.

    arm_joints are looked up by name in every message; opening_of turns the position of `gripper_joint`
    into an opening [m]; the two may come in messages of their own. Ages on the wall clock, stamps as the driver gives
    them. gripper_silence [s]: an opening that is older counts as unknown. host hears the joint states, so that a node
    which computes for a second does not take itself for a silent robot; thread-safe.
    """

    def __init__(self, boundary: Boundary, arm_joints: tuple[str, ...], gripper_joint: str,
                 opening_of: Callable[[float], float], build_model: Callable[[str], RobotModel],
                 gripper_silence: float = 1.0, host: Host | None = None) -> None:
        self._lock = threading.RLock()
        self._arm, self._gripper, self._opening_of = arm_joints, gripper_joint, opening_of
        self._build_model, self._gripper_silence = build_model, gripper_silence
        self.model: RobotModel | None = None
        self.model_error = 'no /robot_description yet'
        self.model_version = 0  # counts the changes of the description
        self.heard = -np.inf  # [s] steady clock, of the last usable state of the arm
        self._description = ''
        self._arm_sample: tuple[int, np.ndarray, np.ndarray] | None = None  # stamp, q, dq
        self._opening, self._opening_heard = float('nan'), -np.inf
        self._rest: deque[tuple[float, np.ndarray]] = deque()  # (steady time, q) since the arm stands
        self._sources = Sources()
        self._refusal: tuple[float, str] | None = None  # when a message was last refused, and why
        self._others: tuple[float, str] = -np.inf, ''  # when joints came that are none of the arm's, and which
        boundary.subscribe(JointState, 'joint_states', parse_joint_state, self._receive, SENSOR_QOS,
                           refused=self._refuse, host=host)
        boundary.subscribe(String, 'robot_description', _description_text, self._describe, STATE_QOS,
                           limit=DESCRIPTION_BYTES)

    @property
    def silence(self) -> float:
        """Seconds since the last usable joint state."""
        return time.monotonic() - self.heard

    @property
    def silence_cause(self) -> str:
        """Why there is no usable joint state: nothing comes, or only joints of other names."""
        since, names = self._others
        if since > self.heard and time.monotonic() - since < REMEMBERED:
            return f'/joint_states lack {", ".join(self._arm)}; they carry {names[:200]} (parameter arm_joints)'
        return 'nothing usable on /joint_states'

    def state(self, gripper_closed: bool | None) -> RobotState | None:
        """The last measured state, None before the first; an opening nobody measured lately is NaN."""
        with self._lock:
            if self._arm_sample is None:
                return None
            stamp, q, dq = self._arm_sample
            opening = self._opening if self.heard - self._opening_heard <= self._gripper_silence else float('nan')
        return RobotState(self._clamped(q), dq, opening, stamp, gripper_closed)

    def refusal(self) -> Refusal | None:
        """Why the robot's state cannot be relied on now, None when it can."""
        with self._lock:
            return self._unusable(time.monotonic())

    def _unusable(self, now: float) -> Refusal | None:
        if self._sources.doubled((*self._arm, self._gripper), now):
            return Refusal(Reason.ROBOT_STATE_INVALID, 'two publishers send the same joints on /joint_states: end one '
                           'of the two sources')
        if self._refusal is not None and now - self._refusal[0] <= REMEMBERED and self.heard <= self._refusal[0] + 0.1:
            return Refusal(Reason.ROBOT_STATE_INVALID, self._refusal[1])
        if self._arm_sample is None:
            return Refusal(Reason.ROBOT_STATE_INVALID, 'no /joint_states yet')
        if self.heard - self._opening_heard > self._gripper_silence:  # while the arm goes on
            behind = self.heard - self._opening_heard
            silent = 'was never sent' if self._opening_heard < 0 else f'is silent for {behind:.1f} s'
            return Refusal(Reason.ROBOT_STATE_INVALID, f'the gripper joint {self._gripper!r} {silent} on '
                           '/joint_states (parameter gripper_joint)')
        return None

    def forget(self) -> None:
        """The clock jumped, or a run begins anew: what was measured before tells nothing."""
        with self._lock:
            self._arm_sample, self.heard, self._opening_heard = None, -np.inf, -np.inf
            self._rest.clear()

    def at_rest(self, since: float) -> bool:
        """Whether every joint was slow for 0.2 s by its velocity and its positions, all after steady time `since`."""
        with self._lock:
            samples, heard = [(t, q) for t, q in self._rest if t >= since], self.heard
        if not samples or heard - samples[0][0] < SETTLE_SECONDS:
            return False
        recent = [q for t, q in samples if t >= heard - REST_WINDOW]
        moved = float((np.max(recent, axis=0) - np.min(recent, axis=0)).max())
        return moved <= MotionLimits.rest_velocity * REST_WINDOW

    def _receive(self, sample: JointSample, number: int | None) -> None:
        with self._lock:
            self._take(sample, number, time.monotonic())

    def _take(self, sample: JointSample, number: int | None, now: float) -> None:
        fresh_source = self._sources.see(sample.names, number, now)
        rows = [sample.row(name) for name in self._arm]
        gripper = sample.row(self._gripper)
        if gripper is not None:
            self._opening, self._opening_heard = self._opening_of(float(sample.positions[gripper])), now
        missing = [name for name, row in zip(self._arm, rows, strict=True) if row is None]
        if missing:
            if len(missing) < len(self._arm) or (gripper is None and self._arm_sample is None):
                self._refuse(f'/joint_states lack {", ".join(missing)}; they carry {", ".join(sample.names)[:200]} '
                             '(parameter arm_joints)')
            elif gripper is None:  # several publishers share the topic, or one that changed its prefix
                self._others = now, ', '.join(sample.names)
            return
        if fresh_source:
            self._rest.clear()
            self._arm_sample = None
        self._keep(sample, [row for row in rows if row is not None], now)

    def _keep(self, sample: JointSample, rows: list[int], now: float) -> None:
        q, before = sample.positions[rows], self._arm_sample
        if sample.velocities is not None:
            dq = sample.velocities[rows]
        else:  # the driver sends none: from two positions
            dq = np.full(len(q), np.inf)
            if before is not None and sample.stamp > before[0]:
                dq = (q - before[1]) / ((sample.stamp - before[0]) * 1e-9)
        self._arm_sample, self.heard = (sample.stamp, q, dq), now
        if not np.abs(dq).max() < MotionLimits.rest_velocity or self._sources.doubled(self._arm, now):
            self._rest.clear()
            return
        self._rest.append((now, q))
        while len(self._rest) > 2 and self._rest[1][0] < now - REST_KEPT:
            del self._rest[1]  # the first stays: since when the arm stands

    def _clamped(self, q: np.ndarray) -> np.ndarray:
        """Encoders at a limit read a little beyond it."""
        model = self.model
        if model is None or q.shape != model.lower.shape:
            return q
        inside = np.clip(q, model.lower, model.upper)
        return np.where(np.abs(inside - q) <= BOUNDS_TOLERANCE, inside, q)

    def _refuse(self, cause: str) -> None:
        with self._lock:
            self._refusal = time.monotonic(), cause
            self._rest.clear()

    def _describe(self, text: str, number: int | None) -> None:
        if text == self._description:
            return
        self._description, self.model_version = text, self.model_version + 1
        try:
            self.model, self.model_error = self._build_model(text), ''
        except Exception as error:
            self.model, self.model_error = None, f'/robot_description: {error}'
            raise

    def require_model(self) -> RobotModel:
        """The model; ConfigurationError says why there is none."""
        if self.model is None:
            raise ConfigurationError(self.model_error)
        return self.model


def _description_text(message: String) -> str | Malformed:
    return message.data if message.data.strip() else Malformed('data', message.data, 'empty')


class CameraMonitor:
    """The pulse of the cameras, from their small camera_info messages: stamps, silence, jumps of the clock."""

    def __init__(self, clock: Clock, boundary: Boundary, namespaces: tuple[str, ...], host: Host | None = None) -> None:
        self._clock, self._names = clock, namespaces
        self._stamps: dict[str, int] = {}
        self._heard = dict.fromkeys(namespaces, -np.inf)
        for name in namespaces:
            boundary.subscribe(CameraInfo, f'{name}/color/camera_info', parse_camera_info,
                               lambda camera, number, name=name: self._receive(name, camera), IMAGE_QOS, host=host)

    def _receive(self, name: str, camera: CameraModel) -> None:
        self._stamps[name], self._heard[name] = camera.stamp, time.monotonic()

    def check_silence(self, seconds: float) -> Refusal | None:
        """CAMERA_SILENT when one of the cameras has sent nothing for `seconds`."""
        now = time.monotonic()
        silent = [name for name in self._names if now - self._heard[name] > seconds]
        return Refusal(Reason.CAMERA_SILENT, f'{", ".join(silent)} for {seconds:.1f} s or more') if silent else None

    def check_pair(self, after: int, limits: MotionLimits) -> tuple[Refusal | None, bool]:
        """(why the newest pair is unusable, whether every camera has sent since stamp `after` [ns])."""
        stamps = [self._stamps.get(name, 0) for name in self._names]
        if min(stamps) <= after:
            return None, False
        return gates.check_pair(stamps, self._clock.now().nanoseconds, limits), True


class ClockMonitor:
    """Notices that the node's clock (sim time, or the system's) went back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def check(self) -> Refusal | None:
        """CLOCK_JUMP once per jump; call it regularly."""
        now = self._clock.now().nanoseconds
        back, self._last = self._last - now, now
        return Refusal(Reason.CLOCK_JUMP, f'the clock went back {back * 1e-9:.3f} s') if back > CLOCK_BACK else None
