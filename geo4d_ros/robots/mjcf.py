"""A robot description as MJCF: its body tree, meshes and drives, for the simulated cell and for kinematics.

Visual shapes are geom group 2, collision shapes group 3 (not rendered); the tool frame is a site. Links keep their
names; the base stands on the world origin, and without collision shapes, since the table is right under it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.spatial.transform import Rotation

from geo4d_ros.robots.description import RobotDescription
from geo4d_ros.robots.urdf import Inertial, Joint, Link, Origin, Shape

PARTS = {'arm': 1, 'hand': 2, 'left_finger': 3, 'right_finger': 4}  # user value of a link's body: what it is part of
OPENING = 'opening'  # tendon and actuator: the sum of the driven finger joints
_ANGLES = np.pi / 12 * np.arange(-24, 25)


def defaults(robot: RobotDescription) -> str:
    """MJCF default classes of the robot."""
    d = robot.drives
    return f'''<default class="robot_visual">
<geom group="2" contype="0" conaffinity="0" mass="0"/></default>
<default class="robot_collision"><geom group="3" contype="2" conaffinity="1" friction="0.8 0.01 0.001"
 rgba="0.8 0.3 0.3 0.4"/></default>
<default class="robot_pad"><geom group="3" contype="2" conaffinity="1" condim="4" friction="{_v(d.pad_friction)}"
 priority="1" solref="0.008 1" solimp="0.95 0.99 0.001" rgba="0.3 0.8 0.3 0.4"/></default>
<default class="robot_arm"><joint armature="{d.joint_armature}" damping="{d.joint_damping}" limited="true"/></default>
<default class="robot_finger"><joint armature="{d.finger_armature}" damping="{d.finger_damping}"
 limited="true"/></default>'''


def assets(robot: RobotDescription) -> str:
    """MJCF meshes (absolute paths) and the materials of the visual shapes."""
    shapes = [s for link in robot.urdf.links.values() for s in link.visuals]
    hit = [s for link in robot.urdf.links.values() for s in link.collisions]
    used = {(s.file, s.size): s for s in [*shapes, *hit] if s.kind == 'mesh'}
    meshes = ''.join(f'<mesh name="{_mesh_name(s)}" file="{robot.mesh_path(s.file)}"{_scale(s)} inertia="shell"/>'
                     for s in used.values())
    colours = {_material_name(s): s.rgba for s in shapes}
    return meshes + ''.join(f'<material name="{name}" rgba="{_v(rgba)}" specular="0.3"/>'
                            for name, rgba in colours.items())


def body(robot: RobotDescription, shapes: bool = True) -> str:
    """The robot's MJCF body tree; without shapes it is good for kinematics only, and needs no meshes."""
    return _body(robot, robot.urdf.root, None, shapes)


def drives(robot: RobotDescription) -> str:
    """MJCF tendon, equalities and actuators: a position servo per arm joint [rad], one for the fingers' sum."""
    d, urdf, gripper = robot.drives, robot.urdf, robot.gripper
    servos = ''
    for name, (kp, kv) in zip(robot.joints, d.servo, strict=True):
        j = urdf.joint(name)
        servos += (f'<position name="{name}" joint="{name}" kp="{kp:g}" kv="{kv:g}" '
                   f'ctrlrange="{j.lower} {j.upper}" forcerange="-{j.effort} {j.effort}"/>')
    force = urdf.joint(gripper.joints[0]).effort
    ends = sorted(len(gripper.joints) * p for p in (gripper.motion.positions[0], gripper.motion.positions[-1]))
    coupled = ''.join(f'<joint joint="{name}" coef="1"/>' for name in gripper.joints)
    return f'''<tendon><fixed name="{OPENING}">{coupled}</fixed></tendon>
<equality>{''.join(_equalities(robot))}</equality>
<actuator>{servos}<position name="{OPENING}" tendon="{OPENING}" kp="{d.finger_servo[0]:g}" kv="{d.finger_servo[1]:g}"
 ctrlrange="{ends[0]} {ends[1]}" forcerange="-{force} {force}"/></actuator>'''


def _equalities(robot: RobotDescription) -> Iterable[str]:
    """Driven joints keep together, the others follow the URDF's mimic."""
    first = robot.gripper.joints[0]
    for joint in robot.urdf.joints:
        together = joint.name in robot.gripper.joints[1:]
        if joint.name in robot.joints or not (together or joint.mimic):
            continue
        leader, multiplier, offset = (first, 1.0, 0.0) if together or joint.mimic is None else joint.mimic
        poly = '' if (multiplier, offset) == (1.0, 0.0) else f' polycoef="{offset} {multiplier} 0 0 0"'
        pair = (leader, joint.name) if not poly else (joint.name, leader)
        yield (f'<joint joint1="{pair[0]}" joint2="{pair[1]}"{poly} solref="0.005 1"\n'
               ' solimp="0.95 0.99 0.001"/>')


