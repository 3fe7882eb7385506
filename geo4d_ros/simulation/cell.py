"""The simulated cell: a Panda at a table with one task's objects, in MuJoCo.

Set MUJOCO_GL=egl in the environment before the first `import mujoco` when images are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from geo4d_ros.errors import InvalidInputError, SimulationError, require
from geo4d_ros.geometry.transforms import from_rotvec, interpolate, make_transform
from geo4d_ros.robots import panda
from geo4d_ros.robots.inverse_kinematics import shared_kinematics
from geo4d_ros.simulation import scene
from geo4d_ros.simulation.expert import Scene, plan_segments
from geo4d_ros.simulation.tasks import Task, task_class
from geo4d_ros.simulation.tasks.base import gripper_down

_MAX_STARTS = 60
_START_BOX = ((0.32, -0.30, 0.12), (0.62, 0.30, 0.42))  # of the tool centre point in `random_start` [m]
_CHECK_PERIOD = 0.25  # between the poses checked for reachability [s]
_MAX_JOINT_STEP = 0.4  # between them [rad]
_JOINT_MARGIN = 0.06  # from the joint limits: an executor with gates of its own has to get there too [rad]
_MAX_CONDITION = 50.0  # of the Jacobian (m, rad)
_MAX_LAYOUTS, _MAX_SCENES = 200, 20
_SETTLE_TIME = 1.0  # objects come to rest before time 0 [s]
START_NOISE = 0.06  # standard deviation of the start joints [rad]


@dataclass(frozen=True)
class CellState:
    """A snapshot of the physics: (n,) float64 of MuJoCo's integration state."""

    values: np.ndarray


class Cell:
    """One scene of a task, drawn from `seed`; the same seed gives the same scene and the same physics.

    Units: metres, radians, seconds; base frame = world. Raises SimulationError for an unknown task.
    `start_noise` [rad] spreads the start joints around home.
    """

    def __init__(self, task: str, seed: int, start_noise: float = START_NOISE) -> None:
        kind = task_class(task)
        require(isinstance(seed, (int, np.integer)) and seed >= 0, f'seed should be an integer >= 0 but got {seed!r}')
        self.task, self.seed = task, int(seed)
        rng = np.random.default_rng([self.seed, sum(task.encode())])
        q_start = panda.HOME + start_noise * np.clip(rng.standard_normal(7), -2, 2)
        for _ in range(_MAX_SCENES):
            self.spec: Task = _reachable_layout(kind, rng)
            self._build(scene.build_xml(self.spec, rng))
            self.place_robot(q_start, panda.MAX_OPENING)
            self.step(round(_SETTLE_TIME / self.dt))
            seen = Scene.of(self)
            fine = self.spec.well_started(seen.T_object) and not self.robot_in_contact()
            if fine and can_follow(self.spec, seen, self.joint_positions):
                break
        else:
            raise SimulationError(f'task {task!r}, seed {seed}: no scene came to rest well; report this seed')
        self.data.time = 0.0

    def _build(self, xml: str) -> None:
        self.model = mujoco.MjModel.from_xml_string(xml)
        self.data = mujoco.MjData(self.model)
        self.geom_labels = scene.geom_labels(self.model)
        self._tool = self.model.site(panda.TOOL_FRAME).id
        self._object = self.model.body('object').id
        self._object_dof = int(self.model.body_dofadr[self._object])
        self._joints = np.array([self.model.joint(n).qposadr[0] for n in panda.JOINT_NAMES])
        self._dofs = np.array([self.model.joint(n).dofadr[0] for n in panda.JOINT_NAMES])
        self._fingers = np.array([self.model.joint(n).qposadr[0] for n in panda.FINGER_JOINT_NAMES])
        self._pads = {self.model.geom(f'panda_{side}pad').id for side in ('left', 'right')}
        self._lag = np.array([kv / kp for kp, kv in panda.SERVO_GAINS])

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
        """Arm joints (7,) [rad]."""
        return self.data.qpos[self._joints].copy()

    @property
    def joint_velocities(self) -> np.ndarray:
        """Arm joint speeds (7,) [rad/s]."""
        return self.data.qvel[self._dofs].copy()

    @property
    def finger_positions(self) -> np.ndarray:
        """Finger joints (2,) [m]; their sum is the opening."""
        return self.data.qpos[self._fingers].copy()

    @property
    def opening(self) -> float:
        """Distance between the pads [m], 0..0.08."""
        return float(np.clip(self.finger_positions.sum(), 0, panda.MAX_OPENING))

    @property
    def T_base_gripper(self) -> np.ndarray:
        """Tool centre point (4, 4) in the base frame; z is the approach, y the finger opening."""
        return make_transform(self.data.site_xmat[self._tool].reshape(3, 3), self.data.site_xpos[self._tool])

    @property
    def arm_points(self) -> np.ndarray:
        """Origins (7, 3) [m] of `panda.ARM_FRAMES` in the base frame: the arm's skeleton."""
        return np.stack([self.data.body(name).xpos for name in panda.ARM_FRAMES])

    def object_pose(self) -> np.ndarray:
        """T_base_object (4, 4)."""
        return make_transform(self.data.xmat[self._object].reshape(3, 3), self.data.xpos[self._object])

    def object_speed(self) -> tuple[float, float]:
        """Speed of the object [m/s] and [rad/s]."""
        v = self.data.qvel[self._object_dof:self._object_dof + 6]
        return float(np.linalg.norm(v[:3])), float(np.linalg.norm(v[3:]))

    def touching(self) -> set[int]:
        """Which finger pads (geom ids) touch the object."""
        touched = set()
        for contact in self.data.contact[:self.data.ncon]:
            for pad, other in ((contact.geom1, contact.geom2), (contact.geom2, contact.geom1)):
                if pad in self._pads and self.model.geom_bodyid[other] == self._object:
                    touched.add(int(pad))
        return touched

    def succeeded(self) -> bool:
        """Whether the object is at its goal, let go of, and at rest (simulator's state, never an estimate)."""
        linear, angular = self.object_speed()
        return bool(self.spec.at_goal(self.object_pose()) and not self.touching() and linear < 0.03 and angular < 0.5)

    def status(self) -> dict[str, Any]:
        """JSON-ready summary of the episode so far."""
        linear, _ = self.object_speed()
        return {'task': self.task, 'seed': self.seed, 'time': round(self.time, 4), 'success': self.succeeded(),
                'object_at_goal': bool(self.spec.at_goal(self.object_pose())), 'held': len(self.touching()) == 2,
                'object_speed': linear, 'object_position': self.object_pose()[:3, 3].tolist(),
                'opening': self.opening}

    # -- acting ----------------------------------------------------------------------------------

    def step(self, n: int = 1) -> None:
        """Advance the physics by n steps of `dt`."""
        for _ in range(n):
            mujoco.mj_step(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)
        if not np.isfinite(self.data.qpos).all():
            raise SimulationError(f'the physics of task {self.task!r}, seed {self.seed} diverged; report this seed')

    def set_joint_target(self, q7: np.ndarray, velocity: np.ndarray | None = None) -> None:
        """Servo targets (7,) [rad], clipped to the limits; a velocity (7,) [rad/s] cancels the servo lag."""
        q7 = np.asarray(q7, dtype=np.float64)
        if q7.shape != (7,) or not np.isfinite(q7).all():
            raise InvalidInputError(f'a joint target needs 7 finite angles but got {q7!r}')
        if velocity is not None:
            q7 = q7 + self._lag * np.asarray(velocity, dtype=np.float64)
        self.data.ctrl[:7] = np.clip(q7, *panda.joint_limits())

    def set_opening_target(self, opening: float) -> None:
        """Servo target of the pad distance [m], clipped to 0..0.08; a target below the object's width squeezes it."""
        require(bool(np.isfinite(opening)), f'an opening should be finite but got {opening!r}')
        self.data.ctrl[7] = np.clip(opening, 0, panda.MAX_OPENING)

    def place_robot(self, q7: np.ndarray, opening: float) -> None:
        """Put the arm at q7 (7,) [rad] and the fingers at `opening` [m] at once, at rest, targets included."""
        self.data.qpos[self._joints] = q7
        self.data.qpos[self._fingers] = np.clip(opening, 0, panda.MAX_OPENING) / 2
        self.data.qvel[self._dofs] = 0
        self.set_joint_target(q7)
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
            opening = float(rng.choice([panda.MAX_OPENING, 0.0, rng.uniform(0, panda.MAX_OPENING)], p=[0.6, 0.2, 0.2]))
            solution = shared_kinematics().solve_any(T, self.joint_positions, seeds=3)
            if not solution.reached or np.linalg.norm(T[:3, 3] - self.object_pose()[:3, 3]) < 0.12:
                continue
            self.place_robot(solution.q, opening)
            if not self.robot_in_contact() and can_follow(self.spec, Scene.of(self), solution.q):
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


