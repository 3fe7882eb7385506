"""A URDF as plain values: links with their shapes, joints with their limits and mimics, and where links are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from scipy.spatial.transform import Rotation

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.geometry.transforms import make_transform

MOVING = ('revolute', 'prismatic', 'continuous')
Vector = tuple[float, ...]


@dataclass(frozen=True)
class Origin:
    """Where a child frame is in its parent's: xyz [m], rpy [rad] about the fixed axes."""

    xyz: Vector = (0.0, 0.0, 0.0)
    rpy: Vector = (0.0, 0.0, 0.0)

    @property
    def T(self) -> np.ndarray:
        """The same as (4, 4)."""
        return make_transform(Rotation.from_euler('xyz', self.rpy).as_matrix(), np.array(self.xyz))


@dataclass(frozen=True)
class Shape:
    """A visual or collision shape in its link's frame.

    kind: box (size: extents), cylinder (radius, length), sphere (radius) or mesh (scale; `file` as written).
    """

    kind: str
    size: Vector
    origin: Origin
    file: str = ''
    name: str = ''
    rgba: Vector = (0.8, 0.8, 0.8, 1.0)


@dataclass(frozen=True)
class Inertial:
    """Mass [kg], centre of mass and inertia (ixx, iyy, izz, ixy, ixz, iyz) [kg m2] about it."""

    mass: float
    origin: Origin
    inertia: Vector


@dataclass(frozen=True)
class Link:
    """A rigid body of the robot."""

    name: str
    inertial: Inertial | None
    visuals: tuple[Shape, ...]
    collisions: tuple[Shape, ...]


@dataclass(frozen=True)
class Joint:
    """A joint: limits [rad] or [m], velocity and effort; mimic: (joint, multiplier, offset)."""

    name: str
    kind: str
    parent: str
    child: str
    origin: Origin
    axis: Vector
    lower: float
    upper: float
    velocity: float
    effort: float
    mimic: tuple[str, float, float] | None = None


@dataclass(frozen=True)
class Urdf:
    """A robot's links by name, its joints in the order of the file, and the link that nothing carries."""

    links: Mapping[str, Link]
    joints: tuple[Joint, ...]
    root: str

    def joint(self, name: str) -> Joint:
        """The joint of that name; ConfigurationError lists what exists."""
        found = next((j for j in self.joints if j.name == name), None)
        if found is None:
            raise ConfigurationError(f'joint {name!r} is not in the robot description, which has '
                                     f'{[j.name for j in self.joints]}')
        return found

    def children(self, link: str) -> list[Joint]:
        """The joints that hang on a link."""
        return [j for j in self.joints if j.parent == link]

    def chain(self, base: str, tip: str) -> list[Joint]:
        """The joints from a link to another one below it, base first."""
        above, out = {j.child: j for j in self.joints}, []
        while tip != base:
            require(tip in above, f'link {tip!r} does not hang on {base!r}', ConfigurationError)
            out.append(above[tip])
            tip = above[tip].parent
        return out[::-1]

    def positions(self, given: Mapping[str, float]) -> dict[str, float]:
        """Positions of all moving joints: those given, those that mimic one of them, 0 for the rest."""
        out = {j.name: float(given.get(j.name, 0.0)) for j in self.joints if j.kind in MOVING}
        for _ in range(3):  # a mimic may follow a mimic
            for joint in self.joints:
                if joint.mimic is not None and joint.name not in given:
                    leader, multiplier, offset = joint.mimic
                    out[joint.name] = multiplier * out[leader] + offset
        return out

    def link_poses(self, given: Mapping[str, float]) -> dict[str, np.ndarray]:
        """T_root_link (4, 4) of every link at the given joint positions [rad or m]."""
        at, out, waiting = self.positions(given), {self.root: np.eye(4)}, [self.root]
        while waiting:
            parent = waiting.pop()
            for joint in self.children(parent):
                out[joint.child] = out[parent] @ joint.origin.T @ _motion(joint, at.get(joint.name, 0.0))
                waiting.append(joint.child)
        return out


def _motion(joint: Joint, position: float) -> np.ndarray:
    axis = np.array(joint.axis)
    if joint.kind == 'prismatic':
        return make_transform(None, position * axis)
    return make_transform(Rotation.from_rotvec(position * axis).as_matrix(), np.zeros(3))


