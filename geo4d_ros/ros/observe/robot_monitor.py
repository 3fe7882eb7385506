"""What the executor knows of the cell: measured joints, the robot description, the cameras' pulse, the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, JointState
from std_msgs.msg import String

from geo4d_ros.errors import ConfigurationError, Geo4dError
from geo4d_ros.motion import gates
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import RobotState
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.ros.serve.qos import IMAGE_QOS, SENSOR_QOS, STATE_QOS
from geo4d_ros.ros.wire.conversions import to_nanoseconds

SETTLE_SECONDS = 0.2  # of rest, measured, before the arm counts as standing
CLOCK_BACK = 100_000_000  # [ns] the node's clock may go back (NTP) before it is a fault


class RobotMonitor:
    """Measured joints from /joint_states, the model from /robot_description.

    arm_joints are looked up by name in every message; opening_of turns the position of `gripper_joint`
    into an opening [m]. Ages on the wall clock, stamps as the driver gives them.
    """

    def __init__(self, node: Node, arm_joints: tuple[str, ...], gripper_joint: str,
                 opening_of: Callable[[float], float], build_model: Callable[[str], RobotModel]) -> None:
        self._arm, self._gripper, self._opening_of = arm_joints, gripper_joint, opening_of
        self._build_model = build_model
        self.model: RobotModel | None = None
        self.model_error = 'no /robot_description yet'
        self.heard = -np.inf  # [s] steady clock
        self._state: RobotState | None = None
        self._rest_since: float | None = None
        node.create_subscription(JointState, '/joint_states', self._receive, SENSOR_QOS)
        node.create_subscription(String, '/robot_description', self._describe, STATE_QOS)

    @property
    def silence(self) -> float:
        """Seconds since the last complete joint state."""
        return time.monotonic() - self.heard

    def state(self, gripper_closed: bool | None) -> RobotState | None:
        """The last measured state, None before the first."""
        s = self._state
        return s and RobotState(s.q, s.dq, s.opening, s.stamp, gripper_closed)

    def at_rest(self, since: float) -> bool:
        """Whether every joint was slow for 0.2 s, all of it after steady time `since` [s]."""
        start = max(self._rest_since or np.inf, since)
        return self._rest_since is not None and self.heard - start >= SETTLE_SECONDS

    def _receive(self, message: JointState) -> None:
        names = list(message.name)
        if not set(self._arm) <= set(names) or len(message.velocity) != len(names):
            return  # a message of other joints (several publishers share the topic), or one without velocities
        rows = [names.index(name) for name in self._arm]
        position, velocity = np.array(message.position), np.array(message.velocity)
        if self._gripper in names:
            opening = self._opening_of(float(position[names.index(self._gripper)]))
        else:
            opening = self._state.opening if self._state else float('nan')
        q, dq = position[rows], velocity[rows]
        self._state = RobotState(q, dq, opening, to_nanoseconds(message.header.stamp))
        self.heard = time.monotonic()
        if not np.abs(dq).max() < MotionLimits.rest_velocity:  # NaN counts as moving
            self._rest_since = None
        elif self._rest_since is None:
            self._rest_since = self.heard

    def _describe(self, message: String) -> None:
        try:
            self.model, self.model_error = self._build_model(message.data), ''
        except Geo4dError as error:
            self.model, self.model_error = None, str(error)

    def require_model(self) -> RobotModel:
        """The model; ConfigurationError says why there is none."""
        if self.model is None:
            raise ConfigurationError(self.model_error)
        return self.model


class CameraMonitor:
    """The pulse of the cameras, from their small camera_info messages: stamps, silence, jumps of the clock."""

    def __init__(self, node: Node, namespaces: tuple[str, ...]) -> None:
        self._node, self._names = node, namespaces
        self._stamps: dict[str, int] = {}
        self._heard = dict.fromkeys(namespaces, -np.inf)
        for name in namespaces:
            node.create_subscription(CameraInfo, f'{name}/color/camera_info',
                                     lambda message, name=name: self._receive(name, message), IMAGE_QOS)

    def _receive(self, name: str, message: CameraInfo) -> None:
        self._stamps[name], self._heard[name] = to_nanoseconds(message.header.stamp), time.monotonic()

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
        return gates.check_pair(stamps, self._node.get_clock().now().nanoseconds, limits), True


class ClockMonitor:
    """Notices that the node's clock (sim time, or the system's) went back."""

    def __init__(self, node: Node) -> None:
        self._clock = node.get_clock()
        self._last = 0

    def check(self) -> Refusal | None:
        """CLOCK_JUMP once per jump; call it regularly."""
        now = self._clock.now().nanoseconds
        back, self._last = self._last - now, now
        return Refusal(Reason.CLOCK_JUMP, f'the clock went back {back * 1e-9:.3f} s') if back > CLOCK_BACK else None
