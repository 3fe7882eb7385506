"""Reads a robot's YAML file with the URDF and SRDF that it names; every mistake is one line that says the mend."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict
from xml.etree import ElementTree

import numpy as np
import yaml

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.robots import finger_motion
from geo4d_ros.robots.description import (
    GRIPPER_KINDS,
    Controllers,
    GripperDescription,
    RobotDescription,
    SimulatedDrives,
)
from geo4d_ros.robots.meshes import MeshSource
from geo4d_ros.robots.urdf import Urdf, parse_urdf

_SECTIONS = {
    'robot': {'name', 'urdf', 'srdf', 'meshes', 'arm', 'gripper', 'controllers', 'simulation', 'checkpoint'},
    'meshes': {'package', 'folder', 'install', 'files'},
    'arm': {'group', 'base_frame', 'tool_frame', 'flange', 'joints', 'frames', 'rest', 'posture', 'acceleration',
            'planned_acceleration'},
    'gripper': {'kind', 'joints', 'stroke', 'function', 'pads', 'hand', 'left_finger', 'right_finger', 'half_turn',
                'shape', 'hand_hulls', 'finger_hulls'},
    'controllers': {'arm_action', 'gripper_action', 'gripper_type', 'moveit_group'},
    'simulation': {'servo', 'joint', 'finger', 'finger_servo', 'pad_friction'},
}


class _Section:
    """One mapping of the file; knows its name for the messages."""

    def __init__(self, values: Any, name: str, file: Path) -> None:
        require(isinstance(values, dict), f'{file}: {name} should be a mapping', ConfigurationError)
        unknown = sorted(str(k) for k in set(values) - _SECTIONS[name])
        require(not unknown, f'{file}: unknown key {unknown[0] if unknown else ""!r} in {name}; known: '
                f'{", ".join(sorted(_SECTIONS[name]))}', ConfigurationError)
        self.values, self.name, self.file = values, name, file

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def fail(self, key: str, wanted: str) -> ConfigurationError:
        got = f'got {self.values[key]!r}' if key in self else 'is missing'
        return ConfigurationError(f'{self.file}: {self.name}.{key} should be {wanted} but {got}')

    def text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self.fail(key, 'a text')
        return value

    def number(self, key: str, default: float | None = None) -> float:
        return self.numbers(key, 1, None if default is None else (default,))[0]

    def numbers(self, key: str, count: int, default: tuple[float, ...] | None = None) -> tuple[float, ...]:
        """One number stands for `count` equal ones."""
        value = self.values.get(key, default)
        wanted = 'a finite number' if count == 1 else f'{count} finite numbers'
        try:
            out = tuple(float(x) for x in (value if isinstance(value, (list, tuple)) else [value] * count))
        except (TypeError, ValueError):
            raise self.fail(key, wanted) from None
        if len(out) != count or not np.isfinite(out).all():
            raise self.fail(key, wanted)
        return out

    def names(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        value = self.values.get(key, default)
        if not isinstance(value, (list, tuple)) or not all(isinstance(x, str) for x in value):
            raise self.fail(key, 'a list of names')
        return tuple(value)

    def section(self, key: str) -> _Section:
        return _Section(self.values.get(key, {}), key, self.file)


def read_robot(file: Path) -> RobotDescription:
    """The robot of a YAML file (docs/tutorials/own_arm.md has every key). Raises ConfigurationError."""
    try:
        values = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f'robot description {file} cannot be read: {" ".join(str(error).split())}') from error
    robot = _Section(values, 'robot', file)
    urdf_source = _file(robot, 'urdf')
    urdf, srdf = parse_urdf(urdf_source), _srdf(robot)
    arm = _arm(robot.section('arm'), urdf, srdf)
    gripper = _gripper(robot.section('gripper'), urdf, arm['joints'], arm['tool_frame'])
    drives = _drives(robot.section('simulation'), len(arm['joints']))
    control = robot.section('controllers')
    defaults = Controllers()
    controllers = Controllers(*(control.text(k, getattr(defaults, k)) for k in
                                ('arm_action', 'gripper_action', 'gripper_type', 'moveit_group')))
    return RobotDescription(robot.text('name', file.stem), urdf_source, **arm, gripper=gripper, controllers=controllers,
                            drives=drives, never_touch=_never_touch(srdf), folder=file.parent, meshes=_meshes(robot),
                            checkpoint=robot.text('checkpoint', ''))


def _file(robot: _Section, key: str) -> str:
    path = robot.file.parent / robot.text(key)
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f'{robot.file}: {key} {path} cannot be read: {error}') from error


def _srdf(robot: _Section) -> ElementTree.Element:
    if 'srdf' not in robot:
        return ElementTree.Element('robot')
    try:
        return ElementTree.fromstring(_file(robot, 'srdf'))
    except ElementTree.ParseError as error:
        raise ConfigurationError(f'{robot.file}: the SRDF cannot be read: {error}') from error


def _never_touch(srdf: ElementTree.Element) -> tuple[tuple[str, str], ...]:
    return tuple((e.attrib['link1'], e.attrib['link2']) for e in srdf.findall('disable_collisions'))


class _ArmFields(TypedDict):
    """The arm's fields of `RobotDescription`."""

    base_frame: str
    flange: str
    tool_frame: str
    joints: tuple[str, ...]
    arm_frames: tuple[str, ...]
    rest: tuple[float, ...]
    posture: tuple[float, ...]
    acceleration: tuple[float, ...]
    planned_acceleration: float


