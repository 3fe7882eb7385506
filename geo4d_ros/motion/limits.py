"""The limits a motion has to keep: one frozen, checked dataclass."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite, radians
from typing import Any

from geo4d_ros.errors import ConfigurationError, require

SPEED_CAP = 0.25  # m/s, reduced speed of manual mode in ISO 10218-1: the hard cap of this package
Box = tuple[float, float, float, float, float, float]  # x min, y min, z min, x max, y max, z max [m]


@dataclass(frozen=True)
class MotionLimits:
    """What every commanded motion keeps. Lengths in m, angles in rad, times in s, in the base frame.

    The defaults suit an arm of about 0.85 m reach on a table at z = 0. None switches an optional gate off.
    Raises ConfigurationError when a value is not finite, not positive or contradicts another.
    """

    # Speed and acceleration of the tool centre point, and of the joints as a share of their own limits
    speed: float = 0.1
    acceleration: float = 0.5
    angular_speed: float = 0.5
    angular_acceleration: float = 2.0
    joint_velocity_scale: float = 0.2
    joint_acceleration_scale: float = 0.2
    # Where the tool centre point may be
    workspace: Box = (0.15, -0.6, 0.0, 0.9, 0.6, 0.9)
    keep_out: tuple[Box, ...] = ()
    table_height: float = 0.0
    table_clearance: float = 0.01
    path_tolerance: float = 0.003  # how far the path between accepted poses may pass the two borders above
    tilt: float | None = None  # largest angle between approach axis and straight down
    # What a predicted path may look like
    step_distance: float = 0.08
    step_angle: float = radians(25)
    confidence: float = 0.3
    prefix: int = 1
    start_distance: float = 0.01
    start_angle: float = radians(3)
    # Kinematics
    ik_distance: float = 0.001
    ik_angle: float = radians(0.5)
    joint_margin: float = 0.02
    joint_jump: float = 0.2
    # Condition number of the Jacobian, m and rad mixed: slower from the first on, refused beyond the second
    # (as moveit_servo does). An arm that lays something down far out stands at 60 to 90; joint speeds, joint
    # jumps and the deviation of the timed path are bounded anyway.
    condition_slow: float = 60.0
    condition_number: float = 150.0
    collision_margin: float = 0.003
    sample_distance: float = 0.005
    sample_angle: float = radians(2)
    deviation_distance: float = 0.002
    deviation_angle: float = radians(1)
    # Rest and age
    rest_velocity: float = 0.01  # rad/s, every joint
    joint_state_age: float = 0.1
    plan_age: float = 20.0  # from the exposure of the pair to the planning of the motion
    pair_skew: float = 0.034
    pair_age: float = 0.5
    future_tolerance: float = 0.005
    start_joint_tolerance: float = 0.01  # rad, between planning and execution
    pushed_joint_tolerance: float = 0.03  # rad, after the gripper acted, whose fingers push the arm about
    # Gripper
    stroke: float = 0.08
    opening_switch: float = 0.012
    standing_step: float = 0.03  # between two poses: less counts as standing, where alone the gripper acts
    opening_tolerance: float = 0.01
    missed_opening: float = 0.003
    # A box around whatever is held, in the tool frame: centre x, y, z, size x, y, z; None: as large as is seen
    held_box: Box | None = None
    dwell: float = 0.5
    release_reach: float = 0.015  # so far short of its place a held object may be let go, where there is no room
    retreat: float = 0.1  # after a missed grasp
    back_off: float = 0.05  # after a plan that cannot be executed or a motion that was held up
    # Sampling of the commanded trajectory
    period: float = 0.02

    def __post_init__(self) -> None:
        for field in fields(self):
            self._check_value(field.name, getattr(self, field.name))
        require(self.speed <= SPEED_CAP, f'speed should be at most {SPEED_CAP} m/s but got {self.speed}',
                ConfigurationError)
        for name in ('joint_velocity_scale', 'joint_acceleration_scale', 'confidence'):
            require(getattr(self, name) <= 1, f'{name} should be at most 1 but got {getattr(self, name)}',
                    ConfigurationError)
        require(self.condition_slow <= self.condition_number, f'condition_slow {self.condition_slow} should be at most '
                f'condition_number {self.condition_number}', ConfigurationError)
        require(self.prefix >= 1, f'prefix should be at least 1 but got {self.prefix}', ConfigurationError)
        require(self.opening_switch < self.stroke / 2,
                f'opening_switch {self.opening_switch} should be below half the stroke {self.stroke}',
                ConfigurationError)

    @staticmethod
    def _check_value(name: str, value: Any) -> None:
        if value is None:
            require(name in ('tilt', 'held_box'), f'{name} cannot be None', ConfigurationError)
            return
        if name == 'held_box':
            require(len(value) == 6 and all(map(isfinite, value)) and min(value[3:]) > 0, 'held_box should be centre '
                    f'x, y, z, then positive size x, y, z [m] but got {value}', ConfigurationError)
            return
        if name in ('workspace', 'keep_out'):
            for box in (value,) if name == 'workspace' else value:
                good = len(box) == 6 and all(map(isfinite, box)) and all(box[i] < box[i + 3] for i in range(3))
                require(good, f'{name} should be x, y, z min, then x, y, z max [m] but got {box}', ConfigurationError)
            return
        may_be_zero = name in ('table_height', 'table_clearance', 'joint_margin', 'collision_margin',
                               'confidence', 'future_tolerance', 'missed_opening', 'dwell')
        good = isfinite(value) and (value > 0 or (may_be_zero and value == 0) or name == 'table_height')
        require(good, f'{name} should be a finite positive number but got {value}', ConfigurationError)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MotionLimits:
        """Limits from plain values (parameters, a record); raises ConfigurationError on unknown names."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        require(not unknown, f'unknown limits {unknown}; known are {sorted(known)}', ConfigurationError)
        plain = dict(values)
        for name in ('workspace', 'held_box'):
            if plain.get(name) is not None:
                plain[name] = tuple(plain[name])
        if 'keep_out' in plain:
            plain['keep_out'] = tuple(tuple(box) for box in plain['keep_out'])
        return cls(**plain)
