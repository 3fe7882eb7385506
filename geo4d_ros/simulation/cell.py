"""The simulated cell: a robot arm at a table with the objects of one task or several, in MuJoCo.

Set MUJOCO_GL=egl in the environment before the first `import mujoco` when images are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import mujoco
import numpy as np

from geo4d_ros.errors import InvalidInputError, SimulationError, require
from geo4d_ros.geometry.transforms import from_rotvec, make_transform
from geo4d_ros.robots.description import RobotDescription
from geo4d_ros.robots.inverse_kinematics import shared_kinematics
from geo4d_ros.robots.registry import load_robot
from geo4d_ros.simulation import scene
from geo4d_ros.simulation.expert import Scene, stage_at_work
from geo4d_ros.simulation.feasibility import PathPoint, can_follow, joint_path, path_is_clear, pose_values
from geo4d_ros.simulation.tasks import Task, task_class
from geo4d_ros.simulation.tasks.arrangement import ALONE, Arrangement, draw_layouts
from geo4d_ros.simulation.tasks.base import gripper_down

_MAX_STARTS = 60
_START_BOX = ((0.32, -0.30, 0.12), (0.62, 0.30, 0.42))  # of the tool centre point in `random_start` [m]
_MAX_SCENES, _MAX_CROWDED_SCENES = 20, 60
_AWAY_X = -30.0  # where an absent object is: behind the robot, beyond every camera's far plane [m]
_GOAL_JITTER = 0.015  # of an object that is at its goal from the start [m]
_SETTLE_TIME = 1.0  # objects come to rest before time 0 [s]
START_NOISE = 0.06  # standard deviation of the start joints [rad]


@dataclass(frozen=True)
class CellState:
    """A snapshot of the physics: (n,) float64 of MuJoCo's integration state."""

    values: np.ndarray


class CellStatus(TypedDict):
    """The JSON of an episode so far: times [s], lengths [m], positions in the base frame."""

    task: str
    seed: int
    time: float
    success: bool
    object_at_goal: bool
    held: bool
    object_speed: float
    object_position: list[float]
    opening: float
    target: str
    others: list[str]


