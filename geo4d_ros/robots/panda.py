"""Franka Panda with its hand: one table of parameters, written out as MJCF and as URDF.

Kinematics and limits are those of Franka's data sheet (modified DH, FCI documentation); masses are
rounded public figures, inertias are rough, which is enough under gravity compensation. Frames:
`panda_link0` is the base, `panda_hand_tcp` lies between the finger tips, 0.1034 m ahead of the hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from geo4d_ros.robots.meshes import mesh_dir

HALF_PI = np.pi / 2
TCP_OFFSET = 0.1034  # hand -> tool centre point [m]
FINGER_OFFSET = 0.0584  # hand -> finger bodies [m]
MAX_OPENING = 0.08  # between the pads [m]
BASE_FRAME, TOOL_FRAME = 'panda_link0', 'panda_hand_tcp'
JOINT_NAMES = tuple(f'panda_joint{i}' for i in range(1, 8))
# Links between whose origins the arm is straight, base first; links 2 and 6 begin where links 1 and 5 do.
ARM_FRAMES = tuple(f'panda_{name}' for name in ('link0', 'link1', 'link3', 'link4', 'link5', 'link7', 'hand'))
FINGER_JOINT_NAMES = ('panda_finger_joint1', 'panda_finger_joint2')
# Arm pose at rest: gripper straight down, tool centre point 0.28 m above the table at x = 0.46.
HOME = np.array([0.0, -0.20235, 0.0, -2.42882, 0.0, 2.22647, np.pi / 4])


@dataclass(frozen=True)
class Joint:
    """One revolute joint: origin in the parent link (m, rad), limits (rad, rad/s, N m)."""

    xyz: tuple[float, float, float]
    roll: float
    lower: float
    upper: float
    velocity: float
    effort: float


@dataclass(frozen=True)
class Link:
    """Mass [kg], centre of mass [m], rough diagonal inertia [kg m2], collision capsules (a, b, radius) [m]."""

    mass: float
    com: tuple[float, float, float]
    inertia: tuple[float, float, float]
    capsules: tuple[tuple[tuple[float, float, float], tuple[float, float, float], float], ...] = ()


JOINTS = (
    Joint((0, 0, 0.333), 0, -2.8973, 2.8973, 2.175, 87),
    Joint((0, 0, 0), -HALF_PI, -1.7628, 1.7628, 2.175, 87),
    Joint((0, -0.316, 0), HALF_PI, -2.8973, 2.8973, 2.175, 87),
    Joint((0.0825, 0, 0), HALF_PI, -3.0718, -0.0698, 2.175, 87),
    Joint((-0.0825, 0.384, 0), -HALF_PI, -2.8973, 2.8973, 2.61, 12),
    Joint((0, 0, 0), HALF_PI, -0.0175, 3.7525, 2.61, 12),
    Joint((0.088, 0, 0), HALF_PI, -2.8973, 2.8973, 2.61, 12),
)
LINKS = (
    Link(2.8, (-0.04, 0, 0.05), (0.02, 0.02, 0.02), (((-0.09, 0, 0.06), (0, 0, 0.07), 0.07),)),
    Link(2.7, (0, -0.03, -0.07), (0.02, 0.02, 0.01), (((0, 0, -0.15), (0, 0, 0), 0.06),
                                                      ((0, -0.075, 0), (0, 0, 0), 0.06))),
    Link(2.7, (0, -0.07, 0.03), (0.02, 0.01, 0.02), (((0, 0, 0), (0, 0, 0.075), 0.06),
                                                     ((0, -0.14, 0), (0, 0, 0), 0.06))),
    Link(2.7, (0.04, 0.03, -0.03), (0.015, 0.015, 0.015), (((0, 0, -0.065), (0.03, 0, 0), 0.06),
                                                           ((0.0825, 0, 0), (0.0825, 0.055, 0), 0.058))),
    Link(2.4, (-0.04, 0.03, 0.03), (0.012, 0.012, 0.012), (((0, 0, 0), (0, 0, 0.055), 0.06),
                                                           ((-0.0825, 0, 0), (-0.0825, 0.068, 0), 0.058))),
    Link(2.4, (0, 0.04, -0.11), (0.02, 0.02, 0.005), (((0, 0, -0.21), (0, 0.03, -0.13), 0.058),
                                                      ((0, 0.06, -0.12), (0, 0.075, 0), 0.05))),
    Link(1.5, (0.05, 0, 0), (0.005, 0.005, 0.005), (((0, 0, 0), (0.088, 0, 0), 0.052),
                                                    ((0.088, 0, 0), (0.088, 0.03, 0), 0.05))),
    Link(0.7, (0.01, 0.01, 0.08), (0.002, 0.002, 0.002), (((0, 0, 0.065), (0.03, 0.03, 0.075), 0.042),)),
)
HAND = Link(0.73, (0, 0, 0.03), (0.0025, 0.001, 0.0017))
FINGER = Link(0.05, (0, 0.01, 0.03), (1e-5, 1e-5, 1e-5))
# Collision boxes (centre, half sizes) [m]; the pad is what grips, centred on the tool centre point.
HAND_BOX = ((0, 0, 0.02), (0.031, 0.1, 0.044))
FINGER_BOX = ((0, 0.016, 0.02), (0.010, 0.010, 0.018))
PAD_BOX = ((0, 0.005, 0.0445), (0.011, 0.005, 0.0095))
# Position servos (kp [N m/rad], kv [N m s/rad]) per joint.
SERVO_GAINS = ((4500, 180),) * 4 + ((2500, 70),) * 3
GRIPPER_FORCE = 45.0  # per finger [N]


def joint_limits() -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper limits (7,), (7,) [rad]."""
    return np.array([j.lower for j in JOINTS]), np.array([j.upper for j in JOINTS])


