"""Composes the cell's MJCF: robot, table, room, light, clutter and the objects of one task or several.

Rendering groups: 0 scene, 2 robot meshes, 3 collision shapes and 4 sites; draw 0-2 only.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

import mujoco
import numpy as np

from geo4d_ros.robots import mjcf
from geo4d_ros.robots.description import RobotDescription
from geo4d_ros.simulation import shapes
from geo4d_ros.simulation.colours import hue_colour
from geo4d_ros.simulation.tasks import BUILT_IN, TASKS, Task

LABELS = {'rest': 0, **mjcf.PARTS, 'object': 5, 'fixture': 6}
TIMESTEP = 0.002  # [s]


def other_body(task: str, body: str) -> str:
    """Name of a body (and of an object's joint) whose task is not the instructed one."""
    return f'other_{task}_{body}'


def other_labels(task: str) -> tuple[int, int]:
    """Labels of the object and the fixtures of a task that is not the instructed one.

    Readers take every label above 6 as part of the rest.
    """
    names = [*sorted(BUILT_IN), *sorted(set(TASKS) - set(BUILT_IN))]  # one task more leaves the others' labels
    return 10 + 2 * names.index(task), 11 + 2 * names.index(task)


def _label_of(body: str) -> int:
    if not body.startswith('other_'):
        return LABELS['object'] if body.startswith('object') else LABELS['fixture'] * body.startswith('fixture_')
    task = next(name for name in TASKS if body.startswith(other_body(name, '')))
    return other_labels(task)[not body.startswith(other_body(task, 'object'))]


def geom_labels(model: mujoco.MjModel) -> np.ndarray:
    """Label class (ngeom,) uint8 of every geom, by its body: of the robot's it is their user value; see LABELS."""
    labels = np.zeros(model.ngeom, np.uint8)
    for geom in range(model.ngeom):
        body = model.geom_bodyid[geom]
        part = int(model.body_user[body, 0])
        name = model.body(body).name
        labels[geom] = part or _label_of(name)
    return labels


def build_xml(robot: RobotDescription, specs: Mapping[str, Task], instructed: str, bystanders: tuple[str, ...],
              rng: np.random.Generator) -> str:
    """MJCF text of the whole cell; looks and clutter are drawn from rng.

    specs: layout of every task whose things stand there; the object of the `instructed` one is the body `object`;
    of the `bystanders` the goal is left out.
    """
    bodies = ''.join(_task_bodies(name, task, name == instructed, name not in bystanders)
                     for name, task in specs.items())
    return f'''<mujoco model="geo4d_cell">
<compiler angle="radian" autolimits="true"/>
<option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="10"/>
<size memory="8M"/>
<statistic center="0.45 0 0.1" extent="1.2"/>
<visual><map znear="0.02" zfar="12" fogstart="20" fogend="30"/><quality shadowsize="1024" offsamples="0"/>
<global offwidth="1280" offheight="960"/>{_headlight(rng)}</visual>
<default><geom friction="0.6 0.01 0.001" conaffinity="3"/>{mjcf.defaults(robot)}</default>
<asset>{_room_assets(rng)}{mjcf.assets(robot)}{''.join(task.assets() for task in specs.values())}</asset>
<worldbody>{_room(rng)}{mjcf.body(robot)}{bodies}{_clutter(list(specs.values()), rng)}</worldbody>
{mjcf.drives(robot)}
</mujoco>'''


def _task_bodies(name: str, task: Task, instructed: bool, with_goal: bool) -> str:
    """A task's bodies, the object renamed where another task is the instructed one."""
    if instructed:
        return task.bodies()
    root = ElementTree.fromstring(f'<bodies>{task.bodies()}</bodies>')
    for body in list(root):
        if body.get('name') == task.goal_fixture and not with_goal:
            root.remove(body)
            continue
        for part in (body, *body.findall('freejoint')):
            part.set('name', other_body(name, part.get('name', '')))
    return ''.join(ElementTree.tostring(body, encoding='unicode') for body in root)


def _headlight(rng: np.random.Generator) -> str:
    ambient, diffuse = rng.uniform(0.3, 0.45), rng.uniform(0.15, 0.35)
    return (f'<headlight ambient="{shapes.numbers([ambient] * 3)}" diffuse="{shapes.numbers([diffuse] * 3)}" '
            'specular="0.1 0.1 0.1"/>')


def _room_assets(rng: np.random.Generator) -> str:
    sky = hue_colour(rng, (0.5, 0.65), (0.1, 0.3), (0.75, 0.95))
    table = hue_colour(rng, (0.05, 0.14), (0.1, 0.55), (0.45, 0.85))
    grain = tuple(0.93 * c for c in table)
    floor = hue_colour(rng, (0, 1), (0.0, 0.12), (0.35, 0.6))
    tiles = tuple(0.85 * c for c in floor)
    return f'''<texture name="sky" type="skybox" builtin="gradient" rgb1="{shapes.numbers(sky)}" rgb2="0.92 0.93 0.95"
 width="128" height="768"/>
<texture name="table" type="2d" builtin="checker" rgb1="{shapes.numbers(table)}" rgb2="{shapes.numbers(grain)}"
 width="128" height="128"/>
<texture name="floor" type="2d" builtin="checker" rgb1="{shapes.numbers(floor)}" rgb2="{shapes.numbers(tiles)}"
 width="128" height="128"/>
<material name="table" texture="table" texrepeat="1 9" specular="0.1"/>
<material name="floor" texture="floor" texrepeat="8 8" specular="0.05"/>'''


def _room(rng: np.random.Generator) -> str:
    azimuth, elevation = rng.uniform(-np.pi, np.pi), np.deg2rad(rng.uniform(45, 80))
    away = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    strength = rng.uniform(0.35, 0.65)
    light = (f'<light type="directional" pos="{shapes.numbers(np.array([0.45, 0, 0]) + 2 * away)}" '
             f'dir="{shapes.numbers(-away)}" diffuse="{shapes.numbers([strength] * 3)}" specular="0.15 0.15 0.15" '
             'castshadow="true"/>')
    return f'''{light}
<geom name="floor" type="plane" pos="0 0 -0.75" size="6 6 0.1" material="floor"/>
<geom name="table" type="box" pos="0.42 0 -0.02" size="0.62 0.75 0.02" material="table"/>
<geom name="pedestal" type="box" pos="0.42 0 -0.395" size="0.35 0.45 0.354" rgba="0.4 0.42 0.45 1"/>'''


def _clutter(tasks: list[Task], rng: np.random.Generator) -> str:
    """Two to five small things that stand about, away from the tasks' own places and the robot's base."""
    taken = [*(circle for task in tasks for circle in task.layout.keep_out), (0.0, 0.0, 0.25), (0.46, 0.0, 0.1)]
    bodies = []
    for i in range(int(rng.integers(2, 6))):
        for _ in range(40):
            x, y = rng.uniform(0.25, 0.9), rng.uniform(-0.6, 0.6)
            if all(np.hypot(x - a, y - b) > r + 0.07 for a, b, r in taken):
                break
        else:
            continue
        taken.append((x, y, 0.04))
        half = rng.uniform(0.015, 0.035, 3)
        kind = rng.choice(['box', 'cylinder', 'ellipsoid'])
        if kind == 'cylinder':
            half = np.array([half[0], half[2], 0])
        z = half[1] if kind == 'cylinder' else half[2]
        bodies.append(f'<body name="clutter_{i}" pos="{shapes.numbers((x, y, z))}" '
                      f'quat="{shapes.yaw_quat(rng.uniform(-np.pi, np.pi))}"><geom type="{kind}" '
                      f'size="{shapes.numbers(half)}" rgba="{shapes.rgba(hue_colour(rng))}"/></body>')
    return ''.join(bodies)