def _reachable_layout(kind: type[Task], rng: np.random.Generator) -> Task:
    """First drawn layout that the arm can serve from home."""
    T_home = shared_kinematics().forward(panda.HOME)
    for _ in range(_MAX_LAYOUTS):
        task = kind(kind.sample(rng))
        if can_follow(task, Scene(T_home, panda.MAX_OPENING, task.layout.T_object), panda.HOME):
            return task
    raise SimulationError(f'no reachable layout of task {kind.name!r} in {_MAX_LAYOUTS} draws')


def _random_rotation(rng: np.random.Generator) -> np.ndarray:
    axis = rng.uniform(-np.pi, np.pi)
    tilt = np.deg2rad(20) * np.sqrt(rng.uniform()) * np.array([np.cos(axis), np.sin(axis), 0])
    return from_rotvec(tilt)[:3, :3] @ gripper_down(rng.uniform(-np.pi / 3, np.pi / 3))


def can_follow(task: Task, seen: Scene, q: np.ndarray) -> bool:
    """Whether the joints, from q (7,), can follow the expert's whole motion: no jump, limit or singularity."""
    kinematics = shared_kinematics()
    lower, upper = panda.joint_limits()
    for scene_now, segment in plan_segments(task, seen):
        steps = max(1, int(np.ceil(segment.duration / _CHECK_PERIOD)))
        for T in interpolate(scene_now.T_gripper, segment.T_gripper, np.arange(1, steps + 1) / steps):
            solution = kinematics.solve(T, q, iterations=25, rest=0.01)
            if not solution.reached or np.abs(solution.q - q).max() > _MAX_JOINT_STEP:
                return False
            q = solution.q
            if np.minimum(q - lower, upper - q).min() < _JOINT_MARGIN:
                return False
            if np.linalg.cond(kinematics.jacobian()) > _MAX_CONDITION:
                return False
    return True


__all__ = ['Cell', 'CellState', 'can_follow']