def _body(robot: RobotDescription, name: str, joint: Joint | None, shapes: bool) -> str:
    link = robot.urdf.links[name]
    children = robot.urdf.children(name)
    if joint is not None and not children and joint.kind == 'fixed' and not (link.visuals or link.inertial):
        return f'<site name="{name}" {_place(joint.origin)} size="0.002" group="4"/>'
    inner = ''.join(_body(robot, j.child, j, shapes) for j in sorted(children, key=lambda j: j.kind != 'fixed'))
    place = '' if joint is None else _place(joint.origin)
    at_base = not any(j.kind != 'fixed' for j in robot.urdf.chain(robot.urdf.root, name))
    geoms = ''
    if shapes:
        geoms = ''.join(_visual(s) for s in link.visuals) + ('' if at_base else _collisions(robot, link))
    part = PARTS[robot.group_of(name)]
    return (f'<body name="{name}" {place} gravcomp="1" user="{part}">{_inertial(link.inertial)}{_joint(robot, joint)}'
            f'{geoms}{inner}</body>')


def _joint(robot: RobotDescription, joint: Joint | None) -> str:
    if joint is None or joint.kind == 'fixed':
        return ''
    kind = 'slide' if joint.kind == 'prismatic' else 'hinge'
    part = 'robot_arm' if joint.name in robot.joints else 'robot_finger'
    return (f'<joint name="{joint.name}" class="{part}" type="{kind}" axis="{_v(joint.axis)}" '
            f'range="{joint.lower} {joint.upper}"/>')


def _inertial(inertial: Inertial | None) -> str:
    if inertial is None or inertial.mass <= 0:
        return ''
    R = Rotation.from_euler('xyz', inertial.origin.rpy).as_matrix()
    ixx, iyy, izz, ixy, ixz, iyz = inertial.inertia
    full = R @ np.array([[ixx, ixy, ixz], [ixy, iyy, iyz], [ixz, iyz, izz]]) @ R.T
    if np.array_equal(full, np.diag(np.diag(full))):
        moments = f'diaginertia="{_v(np.diag(full))}"'
    else:
        moments = f'fullinertia="{_v([full[0, 0], full[1, 1], full[2, 2], full[0, 1], full[0, 2], full[1, 2]])}"'
    return f'<inertial mass="{inertial.mass}" pos="{_v(inertial.origin.xyz)}" {moments}/>'


def _visual(shape: Shape) -> str:
    return f'<geom class="robot_visual" {_geometry(shape)} {_place(shape.origin)} material="{_material_name(shape)}"/>'


def _collisions(robot: RobotDescription, link: Link) -> str:
    out, left = '', list(link.collisions)
    while left:
        shape = left.pop(0)
        pad = shape.name in robot.gripper.pads
        kind, name = 'robot_pad' if pad else 'robot_collision', f' name="{shape.name}"' if pad else ''
        ends = _capsule_ends(shape, left)
        if ends:
            left = left[2:]
            out += f'<geom class="{kind}" type="capsule" fromto="{_v(ends)}" size="{shape.size[0]}"/>'
        else:
            out += f'<geom class="{kind}"{name} {_geometry(shape)} {_place(shape.origin)}/>'
    return out


def _capsule_ends(shape: Shape, rest: list[Shape]) -> tuple[float, ...]:
    """Both ends where a cylinder is followed by a sphere of its radius at each end: a URDF's way to write a capsule."""
    if shape.kind != 'cylinder' or len(rest) < 2 or any(s.kind != 'sphere' for s in rest[:2]):
        return ()
    a, b = (np.array(s.origin.xyz) for s in rest[:2])
    fits = (all(s.size == shape.size[:1] for s in rest[:2])
            and abs(np.linalg.norm(b - a) - shape.size[1]) < 1e-6
            and np.abs((a + b) / 2 - shape.origin.xyz).max() < 1e-6)
    return (*a.tolist(), *b.tolist()) if fits else ()


def _geometry(shape: Shape) -> str:
    if shape.kind == 'mesh':
        return f'type="mesh" mesh="{_mesh_name(shape)}"'
    size = {'box': [x / 2 for x in shape.size], 'sphere': shape.size,
            'cylinder': (shape.size[0], shape.size[-1] / 2)}[shape.kind]
    return f'type="{shape.kind}" size="{_v(size)}"'


def _mesh_name(shape: Shape) -> str:
    return 'robot_' + shape.file.rsplit('.', 1)[0].replace('/', '_').replace(':', '_')


def _material_name(shape: Shape) -> str:
    return 'robot_' + '_'.join(f'{x:g}' for x in shape.rgba)


def _scale(shape: Shape) -> str:
    return '' if shape.size == (1.0, 1.0, 1.0) else f' scale="{_v(shape.size)}"'


def _place(origin: Origin) -> str:
    return f'pos="{_v(origin.xyz)}" quat="{_quat(origin.rpy)}"'


def _quat(rpy: Iterable[float]) -> str:
    """A right angle written with nine digits is meant as one."""
    angles = [_ANGLES[np.abs(_ANGLES - a).argmin()] if np.abs(_ANGLES - a).min() < 1e-8 else a for a in rpy]
    x, y, z, w = Rotation.from_euler('xyz', angles).as_quat()
    return _v((w, x, y, z))


def _v(values: Iterable[float]) -> str:
    return ' '.join(f'{float(x):.9g}' for x in values)
