"""Checks of commanded motions, written apart from the gates they judge.

Nothing of `motion.gates`, `motion.timing`, `motion.collision` or `robots.kinematics` is used: kinematics and
collision are Pinocchio on the whole URDF (fingers included), speeds and accelerations are finite differences of the
commanded samples, and borders are compared afresh. States are those of the curves through the samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import coal
import numpy as np
import pinocchio as pin
from scipy.spatial.transform import Rotation, Slerp

from geo4d_ros.bench.safety.cases import Case
from geo4d_ros.bench.safety.rules import gripper_faults, input_faults, tilt
from geo4d_ros.motion.planning import TimedMotion

TOLERANCE = 1.02  # finite differences against limits
_POSTURES = 100
REFINE = 2  # states looked at per commanded sample
_REACH = 1.3  # m: no shape of the arm is farther from a joint
_STRIDE = 0.001  # m: contacts are looked for at states so far apart, at most
_SHORT = 0.0013  # m: so far below the margin a motion may get between its samples, rounding included
_RESTING = 0.0085  # m: so deep a held box may seem to be in what it stands on


class MotionJudge:
    """Finds what is wrong with a commanded motion; knows the robot only by its URDF."""

    def __init__(self, urdf: str, tool: str, joints: tuple[str, ...], home: np.ndarray,
                 acceleration_limit: float) -> None:
        self._model = pin.buildModelFromXML(urdf)
        self._data = self._model.createData()
        self._shapes = pin.buildGeomFromUrdfString(self._model, urdf, pin.GeometryType.COLLISION)
        self._tool = self._model.getFrameId(tool)
        self._index = [self._model.joints[self._model.getJointId(j)].idx_q for j in joints]
        self._q = pin.neutral(self._model)
        self._fingers = [i for i in range(self._model.nq) if i not in self._index]
        self._q[self._fingers] = self._model.upperPositionLimit[self._fingers]
        self._lower = self._model.lowerPositionLimit[self._index]
        self._upper = self._model.upperPositionLimit[self._index]
        self._acceleration = acceleration_limit
        self._choose_pairs(home)

    def judge(self, case: Case, motion: TimedMotion) -> list[str]:
        """Names of everything that breaks a rule; empty for a safe motion."""
        readable = case.state.q.shape == self._lower.shape and np.isfinite(case.state.q).all()
        start = self._tool_pose(case.state.q) if readable else np.full((4, 4), np.nan)
        wrong = input_faults(case, motion, start, self._lower, self._upper) + gripper_faults(case, motion)
        if not readable or 'not_finite' in wrong:
            return wrong
        wrong += self._structure(case, motion)
        limits, state = case.limits, case.state
        closed = state.gripper_closed is True
        share, q = (state.opening / limits.stroke, state.q) if closed else (1.0, state.q)
        holding = closed and state.opening > limits.missed_opening
        room, empty = self._in_scene(case, holding), self._in_scene(case, False)
        self._spread(share)
        for segment in motion.segments:
            if hasattr(segment, 'q'):
                wrong += self._segment(case, segment, room)
                q = segment.q[-1]
            elif not segment.closing:
                for wider in np.linspace(share, 1.0, 9):  # the fingers' way; they stay wide open
                    self._spread(wider)
                    wrong += self._contacts(q[None], empty)
                share, room = 1.0, empty
        return wrong

    def _spread(self, share: float) -> None:
        """Put the fingers at a share of their stroke."""
        wide = self._model.upperPositionLimit[self._fingers]
        self._q[self._fingers] = np.clip(share, 0.0, 1.0) * wide

    def _structure(self, case: Case, motion: TimedMotion) -> list[str]:
        """Segments join up, begin where the arm stands, rest at both ends and pass the poses they claim."""
        moves = [s for s in motion.segments if hasattr(s, 'q')]
        wrong = []
        previous = case.state.q
        for s in moves:
            if np.abs(s.q[0] - previous).max() > 1e-6:
                wrong.append('segments_do_not_join')
            if max(np.abs(s.dq[0]).max(), np.abs(s.dq[-1]).max()) > 1e-9:
                wrong.append('not_at_rest_between_segments')
            previous = s.q[-1]
        passed = np.stack([self._tool_pose(q) for s in moves for q in s.q[::2]]) if moves else np.zeros((0, 4, 4))
        return wrong + self._reaches(case, motion, passed, self._tool_pose(previous))

    def _reaches(self, case: Case, motion: TimedMotion, passed: np.ndarray, got: np.ndarray) -> list[str]:
        goal = case.plan.T_base_gripper[motion.poses - 1]
        distance = np.linalg.norm(goal[:3, 3] - got[:3, 3])
        angle = Rotation.from_matrix(goal[:3, :3].T @ got[:3, :3]).magnitude()
        lets_go = bool(motion.segments) and getattr(motion.segments[-1], 'closing', None) is False
        if motion.truncated_by is not None and lets_go:
            # Where the way ends the hand may let go, a little short of its goal.
            return [] if distance < case.limits.release_reach + 0.0005 and angle < np.radians(10.5) \
                else ['let_go_far_off']
        # A step below 1 mm and 0.3 deg is a pause and not followed.
        wrong = [] if distance < 0.0025 and angle < np.radians(1.0) else ['goal_missed']
        places = np.concatenate([self._tool_pose(case.state.q)[None], passed])[:, :3, 3]
        for T in case.plan.T_base_gripper[:motion.poses]:
            if np.linalg.norm(places - T[:3, 3], axis=1).min() > 0.0055:  # 0.25 m/s over half a stride of states
                return [*wrong, 'pose_missed']
        return wrong + self._strays(case, motion, passed)

    def _strays(self, case: Case, motion: TimedMotion, passed: np.ndarray) -> list[str]:
        """Whether the tool leaves the checked path: distance from its legs, angle from the nearest pose between."""
        T = motion.T_path
        if not len(passed) or len(T) < 2:
            return []
        s, fine = np.arange(len(T)), np.linspace(0, len(T) - 1, 8 * (len(T) - 1) + 1)
        turns = Slerp(s, Rotation.from_matrix(T[:, :3, :3]))(fine).as_quat()
        places = np.stack([np.interp(fine, s, T[:, axis, 3]) for axis in range(3)], axis=1)
        limits = case.limits
        for pose in passed[::2]:
            away = np.linalg.norm(places - pose[:3, 3], axis=1) / (limits.deviation_distance + 0.0003)
            own = Rotation.from_matrix(pose[:3, :3]).as_quat()
            turned = 2 * np.arccos(np.clip(np.abs(turns @ own), 0, 1)) / (limits.deviation_angle + 0.003)
            if np.maximum(away, turned).min() > 1.0:
                return ['left_the_path']
        return []

    def _segment(self, case: Case, s: Any, room: tuple[pin.GeometryModel, pin.GeometryData]) -> list[str]:
        limits, model = case.limits, self._model
        wrong = []
        dt = np.diff(s.times)
        if not (np.all(np.isfinite(s.q)) and np.all(dt > 0) and s.times[0] == 0):
            return ['not_finite']
        times = np.linspace(0, s.times[-1], REFINE * (len(s.times) - 1) + 1)
        for q in self._curves(s):
            slack = np.minimum(q - self._lower, self._upper - q)
            if np.any(slack < -1e-6):
                wrong.append('joint_limit')
            if np.any(slack < np.minimum(limits.joint_margin, slack[0]) - 0.006):
                wrong.append('joint_margin')
        if np.any(np.abs(np.diff(s.q, axis=0)) > limits.joint_jump):
            wrong.append('joint_jump')
        velocity = np.diff(s.q, axis=0) / dt[:, None]
        if np.any(np.abs(velocity) > limits.joint_velocity_scale * model.velocityLimit[self._index] * TOLERANCE):
            wrong.append('joint_speed')
        acceleration = np.diff(velocity, axis=0) / dt[1:, None]
        if np.any(np.abs(acceleration) > limits.joint_acceleration_scale * self._acceleration * TOLERANCE):
            wrong.append('joint_acceleration')
        return wrong + self._tool_motion(case, q, times) + self._contacts(q, room)

    def _curves(self, s: Any) -> Iterator[np.ndarray]:
        """States that a trajectory controller commands, half a sample apart: of cubics first, of quintics last."""
        h = np.diff(s.times)[:, None]
        middle, swing, bend = (s.q[:-1] + s.q[1:]) / 2, h * (s.dq[:-1] - s.dq[1:]), h**2 * (s.ddq[:-1] + s.ddq[1:])
        for between in (middle + swing / 8, middle + 5 / 32 * swing + bend / 64):
            q = np.empty((2 * len(s.q) - 1, s.q.shape[1]))
            q[::2], q[1::2] = s.q, between
            yield q

    def _tool_motion(self, case: Case, q: np.ndarray, times: np.ndarray) -> list[str]:
        limits = case.limits
        T = np.stack([self._tool_pose(row) for row in q])
        p, R = T[:, :3, 3], T[:, :3, :3]
        dt = np.diff(times)[:, None]
        speed = np.linalg.norm(np.diff(p, axis=0) / dt, axis=1)
        turn = Rotation.from_matrix(R[1:] @ np.swapaxes(R[:-1], 1, 2)).as_rotvec() / dt
        condition = np.array([self._condition(row) for row in q[::REFINE]])
        wrong = []
        if np.any(condition > np.maximum(limits.condition_number, np.minimum.accumulate(condition)) * 1.06):
            wrong.append('singular')
        beyond = (condition.max() * 0.94 - limits.condition_slow) / max(limits.condition_number - limits.condition_slow,
                                                                       1e-9)
        share = min(1.0, max(0.2, 1.0 - 0.8 * beyond)) if beyond > 0 else 1.0
        if np.any(speed > min(limits.speed, 0.25) * TOLERANCE):
            wrong.append('tool_speed')
        elif np.any(speed > share * limits.speed * TOLERANCE):
            wrong.append('fast_near_singularity')
        if np.any(np.linalg.norm(turn, axis=1) > limits.angular_speed * TOLERANCE):
            wrong.append('tool_turning_speed')
        # Over a commanded period, as the controller's interpolation between samples is its own affair.
        period = np.diff(times[::REFINE])
        coarse = np.diff(p[::REFINE], axis=0) / period[:, None]
        if np.any(np.linalg.norm(np.diff(coarse, axis=0), axis=1) / period[1:] > limits.acceleration * TOLERANCE):
            wrong.append('tool_acceleration')
        R = R[::REFINE]
        turn = Rotation.from_matrix(R[1:] @ np.swapaxes(R[:-1], 1, 2)).as_rotvec() / period[:, None]
        if np.any(np.linalg.norm(np.diff(turn, axis=0), axis=1) / period[1:] > limits.angular_acceleration * TOLERANCE):
            wrong.append('tool_turning_acceleration')
        return wrong + self._borders(case, T)

    def _borders(self, case: Case, T: np.ndarray) -> list[str]:
        limits, p = case.limits, T[:, :3, 3]
        slack = limits.path_tolerance + 1e-4
        box = np.array(limits.workspace)
        wrong = []
        if np.any(p[1:] < box[:3] - slack) or np.any(p[1:] > box[3:] + slack):
            wrong.append('workspace')
        if np.any(p[1:, 2] < limits.table_height + limits.table_clearance - slack):
            wrong.append('table')
        for keep_out in np.array(limits.keep_out).reshape(-1, 6):
            # Between two checked samples (at most 5 mm apart) a corner may be cut by a hair.
            if np.any(np.all((p > keep_out[:3] + slack) & (p < keep_out[3:] - slack), axis=1)):
                wrong.append('keep_out')
        leaning = tilt(T)
        if limits.tilt is not None and np.any(leaning > max(limits.tilt, leaning[0]) + 0.012):
            wrong.append('tilt')
        return wrong

    def _condition(self, q: np.ndarray) -> float:
        self._q[self._index] = q
        J = pin.computeFrameJacobian(self._model, self._data, self._q, self._tool)[:, self._index]
        s = np.linalg.svd(J, compute_uv=False)
        return float(s[0] / max(s[-1], 1e-12))

    def _contacts(self, q: np.ndarray, room: tuple[pin.GeometryModel, pin.GeometryData]) -> list[str]:
        geometry, data = room
        last = None
        for row in q:
            if last is not None and np.abs(row - last).sum() * _REACH < _STRIDE:
                continue
            last = row
            self._q[self._index] = row
            if pin.computeCollisions(self._model, self._data, geometry, data, self._q, True):
                hit = next(p for p, r in zip(geometry.collisionPairs, data.collisionResults, strict=True)
                           if r.isCollision())
                return ['scene_collision' if hit.second >= self._shapes.ngeoms else 'self_collision']
        return []

    def _in_scene(self, case: Case, holding: bool) -> tuple[pin.GeometryModel, pin.GeometryData]:
        """The arm's shapes among the case's obstacles and borders, and what it holds; with the distances to keep."""
        geometry, arm, margins = self._shapes.copy(), self._shapes.ngeoms, [0.0] * len(self._shapes.collisionPairs)
        margin = max(case.limits.collision_margin - _SHORT, 0.0)
        held = case.state.held if holding else None
        bodies = []
        for name, shape, where in _bodies(case):
            bodies.append(geometry.addGeometryObject(pin.GeometryObject(name, 0, where, shape)))
            for i in range(arm):
                if geometry.geometryObjects[i].parentJoint:
                    geometry.addCollisionPair(pin.CollisionPair(i, bodies[-1]))
                    margins.append(margin)
        if held is not None:
            frame = self._model.frames[self._tool]
            where = frame.placement * pin.SE3(np.eye(3), np.array(held.centre))
            own = geometry.addGeometryObject(pin.GeometryObject('held', frame.parentJoint, where, coal.Box(*held.size)))
            for body in bodies:
                geometry.addCollisionPair(pin.CollisionPair(own, body))
                margins.append(-_RESTING)
        data = geometry.createData()
        for request, wanted in zip(data.collisionRequests, margins, strict=True):
            request.security_margin = wanted
        return geometry, data

    def _tool_pose(self, q: np.ndarray) -> np.ndarray:
        self._q[self._index] = q
        pin.forwardKinematics(self._model, self._data, self._q)
        return pin.updateFramePlacement(self._model, self._data, self._tool).homogeneous.copy()

    def _choose_pairs(self, home: np.ndarray) -> None:
        """Keep pairs of shapes more than one joint apart, unless they touch at home or nearly always."""
        shapes, hand = self._shapes, len(self._index)
        shapes.removeAllCollisionPairs()
        link = [min(g.parentJoint, hand) for g in shapes.geometryObjects]  # fingers belong to the hand
        pairs = [(a, b) for b in range(shapes.ngeoms) for a in range(b) if abs(link[a] - link[b]) > 1]
        for pair in pairs:
            shapes.addCollisionPair(pin.CollisionPair(*pair))
        data, touching = shapes.createData(), np.zeros(len(pairs))
        lower, upper = self._model.lowerPositionLimit[self._index], self._model.upperPositionLimit[self._index]
        postures = np.concatenate([home[None], np.random.default_rng(1).uniform(lower, upper, (_POSTURES, len(home)))])
        for i, q in enumerate(postures):
            self._q[self._index] = q
            pin.computeCollisions(self._model, self._data, shapes, data, self._q, False)
            touching += np.array([r.isCollision() for r in data.collisionResults]) * (_POSTURES if i == 0 else 1)
        shapes.removeAllCollisionPairs()
        for pair, count in zip(pairs, touching, strict=True):
            if count < 0.9 * _POSTURES:
                shapes.addCollisionPair(pin.CollisionPair(*pair))


def _bodies(case: Case) -> Iterator[tuple[str, coal.CollisionGeometry, pin.SE3]]:
    """Obstacles, keep-out boxes and the table of a case: name, shape, placement in the base frame."""
    for o in case.scene.obstacles:
        shape = coal.Box(*o.size) if o.shape == 'box' else coal.Cylinder(*o.size)
        yield o.name, shape, pin.SE3(Rotation.from_euler('z', o.yaw).as_matrix(), np.array(o.centre))
    limits = case.limits
    x0, y0, _, x1, y1, _ = limits.workspace
    top = limits.table_height
    boxes = [('keep-out', box) for box in limits.keep_out] + [('table', (x0, y0, top - 0.05, x1, y1, top))]
    for name, box in boxes:
        low, high = np.array(box[:3], float), np.array(box[3:], float)
        yield name, coal.Box(*(high - low)), pin.SE3(np.eye(3), (low + high) / 2)
