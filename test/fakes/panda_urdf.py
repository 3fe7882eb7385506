"""A Panda with the datasheet's kinematics and primitive collision shapes, for the motion tests only."""

from math import pi

# name, parent, child, xyz, rpy, lower, upper, velocity (Franka datasheet)
_JOINTS = [
    ('panda_joint1', 'panda_link0', 'panda_link1', (0, 0, 0.333), (0, 0, 0), -2.8973, 2.8973, 2.175),
    ('panda_joint2', 'panda_link1', 'panda_link2', (0, 0, 0), (-pi / 2, 0, 0), -1.7628, 1.7628, 2.175),
    ('panda_joint3', 'panda_link2', 'panda_link3', (0, -0.316, 0), (pi / 2, 0, 0), -2.8973, 2.8973, 2.175),
    ('panda_joint4', 'panda_link3', 'panda_link4', (0.0825, 0, 0), (pi / 2, 0, 0), -3.0718, -0.0698, 2.175),
    ('panda_joint5', 'panda_link4', 'panda_link5', (-0.0825, 0.384, 0), (-pi / 2, 0, 0), -2.8973, 2.8973, 2.61),
    ('panda_joint6', 'panda_link5', 'panda_link6', (0, 0, 0), (pi / 2, 0, 0), -0.0175, 3.7525, 2.61),
    ('panda_joint7', 'panda_link6', 'panda_link7', (0.088, 0, 0), (pi / 2, 0, 0), -2.8973, 2.8973, 2.61),
]
_FIXED = [
    ('panda_joint8', 'panda_link7', 'panda_link8', (0, 0, 0.107), (0, 0, 0)),
    ('panda_hand_joint', 'panda_link8', 'panda_hand', (0, 0, 0), (0, 0, -pi / 4)),
    ('panda_hand_tcp_joint', 'panda_hand', 'panda_hand_tcp', (0, 0, 0.1034), (0, 0, 0)),
]
# link -> (cylinder length, radius) or box size, centre, rpy
_SHAPES = {
    'panda_link0': ((0.28, 0.10), (-0.04, 0, 0.06), (0, pi / 2, 0)),
    'panda_link1': ((0.20, 0.07), (0, 0, -0.13), (0, 0, 0)),
    'panda_link2': ((0.12, 0.07), (0, 0, 0), (0, 0, 0)),
    'panda_link3': ((0.15, 0.07), (0, 0, -0.145), (0, 0, 0)),
    'panda_link4': ((0.12, 0.07), (0, 0, 0), (0, 0, 0)),
    'panda_link5': ((0.20, 0.06), (0, 0, -0.26), (0, 0, 0)),
    'panda_link6': ((0.10, 0.05), (0, 0, -0.03), (0, 0, 0)),
    'panda_link7': ((0.14, 0.05), (0, 0, 0.01), (0, 0, 0)),
    'panda_hand': ((0.04, 0.20, 0.07), (0, 0, 0.04), (0, 0, 0)),
    'panda_leftfinger': ((0.02, 0.015, 0.05), (0, 0.0075, 0.028), (0, 0, 0)),
    'panda_rightfinger': ((0.02, 0.015, 0.05), (0, -0.0075, 0.028), (0, 0, 0)),
}
HOME = (0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785)


def _vector(v: tuple) -> str:
    return ' '.join(f'{x:.9g}' for x in v)


def _link(name: str) -> str:
    if name not in _SHAPES:
        return f'<link name="{name}"/>'
    size, xyz, rpy = _SHAPES[name]
    shape = f'<cylinder length="{size[0]}" radius="{size[1]}"/>' if len(size) == 2 else f'<box size="{_vector(size)}"/>'
    return (f'<link name="{name}"><collision><origin xyz="{_vector(xyz)}" rpy="{_vector(rpy)}"/>'
            f'<geometry>{shape}</geometry></collision></link>')


def urdf_text() -> str:
    """The URDF as text."""
    links = ['panda_link0', *(j[2] for j in _JOINTS), *(j[2] for j in _FIXED), 'panda_leftfinger', 'panda_rightfinger']
    parts = [_link(name) for name in links]
    for name, parent, child, xyz, rpy, lower, upper, velocity in _JOINTS:
        parts.append(f'<joint name="{name}" type="revolute"><parent link="{parent}"/><child link="{child}"/>'
                     f'<origin xyz="{_vector(xyz)}" rpy="{_vector(rpy)}"/><axis xyz="0 0 1"/>'
                     f'<limit lower="{lower}" upper="{upper}" velocity="{velocity}" effort="87"/></joint>')
    for name, parent, child, xyz, rpy in _FIXED:
        parts.append(f'<joint name="{name}" type="fixed"><parent link="{parent}"/><child link="{child}"/>'
                     f'<origin xyz="{_vector(xyz)}" rpy="{_vector(rpy)}"/></joint>')
    for i, (child, sign) in enumerate((('panda_leftfinger', 1), ('panda_rightfinger', -1)), start=1):
        parts.append(f'<joint name="panda_finger_joint{i}" type="prismatic"><parent link="panda_hand"/>'
                     f'<child link="{child}"/><origin xyz="0 0 0.0584" rpy="0 0 0"/><axis xyz="0 {sign} 0"/>'
                     f'<limit lower="0" upper="0.04" velocity="0.2" effort="20"/></joint>')
    return '<robot name="panda">' + ''.join(parts) + '</robot>'
