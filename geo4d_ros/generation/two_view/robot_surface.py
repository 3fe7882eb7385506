"""The robot as points on its visual meshes: where its links are at a gripper path, and how they look from a camera."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from functools import lru_cache
from pathlib import Path

import numpy as np
import pinocchio as pin
import torch
from scipy.spatial.transform import Rotation

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.geometry.transforms import invert, make_transform, transform_points
from geo4d_ros.robots.description import RobotDescription
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.robots.registry import DEFAULT, load_robot

SPACING_M = 0.004  # between points: about half a pixel of 96x128 images where the arm is
HAND_SPACING_M = 0.0028
ARM, HAND, FINGER = 1, 2, 3  # groups of links, numbered like the episode's labels
STATES_ITERATIONS = 40
OTHER_ROBOT_M = 0.03  # links that lie this far from where any posture puts them are not this robot's


class RobotSurface:
    """Points (N, 3) float32 [m] on the meshes of the moving links, in their links' frames, with the unit normals of
    their faces and, for shading, those smoothed over the vertices.

    bounds: link l has points bounds[l] to bounds[l + 1]; groups (L,): ARM, HAND or FINGER. The base link is left out:
    it does not move, so that its pixels are those of the resting scene.
    """

    def __init__(self, description: RobotDescription) -> None:
        urdf, arm_frames = description.urdf_text, description.arm_frames
        self.description, self.robot = description, RobotModel.of(description)
        self.full = pin.buildModelFromXML(urdf)
        self.data, self.arm_frames = self.full.createData(), arm_frames
        at = {name: self.full.joints[self.full.getJointId(name)].idx_q
              for name in (*description.joints, *description.finger_joints)}
        self._arm = np.array([at[name] for name in description.joints])
        self._fingers = np.array([at[name] for name in description.finger_joints])
        self._arm_ids = [self.full.getFrameId(name) for name in arm_frames]
        self._tool = self.full.getFrameId(self.robot.tool_frame)
        parts = [(name, *_sampled(vertices, faces, around, HAND_SPACING_M if self._group(name) > ARM else SPACING_M))
                 for name, vertices, faces, around in _visuals(urdf) if name != self.robot.base_frame]
        require(bool(parts), 'the robot description has no visual meshes; the generator draws the arm from them',
                ConfigurationError)
        self.links = tuple(part[0] for part in parts)
        self._link_ids = [self.full.getFrameId(name) for name in self.links]
        self.groups = np.array([self._group(name) for name in self.links])
        self.points, self.normals, self.smooth_normals = (
            torch.from_numpy(np.concatenate([p[i] for p in parts])) for i in (1, 2, 3))
        self.bounds = np.cumsum([0, *(len(p[1]) for p in parts)])
        self.link_of_point = torch.from_numpy(np.repeat(np.arange(len(parts)), np.diff(self.bounds)))

    def configuration(self, q: np.ndarray, opening: float) -> np.ndarray:
        """Positions (nq,) of all joints: the arm's q (n,) [rad], the fingers' at the opening [m]."""
        full = np.zeros(self.full.nq)
        full[self._arm] = q
        full[self._fingers] = list(self.description.finger_positions(opening).values())
        return full

    def _group(self, link: str) -> int:
        return {'arm': ARM, 'hand': HAND}.get(self.description.group_of(link), FINGER)

    def link_poses(self, q: np.ndarray, opening: np.ndarray) -> np.ndarray:
        """T_base_link (T, L, 4, 4) at joint positions (T, n) and openings (T,)."""
        out = np.empty((len(q), len(self.links), 4, 4))
        for i, (joints, width) in enumerate(zip(q, opening, strict=True)):
            pin.framesForwardKinematics(self.full, self.data, self.configuration(joints, width))
            out[i] = [self.data.oMf[frame].homogeneous for frame in self._link_ids]
        return out

    def locate(self, arm_points: np.ndarray, T_ref_gripper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """T_ref_base (4, 4) and joint positions (n,) [rad] from the measured origins of the links (J, 3) and the tool.

        The base's turn about its own vertical cannot be told from those (it adds to the first joint's): the one
        given back has the tool straight ahead. Damped least squares from the resting posture.
        """
        up = arm_points[1] - arm_points[0]
        up = up / np.linalg.norm(up)
        ahead = T_ref_gripper[:3, 3] - arm_points[0]
        ahead = ahead - (ahead @ up) * up
        ahead = ahead / np.linalg.norm(ahead)
        T_ref_base = make_transform(np.stack([ahead, np.cross(up, ahead), up], 1), arm_points[0])
        T_base_ref = invert(T_ref_base)
        goal, T_tool = transform_points(T_base_ref, arm_points), T_base_ref @ T_ref_gripper
        q = np.array(self.robot.posture)
        for _ in range(STATES_ITERATIONS):
            error, jacobian = self._residual(q, goal, T_tool)
            step = np.linalg.solve(jacobian.T @ jacobian + 1e-5 * np.eye(len(q)), jacobian.T @ error)
            step *= min(1.0, 0.4 / max(float(np.abs(step).max()), 1e-9))
            q = np.clip(q + step, self.robot.lower, self.robot.upper)
            if np.abs(step).max() < 1e-5:
                break
        off = float(np.abs(self._residual(q, goal, T_tool)[0]).max())
        require(off < OTHER_ROBOT_M, f'the measured links fit no posture of {self.description.name} (off by '
                f'{1000 * off:.0f} mm); use a checkpoint of this robot, and check arm_frames')
        return T_ref_base, q

    def _residual(self, q: np.ndarray, goal: np.ndarray, T_tool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        full = self.configuration(q, 0.0)
        pin.computeJointJacobians(self.full, self.data, full)
        pin.updateFramePlacements(self.full, self.data)
        world = pin.ReferenceFrame.LOCAL_WORLD_ALIGNED
        errors = [goal[i] - self.data.oMf[frame].translation for i, frame in enumerate(self._arm_ids)]
        rows = [pin.getFrameJacobian(self.full, self.data, frame, world)[:3, self._arm] for frame in self._arm_ids]
        tool = self.data.oMf[self._tool]
        errors += [T_tool[:3, 3] - tool.translation,
                   0.3 * Rotation.from_matrix(T_tool[:3, :3] @ tool.rotation.T).as_rotvec()]
        J = pin.getFrameJacobian(self.full, self.data, self._tool, world)[:, self._arm]
        rows += [J[:3], 0.3 * J[3:]]
        return np.concatenate(errors), np.concatenate(rows)

    def follow(self, T_base_gripper: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joint positions (T, n) of a gripper path (T, 4, 4), each solved from the one before, and by how much each
        misses its pose (T,) [m]; q (n,) is the first's.

        A pose out of reach gives the nearest that the solver found: the arm is then drawn where it can get to.
        """
        out, missed = [q], [0.0]
        for T in T_base_gripper[1:]:
            found = self.robot.inverse(T, out[-1])
            out.append(found.q)
            missed.append(found.distance)
        return np.stack(out), np.array(missed)


