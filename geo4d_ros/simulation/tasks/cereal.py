"""Cereal: push a standing cereal box under a shelf, and let go of it there."""

from __future__ import annotations

import numpy as np

from geo4d_ros.geometry.transforms import invert, make_transform, rotation_angle
from geo4d_ros.simulation import shapes
from geo4d_ros.simulation.colours import hue_colour
from geo4d_ros.simulation.tasks.base import Layout, Task, frame, rotation_z

HALF = np.array([0.05, 0.02, 0.075])  # depth, thickness, height: half sizes [m]
GRIP = np.array([-0.034, 0.0, 0.04])  # in the box: near its front edge, above the middle [m]
_PITCH = np.deg2rad(45)  # approach below the horizontal: the arm cannot come in level near its base
_BOARD_Z, _BOARD_HALF = 0.25, (0.08, 0.15)  # shelf board: height, half depth and half width [m]
_BOARD_SHIFT = 0.03  # the board's centre lies behind the goal, so the hand stays in front of it [m]
_HOVER, _LIFTED = 0.02, 0.05  # clearance of the box above the table when inserted, when carried [m]
_OUTSIDE = -0.22  # where the box lines up in front of the shelf, along the shelf's axis [m]


class CerealTask(Task):
    """A 10 x 4 x 15 cm box standing on the table; a shelf board on four posts, 25 cm high, 30 cm wide."""

    name = 'cereal'
    grip_width = 2 * HALF[1]
    standoff = 0.12
    transport_z = HALF[2] + _LIFTED
    retreat_z = 0.23
    goal_fixture = 'fixture_shelf'
    partners = ('apple',)
    seldom_served = True
    instructions = ('put the cereal box under the shelf', 'push the cereal under the shelf',
                    'move the cereal box to the shelf', 'slide the box of cereal onto the mat below the shelf',
                    'store the cereal under the board', 'the cereal box goes under the shelf',
                    'put the carton away under the shelf', 'cereal to shelf')
    unseen_instructions = ('please place the cereal box beneath the shelf', 'grab the cereal and store it in the shelf',
                           'get the carton of cereal under the board')

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Layout:
        while True:
            goal = np.array([rng.uniform(0.58, 0.70), rng.uniform(-0.22, 0.22)])
            goal_yaw = np.arctan2(goal[1], goal[0]) + rng.uniform(-np.pi / 6, np.pi / 6)
            start = np.array([rng.uniform(0.36, 0.58), rng.uniform(-0.28, 0.28)])
            if (rotation_z(goal_yaw)[:2, :2].T @ (start - goal))[0] < -0.17:  # in front of the shelf
                break
        yaw = 0.5 * np.arctan2(start[1], start[0]) + rng.uniform(-np.pi / 4, np.pi / 4)
        colours = {'box': hue_colour(rng, (0, 1), (0.6, 0.95), (0.55, 0.95)),
                   'label': hue_colour(rng, (0, 1), (0.0, 0.5), (0.8, 1.0)),
                   'shelf': hue_colour(rng, (0.05, 0.12), (0.2, 0.7), (0.35, 0.8)),
                   'mat': hue_colour(rng, (0.25, 0.8), (0.3, 0.7), (0.5, 0.9))}
        front = goal + _OUTSIDE * np.array([np.cos(goal_yaw), np.sin(goal_yaw)])
        return Layout(make_transform(rotation_z(yaw), np.array([*start, HALF[2]])),
                      make_transform(rotation_z(goal_yaw), np.array([*goal, 0])),
                      np.eye(4), colours, ((*start, 0.13), (*goal, 0.2), (*front, 0.16)))

    def assets(self) -> str:
        return ''

    def bodies(self) -> str:
        colours, T_goal, T = self.layout.colours, self.layout.T_goal, self.layout.T_object
        hx, hy = _BOARD_HALF
        posts = ''.join(
            shapes.box((_BOARD_SHIFT + i * (hx - 0.008), j * (hy - 0.008), _BOARD_Z / 2), (0.008, 0.008, _BOARD_Z / 2),
                       colours['shelf']) for i in (-1, 1) for j in (-1, 1))
        label = ''.join(
            shapes.box((0, j * (HALF[1] + 0.0002), 0.012), (0.034, 0.0004, 0.03), colours['label'],
                       'contype="0" conaffinity="0" mass="0"') for j in (-1, 1))
        band = shapes.box((0, 0, HALF[2] - 0.012), (HALF[0] + 0.0004, HALF[1] + 0.0004, 0.007), colours['label'],
                          'contype="0" conaffinity="0" mass="0"')
        return f'''
<body name="fixture_shelf" pos="{shapes.numbers(T_goal[:3, 3])}" quat="{_quat(T_goal)}">
 {shapes.box((_BOARD_SHIFT, 0, _BOARD_Z + 0.008), (hx, hy, 0.008), colours['shelf'])}{posts}
 {shapes.box((0, 0, 0.0005), (0.07, 0.06, 0.0005), colours['mat'], 'contype="0" conaffinity="0"')}
</body>
<body name="object" pos="{shapes.numbers(T[:3, 3])}" quat="{_quat(T)}"><freejoint name="object"/>
 {shapes.box((0, 0, 0), HALF, colours['box'], 'mass="0.15" condim="4" friction="0.5 0.01 0.001"')}{label}{band}
</body>'''

    def grasps(self, T_object: np.ndarray, T_gripper: np.ndarray) -> list[np.ndarray]:
        """From the front edge on the robot's side, 45 degrees down, fingers across the thin side."""
        x = T_object[:3, 0] if T_object[:3, 0] @ T_object[:3, 3] > 0 else -T_object[:3, 0]
        z = T_object[:3, 2]
        approach = np.cos(_PITCH) * x - np.sin(_PITCH) * z
        point = T_object[:3, 3] + GRIP[0] * x + GRIP[2] * z
        up = np.sin(_PITCH) * x + np.cos(_PITCH) * z
        return [make_transform(frame(sign * up, approach), point) for sign in (1, -1)]

    def release_pose(self, T_object: np.ndarray, T_gripper: np.ndarray) -> np.ndarray:
        forward = np.sign(T_object[:3, 0] @ T_gripper[:3, 2]) or 1.0
        R = self.layout.T_goal[:3, :3] @ np.diag([forward, forward, 1.0])
        return make_transform(R, np.array([*self.layout.T_goal[:2, 3], HALF[2] + 0.003]))

    def carry_waypoints(self, T_object: np.ndarray, T_release: np.ndarray) -> list[np.ndarray]:
        """Lift, line up in front of the shelf, slide in just above the table, down; back out if astray."""
        u, v, _ = invert(self.layout.T_goal)[:3] @ [*T_object[:3, 3], 1]
        z = T_object[2, 3] - HALF[2]
        aligned = abs(v) < 0.02 and rotation_angle(T_object, T_release) < 0.2
        inside = self._at(T_release, 0, 0, _HOVER)
        if aligned and u > _OUTSIDE - 0.02:
            if abs(u) < 0.012:
                return [T_release]
            lift = [self._at(T_object, u, v, _HOVER)] if z < _HOVER - 0.01 else []
            return [*lift, inside, T_release]
        outside = self._at(T_release, _OUTSIDE, 0, _LIFTED)
        if z < _LIFTED - 0.02:
            return [self._at(T_object, u, v, _LIFTED), outside, inside, T_release]
        if u > _OUTSIDE + 0.03 and abs(v) < 0.26:
            return [self._at(T_object, _OUTSIDE, v, _LIFTED), outside, inside, T_release]
        return [outside, inside, T_release]

    def _at(self, T: np.ndarray, u: float, v: float, clearance: float) -> np.ndarray:
        """T's rotation at (u, v) of the shelf's frame, `clearance` above the table."""
        position = self.layout.T_goal @ [u, v, HALF[2] + clearance, 1]
        return make_transform(T[:3, :3], position[:3])

    def detour(self, T_gripper: np.ndarray, T_pregrasp: np.ndarray, T_object: np.ndarray) -> list[np.ndarray]:
        """Straight up first when the straight line to the pre-grasp would run into the box."""
        return self.rise_if_blocked(T_gripper, T_pregrasp, T_object[:2, 3], 0.095, 2 * HALF[2] + 0.08)

    def retreat(self, T_gripper: np.ndarray) -> list[np.ndarray]:
        """Back along the approach: never up into the board."""
        if T_gripper[2, 3] > self.retreat_z - 0.01:
            return []
        slope = max(-T_gripper[2, 2], 0.3)
        back = (self.retreat_z - T_gripper[2, 3]) / slope
        return [T_gripper @ make_transform(None, np.array([0, 0, -back]))]

    def between_fingers(self, T_gripper: np.ndarray, T_object: np.ndarray) -> bool:
        x, y, z = invert(T_object)[:3] @ [*T_gripper[:3, 3], 1]
        return abs(x) < HALF[0] + 0.004 and abs(y) < 0.025 and abs(z) < HALF[2] + 0.004

    def footprint(self) -> tuple[tuple[float, float, float], ...]:
        T, (x, y) = self.layout.T_goal, self.layout.T_object[:2, 3]
        front = [(*(T @ [u, 0, 0, 1])[:2], r) for u, r in ((_OUTSIDE, 0.07), (0.5 * _OUTSIDE, 0.07))]
        posts = [(*(T @ [_BOARD_SHIFT, v, 0, 1])[:2], 0.09) for v in (-0.075, 0.075)]
        return ((x, y, 0.09), *front, *posts)

    def at_goal(self, T_object: np.ndarray) -> bool:
        u, v, _ = invert(self.layout.T_goal)[:3] @ [*T_object[:3, 3], 1]
        upright = T_object[2, 2] > np.cos(np.deg2rad(10))
        return bool(abs(u) < 0.05 and abs(v) < 0.06 and upright and T_object[2, 3] < HALF[2] + 0.006)


def _quat(T: np.ndarray) -> str:
    return shapes.yaw_quat(float(np.arctan2(T[1, 0], T[0, 0])))
