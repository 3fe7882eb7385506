"""robosuite's Lift for geo4d_ros: its scene, joint controller, placement and reward behind the protocol of the cell."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import mujoco
import numpy as np

from geo4d_ros.geometry.transforms import make_transform
from geo4d_ros.robots.description import RobotDescription
from geo4d_ros.robots.inverse_kinematics import shared_kinematics
from geo4d_ros.robots.registry import load_robot
from geo4d_ros.simulation.cell import START_NOISE
from geo4d_ros.simulation.tasks.arrangement import ALONE, Arrangement
from geo4d_ros.simulation.tasks.base import Layout, Task, gripper_down, heading

BASE = np.array([-0.56, 0.0, 0.912])  # of the arm in robosuite's world; here it is the origin [m]
TABLE = np.array([0.56, 0.0, 0.0])  # middle of the table's top, raised to the base's height [m]
HALF = 0.021  # of the cube, about [m]
LIFTED, TO = 0.09, 0.14  # height at which the expert is content, and to which it lifts [m]
RATE = 250  # of the controller's goals [Hz]
STIFFNESS = 2500.0  # of robosuite's joint controller, critically damped [1/s^2]
_LAG = 2 / np.sqrt(STIFFNESS)  # behind a goal that moves [s]
# Part of the robot that a body is of, by the beginning of its name; the first that fits.
_PARTS = {'gripper0_right_leftfinger': 3, 'gripper0_right_finger_joint1': 3, 'gripper0_right_rightfinger': 4,
          'gripper0_right_finger_joint2': 4, 'gripper0': 2, 'robot0_right_hand': 2, 'robot0': 1, 'cube': 5}


class LiftTask(Task):
    """A cube of 4 cm, to be held 4 cm above the table or higher: robosuite's own measure."""

    name = 'lift'
    grip_width = 2 * HALF
    standoff = 0.12
    transport_z = TO
    retreat_z = 0.25
    goal_fixture = ''
    keeps_hold = True
    instructions = ('lift the cube', 'pick up the red cube')
    unseen_instructions = ('raise the cube from the table',)

    @staticmethod
    def cell(seed: int, start_noise: float = START_NOISE, arrangement: Arrangement = ALONE,
             robot: RobotDescription | None = None) -> LiftCell:
        """robosuite's environment in place of this package's."""
        return LiftCell(seed, arrangement, robot or load_robot())

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Layout:
        """robosuite places the cube; this only says where about."""
        T = make_transform(None, TABLE + np.array([0, 0, HALF]))
        return Layout(T, T, np.eye(4), {}, ())

    def assets(self) -> str:
        return ''

    def bodies(self) -> str:
        return ''

    def grasps(self, T_object: np.ndarray, T_gripper: np.ndarray) -> list[np.ndarray]:
        yaw = heading(T_object[:3, :3])
        return [make_transform(gripper_down(yaw + turn), T_object[:3, 3]) for turn in np.pi / 2 * np.arange(4)]

    def release_pose(self, T_object: np.ndarray, T_gripper: np.ndarray) -> np.ndarray:
        return make_transform(T_object[:3, :3], np.array([*T_object[:2, 3], TO]))

    def between_fingers(self, T_gripper: np.ndarray, T_object: np.ndarray) -> bool:
        return bool(np.linalg.norm(T_gripper[:3, 3] - T_object[:3, 3]) < HALF)

    def at_goal(self, T_object: np.ndarray) -> bool:
        return bool(T_object[2, 3] > LIFTED)

    def footprint(self) -> tuple[tuple[float, float, float], ...]:
        return ((float(TABLE[0]), float(TABLE[1]), 0.12),)


