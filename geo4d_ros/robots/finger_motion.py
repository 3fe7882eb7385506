"""How a gripper's opening follows from the position of its driven joints, whatever its mechanism."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.robots.urdf import Shape, Urdf

_STATIONS = 33  # of a curved motion: the straight pieces between are off by some 0.01 mm


@dataclass(frozen=True)
class FingerMotion:
    """Stations: openings (n,) [m] rising from 0 to the stroke, positions (n,) [m or rad] of the driven joints there.

    Straight pieces between the stations; two of them are exact for sliding fingers.
    """

    openings: tuple[float, ...]
    positions: tuple[float, ...]

    def __post_init__(self) -> None:
        openings, steps = np.array(self.openings), np.diff(self.positions)
        good = len(openings) >= 2 and len(openings) == len(self.positions) and openings[0] == 0.0
        require(bool(good and np.isfinite(openings).all() and (np.diff(openings) > 0).all()),
                f'openings should rise from 0 but are {self.openings}', ConfigurationError)
        require(bool(np.isfinite(steps).all() and ((steps > 0).all() or (steps < 0).all())),
                f'finger positions should rise or fall throughout but are {self.positions}', ConfigurationError)
        require(openings[-1] < 0.5, f'the stroke should be metres below 0.5 but is {openings[-1]}', ConfigurationError)

    @property
    def stroke(self) -> float:
        """Widest opening [m]."""
        return self.openings[-1]

    def position(self, opening: float) -> float:
        """Position of the driven joints at an opening [m], which is clipped to the stroke."""
        return float(np.interp(opening, self.openings, self.positions))

    def opening(self, position: float) -> float:
        """Opening [m] at a position of the driven joints, clipped to the stroke."""
        if self.positions[0] < self.positions[-1]:
            return float(np.interp(position, self.positions, self.openings))
        return float(np.interp(position, self.positions[::-1], self.openings[::-1]))

    def measured(self, position: float) -> float:
        """As `opening`, going straight on beyond the ends: a reading that cannot be stays one."""
        inside = float(np.clip(position, min(self.positions), max(self.positions)))
        end = 0 if inside == self.positions[0] else -2
        slope = (self.openings[end + 1] - self.openings[end]) / (self.positions[end + 1] - self.positions[end])
        return self.opening(inside) + (position - inside) * slope


def linear(scale: float, offset: float, stroke: float) -> FingerMotion:
    """opening = offset + scale * position."""
    require(scale != 0, 'the scale of the gripper joint should not be 0', ConfigurationError)
    return FingerMotion((0.0, stroke), ((0.0 - offset) / scale, (stroke - offset) / scale))


def sliding(stroke: float, joints: tuple[str, ...]) -> FingerMotion:
    """Fingers that share the opening evenly."""
    return FingerMotion((0.0, stroke), (0.0, stroke / len(joints)))


def swinging(urdf: Urdf, joints: tuple[str, ...], pads: tuple[str, str], tool_frame: str,
             stroke: float | None = None) -> FingerMotion:
    """Measured on the URDF: the distance of the pads' faces along y of the tool frame over the joints' range.

    stroke [m]: where the real gripper opens less far than its joints would allow.
    """
    joint = urdf.joint(joints[0])
    require(joint.upper > joint.lower, f'joint {joint.name} needs limits', ConfigurationError)
    position = np.linspace(joint.lower, joint.upper, 4 * _STATIONS)
    gap = np.array([pad_gap(urdf, {name: float(p) for name in joints}, pads, tool_frame) for p in position])
    if gap[0] > gap[-1]:
        position, gap = position[::-1], gap[::-1]
    require(bool((np.diff(gap) > 0).all()), f'the pads {pads} do not open steadily over the range of {joint.name}',
            ConfigurationError)
    widest = float(gap[-1]) if stroke is None else stroke
    require(max(gap[0], 0.0) < widest <= gap[-1] + 1e-3, f'the stroke {widest:.4f} m is not reached: the pads '
            f'open from {gap[0]:.4f} to {gap[-1]:.4f} m', ConfigurationError)
    openings = np.linspace(0.0, widest, _STATIONS)
    return FingerMotion(tuple(openings.tolist()), tuple(np.interp(openings, gap, position).tolist()))


def named(function: str, stroke: float) -> FingerMotion:
    """By a function `package.module:name` that gives the driven joints' position at an opening [m]."""
    module, _, name = function.partition(':')
    try:
        of: Callable[[float], float] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f'gripper function {function!r} cannot be found ({error}); write it as '
                                 'package.module:name') from error
    openings = np.linspace(0.0, stroke, _STATIONS)
    return FingerMotion(tuple(openings.tolist()), tuple(float(of(float(x))) for x in openings))


def pad_gap(urdf: Urdf, given: dict[str, float], pads: tuple[str, str], tool_frame: str) -> float:
    """Distance [m] of the two pads' inner faces along y of the tool frame at the given joint positions."""
    poses = urdf.link_poses(given)
    axis = poses[tool_frame][:3, 1]
    centres, halves = [], []
    for name in pads:
        link, shape = find_pad(urdf, name)
        T = poses[link] @ shape.origin.T
        centres.append(float(axis @ T[:3, 3]))
        halves.append(float(np.abs(axis @ T[:3, :3]) @ np.array(shape.size) / 2))
    return centres[0] - centres[1] - sum(halves)


def find_pad(urdf: Urdf, name: str) -> tuple[str, Shape]:
    """Link and collision box of a pad."""
    found = [(link.name, s) for link in urdf.links.values() for s in link.collisions if s.name == name]
    require(len(found) == 1 and found[0][1].kind == 'box',
            f'pad {name!r} should be the name of one collision box of the URDF', ConfigurationError)
    return found[0]
