"""Whether a described robot can work in the cell: files, limits, kinematics, gripper, collisions; and a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from geo4d_ros.errors import Geo4dError, require
from geo4d_ros.geometry.cameras import Camera, intrinsics, look_at
from geo4d_ros.geometry.transforms import invert, make_transform
from geo4d_ros.motion.collision import CollisionChecker, Scene
from geo4d_ros.robots import mjcf
from geo4d_ros.robots.description import RobotDescription
from geo4d_ros.robots.finger_motion import find_pad, pad_gap
from geo4d_ros.robots.gripper import gripper_of
from geo4d_ros.robots.inverse_kinematics import ArmKinematics
from geo4d_ros.robots.kinematics import RobotModel

MARGIN_RAD, PAD_ERROR_M, MARGIN_M = 0.02, 0.002, 0.003
REACHED = 0.8  # share of the poses over the table that an arm for this cell gets to
_GRID = [(x, y, z) for x in (0.35, 0.5, 0.65) for y in (-0.25, 0.0, 0.25) for z in (0.05, 0.25)]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: whether it is good, and what was found or how to mend it."""

    name: str
    good: bool
    message: str


def check_robot(robot: RobotDescription) -> list[Finding]:
    """Everything that can be told without moving a real arm; a check that cannot run is a finding too."""
    checks: dict[str, Callable[[RobotDescription], str]] = {
        'meshes': _meshes, 'base': _base, 'joint limits': _limits, 'masses': _masses, 'kinematics': _kinematics,
        'tool frame': _tool_frame, 'gripper': _gripper, 'tracker shape': _tracker_shape, 'reach': _reach,
        'collisions': _collisions, 'simulation': _simulation}
    found = []
    for name, check in checks.items():
        try:
            found.append(Finding(name, True, check(robot)))
        except (Geo4dError, ValueError) as error:
            found.append(Finding(name, False, ' '.join(str(error).split())))
    return found


def _meshes(robot: RobotDescription) -> str:
    links = robot.urdf.links.values()
    files = {s.file for link in links for s in (*link.visuals, *link.collisions) if s.kind == 'mesh'}
    missing = sorted(file for file in files if not robot.mesh_path(file).is_file())
    require(not missing, f'{len(missing)} meshes are missing, {missing[0] if missing else ""} first')
    return f'{len(files)} files'


def _base(robot: RobotDescription) -> str:
    T = robot.urdf.link_poses({})[robot.base_frame]
    require(bool(np.allclose(T, np.eye(4))), f'base frame {robot.base_frame!r} should lie in the root link '
            f'{robot.urdf.root!r}: the simulated cell puts that on the table')
    return f'{robot.base_frame} to {robot.tool_frame}, {robot.dof} joints'


def _limits(robot: RobotDescription) -> str:
    lower, upper = robot.joint_limits
    for state in ('rest', 'posture'):
        room = np.minimum(np.array(getattr(robot, state)) - lower, upper - np.array(getattr(robot, state)))
        i = int(room.argmin())
        require(room[i] > MARGIN_RAD, f'{state}: {robot.joints[i]} is {room[i]:.3f} rad inside its limits, at least '
                f'{MARGIN_RAD} needed')
    return f'rest and posture are at least {MARGIN_RAD} rad inside'


def _masses(robot: RobotDescription) -> str:
    moved = {j.child for j in robot.urdf.joints if j.kind != 'fixed'}
    bare = sorted(name for name in moved if robot.urdf.links[name].inertial is None)
    require(not bare, f'links {bare} move and have no mass; give them an <inertial>')
    return f'{sum(link.inertial.mass for link in robot.urdf.links.values() if link.inertial):.1f} kg'


def _kinematics(robot: RobotDescription) -> str:
    kinematics, model, rng = ArmKinematics(robot), RobotModel.of(robot), np.random.default_rng(0)
    worst = 0.0
    for _ in range(20):
        q = rng.uniform(*robot.joint_limits)
        worst = max(worst, float(np.abs(kinematics.forward(q) - model.forward(q)).max()))
    require(worst < 1e-4, f'MuJoCo and Pinocchio place the tool {worst:.4f} apart; are all origins plain xyz and rpy?')
    return f'two libraries agree to {worst:.0e}'


def _tool_frame(robot: RobotDescription) -> str:
    pads = _pads(robot, robot.gripper.stroke)
    middle, apart = (pads[0] + pads[1]) / 2, pads[0] - pads[1]
    require(bool(np.abs(middle[:2]).max() < PAD_ERROR_M),
            f'the middle of the pads is at {middle.round(4).tolist()} m of the tool frame; it should lie on its z axis')
    require(bool(apart[1] > 0 and np.abs(apart[[0, 2]]).max() < PAD_ERROR_M),
            'the pads should open along y of the tool frame, the left one towards +y; from right to left is '
            f'{apart.round(4).tolist()} m')
    return f'in the middle of the pads, {middle[2] * 1e3:+.0f} mm from them along the approach when open'