def _arm(arm: _Section, urdf: Urdf, srdf: ElementTree.Element) -> _ArmFields:
    """The arm's part; the SRDF's group and states where the YAML names them."""
    chain = None
    if 'group' in arm:
        chain = srdf.find(f"group[@name='{arm.text('group')}']/chain")
        require(chain is not None or 'joints' in arm, f'{arm.file}: the SRDF has no group {arm.text("group")!r} with a '
                'chain; name arm.joints, base_frame and tool_frame instead', ConfigurationError)
    ends = {} if chain is None else {'base_frame': chain.attrib['base_link'], 'tool_frame': chain.attrib['tip_link']}
    base, tool = (arm.text(k, ends.get(k)) for k in ('base_frame', 'tool_frame'))
    for link in (base, tool):
        require(link in urdf.links, f'{arm.file}: link {link!r} is not in the URDF, which has {list(urdf.links)}',
                ConfigurationError)
    joints = arm.names('joints', tuple(j.name for j in urdf.chain(base, tool) if j.kind != 'fixed'))
    for name in joints:
        joint = urdf.joint(name)
        require(joint.kind == 'revolute' and joint.upper > joint.lower and joint.velocity > 0,
                f'{arm.file}: joint {name} should be revolute with limits and a velocity (it is {joint.kind})',
                ConfigurationError)
    on_the_way = [j.child for j in urdf.chain(base, tool)]
    flange = arm.text('flange', urdf.joint(joints[-1]).child)
    frames = arm.names('frames', (base, *(urdf.joint(n).child for n in joints)))
    for link in (flange, *frames[1:]):
        require(link in on_the_way, f'{arm.file}: link {link!r} is not on the way from {base!r} to {tool!r}',
                ConfigurationError)
    rest = _state(arm, 'rest', joints, srdf)
    posture = _state(arm, 'posture', joints, srdf) if 'posture' in arm else rest
    return {'base_frame': base, 'flange': flange, 'tool_frame': tool, 'joints': joints, 'arm_frames': frames,
            'rest': rest, 'posture': posture, 'acceleration': arm.numbers('acceleration', len(joints), (10.0,) *
                                                                          len(joints)),
            'planned_acceleration': arm.number('planned_acceleration', 10.0)}