def parse_urdf(text: str) -> Urdf:
    """Read URDF text. Raises ConfigurationError for what is no tree of links."""
    try:
        root = ElementTree.fromstring(text)
        colours = {m.attrib['name']: _numbers(m.find('color'), 'rgba', (0.8, 0.8, 0.8, 1.0))
                   for m in root.findall('material') if m.find('color') is not None}
        links = {e.attrib['name']: _link(e, colours) for e in root.findall('link')}
        joints = tuple(_joint(e) for e in root.findall('joint'))
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise ConfigurationError(f'the robot description cannot be read: {error!r}; run check_urdf on it') from error
    carried = {j.child for j in joints}
    missing = sorted({name for j in joints for name in (j.parent, j.child)} - set(links))
    require(not missing, f'the robot description has joints of links it lacks: {missing}', ConfigurationError)
    tops = [name for name in links if name not in carried]
    require(len(tops) == 1, f'the robot description should have one root link but has {tops}', ConfigurationError)
    return Urdf(links, joints, tops[0])


def _numbers(element: ElementTree.Element | None, name: str, default: Vector) -> Vector:
    if element is None or name not in element.attrib:
        return default
    return tuple(float(x) for x in element.attrib[name].split())


def _origin(element: ElementTree.Element) -> Origin:
    origin = element.find('origin')
    return Origin(_numbers(origin, 'xyz', (0.0, 0.0, 0.0)), _numbers(origin, 'rpy', (0.0, 0.0, 0.0)))


def _link(element: ElementTree.Element, colours: Mapping[str, Vector]) -> Link:
    inertial, body = element.find('inertial'), None
    if inertial is not None:
        mass, inertia = inertial.find('mass'), inertial.find('inertia')
        if mass is not None and inertia is not None:
            values = tuple(float(inertia.attrib[k]) for k in ('ixx', 'iyy', 'izz', 'ixy', 'ixz', 'iyz'))
            body = Inertial(float(mass.attrib['value']), _origin(inertial), values)
    return Link(element.attrib['name'], body, tuple(_shape(e, colours) for e in element.findall('visual')),
                tuple(_shape(e, {}) for e in element.findall('collision')))


def _shape(element: ElementTree.Element, colours: Mapping[str, Vector]) -> Shape:
    geometry = element.find('geometry')
    require(geometry is not None and len(geometry) == 1, 'a visual or collision lacks its geometry', ConfigurationError)
    body = geometry[0]  # type: ignore[index]
    size: dict[str, Callable[[], Vector]] = {
        'box': lambda: _numbers(body, 'size', ()), 'sphere': lambda: (float(body.attrib['radius']),),
        'cylinder': lambda: (float(body.attrib['radius']), float(body.attrib['length'])),
        'mesh': lambda: _numbers(body, 'scale', (1.0, 1.0, 1.0))}
    require(body.tag in size, f'unknown shape {body.tag!r}; known: {sorted(size)}', ConfigurationError)
    material = element.find('material')
    rgba: Vector = (0.8, 0.8, 0.8, 1.0)
    if material is not None:
        rgba = _numbers(material.find('color'), 'rgba', colours.get(material.attrib.get('name', ''), rgba))
    return Shape(body.tag, size[body.tag](), _origin(element), body.attrib.get('filename', ''),
                 element.attrib.get('name', ''), rgba)


def _joint(element: ElementTree.Element) -> Joint:
    limit, mimic = element.find('limit'), element.find('mimic')
    axis = np.array(_numbers(element.find('axis'), 'xyz', (1.0, 0.0, 0.0)))
    value = {k: float(limit.attrib.get(k, 0.0)) if limit is not None else 0.0
             for k in ('lower', 'upper', 'velocity', 'effort')}
    parent, child = element.find('parent'), element.find('child')
    require(parent is not None and child is not None, f'joint {element.attrib["name"]} lacks parent or child',
            ConfigurationError)
    follows = None if mimic is None else (mimic.attrib['joint'], float(mimic.attrib.get('multiplier', 1.0)),
                                          float(mimic.attrib.get('offset', 0.0)))
    return Joint(element.attrib['name'], element.attrib['type'], parent.attrib['link'],  # type: ignore[union-attr]
                 child.attrib['link'], _origin(element),  # type: ignore[union-attr]
                 tuple((axis / np.linalg.norm(axis)).tolist()), value['lower'], value['upper'], value['velocity'],
                 value['effort'], follows)