def _visuals(urdf: str) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Link name, vertices (N, 3) [m], faces (M, 3) and vertex normals (N, 3) of every visual mesh in its link."""
    import trimesh

    out = []
    for link in ElementTree.fromstring(urdf).iter('link'):
        for visual in link.findall('visual'):
            mesh = visual.find('geometry/mesh')
            if mesh is None:
                continue
            shape = trimesh.load(Path(mesh.attrib['filename'].removeprefix('file://')), process=True)
            origin = visual.find('origin')
            numbers = lambda name, o=origin: np.array(  # noqa: E731
                [float(x) for x in (o.attrib.get(name, '0 0 0') if o is not None else '0 0 0').split()])
            T = make_transform(Rotation.from_euler('xyz', numbers('rpy')).as_matrix(), numbers('xyz'))
            out.append((link.attrib['name'], transform_points(T, np.asarray(shape.vertices)), np.asarray(shape.faces),
                        np.asarray(shape.vertex_normals) @ T[:3, :3].T))
    return out


def _sampled(vertices: np.ndarray, faces: np.ndarray, around: np.ndarray, spacing: float) -> tuple[np.ndarray, ...]:
    """Points and both kinds of normals, about `spacing` apart: of many random ones each cell of a grid keeps one."""
    rng = np.random.default_rng(0)
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1)
    pick = rng.choice(len(faces), int(4 * area.sum() / spacing**2) + 8, p=area / area.sum())
    u, v = np.sort(rng.random((2, len(pick))), axis=0)
    share = np.stack([u, v - u, 1 - v], -1)
    points = np.einsum('nk,nkd->nd', share, corners[pick])
    _, first = np.unique(np.floor(points / spacing).astype(np.int64), axis=0, return_index=True)
    flat = (normal[pick] / area[pick][:, None])[first]
    smooth = np.einsum('nk,nkd->nd', share[first], around[faces[pick[first]]])
    smooth = smooth / np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-9)
    smooth = np.where((smooth * flat).sum(1, keepdims=True) > 0.5, smooth, flat)  # over a sharp edge they say nothing
    points = points[first]
    keep = _outside(points, flat, spacing)
    return tuple(a[keep].astype(np.float32) for a in (points, flat, smooth))


def _outside(points: np.ndarray, normals: np.ndarray, spacing: float) -> np.ndarray:
    """Which points are in front from one of many directions; the others are inside the link and never seen."""
    seen = np.zeros(len(points), bool)
    count = 48
    z = 1 - 2 * (np.arange(count) + 0.5) / count
    turn = np.pi * (1 + 5**0.5) * np.arange(count)
    for direction in np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], -1):
        side = np.cross(direction, np.eye(3)[np.abs(direction).argmin()])
        side /= np.linalg.norm(side)
        plane = np.floor(points @ np.stack([side, np.cross(direction, side)], 1) / (2 * spacing)).astype(np.int64)
        plane -= plane.min(0)
        cell = plane[:, 0] * (plane[:, 1].max() + 1) + plane[:, 1]
        depth = points @ direction  # along the view: less is nearer
        nearest = np.full(cell.max() + 1, np.inf)
        np.minimum.at(nearest, cell, depth)
        seen |= (depth < nearest[cell] + 2 * spacing) & (normals @ direction < 0)
    return seen


@lru_cache(maxsize=4)
def surface_of(robot: str | None = None) -> RobotSurface:
    """The surface of the robot of that name (the default one), sampled once."""
    return RobotSurface(load_robot(robot or DEFAULT))
