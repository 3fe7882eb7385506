"""Containers built in code: MJCF text for bowls, crocks, bins and shelves made of simple convex parts.

Names beginning with `fixture_` are labelled as fixtures (class 6) by `scene.geom_labels`.
"""

from __future__ import annotations

import itertools

import numpy as np

Colour = tuple[float, float, float]


def numbers(values: object) -> str:
    """Space-separated MJCF numbers."""
    return ' '.join(f'{float(x):.6g}' for x in np.ravel(np.asarray(values, dtype=float)))


def rgba(colour: Colour, alpha: float = 1.0) -> str:
    """MJCF rgba text of an RGB colour in [0, 1]."""
    return numbers((*colour, alpha))


def yaw_quat(yaw: float) -> str:
    """MJCF quaternion (w x y z) of a rotation about z [rad]."""
    return numbers((np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)))


def box(pos: object, half: object, colour: Colour, extra: str = '') -> str:
    """A visible, colliding box geom (centre, half sizes [m])."""
    return f'<geom type="box" pos="{numbers(pos)}" size="{numbers(half)}" rgba="{rgba(colour)}" {extra}/>'


def lathe_mesh(name: str, profile: list[tuple[float, float]], segments: int = 28) -> str:
    """MJCF mesh asset: the (radius, z) profile [m], from the axis outwards and back to it, turned about z."""
    vertices, rings = [], []
    for radius, z in profile:
        if radius < 1e-9:
            rings.append([len(vertices)] * segments)
            vertices.append((0, 0, z))
            continue
        angles = 2 * np.pi * np.arange(segments) / segments
        rings.append(list(range(len(vertices), len(vertices) + segments)))
        vertices += [(radius * np.cos(a), radius * np.sin(a), z) for a in angles]
    faces = []
    for low, high in itertools.pairwise(rings):
        for i in range(segments):
            j = (i + 1) % segments
            for face in ((low[i], low[j], high[j]), (low[i], high[j], high[i])):
                if len(set(face)) == 3:
                    faces.append(face)
    text = ' '.join(str(i) for face in faces for i in face)
    return f'<mesh name="{name}" vertex="{numbers(vertices)}" face="{text}" inertia="shell"/>'


def round_wall(bottom: tuple[float, float], top: tuple[float, float], thickness: float, staves: int = 16) -> str:
    """Hidden collision staves (group 3) between the inner (radius, z) of bottom and top [m]."""
    (r0, z0), (r1, z1) = bottom, top
    slope = np.hypot(r1 - r0, z1 - z0)
    along = np.array([(r1 - r0) / slope, 0, (z1 - z0) / slope])
    outward = np.array([along[2], 0, -along[0]])
    centre = np.array([(r0 + r1) / 2, 0, (z0 + z1) / 2]) + outward * thickness / 2
    half = (slope / 2, max(r0, r1) * np.tan(np.pi / staves), thickness / 2)
    geoms = []
    for i in range(staves):
        c, s = np.cos(2 * np.pi * i / staves), np.sin(2 * np.pi * i / staves)
        R = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        axes = np.concatenate([R @ along, R @ [0, 1, 0]])
        geoms.append(f'<geom type="box" group="3" pos="{numbers(R @ centre)}" size="{numbers(half)}" '
                     f'xyaxes="{numbers(axes)}"/>')
    return ''.join(geoms)


def open_box(inner: tuple[float, float], height: float, wall: float, colour: Colour) -> str:
    """Floor and four walls of a bin; inner half sizes and height [m], standing on z = 0 of its body."""
    hx, hy = inner
    z = height / 2
    return (box((0, 0, wall / 2), (hx + wall, hy + wall, wall / 2), colour)
            + ''.join(box((sign * (hx + wall / 2), 0, z), (wall / 2, hy + wall, z), colour) for sign in (-1, 1))
            + ''.join(box((0, sign * (hy + wall / 2), z), (hx, wall / 2, z), colour) for sign in (-1, 1)))
