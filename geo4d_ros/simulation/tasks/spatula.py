"""Spatula: pull it out of a crock and lay it on a mat."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from geo4d_ros.geometry.transforms import invert, make_transform, rotation_angle
from geo4d_ros.simulation import shapes
from geo4d_ros.simulation.colours import hue_colour
from geo4d_ros.simulation.tasks.base import Layout, Task, frame, rotation_z

# Object frame: origin where it is gripped, z along the handle to its top, x normal to the blade.
HANDLE_HALF, HANDLE_Z = np.array([0.008, 0.010, 0.0775]), -0.0425
BLADE_HALF, BLADE_Z = np.array([0.005, 0.030, 0.0425]), -0.1625
BOTTOM_Z = BLADE_Z - BLADE_HALF[2]
_MIDDLE_Z = -0.08
_PITCH = np.deg2rad(45)  # approach below the handle's normal plane
_CROCK_R, _CROCK_H, _FLOOR = 0.042, 0.09, 0.008
_MAT_HALF = (0.15, 0.07)
_OUT_Z = 0.315  # grip height at which the blade is clear of the crock [m]
_OVER_Z = 0.22  # grip height above the mat, spatula level [m]


class SpatulaTask(Task):
    """A 24 cm spatula, handle up, in a crock of 9 cm; a mat of 30 x 14 cm to lay it on."""

    name = 'spatula'
    grip_width = 2 * HANDLE_HALF[1]
    grip_slack = 0.006
    standoff = 0.12
    transport_z = _OUT_Z
    retreat_z = 0.24
    goal_fixture = 'fixture_mat'
    partners = ('apple',)
    instructions = ('lay the spatula on the mat', 'put the spatula on the mat', 'move the spatula to the mat',
                    'pull the spatula out of the crock and lay it on the mat', 'take the turner and lay it down',
                    'the spatula goes onto the mat', 'lay the kitchen tool flat on the mat', 'spatula to mat')
    unseen_instructions = ('please place the spatula onto the mat', 'grab the spatula and lay it flat',
                           'get the spatula from the crock onto the mat')

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Layout:
        side = rng.choice([-1.0, 1.0])
        while True:
            crock = np.array([rng.uniform(0.42, 0.62), side * rng.uniform(0.10, 0.32)])
            mat = np.array([rng.uniform(0.42, 0.62), -side * rng.uniform(-0.02, 0.28)])
            if np.linalg.norm(crock - mat) > 0.27:
                break
        yaw = 0.5 * np.arctan2(crock[1], crock[0]) + rng.uniform(-np.pi / 4, np.pi / 4)
        lean = Rotation.from_rotvec(np.deg2rad(6) * rng.uniform(-1, 1, 3) * [1, 1, 0]).as_matrix()
        R = lean @ rotation_z(yaw)
        bottom = np.array([*crock, _FLOOR + 0.004])
        mat_yaw = 0.5 * np.arctan2(mat[1], mat[0]) + rng.uniform(-np.pi / 4, np.pi / 4)
        colours = {'handle': hue_colour(rng, (0, 1), (0.5, 0.95), (0.3, 0.9)),
                   'blade': hue_colour(rng, (0, 1), (0.0, 0.4), (0.35, 0.8)),
                   'crock': hue_colour(rng, (0.0, 1.0), (0.05, 0.5), (0.5, 0.95)),
                   'mat': hue_colour(rng, (0.25, 0.95), (0.4, 0.8), (0.4, 0.85))}
        return Layout(make_transform(R, bottom - R @ [0, 0, BOTTOM_Z]),
                      make_transform(rotation_z(mat_yaw), np.array([*mat, 0])),
                      make_transform(None, np.array([*crock, 0])), colours, ((*crock, 0.14), (*mat, 0.2)))

    def assets(self) -> str:
        r, h = _CROCK_R, _CROCK_H
        return shapes.lathe_mesh('crock', [(0, 0), (r + 0.004, 0), (r + 0.009, 0.3 * h), (r + 0.006, h), (r, h),
                                           (r, _FLOOR), (0, _FLOOR)])

    def bodies(self) -> str:
        colours, T, T_goal = self.layout.colours, self.layout.T_object, self.layout.T_goal
        x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
        mat_yaw = np.arctan2(T_goal[1, 0], T_goal[0, 0])
        contact = 'condim="4" friction="0.5 0.01 0.001"'
        return f'''
<body name="fixture_crock" pos="{shapes.numbers(self.layout.T_container[:3, 3])}">
 <geom type="mesh" mesh="crock" rgba="{shapes.rgba(colours['crock'])}" contype="0" conaffinity="0"/>
 <geom type="cylinder" group="3" pos="0 0 {_FLOOR / 2}" size="{_CROCK_R} {_FLOOR / 2}"/>
 {shapes.round_wall((_CROCK_R, 0), (_CROCK_R, _CROCK_H), 0.007)}
</body>
<body name="fixture_mat" pos="{shapes.numbers(T_goal[:3, 3])}" quat="{shapes.yaw_quat(mat_yaw)}">
 {shapes.box((0, 0, 0.0006), (*_MAT_HALF, 0.0006), colours['mat'], 'contype="0" conaffinity="0"')}
</body>
<body name="object" pos="{shapes.numbers(T[:3, 3])}" quat="{shapes.numbers((w, x, y, z))}">
 <freejoint name="object"/>
 {shapes.box((0, 0, HANDLE_Z), HANDLE_HALF, colours['handle'], f'mass="0.05" {contact}')}
 {shapes.box((0, 0, BLADE_Z), BLADE_HALF, colours['blade'], f'mass="0.03" {contact}')}
</body>'''

    def grasps(self, T_object: np.ndarray, T_gripper: np.ndarray) -> list[np.ndarray]:
        """Across the blade's width, from the robot's side when it stands, from above when it lies."""
        x, z, p = T_object[:3, 0], T_object[:3, 2], T_object[:3, 3]
        outwards = np.array([*(p[:2] / np.linalg.norm(p[:2])), -1.0])
        x = x if x @ outwards > 0 else -x
        pitch = _PITCH * np.clip(z[2], 0, 1)
        approach = np.cos(pitch) * x - np.sin(pitch) * z
        up = np.sin(pitch) * x + np.cos(pitch) * z
        return [make_transform(frame(sign * up, approach), p) for sign in (1, -1)]

    def release_pose(self, T_object: np.ndarray, T_gripper: np.ndarray) -> np.ndarray:
        """Lying along the mat, the side the fingers came from up, its middle on the mat's middle."""
        side = np.sign(T_object[:3, 0] @ T_gripper[:3, 2]) or 1.0
        x, z = np.array([0, 0, -side]), self.layout.T_goal[:3, 0]
        R = np.column_stack([x, np.cross(z, x), z])
        middle = np.array([*self.layout.T_goal[:2, 3], HANDLE_HALF[0] + 0.014])
        return make_transform(R, middle - _MIDDLE_Z * z)

    def well_started(self, T_object: np.ndarray) -> bool:
        return bool(T_object[2, 2] > np.cos(np.deg2rad(18)))

    def settled(self, T_object: np.ndarray) -> np.ndarray:
        T = T_object.copy()
        T[2, 3] = HANDLE_HALF[0]
        return T

    def carry_waypoints(self, T_object: np.ndarray, T_release: np.ndarray) -> list[np.ndarray]:
        """Straight up out of the crock, turn it level on the way to above the mat, down."""
        off = np.linalg.norm(T_object[:2, 3] - T_release[:2, 3])
        if off < 0.02 and rotation_angle(T_object, T_release) < 0.2:
            return [T_release]
        over = T_release.copy()
        over[2, 3] = _OVER_Z
        lift = T_object.copy()
        if self._in_crock(T_object):
            lift[2, 3] = _OUT_Z
            return [lift, over, T_release]
        if T_object[2, 3] < _OVER_Z - 0.06 and T_object[2, 2] < 0.7:
            lift[2, 3] = _OVER_Z
            return [lift, over, T_release]
        return [over, T_release]

    def _in_crock(self, T_object: np.ndarray) -> bool:
        bottom = T_object[:3, :3] @ [0, 0, BOTTOM_Z] + T_object[:3, 3]
        near = np.linalg.norm(bottom[:2] - self.layout.T_container[:2, 3]) < _CROCK_R + 0.04
        return bool(near and T_object[2, 3] < _OUT_Z - 0.015 and bottom[2] < _CROCK_H + 0.01)

    def detour(self, T_gripper: np.ndarray, T_pregrasp: np.ndarray, T_object: np.ndarray) -> list[np.ndarray]:
        """Straight up first when the straight line to the pre-grasp would knock the handle."""
        top = T_object[2, 3] + (HANDLE_Z + HANDLE_HALF[2]) * T_object[2, 2]
        return self.rise_if_blocked(T_gripper, T_pregrasp, T_object[:2, 3], 0.06, top + 0.05)

    def between_fingers(self, T_gripper: np.ndarray, T_object: np.ndarray) -> bool:
        x, y, z = invert(T_object)[:3] @ [*T_gripper[:3, 3], 1]
        return abs(x) < HANDLE_HALF[0] + 0.008 and abs(y) < 0.02 and abs(z - HANDLE_Z) < HANDLE_HALF[2] + 0.004

    def footprint(self) -> tuple[tuple[float, float, float], ...]:
        T = self.layout.T_goal
        mat = [(*(T @ [u, 0, 0, 1])[:2], 0.075) for u in (-0.09, 0.0, 0.09)]
        return ((*self.layout.T_container[:2, 3], 0.08), *mat)

    def at_goal(self, T_object: np.ndarray) -> bool:
        T = invert(self.layout.T_goal) @ T_object
        middle = T[:3, :3] @ [0, 0, _MIDDLE_Z] + T[:3, 3]
        along = abs(T[0, 2]) > np.cos(np.deg2rad(35))
        on_mat = abs(middle[0]) < 0.08 and abs(middle[1]) < _MAT_HALF[1]
        return bool(on_mat and along and abs(T[2, 2]) < 0.2 and T[2, 3] < 0.035)
