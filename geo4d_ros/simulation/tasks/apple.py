"""Apple: take it out of a bowl and drop it into a bin."""

from __future__ import annotations

import numpy as np

from geo4d_ros.geometry.transforms import make_transform
from geo4d_ros.simulation import shapes
from geo4d_ros.simulation.colours import hue_colour
from geo4d_ros.simulation.tasks.base import Layout, Task, gripper_down, heading, rotation_z, wrap

RADIUS = 0.0275
_FLOOR = 0.008  # bowl floor [m]
_BIN_INNER, _BIN_HEIGHT, _BIN_WALL = 0.085, 0.085, 0.006
_MAX_YAW = np.deg2rad(50)


class AppleTask(Task):
    """An apple of 5.5 cm in a bowl of 20 cm; a square bin of 17 cm, anywhere else on the table."""

    name = 'apple'
    grip_width = 2 * RADIUS
    standoff = 0.13
    transport_z = 0.19
    retreat_z = 0.26
    goal_fixture = 'fixture_bin'
    partners = ('cereal', 'spatula')
    may_be_dropped = True
    instructions = ('put the apple into the bin', 'drop the apple in the bin', 'move the apple to the bin',
                    'take the apple out of the bowl and put it in the bin', 'pick up the red fruit and bin it',
                    'the apple goes into the box', 'throw the apple into the square bin', 'apple to bin')
    unseen_instructions = ('please place the apple inside the bin', 'grab the apple and let it fall into the bin',
                           'get the apple from the bowl into the box')

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Layout:
        while True:
            bowl = np.array([rng.uniform(0.38, 0.62), rng.uniform(-0.24, 0.24)])
            goal = np.array([rng.uniform(0.38, 0.62), rng.uniform(-0.28, 0.28)])
            if np.linalg.norm(bowl - goal) > 0.25:
                break
        angle, radius = rng.uniform(-np.pi, np.pi), 0.012 * np.sqrt(rng.uniform())
        apple = np.array([*(bowl + radius * np.array([np.cos(angle), np.sin(angle)])), _FLOOR + RADIUS])
        colours = {'apple': hue_colour(rng, (-0.03, 0.05), (0.75, 0.95), (0.65, 0.9)),
                   'bowl': hue_colour(rng, (0.1, 0.9), (0.05, 0.5), (0.6, 0.95)),
                   'bin': hue_colour(rng, (0.15, 0.8), (0.4, 0.8), (0.4, 0.85))}
        return Layout(make_transform(rotation_z(rng.uniform(-np.pi, np.pi)), apple),
                      make_transform(rotation_z(rng.uniform(-np.pi / 4, np.pi / 4)), np.array([*goal, 0])),
                      make_transform(None, np.array([*bowl, 0])), colours,
                      ((*bowl, 0.11), (*goal, 0.14)))

    def assets(self) -> str:
        return shapes.lathe_mesh('bowl', [(0, 0), (0.055, 0), (0.1, 0.05), (0.095, 0.05), (0.065, _FLOOR), (0, _FLOOR)])

    def bodies(self) -> str:
        layout, colours = self.layout, self.layout.colours
        bin_yaw = np.arctan2(layout.T_goal[1, 0], layout.T_goal[0, 0])
        apple_yaw = np.arctan2(layout.T_object[1, 0], layout.T_object[0, 0])
        return f'''
<body name="fixture_bowl" pos="{shapes.numbers(layout.T_container[:3, 3])}">
 <geom type="mesh" mesh="bowl" rgba="{shapes.rgba(colours['bowl'])}" contype="0" conaffinity="0"/>
 <geom type="cylinder" group="3" pos="0 0 {_FLOOR / 2}" size="0.07 {_FLOOR / 2}"/>
 {shapes.round_wall((0.065, _FLOOR), (0.095, 0.05), 0.005)}
</body>
<body name="fixture_bin" pos="{shapes.numbers(layout.T_goal[:3, 3])}" quat="{shapes.yaw_quat(bin_yaw)}">
 {shapes.open_box((_BIN_INNER, _BIN_INNER), _BIN_HEIGHT, _BIN_WALL, colours['bin'])}
</body>
<body name="object" pos="{shapes.numbers(layout.T_object[:3, 3])}" quat="{shapes.yaw_quat(apple_yaw)}">
 <freejoint name="object"/>
 <geom type="sphere" size="{RADIUS}" mass="0.12" condim="6" friction="0.9 0.02 0.004"
  rgba="{shapes.rgba(colours['apple'])}"/>
 <geom type="capsule" fromto="0 0 {RADIUS - 0.002} 0.004 0 {RADIUS + 0.008}" size="0.002" rgba="0.3 0.2 0.1 1"
  contype="0" conaffinity="0" mass="0"/>
</body>'''

    def grasps(self, T_object: np.ndarray, T_gripper: np.ndarray) -> list[np.ndarray]:
        """A ball may be gripped at any yaw: keep the wrist's, within what the arm does easily."""
        yaw = wrap(heading(T_gripper[:3, :3]))
        return [make_transform(gripper_down(float(np.clip(yaw, -_MAX_YAW, _MAX_YAW))), T_object[:3, 3])]

    def release_pose(self, T_object: np.ndarray, T_gripper: np.ndarray) -> np.ndarray:
        yaw = float(np.clip(heading(T_gripper[:3, :3]), -_MAX_YAW, _MAX_YAW))
        R = gripper_down(yaw) @ T_gripper[:3, :3].T @ T_object[:3, :3]
        x, y, _ = self.layout.T_goal[:3, 3]
        return make_transform(R, np.array([x, y, _BIN_HEIGHT + 0.01]))

    def between_fingers(self, T_gripper: np.ndarray, T_object: np.ndarray) -> bool:
        x, y, z = T_gripper[:3, :3].T @ (T_object[:3, 3] - T_gripper[:3, 3])
        return abs(x) < 0.018 and abs(y) < 0.03 and -0.02 < z < 0.02

    def footprint(self) -> tuple[tuple[float, float, float], ...]:
        return ((*self.layout.T_container[:2, 3], 0.1), (*self.layout.T_goal[:2, 3], 0.105))

    def at_goal(self, T_object: np.ndarray) -> bool:
        p = self.layout.T_goal[:3, :3].T @ (T_object[:3, 3] - self.layout.T_goal[:3, 3])
        return max(abs(p[0]), abs(p[1])) < _BIN_INNER and p[2] < _BIN_HEIGHT - RADIUS / 2