def _v(values: object) -> str:
    return ' '.join(f'{float(x):.9g}' for x in values)  # type: ignore[attr-defined]


def _quat(roll: float, yaw: float = 0.0) -> str:
    x, y, z, w = Rotation.from_euler('xyz', [roll, 0, yaw]).as_quat()
    return _v((w, x, y, z))


def _mjcf_visual(mesh: str, quat: str = '1 0 0 0') -> str:
    return f'<geom class="panda_visual" mesh="panda_{mesh}" quat="{quat}" material="panda_{mesh}"/>'


def _mjcf_inertial(link: Link) -> str:
    return f'<inertial mass="{link.mass}" pos="{_v(link.com)}" diaginertia="{_v(link.inertia)}"/>'


def _mjcf_box(box: tuple, kind: str, extra: str = '') -> str:
    return f'<geom class="{kind}" type="box" pos="{_v(box[0])}" size="{_v(box[1])}" {extra}/>'


def _mjcf_link(i: int, visual: bool, inner: str) -> str:
    link = LINKS[i]
    geoms = ''.join(f'<geom class="panda_collision" type="capsule" fromto="{_v(a)} {_v(b)}" size="{r}"/>'
                    for a, b, r in link.capsules)
    shape = _mjcf_visual(f'link{i}') if visual else ''
    if i == 0:
        return f'<body name="panda_link0" gravcomp="1">{_mjcf_inertial(link)}{shape}{inner}</body>'
    joint = JOINTS[i - 1]
    return (f'<body name="panda_link{i}" pos="{_v(joint.xyz)}" quat="{_quat(joint.roll)}" gravcomp="1">'
            f'{_mjcf_inertial(link)}<joint name="panda_joint{i}" class="panda_arm" '
            f'range="{joint.lower} {joint.upper}"/>{shape}{geoms}{inner}</body>')