class Cell:
    """One scene of a task, drawn from `seed`; the same seed gives the same scene and the same physics.

    Units: metres, radians, seconds; base frame = world. Raises SimulationError for an unknown task.
    `start_noise` [rad] spreads the start joints around home. `arrangement`: other tasks' things on the table, and
    whether there is anything to do; the scene of two tasks is the same whichever of them is the instructed `task`.
    `robot`: None for the default one.
    """

    def __init__(self, task: str, seed: int, start_noise: float = START_NOISE,
                 arrangement: Arrangement = ALONE, robot: RobotDescription | None = None) -> None:
        task_class(task)
        self.robot = robot or load_robot()
        require(isinstance(seed, (int, np.integer)) and seed >= 0, f'seed should be an integer >= 0 but got {seed!r}')
        require(task not in (*arrangement.others, *arrangement.bystanders),
                f'{task!r} is the task itself; name others beside it')
        self.task, self.seed, self.arrangement = task, int(seed), arrangement
        self._served = sorted((task, *arrangement.others))
        names = (*self._served, *arrangement.bystanders)
        rng = np.random.default_rng([self.seed, *(sum(name.encode()) for name in names)])
        q_start = self.robot.home + start_noise * np.clip(rng.standard_normal(self.robot.dof), -2, 2)
        for _ in range(_MAX_SCENES if len(names) == 1 else _MAX_CROWDED_SCENES):
            self.specs = self._layouts(rng)
            self.spec: Task = self.specs[task]
            self._build(scene.build_xml(self.robot, self.specs, task, arrangement.bystanders, rng))
            self.place_robot(q_start, self.stroke)
            self.step(round(_SETTLE_TIME / self.dt))
            if self._comes_off_well():
                break
        else:
            raise SimulationError(f'task {task!r}, seed {seed}: no scene came to rest well; report this seed')
        if arrangement.target != 'present':
            self._leave_nothing_to_do(rng)
        self._start_poses = {name: self.object_poses(name) for name in self.specs}
        self.data.time = 0.0

    def _layouts(self, rng: np.random.Generator) -> dict[str, Task]:
        """First drawn layouts that the arm can serve from home."""
        home = self.robot.home
        T_home = shared_kinematics(self.robot).forward(home)

        def can_serve(task: Task) -> bool:
            seen = Scene(T_home, self.stroke, task.layout.T_object, self.stroke, task.layout.further)
            return can_follow(self.robot, task, seen, home)

        return draw_layouts(rng, self._served, self.arrangement.bystanders, can_serve)

    def _comes_off_well(self) -> bool:
        """Whether everything stands as meant and the expert can do each task without touching the others' things."""
        if self.robot_in_contact():
            return False
        for name in self._served:
            seen, stages = Scene.of(self, name), self.specs[name].stages()
            if not all(s.well_started(T) for s, T in zip(stages, self.object_poses(name), strict=True)):
                return False
            path = joint_path(self.robot, self.specs[name], seen, self.joint_positions)
            if path is None or (len(self.specs) > 1 and not self._keeps_clear(name, path)):
                return False
        return True

    def _keeps_clear(self, name: str, path: list[PathPoint]) -> bool:
        """Whether robot and carried object keep a distance from the other tasks' things all along the path."""
        before, address = self.save_state(), self._object_qpos(self._objects[name][0])
        robot = np.flatnonzero(np.isin(self.geom_labels, (1, 2, 3, 4)))
        carried = np.flatnonzero(np.isin(self.model.geom_bodyid, self._objects[name]))
        own = (5, 6) if name == self.task else scene.other_labels(name)
        others = np.flatnonzero((self.geom_labels >= 5) & ~np.isin(self.geom_labels, own))
        poses = (self._configuration(point, address) for point in path)
        clear = path_is_clear(self.model, self.data, poses, np.concatenate([robot, carried]), others)
        self.restore_state(before)
        return clear

    def _configuration(self, point: PathPoint, carried: int) -> np.ndarray:
        """qpos of one moment of a path; `carried` is where the object's free joint begins in it."""
        qpos = self.data.qpos.copy()
        qpos[self._joints], qpos[self._fingers] = point.q, self._finger_positions(point.opening)
        qpos[carried:carried + 7] = pose_values(point.T_object)
        return qpos

    def _finger_positions(self, opening: float) -> np.ndarray:
        return np.array(list(self.robot.finger_positions(opening).values()))

    def _leave_nothing_to_do(self, rng: np.random.Generator) -> None:
        """Take the instructed objects out of the scene, or put them at their goals and let them come to rest."""
        shift, done = None, self.arrangement.target == 'done'
        for i, (stage, body) in enumerate(zip(self.spec.stages(), self._objects[self.task], strict=True)):
            T = make_transform(None, np.array([_AWAY_X, float(i), 0.0]))
            if done:
                grasp = stage.grasps(self._pose(body), self.T_base_gripper)[int(rng.integers(0, 2)) - 1]
                T = stage.release_pose(self._pose(body), grasp)
                shift = rng.uniform(-_GOAL_JITTER, _GOAL_JITTER, 2) if shift is None else shift
                T[:2, 3] += shift
            address, dof = self._object_qpos(body), int(self.model.body_dofadr[body])
            self.data.qpos[address:address + 7] = pose_values(T)
            self.data.qvel[dof:dof + 6] = 0
        self.step(round(_SETTLE_TIME / self.dt))
        if done and not self._all_at_goal():
            raise SimulationError(f'task {self.task!r}, seed {self.seed}: the object does not stay at its goal')

    def _build(self, xml: str) -> None:
        self.model = mujoco.MjModel.from_xml_string(xml)
        self.data = mujoco.MjData(self.model)
        self.geom_labels = scene.geom_labels(self.model)
        self._tool = self.model.site(self.robot.tool_frame).id
        self._objects = {name: [self.model.body(s.body if name == self.task else scene.other_body(name, s.body)).id
                                for s in spec.stages()] for name, spec in self.specs.items()}
        self._joints = np.array([self.model.joint(n).qposadr[0] for n in self.robot.joints])
        self._dofs = np.array([self.model.joint(n).dofadr[0] for n in self.robot.joints])
        self._fingers = np.array([self.model.joint(n).qposadr[0] for n in self.robot.finger_joints])
        self._pads = {self.model.geom(name).id for name in self.robot.gripper.pads}
        self._lag = np.array([kv / kp for kp, kv in self.robot.drives.servo])

    # -- reading ---------------------------------------------------------------------------------

    @property
    def time(self) -> float:
        """Simulated time since the start [s]."""
        return float(self.data.time)

    @property
    def dt(self) -> float:
        """Physics step [s]."""
        return float(self.model.opt.timestep)

    @property
    def joint_positions(self) -> np.ndarray:
        """Arm joints (n,) [rad]."""
        return self.data.qpos[self._joints].copy()

    @property
    def joint_velocities(self) -> np.ndarray:
        """Arm joint speeds (n,) [rad/s]."""
        return self.data.qvel[self._dofs].copy()

    @property
    def finger_positions(self) -> np.ndarray:
        """All finger joints (k,) [m or rad], in the order of the robot's `finger_joints`."""
        return self.data.qpos[self._fingers].copy()

    @property
    def opening(self) -> float:
        """Distance between the pads [m], 0 to the stroke."""
        driven = len(self.robot.gripper.joints)
        return self.robot.gripper.motion.opening(float(self.finger_positions[:driven].sum()) / driven)

    @property
    def opening_command(self) -> float:
        """What the fingers' servo is told [m]."""
        gripper = self.robot.gripper
        return gripper.motion.opening(float(self.data.ctrl[self.robot.dof]) / len(gripper.joints))

    @property
    def stroke(self) -> float:
        """Widest opening [m]."""
        return self.robot.gripper.stroke

    @property
    def T_base_gripper(self) -> np.ndarray:
        """Tool centre point (4, 4) in the base frame; z is the approach, y the finger opening."""
        return make_transform(self.data.site_xmat[self._tool].reshape(3, 3), self.data.site_xpos[self._tool])

    @property
    def arm_points(self) -> np.ndarray:
        """Origins (J, 3) [m] of the robot's `arm_frames` in the base frame: the arm's skeleton."""
        return np.stack([self.data.body(name).xpos for name in self.robot.arm_frames])

    def object_pose(self, task: str | None = None) -> np.ndarray:
        """T_base_object (4, 4) of the instructed object, or of another task's on the table; of several that of the
        stage at work."""
        poses = self.object_poses(task)
        return poses[stage_at_work(self.specs[task or self.task], Scene.of(self, task))] if len(poses) > 1 else poses[0]

    def object_poses(self, task: str | None = None) -> tuple[np.ndarray, ...]:
        """T_base_object (4, 4) of the objects of all stages of the instructed task, or of another one on the table."""
        return tuple(self._pose(body) for body in self._objects[task or self.task])

    def _pose(self, body: int) -> np.ndarray:
        return make_transform(self.data.xmat[body].reshape(3, 3), self.data.xpos[body])

    def moved_objects(self) -> dict[str, float]:
        """How far [m] every task's object (the farthest one) is from where it stood at time 0."""
        return {name: max(float(np.linalg.norm(now[:3, 3] - T[:3, 3]))
                          for now, T in zip(self.object_poses(name), before, strict=True))
                for name, before in self._start_poses.items()}

    def _object_qpos(self, body: int) -> int:
        return int(self.model.jnt_qposadr[self.model.body_jntadr[body]])

    def object_speed(self) -> tuple[float, float]:
        """Speed of the instructed object [m/s] and [rad/s], of several the fastest."""
        starts = self.model.body_dofadr[self._objects[self.task]]
        v = np.stack([self.data.qvel[a:a + 6] for a in starts])
        return float(np.linalg.norm(v[:, :3], axis=1).max()), float(np.linalg.norm(v[:, 3:], axis=1).max())

    def _all_at_goal(self) -> bool:
        return all(stage.at_goal(T) for stage, T in zip(self.spec.stages(), self.object_poses(), strict=True))

    def touching(self) -> set[int]:
        """Which finger pads (geom ids) touch an object of the task."""
        touched = set()
        for contact in self.data.contact[:self.data.ncon]:
            for pad, other in ((contact.geom1, contact.geom2), (contact.geom2, contact.geom1)):
                if pad in self._pads and self.model.geom_bodyid[other] in self._objects[self.task]:
                    touched.add(int(pad))
        return touched

    def succeeded(self) -> bool:
        """Whether the object is at its goal, let go of, and at rest (simulator's state, never an estimate)."""
        linear, angular = self.object_speed()
        return bool(self._all_at_goal() and not self.touching() and linear < 0.03 and angular < 0.5)

    def status(self) -> CellStatus:
        """The episode so far."""
        linear, _ = self.object_speed()
        return {'task': self.task, 'seed': self.seed, 'time': round(self.time, 4), 'success': self.succeeded(),
                'object_at_goal': self._all_at_goal(), 'held': len(self.touching()) == 2,
                'object_speed': linear, 'object_position': self.object_pose()[:3, 3].tolist(),
                'opening': self.opening, 'target': self.arrangement.target,
                'others': [*self.arrangement.others, *self.arrangement.bystanders]}

    # -- acting ----------------------------------------------------------------------------------

    def step(self, n: int = 1) -> None:
        """Advance the physics by n steps of `dt`."""
        for _ in range(n):
            mujoco.mj_step(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)
        if not np.isfinite(self.data.qpos).all():
            raise SimulationError(f'the physics of task {self.task!r}, seed {self.seed} diverged; report this seed')

    def set_joint_target(self, q: np.ndarray, velocity: np.ndarray | None = None) -> None:
        """Servo targets (n,) [rad], clipped to the limits; a velocity (n,) [rad/s] cancels the servo lag."""
        q, n = np.asarray(q, dtype=np.float64), self.robot.dof
        if q.shape != (n,) or not np.isfinite(q).all():
            raise InvalidInputError(f'a joint target needs {n} finite angles but got {q!r}')
        if velocity is not None:
            q = q + self._lag * np.asarray(velocity, dtype=np.float64)
        self.data.ctrl[:n] = np.clip(q, *self.robot.joint_limits)

    def set_opening_target(self, opening: float) -> None:
        """Servo target of the pad distance [m], clipped to the stroke; one below the object's width squeezes it."""
        require(bool(np.isfinite(opening)), f'an opening should be finite but got {opening!r}')
        gripper = self.robot.gripper
        self.data.ctrl[self.robot.dof] = len(gripper.joints) * gripper.motion.position(opening)

    def place_robot(self, q: np.ndarray, opening: float) -> None:
        """Put the arm at q (n,) [rad] and the fingers at `opening` [m] at once, at rest, targets included."""
        self.data.qpos[self._joints] = q
        self.data.qpos[self._fingers] = self._finger_positions(opening)
        self.data.qvel[self._dofs] = 0
        self.set_joint_target(q)
        self.set_opening_target(opening)
        mujoco.mj_forward(self.model, self.data)

    def random_start(self, rng: np.random.Generator) -> None:
        """Put the robot anywhere sensible over the table instead of at home, the scene staying as it is.

        Tool centre point in x 0.32..0.62, y -0.3..0.3, z 0.12..0.42 m, yaw within 60 and tilt within 20 degrees;
        fingers open (60 %), closed or in between. Free of contact, and the expert can go on from there.
        """
        before = self.save_state()
        for _ in range(_MAX_STARTS):
            T = make_transform(_random_rotation(rng), rng.uniform(*_START_BOX))
            opening = float(rng.choice([self.stroke, 0.0, rng.uniform(0, self.stroke)], p=[0.6, 0.2, 0.2]))
            solution = shared_kinematics(self.robot).solve_any(T, self.joint_positions, seeds=3)
            if not solution.reached or np.linalg.norm(T[:3, 3] - self.object_pose()[:3, 3]) < 0.12:
                continue
            self.place_robot(solution.q, opening)
            if not self.robot_in_contact() and can_follow(self.robot, self.spec, Scene.of(self), solution.q):
                return
            self.restore_state(before)
        raise SimulationError(f'no free start for task {self.task!r}, seed {self.seed} in {_MAX_STARTS} draws')

    def robot_in_contact(self) -> bool:
        """Whether any part of the robot touches something."""
        contacts = self.data.contact[:self.data.ncon]
        return any(1 <= self.geom_labels[g] <= 4 for c in contacts for g in (c.geom1, c.geom2))

    # -- snapshots -------------------------------------------------------------------------------

    def save_state(self) -> CellState:
        """The physics as it is now; restoring it continues bit by bit the same."""
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        values = np.empty(mujoco.mj_stateSize(self.model, kind))
        mujoco.mj_getState(self.model, self.data, values, kind)
        return CellState(values)

    def restore_state(self, state: CellState) -> None:
        """Go back to a saved state of this same scene."""
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        size = mujoco.mj_stateSize(self.model, kind)
        if state.values.shape != (size,):
            raise InvalidInputError(f'this scene has a state of {size} numbers but got {state.values.shape}; '
                                    'restore only states of the same task and seed')
        mujoco.mj_setState(self.model, self.data, state.values, kind)
        mujoco.mj_forward(self.model, self.data)


def make_cell(task: str, seed: int, start_noise: float = START_NOISE, arrangement: Arrangement = ALONE,
              robot: RobotDescription | None = None) -> Any:
    """The cell of a task: a `Cell`, or what the task's own environment gives in its place."""
    return (task_class(task).cell or partial(Cell, task))(seed, start_noise, arrangement, robot)


def _random_rotation(rng: np.random.Generator) -> np.ndarray:
    axis = rng.uniform(-np.pi, np.pi)
    tilt = np.deg2rad(20) * np.sqrt(rng.uniform()) * np.array([np.cos(axis), np.sin(axis), 0])
    return from_rotvec(tilt)[:3, :3] @ gripper_down(rng.uniform(-np.pi / 3, np.pi / 3))


__all__ = ['START_NOISE', 'Cell', 'CellState', 'make_cell']
