"""Stack: the red block onto the mat, then the blue one on top of it. Two grasps, one after the other."""

from __future__ import annotations

import numpy as np

from geo4d_ros.geometry.transforms import make_transform
from geo4d_ros.simulation import shapes
from geo4d_ros.simulation.colours import hue_colour
from geo4d_ros.simulation.tasks.base import Layout, Task, gripper_down, heading, rotation_z

HALF = 0.02  # of both blocks [m]
_APART = 0.17  # blocks and mat from each other: the hand's width and something [m]
_MAX_YAW = np.deg2rad(35)


class StackTask(Task):
    """Two blocks of 4 cm and a mat of 14 cm. `index` is the block of this stage: 0 the red one, 1 the blue one."""

    name = 'stack'
    grip_width = 2 * HALF
    standoff = 0.12
    transport_z = 0.16
    retreat_z = 0.24
    goal_fixture = 'fixture_mat'
    instructions = ('stack the blue block on the red one on the mat',
                    'put the red block on the mat and the blue one on it',
                    'build a tower of both blocks on the mat', 'red block onto the mat, then the blue block on top')
    unseen_instructions = ('please make a tower on the mat, red below and blue above',
                           'place the blue cube on top of the red one, on the mat')

    def __init__(self, layout: Layout, index: int = 0) -> None:
        super().__init__(layout)
        self.index, self.body = index, ('object', 'object_blue')[index]
        self.start = (layout.T_object, *layout.further)[index]

    def stages(self) -> tuple[Task, ...]:
        return (self, StackTask(self.layout, 1)) if self.index == 0 else (self,)

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Layout:
        while True:
            red, blue, goal = (np.array([rng.uniform(0.38, 0.60), rng.uniform(-0.25, 0.25)]) for _ in range(3))
            if min(np.linalg.norm(a - b) for a, b in ((red, blue), (red, goal), (blue, goal))) > _APART:
                break
        T_red, T_blue = (make_transform(rotation_z(rng.uniform(-0.5, 0.5)), np.array([*place, HALF]))
                         for place in (red, blue))
        colours = {'red': hue_colour(rng, (-0.02, 0.02), (0.7, 0.95), (0.6, 0.9)),
                   'blue': hue_colour(rng, (0.57, 0.66), (0.6, 0.95), (0.55, 0.9)),
                   'mat': hue_colour(rng, (0.1, 0.45), (0.2, 0.6), (0.5, 0.9))}
        return Layout(T_red, make_transform(None, np.array([*goal, 0])), np.eye(4), colours,
                      ((*red, 0.12), (*blue, 0.12), (*goal, 0.14)), (T_blue,))

    def assets(self) -> str:
        return ''

    def bodies(self) -> str:
        colours, x_y_z = self.layout.colours, self.layout.T_goal[:3, 3]
        mat = shapes.box((0, 0, 0.0006), (0.07, 0.07, 0.0006), colours['mat'], 'contype="0" conaffinity="0"')
        blocks = ''.join(_block(stage, colours[colour])
                         for stage, colour in zip((self, StackTask(self.layout, 1)), ('red', 'blue'), strict=True))
        return f'<body name="fixture_mat" pos="{shapes.numbers(x_y_z)}">{mat}</body>{blocks}'

    def grasps(self, T_object: np.ndarray, T_gripper: np.ndarray) -> list[np.ndarray]:
        """From above, across either pair of sides, of those that the wrist turns to easily."""
        yaws = [heading(T_object[:3, :3]) + turn for turn in np.pi / 2 * np.arange(4)]
        easy = [yaw for yaw in yaws if abs(np.arctan2(np.sin(yaw), np.cos(yaw))) < np.pi / 4 + _MAX_YAW]
        return [make_transform(gripper_down(yaw), T_object[:3, 3]) for yaw in easy]

    def release_pose(self, T_object: np.ndarray, T_gripper: np.ndarray) -> np.ndarray:
        z = HALF * (1 + 2 * self.index) + 0.003
        return make_transform(T_object[:3, :3], np.array([*self.layout.T_goal[:2, 3], z]))

    def between_fingers(self, T_gripper: np.ndarray, T_object: np.ndarray) -> bool:
        return bool(np.linalg.norm(T_gripper[:3, 3] - T_object[:3, 3]) < HALF)

    def at_goal(self, T_object: np.ndarray) -> bool:
        """On the mat, or on the block that lies there: nothing else holds a block up so high."""
        off = np.abs(T_object[:2, 3] - self.layout.T_goal[:2, 3]).max()
        height = T_object[2, 3] - HALF * (1 + 2 * self.index)
        return bool(off < (0.03, 0.035)[self.index] and abs(height) < 0.006 and T_object[2, 2] > 0.97)

    def well_started(self, T_object: np.ndarray) -> bool:
        return bool(np.linalg.norm(T_object[:3, 3] - self.start[:3, 3]) < 0.02 and T_object[2, 2] > 0.97)

    def settled(self, T_object: np.ndarray) -> np.ndarray:
        T = T_object.copy()
        T[2, 3] = HALF * (1 + 2 * self.index)
        return T

    def footprint(self) -> tuple[tuple[float, float, float], ...]:
        places = (self.layout.T_object, *self.layout.further, self.layout.T_goal)
        return tuple((float(T[0, 3]), float(T[1, 3]), 0.09) for T in places)


def _block(stage: StackTask, colour: tuple[float, float, float]) -> str:
    T, shape = stage.start, shapes.box((0, 0, 0), (HALF, HALF, HALF), colour, 'mass="0.08" condim="4"')
    return (f'<body name="{stage.body}" pos="{shapes.numbers(T[:3, 3])}" '
            f'quat="{shapes.yaw_quat(float(np.arctan2(T[1, 0], T[0, 0])))}"><freejoint name="{stage.body}"/>'
            f'{shape}</body>')