def _mjcf_hand(visual: bool) -> str:
    fingers = ''
    for name, joint, yaw in (('left', 1, 0.0), ('right', 2, np.pi)):
        shape = _mjcf_visual('finger') if visual else ''
        pad = f'name="panda_{name}pad"'
        fingers += (f'<body name="panda_{name}finger" pos="0 0 {FINGER_OFFSET}" quat="{_quat(0, yaw)}" gravcomp="1">'
                    f'{_mjcf_inertial(FINGER)}<joint name="panda_finger_joint{joint}" class="panda_finger"/>{shape}'
                    f'{_mjcf_box(FINGER_BOX, "panda_collision")}'
                    f'{_mjcf_box(PAD_BOX, "panda_pad", pad)}</body>')
    return (f'<body name="panda_hand" pos="0 0 0.107" quat="{_quat(0, -np.pi / 4)}" gravcomp="1">'
            f'{_mjcf_inertial(HAND)}{_mjcf_visual("hand") if visual else ""}'
            f'{_mjcf_box(HAND_BOX, "panda_collision")}'
            f'<site name="{TOOL_FRAME}" pos="0 0 {TCP_OFFSET}" size="0.002" group="4"/>{fingers}</body>')


def mjcf_defaults() -> str:
    """MJCF default classes of the robot. Visual geoms are group 2, collision geoms group 3 (not rendered)."""
    return f'''<default class="panda_visual">
<geom type="mesh" group="2" contype="0" conaffinity="0" mass="0"/></default>
<default class="panda_collision"><geom group="3" contype="2" conaffinity="1" friction="0.8 0.01 0.001"
 rgba="0.8 0.3 0.3 0.4"/></default>
<default class="panda_pad"><geom group="3" contype="2" conaffinity="1" condim="4" friction="2.5 0.05 0.001"
 priority="1" solref="0.008 1" solimp="0.95 0.99 0.001" rgba="0.3 0.8 0.3 0.4"/></default>
<default class="panda_arm"><joint armature="0.15" damping="1" axis="0 0 1" limited="true"/></default>
<default class="panda_finger"><joint type="slide" axis="0 1 0" range="0 {MAX_OPENING / 2}" armature="0.1" damping="10"
 limited="true"/></default>'''


def mjcf_assets() -> str:
    """MJCF meshes (absolute paths into the cache) and their materials."""
    colours = {'link5': '0.93 0.94 0.95', 'link7': '0.85 0.87 0.9', 'hand': '0.9 0.91 0.93', 'finger': '0.25 0.26 0.3'}
    names = ['link0', 'link1', 'link2', 'link3', 'link4', 'link5', 'link6', 'link7', 'hand', 'finger']
    folder = mesh_dir()
    meshes = ''.join(f'<mesh name="panda_{n}" file="{folder / n}.stl" inertia="shell"/>' for n in names)
    return meshes + ''.join(f'<material name="panda_{n}" rgba="{colours.get(n, "0.95 0.96 0.97")} 1" specular="0.3"/>'
                            for n in names)


def mjcf_body(visual: bool = True) -> str:
    """The robot's MJCF body tree, base at the world origin."""
    inner = _mjcf_hand(visual)
    for i in range(7, -1, -1):
        inner = _mjcf_link(i, visual, inner)
    return inner


def mjcf_drives() -> str:
    """MJCF tendon, equality and actuators: 7 position servos [rad] and one opening servo [m]."""
    servos = ''.join(
        f'<position name="panda_joint{i + 1}" joint="panda_joint{i + 1}" kp="{kp}" kv="{kv}" '
        f'ctrlrange="{j.lower} {j.upper}" forcerange="-{j.effort} {j.effort}"/>'
        for i, (j, (kp, kv)) in enumerate(zip(JOINTS, SERVO_GAINS, strict=True)))
    return f'''<tendon><fixed name="panda_opening"><joint joint="panda_finger_joint1" coef="1"/>
<joint joint="panda_finger_joint2" coef="1"/></fixed></tendon>
<equality><joint joint1="panda_finger_joint1" joint2="panda_finger_joint2" solref="0.005 1"
 solimp="0.95 0.99 0.001"/></equality>
<actuator>{servos}<position name="panda_opening" tendon="panda_opening" kp="2500" kv="120"
 ctrlrange="0 {MAX_OPENING}" forcerange="-{GRIPPER_FORCE} {GRIPPER_FORCE}"/></actuator>'''


def _urdf_origin(xyz: object, rpy: object = (0, 0, 0)) -> str:
    return f'<origin xyz="{_v(xyz)}" rpy="{_v(rpy)}"/>'


