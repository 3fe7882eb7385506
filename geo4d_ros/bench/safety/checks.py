"""Checks of commanded motions, written apart from the gates they judge.

Nothing of `motion.gates`, `motion.timing` or `motion.robot` is used: kinematics and collision are
Pinocchio on the whole URDF (fingers included), speeds and accelerations are finite differences of
the commanded samples, and borders are compared afresh.
"""

from __future__ import annotations

from itertools import pairwise

import coal
import numpy as np
import pinocchio as pin
from scipy.interpolate import CubicHermiteSpline
from scipy.spatial.transform import Rotation

from geo4d_ros.bench.safety.cases import Case
from geo4d_ros.motion.planning import TimedMotion

TOLERANCE = 1.02  # finite differences against limits
_POSTURES = 100
REFINE = 2  # states looked at per commanded sample


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
        self._acceleration = acceleration_limit
        self._choose_pairs(home)

    def judge(self, case: Case, motion: TimedMotion) -> list[str]:
        """Names of everything that breaks a rule; empty for a safe motion."""
        wrong = self._inputs(case, motion) + self._structure(case, motion)
        held = case.state.gripper_closed is True
        share, q = case.state.opening / case.limits.stroke if held else 1.0, case.state.q
        self._spread(share)
        for segment in motion.segments:
            if hasattr(segment, 'q'):
                wrong += self._segment(case, segment)
                q = segment.q[-1]
            elif not segment.closing:
                for wider in np.linspace(share, 1.0, 5):  # the fingers' way; they stay wide open
                    self._spread(wider)
                    wrong += self._contacts(case, q[None])
                share = 1.0
        return wrong

    def _spread(self, share: float) -> None:
        """Put the fingers at a share of their stroke."""
        wide = self._model.upperPositionLimit[self._fingers]
        self._q[self._fingers] = np.clip(share, 0.0, 1.0) * wide

    def _inputs(self, case: Case, motion: TimedMotion) -> list[str]:
        """Nothing may move on stale, unsure, broken or misplaced input."""
        plan, state, limits, m = case.plan, case.state, case.limits, motion.poses
        wrong = []
        ages = ((case.now - plan.observation_stamp) / 1e9, limits.plan_age), \
            ((case.now - state.stamp) / 1e9, limits.joint_state_age)
        for age, limit in ages:
            if not -0.01 <= age <= limit:
                wrong.append('stale_input')
        if not np.all(np.abs(state.dq) <= limits.rest_velocity):
            wrong.append('started_while_moving')
        if plan.confidence is None or not np.all(plan.confidence[:m] >= limits.confidence):
            wrong.append('low_confidence')
        numbers = (plan.T_base_gripper, plan.opening, plan.time_from_start, plan.T_base_gripper_start, state.q)
        if not all(np.all(np.isfinite(v)) for v in numbers):
            wrong.append('not_finite')
        chain = np.concatenate([plan.T_base_gripper_start[None], plan.T_base_gripper[:m]])
        if np.any(np.linalg.norm(np.diff(chain[:, :3, 3], axis=0), axis=1) > limits.step_distance * 1.0001):
            wrong.append('step_too_large')
        if not limits.prefix <= m <= case.k:
            wrong.append('wrong_prefix')
        start = self._tool_pose(state.q)
        if not np.linalg.norm(start[:3, 3] - plan.T_base_gripper_start[:3, 3]) <= limits.start_distance * 1.001:
            wrong.append('start_mismatch')
        return wrong

    def _structure(self, case: Case, motion: TimedMotion) -> list[str]:
        """Segments join up, begin where the arm stands, rest at both ends and reach the poses they claim."""
        moves = [s for s in motion.segments if hasattr(s, 'q')]
        wrong = []
        previous = case.state.q
        for s in moves:
            if np.abs(s.q[0] - previous).max() > 1e-6:
                wrong.append('segments_do_not_join')
            if max(np.abs(s.dq[0]).max(), np.abs(s.dq[-1]).max()) > 1e-9:
                wrong.append('not_at_rest_between_segments')
            previous = s.q[-1]
        for s in motion.segments:
            if not hasattr(s, 'q') and not (0 <= s.target <= case.limits.stroke and 0.5 <= s.dwell <= 1.0):
                wrong.append('gripper_command')
        if any(not hasattr(a, 'q') and not hasattr(b, 'q') for a, b in pairwise(motion.segments)) \
                and len({s.closing for s in motion.segments if not hasattr(s, 'q')}) < 2:
            wrong.append('gripper_twice')
        return wrong + self._reaches(case, motion, previous)

    def _reaches(self, case: Case, motion: TimedMotion, q_end: np.ndarray) -> list[str]:
        goal, got = case.plan.T_base_gripper[motion.poses - 1], self._tool_pose(q_end)
        distance = np.linalg.norm(goal[:3, 3] - got[:3, 3])
        angle = Rotation.from_matrix(goal[:3, :3].T @ got[:3, :3]).magnitude()
        lets_go = bool(motion.segments) and getattr(motion.segments[-1], 'closing', None) is False
        if motion.truncated_by is not None and lets_go:
            # Where the way ends the hand may let go, a little short of its goal.
            return [] if distance < 0.0155 and angle < np.radians(10.5) else ['let_go_far_off']
        # A step below 1 mm and 0.3 deg is a pause and not followed.
        return [] if distance < 0.0025 and angle < np.radians(1.0) else ['goal_missed']

    def _segment(self, case: Case, s) -> list[str]:
        limits, model = case.limits, self._model
        wrong = []
        dt = np.diff(s.times)
        if not (np.all(np.isfinite(s.q)) and np.all(dt > 0) and s.times[0] == 0):
            return ['not_finite']
        times = np.linspace(0, s.times[-1], REFINE * (len(s.times) - 1) + 1)
        q = CubicHermiteSpline(s.times, s.q, s.dq)(times)  # what a trajectory controller follows
        lower, upper = model.lowerPositionLimit[self._index], model.upperPositionLimit[self._index]
        if np.any(q < lower - 1e-6) or np.any(q > upper + 1e-6):
            wrong.append('joint_limit')
        if np.any(np.abs(np.diff(s.q, axis=0)) > limits.joint_jump):
            wrong.append('joint_jump')
        velocity = np.diff(s.q, axis=0) / dt[:, None]
        if np.any(np.abs(velocity) > limits.joint_velocity_scale * model.velocityLimit[self._index] * TOLERANCE):
            wrong.append('joint_speed')
        acceleration = np.diff(velocity, axis=0) / dt[1:, None]
        if np.any(np.abs(acceleration) > limits.joint_acceleration_scale * self._acceleration * TOLERANCE):
            wrong.append('joint_acceleration')
        return wrong + self._tool_motion(case, q, times) + self._contacts(case, q)

    def _tool_motion(self, case: Case, q: np.ndarray, times: np.ndarray) -> list[str]:
        limits = case.limits
        T = np.stack([self._tool_pose(row) for row in q])
        p, R = T[:, :3, 3], T[:, :3, :3]
        dt = np.diff(times)[:, None]
        velocity = np.diff(p, axis=0) / dt
        speed = np.linalg.norm(velocity, axis=1)
        turn = Rotation.from_matrix(np.swapaxes(R[:-1], 1, 2) @ R[1:]).magnitude() / dt[:, 0]
        wrong = []
        if np.any(speed > min(limits.speed, 0.25) * TOLERANCE):
            wrong.append('tool_speed')
        if np.any(turn > limits.angular_speed * TOLERANCE):
            wrong.append('tool_turning_speed')
        # Over a commanded period, as the controller's interpolation between samples is its own affair.
        coarse = np.diff(p[::REFINE], axis=0) / np.diff(times[::REFINE])[:, None]
        acceleration = np.linalg.norm(np.diff(coarse, axis=0), axis=1) / np.diff(times[::REFINE])[1:]
        if np.any(acceleration > limits.acceleration * TOLERANCE):
            wrong.append('tool_acceleration')
        slack = limits.path_tolerance + 1e-4
        box = np.array(limits.workspace)
        if np.any(p[1:] < box[:3] - slack) or np.any(p[1:] > box[3:] + slack):
            wrong.append('workspace')
        if np.any(p[1:, 2] < limits.table_height + limits.table_clearance - slack):
            wrong.append('table')
        for keep_out in np.array(limits.keep_out).reshape(-1, 6):
            # Between two checked samples (at most 5 mm apart) a corner may be cut by a hair.
            if np.any(np.all((p > keep_out[:3] + slack) & (p < keep_out[3:] - slack), axis=1)):
                wrong.append('keep_out')
        return wrong

    def _contacts(self, case: Case, q: np.ndarray) -> list[str]:
        geometry = self._in_scene(case)
        data = geometry.createData()
        for row in q:
            self._q[self._index] = row
            if pin.computeCollisions(self._model, self._data, geometry, data, self._q, True):
                hit = next(p for p, r in zip(geometry.collisionPairs, data.collisionResults, strict=True)
                           if r.isCollision())
                return ['scene_collision' if hit.second >= self._shapes.ngeoms else 'self_collision']
        return []

    def _in_scene(self, case: Case) -> pin.GeometryModel:
        """The arm's shapes among the case's obstacles."""
        geometry = self._shapes.copy()
        for o in case.scene.obstacles:
            shape = coal.Box(*o.size) if o.shape == 'box' else coal.Cylinder(*o.size)
            where = pin.SE3(Rotation.from_euler('z', o.yaw).as_matrix(), np.array(o.centre))
            index = geometry.addGeometryObject(pin.GeometryObject(o.name, 0, where, shape))
            for i in range(self._shapes.ngeoms):
                if geometry.geometryObjects[i].parentJoint:
                    geometry.addCollisionPair(pin.CollisionPair(i, index))
        return geometry

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