def _state(arm: _Section, key: str, joints: tuple[str, ...], srdf: ElementTree.Element) -> tuple[float, ...]:
    """A list of angles, or the name of a group state of the SRDF."""
    value = arm.values.get(key)
    if not isinstance(value, str):
        return arm.numbers(key, len(joints))
    state = srdf.find(f"group_state[@name='{value}']")
    at = {} if state is None else {e.attrib['name']: float(e.attrib['value']) for e in state.findall('joint')}
    require(set(joints) <= set(at), f'{arm.file}: the SRDF has no group_state {value!r} of all arm joints',
            ConfigurationError)
    return tuple(at[name] for name in joints)


def _gripper(section: _Section, urdf: Urdf, arm: tuple[str, ...], tool_frame: str) -> GripperDescription:
    kind, joints, pads = section.text('kind'), section.names('joints'), section.names('pads')
    require(kind in GRIPPER_KINDS, f'{section.file}: gripper.kind should be one of {GRIPPER_KINDS} but got {kind!r}',
            ConfigurationError)
    require(len(pads) == 2, f'{section.file}: gripper.pads should name the left and the right pad', ConfigurationError)
    require(bool(joints) and not set(joints) & set(arm), f'{section.file}: gripper.joints should name finger joints',
            ConfigurationError)
    for name in joints:
        wanted = {'sliding': 'prismatic', 'swinging': 'revolute'}.get(kind)
        found = urdf.joint(name).kind
        require(wanted in (None, found), f'{section.file}: joint {name} is {found}, a {kind} gripper has {wanted} ones',
                ConfigurationError)
    links = {part: section.names(part) for part in ('hand', 'left_finger', 'right_finger')}
    for link in (x for names in links.values() for x in names):
        require(link in urdf.links, f'{section.file}: gripper link {link!r} is not in the URDF', ConfigurationError)
    pair = (pads[0], pads[1])
    for pad in pair:
        finger_motion.find_pad(urdf, pad)
    stroke = section.number('stroke') if 'stroke' in section or kind != 'swinging' else None
    if kind == 'sliding':
        motion = finger_motion.sliding(section.number('stroke'), joints)
    elif kind == 'swinging':
        motion = finger_motion.swinging(urdf, joints, pair, tool_frame, stroke)
    else:
        motion = finger_motion.named(section.text('function'), section.number('stroke'))
    hulls = {k: section.values[k] for k in ('hand_hulls', 'finger_hulls') if k in section}
    return GripperDescription(kind, joints, motion, pair, links['hand'], links['left_finger'], links['right_finger'],
                              bool(section.values.get('half_turn', True)), section.text('shape', ''), hulls)


def _drives(section: _Section, dof: int) -> SimulatedDrives:
    pairs = section.values.get('servo', [[3000.0, 120.0]] * dof)
    try:
        servo = tuple((float(kp), float(kv)) for kp, kv in pairs)
    except (TypeError, ValueError):
        raise section.fail('servo', f'{dof} pairs of kp and kv') from None
    if len(servo) != dof:
        raise section.fail('servo', f'{dof} pairs of kp and kv')
    own = {}
    for part in ('joint', 'finger'):
        for key in ('armature', 'damping'):
            if key in section.values.get(part, {}):
                own[f'{part}_{key}'] = float(section.values[part][key])
    kp, kv = section.numbers('finger_servo', 2, (2500.0, 120.0))
    friction = section.numbers('pad_friction', 3, (2.5, 0.05, 0.001))
    return SimulatedDrives(servo, (kp, kv), pad_friction=(friction[0], friction[1], friction[2]), **own)


def _meshes(robot: _Section) -> MeshSource | None:
    if 'meshes' not in robot:
        return None
    meshes = robot.section('meshes')
    try:
        files = tuple((str(name), str(v['file']), int(v['faces'])) for name, v in meshes.values['files'].items())
    except (KeyError, TypeError, ValueError, AttributeError):
        raise meshes.fail('files', 'NAME: {file: PATH, faces: COUNT} per mesh') from None
    return MeshSource(robot.text('name', robot.file.stem), meshes.text('package'), meshes.text('folder'),
                      meshes.text('install'), files)