class LiftCell:
    """What `simulation.cell.Cell` is to the expert, the cameras and the loop, over a robosuite environment.

    The base frame is the world: robosuite's scene is moved so that the arm stands on the origin.
    """

    task = 'lift'

    def __init__(self, seed: int, arrangement: Arrangement, robot: RobotDescription) -> None:
        self.seed, self.arrangement, self.robot = int(seed), arrangement, robot
        self.spec = LiftTask(LiftTask.sample(np.random.default_rng(seed)))
        self._env = _environment(self.seed)
        self.model, self.data = self._env.sim.model._model, self._env.sim.data._data
        robot0 = self._env.robots[0]
        self._q, self._dq = robot0._ref_joint_pos_indexes, robot0._ref_joint_vel_indexes
        self._fingers = robot0._ref_gripper_joint_pos_indexes['right']
        self._cube = self._env.cube_body_id
        self._start, self._first = self.object_pose(), float(self.data.time)
        self._target, self.opening_command = self.joint_positions, self.stroke
        self.step(round(1.0 / self.dt))  # the fingers open, the cube comes to rest
        self._first = float(self.data.time)

    @property
    def time(self) -> float:
        return float(self.data.time) - self._first

    @property
    def dt(self) -> float:
        return float(self.model.opt.timestep)

    @property
    def stroke(self) -> float:
        return self.robot.gripper.stroke

    @property
    def joint_positions(self) -> np.ndarray:
        return self.data.qpos[self._q].copy()

    @property
    def joint_velocities(self) -> np.ndarray:
        return self.data.qvel[self._dq].copy()

    @property
    def opening(self) -> float:
        return float(np.clip(np.abs(self.data.qpos[self._fingers]).sum(), 0.0, self.stroke))

    @property
    def T_base_gripper(self) -> np.ndarray:
        return shared_kinematics(self.robot).forward(self.joint_positions)

    @property
    def arm_points(self) -> np.ndarray:
        return shared_kinematics(self.robot).arm_points(self.joint_positions)

    def object_pose(self, task: str | None = None) -> np.ndarray:
        return make_transform(self.data.xmat[self._cube].reshape(3, 3), self.data.xpos[self._cube])

    def object_poses(self, task: str | None = None) -> tuple[np.ndarray, ...]:
        return (self.object_pose(),)

    def moved_objects(self) -> dict[str, float]:
        return {self.task: float(np.linalg.norm(self.object_pose()[:3, 3] - self._start[:3, 3]))}

    def step(self, n: int = 1) -> None:
        """n steps of the physics, in those of robosuite's controller."""
        for _ in range(max(1, round(n * self.dt * RATE))):
            wider = self.opening_command - self.opening
            self._env.step(np.array([*self._target, 0.0 if abs(wider) < 0.002 else -np.sign(wider)]))
        mujoco.mj_forward(self.model, self.data)

    def set_joint_target(self, q: np.ndarray, velocity: np.ndarray | None = None) -> None:
        self._target = np.clip(q if velocity is None else q + _LAG * velocity, *self.robot.joint_limits)

    def set_opening_target(self, opening: float) -> None:
        self.opening_command = float(np.clip(opening, 0.0, self.stroke))

    def succeeded(self) -> bool:
        """robosuite's word."""
        return bool(self._env._check_success())

    def status(self) -> dict[str, Any]:
        return {'task': self.task, 'seed': self.seed, 'time': round(self.time, 4), 'success': self.succeeded(),
                'opening': self.opening, 'object_position': self.object_pose()[:3, 3].tolist()}

    def save_state(self) -> tuple[np.ndarray, np.ndarray, float]:
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        values = np.empty(mujoco.mj_stateSize(self.model, kind))
        mujoco.mj_getState(self.model, self.data, values, kind)
        return values, self._target.copy(), self.opening_command

    def restore_state(self, state: tuple[np.ndarray, np.ndarray, float]) -> None:
        mujoco.mj_setState(self.model, self.data, state[0], mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(self.model, self.data)
        self._target, self.opening_command = state[1].copy(), state[2]


def _environment(seed: int) -> Any:
    """Lift with a Panda, its goals absolute joint angles, its world around the arm's base."""
    from geo4d_robosuite.compatibility import import_robosuite

    robosuite = import_robosuite()
    from robosuite.environments.manipulation.lift import Lift
    from robosuite.utils.placement_samplers import UniformRandomSampler

    class LevelLift(Lift):
        """Its table as high as the arm's base, as in the cell of geo4d_ros."""

        def _load_model(self) -> None:
            self.table_offset = np.array([0.0, 0.0, BASE[2]])
            super()._load_model()
            self.model.mujoco_arena.table_offset = TABLE

    controller = robosuite.load_composite_controller_config(robot='Panda')
    controller['body_parts']['right'] = {
        'type': 'JOINT_POSITION', 'input_type': 'absolute', 'kp': STIFFNESS, 'damping_ratio': 1.0, 'input_max': 1,
        'input_min': -1, 'output_max': 1, 'output_min': -1, 'impedance_mode': 'fixed', 'kp_limits': [0, STIFFNESS],
        'damping_ratio_limits': [0, 10], 'qpos_limits': None, 'interpolation': None, 'ramp_ratio': 0.2,
        'gripper': {'type': 'GRIP'}}
    rng = np.random.default_rng([seed, 0x11F7])
    sampler = UniformRandomSampler('ObjectSampler', x_range=[-0.12, 0.06], y_range=[-0.18, 0.18], rotation=(-0.6, 0.6),
                                   ensure_object_boundary_in_range=False, reference_pos=TABLE, z_offset=0.01, rng=rng)
    environment = LevelLift(robots='Panda', controller_configs=controller, has_offscreen_renderer=False,
                            use_camera_obs=False, use_object_obs=False, control_freq=RATE, ignore_done=True,
                            placement_initializer=sampler, seed=seed)
    environment.set_xml_processor(_around_the_base)
    environment.reset()
    return environment


def _around_the_base(xml: str) -> str:
    """The scene with the arm's base as its origin, collision shapes out of sight, robot and cube labelled."""
    root = ElementTree.fromstring(xml)
    world = root.find('worldbody')
    assert world is not None
    for thing in world:
        if 'fromto' not in thing.attrib:
            at = np.array([float(x) for x in thing.get('pos', '0 0 0').split()]) - BASE
            thing.set('pos', ' '.join(f'{x:.9g}' for x in at))
    for geom in world.iter('geom'):
        if geom.get('group', '0') == '0':
            geom.set('group', '3')
    for compiler in root.iter('compiler'):
        if compiler.get('inertiagrouprange') == '0 0':
            compiler.set('inertiagrouprange', '3 3')
    for body in world.iter('body'):
        name = body.get('name', '')
        body.set('user', str(next((label for start, label in _PARTS.items() if name.startswith(start)), 0)))
    return ElementTree.tostring(root, encoding='unicode')