def _pads(robot: RobotDescription, opening: float) -> list[np.ndarray]:
    """Centres (3,) of the left and the right pad in the tool frame."""
    poses = robot.urdf.link_poses(robot.finger_positions(opening))
    out = []
    for name in robot.gripper.pads:
        link, shape = find_pad(robot.urdf, name)
        out.append((invert(poses[robot.tool_frame]) @ poses[link] @ shape.origin.T)[:3, 3])
    return out


def _gripper(robot: RobotDescription) -> str:
    gripper, worst = robot.gripper, 0.0
    for opening in np.linspace(0.0, gripper.stroke, 9):
        gap = pad_gap(robot.urdf, robot.finger_positions(float(opening)), gripper.pads, robot.tool_frame)
        worst = max(worst, abs(gap - opening))
    require(worst < PAD_ERROR_M, f'the pads of the URDF are up to {worst * 1e3:.1f} mm off the opening; check stroke, '
            'pads and the mimic joints')
    return f'{gripper.kind}, 0 to {gripper.stroke * 1e3:.1f} mm, pads within {worst * 1e3:.2f} mm'


def _tracker_shape(robot: RobotDescription) -> str:
    gripper = gripper_of(robot)
    return f'{sum(len(f) for f in gripper.faces)} faces'


def _reach(robot: RobotDescription) -> str:
    kinematics = ArmKinematics(robot)
    down = np.diag([1.0, -1.0, -1.0])
    reached = sum(kinematics.solve_any(make_transform(down, np.array(p))).reached for p in _GRID)
    require(reached >= REACHED * len(_GRID), f'{reached} of {len(_GRID)} poses over the table are reached pointing '
            'down; the arm is too short or its rest pose on a wrong branch')
    return f'{reached} of {len(_GRID)} poses over the table'


def _collisions(robot: RobotDescription) -> str:
    checker = CollisionChecker(RobotModel.of(robot), Scene.table(), MARGIN_M)
    hit = checker.first_collision(robot.home[None])
    require(hit is None, f'at rest {hit.pair if hit else ""} touch; mend the shapes, or name the pair in the SRDF')
    near = checker.nearer_by_design
    return 'none at rest' + (f'; nearer than {MARGIN_M * 1e3:.0f} mm by design: {", ".join(near)}' if near else '')


def _simulation(robot: RobotDescription) -> str:
    model = _model(robot)
    data, n = mujoco.MjData(model), robot.dof
    data.ctrl[:n] = robot.home
    data.ctrl[n] = len(robot.gripper.joints) * robot.gripper.motion.position(robot.gripper.stroke)
    qpos = np.array([model.joint(name).qposadr[0] for name in robot.joints])
    data.qpos[qpos] = robot.home
    for _ in range(500):
        mujoco.mj_step(model, data)
    sag = float(np.abs(data.qpos[qpos] - robot.home).max())
    require(sag < 0.02, f'the servos do not hold the arm at rest: {sag:.3f} rad off after 1 s; raise simulation.servo')
    return f'servos hold to {sag * 1e3:.1f} mrad'


def _model(robot: RobotDescription) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(f'''<mujoco><compiler angle="radian" autolimits="true"/>
<option timestep="0.002" integrator="implicitfast"/><visual><global offwidth="1280" offheight="960"/></visual>
<default>{mjcf.defaults(robot)}</default><asset>{mjcf.assets(robot)}</asset>
<worldbody><light pos="1 -1 2" dir="-0.5 0.5 -1"/><geom type="plane" size="2 2 0.1" rgba="0.7 0.7 0.72 1"/>
{mjcf.body(robot)}</worldbody>{mjcf.drives(robot)}</mujoco>''')


def draw_robot(robot: RobotDescription, height: int = 480, width: int = 640) -> np.ndarray:
    """(H, 2 W, 3) uint8: the robot at rest with its gripper open, and from near by with it half shut."""
    from geo4d_ros.simulation.rendering import RgbdRenderer

    model = _model(robot)
    data, shots = mujoco.MjData(model), []
    tool = ArmKinematics(robot).forward(robot.home)[:3, 3]
    with RgbdRenderer(model, height, width) as renderer:
        for eye, target, share in (((1.5, -1.2, 0.9), (0.2, 0.0, 0.35), 1.0),
                                   (tool + np.array([0.25, -0.25, 0.12]), tool + np.array([0.0, 0.0, 0.05]), 0.5)):
            at = {**dict(zip(robot.joints, robot.home, strict=True)),
                  **robot.finger_positions(share * robot.gripper.stroke)}
            for name, position in at.items():
                data.qpos[model.joint(name).qposadr[0]] = position
            mujoco.mj_forward(model, data)
            camera = Camera(intrinsics(0.9 * width, width, height), look_at(np.array(eye), np.array(target)), width,
                            height)
            shots.append(renderer.render_many(data, (camera,))[0][0])
    return np.concatenate(shots, axis=1)