def _urdf_capsule(a: tuple, b: tuple, radius: float) -> str:
    """URDF has no capsule: a cylinder with a sphere at each end."""
    start, end = np.array(a, float), np.array(b, float)
    length = float(np.linalg.norm(end - start))
    x, y, z = (end - start) / length
    cylinder = f'<cylinder radius="{radius}" length="{length:.9g}"/>'
    parts = [((start + end) / 2, (0, np.arccos(z), np.arctan2(y, x)), cylinder)]
    parts += [(p, (0, 0, 0), f'<sphere radius="{radius}"/>') for p in (start, end)]
    return ''.join(f'<collision>{_urdf_origin(xyz, rpy)}<geometry>{g}</geometry></collision>' for xyz, rpy, g in parts)


def _urdf_box(box: tuple) -> str:
    return (f'<collision>{_urdf_origin(box[0])}<geometry><box size="{_v(2 * np.array(box[1]))}"/></geometry>'
            '</collision>')


def _urdf_link(name: str, link: Link, mesh: str, collision: str) -> str:
    ixx, iyy, izz = link.inertia
    visual = (f'<visual><geometry><mesh filename="file://{mesh_dir() / mesh}.stl"/></geometry>'
              '<material name="white"/></visual>')
    return (f'<link name="{name}"><inertial>{_urdf_origin(link.com)}<mass value="{link.mass}"/>'
            f'<inertia ixx="{ixx}" ixy="0" ixz="0" iyy="{iyy}" iyz="0" izz="{izz}"/></inertial>'
            f'{visual}{collision}</link>')


def _urdf_joint(name: str, kind: str, parent: str, child: str, origin: str, rest: str = '') -> str:
    return (f'<joint name="{name}" type="{kind}">{origin}<parent link="{parent}"/><child link="{child}"/>'
            f'{rest}</joint>')


def urdf_text() -> str:
    """URDF of the same robot, for pinocchio and /robot_description; visual meshes by file:// path."""
    parts = ['<?xml version="1.0"?><robot name="panda">'
             '<material name="white"><color rgba="0.95 0.96 0.97 1"/></material>']
    for i, link in enumerate(LINKS):
        capsules = ''.join(_urdf_capsule(*c) for c in link.capsules)
        parts.append(_urdf_link(f'panda_link{i}', link, f'link{i}', capsules))
    for i, j in enumerate(JOINTS):
        limit = (f'<axis xyz="0 0 1"/><limit lower="{j.lower}" upper="{j.upper}" velocity="{j.velocity}" '
                 f'effort="{j.effort}"/>')
        parts.append(_urdf_joint(f'panda_joint{i + 1}', 'revolute', f'panda_link{i}', f'panda_link{i + 1}',
                                 _urdf_origin(j.xyz, (j.roll, 0, 0)), limit))
    parts.append(_urdf_link('panda_hand', HAND, 'hand', _urdf_box(HAND_BOX)))
    parts.append(_urdf_joint('panda_hand_joint', 'fixed', 'panda_link7', 'panda_hand',
                             _urdf_origin((0, 0, 0.107), (0, 0, -np.pi / 4))))
    parts.append(f'<link name="{TOOL_FRAME}"/>')
    parts.append(_urdf_joint('panda_hand_tcp_joint', 'fixed', 'panda_hand', TOOL_FRAME,
                             _urdf_origin((0, 0, TCP_OFFSET))))
    for side, number, yaw, mimic in (('left', 1, 0.0, ''), ('right', 2, np.pi, '<mimic joint="panda_finger_joint1"/>')):
        name = f'panda_{side}finger'
        parts.append(_urdf_link(name, FINGER, 'finger', _urdf_box(FINGER_BOX) + _urdf_box(PAD_BOX)))
        limit = (f'<axis xyz="0 1 0"/><limit lower="0" upper="{MAX_OPENING / 2}" velocity="0.2" '
                 f'effort="{GRIPPER_FORCE}"/>')
        parts.append(_urdf_joint(f'panda_finger_joint{number}', 'prismatic', 'panda_hand', name,
                                 _urdf_origin((0, 0, FINGER_OFFSET), (0, 0, yaw)), limit + mimic))
    return ''.join(parts) + '</robot>'
