"""Scripted expert: what to do next follows from what is visible now, and from nothing else.

The video model sees one RGB-D instant and every cycle asks it afresh, so its teacher must be
Markov: `next_segment` looks only at the gripper's pose and opening, the object's pose and the goal
(all visible in the pictures), never at the clock or at a remembered phase. `plan_motion` rolls it
forward kinematically; `rollout.rollout` executes it, asking anew after every segment.

    object at the goal, let go of  -> open fully, retreat, rest
    no object within reach         -> retreat, rest
    object between closed fingers  -> lift, over the goal, down, open
    fingers closed on nothing      -> retreat upwards while opening
    otherwise                      -> pre-grasp, straight in, close

A task of several stages is done in their order: the first whose object is not at its goal is at work, once the hand is
clear of the one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from geo4d_ros.geometry.transforms import interpolate, invert, make_transform, rotation_angle, translation_distance
from geo4d_ros.simulation.tasks import Task
from geo4d_ros.simulation.tasks.base import nearest_pose

if TYPE_CHECKING:
    from geo4d_ros.simulation.cell import Cell

SPEED = 0.10  # along the path [m/s]
TURN_RATE = np.deg2rad(30)  # [rad/s]
DWELL = 1.0  # closing, and opening, each take this long [s]
SQUEEZE_TIME = 0.25  # of which the grip builds up at the object's width [s]
FREE_OPENING_RATE = 0.12  # opening on the move [m/s]
PERIOD = 0.02  # of the samples in a plan [s]
_AT_GRASP = (0.008, np.deg2rad(8))  # [m], [rad]
_CORRIDOR = (0.012, np.deg2rad(8))  # lateral [m], rotation [rad]
_MAX_SEGMENTS = 48
_NEAR = 0.07  # of an object: the hand may still hold or touch it [m]
_REACH = 1.1  # of the arm, about its base [m]


@dataclass(frozen=True)
class Scene:
    """Everything the expert may look at: gripper pose (4, 4), opening [m], object pose (4, 4); and the stroke [m].

    further: poses (4, 4) of the objects of a task's later stages; T_object is the first one's.
    """

    T_gripper: np.ndarray
    opening: float
    T_object: np.ndarray
    stroke: float
    further: tuple[np.ndarray, ...] = ()

    @classmethod
    def of(cls, cell: Cell, task: str | None = None) -> Scene:
        """What is visible in the cell now, for the instructed task or another one on the table."""
        first, *further = cell.object_poses(task)
        return cls(cell.T_base_gripper, cell.opening, first, cell.stroke, tuple(further))


@dataclass(frozen=True)
class Segment:
    """A straight move (or a dwell): to T_gripper (4, 4), with the fingers ending at `opening` [m].

    `squeeze`: the commanded opening runs on to 0 at the end, so that an object is gripped firmly.
    duration [s]; rate of the opening [m/s].
    """

    name: str
    T_gripper: np.ndarray
    opening: float
    duration: float
    rate: float
    squeeze: bool = False


@dataclass(frozen=True)
class MotionPlan:
    """Timed motion from now to the end of the task; sample 0 is now.

    T_base_gripper (n, 4, 4); opening (n,) expected and command (n,) commanded [m];
    time_from_start (n,) [s], every PERIOD; names (n,) of the segment each sample belongs to.
    """

    T_base_gripper: np.ndarray
    opening: np.ndarray
    command: np.ndarray
    time_from_start: np.ndarray
    names: tuple[str, ...]

    @property
    def duration(self) -> float:
        """Time of the last sample [s]."""
        return float(self.time_from_start[-1])

    def sample(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Poses (k, 4, 4) and expected openings (k,) at `times` (k,) [s]; holds the end beyond it."""
        index = np.clip(np.round(np.asarray(times) / PERIOD).astype(int), 0, len(self.names) - 1)
        return self.T_base_gripper[index], self.opening[index]


def stage_at_work(task: Task, scene: Scene) -> int:
    """Which of the task's stages is to be gone on with."""
    stages = task.stages()
    if len(stages) == 1:
        return 0
    seen = [_of_stage(scene, i) for i in range(len(stages))]
    held = [_holds(stage, now) for stage, now in zip(stages, seen, strict=True)]
    at = next((i for i, (stage, now) in enumerate(zip(stages, seen, strict=True))
               if held[i] or not stage.at_goal(now.T_object)), len(stages) - 1)
    if at and not held[at] and translation_distance(scene.T_gripper, seen[at - 1].T_object) < _NEAR:
        return at if stages[at].at_goal(seen[at].T_object) else at - 1
    return at


def _of_stage(scene: Scene, stage: int) -> Scene:
    """The scene with the object of one stage only."""
    return replace(scene, T_object=(scene.T_object, *scene.further)[stage], further=())


def is_held(task: Task, scene: Scene) -> bool:
    """Whether the object at work fills the space between the fingers, as far as one can see."""
    at = stage_at_work(task, scene)
    return _holds(task.stages()[at], _of_stage(scene, at))


def _holds(task: Task, scene: Scene) -> bool:
    fits = task.grip_width - task.grip_slack < scene.opening < task.grip_width + 0.002
    return fits and task.between_fingers(scene.T_gripper, scene.T_object)


def in_reach(T_object: np.ndarray) -> bool:
    """Whether the object is on or over the table at all."""
    return bool(np.linalg.norm(T_object[:2, 3]) < _REACH and T_object[2, 3] > -0.05)


def next_segment(task: Task, scene: Scene) -> Segment | None:
    """What to do in this instant; None when the task is done and the arm rests clear of it."""
    at = stage_at_work(task, scene)
    task, scene = task.stages()[at], _of_stage(scene, at)
    if _holds(task, scene):
        return _carry(task, scene) if not (task.keeps_hold and task.at_goal(scene.T_object)) else None
    if task.at_goal(scene.T_object) or not in_reach(scene.T_object):
        return _leave(task, scene)
    return _reach(task, scene)


def _move(name: str, scene: Scene, T: np.ndarray, opening: float) -> Segment:
    length = float(translation_distance(scene.T_gripper, T))
    angle = float(rotation_angle(scene.T_gripper, T))
    duration = max(length / SPEED, angle / TURN_RATE, abs(opening - scene.opening) / FREE_OPENING_RATE, PERIOD)
    return Segment(name, T, opening, duration, FREE_OPENING_RATE)


def _carry(task: Task, scene: Scene) -> Segment:
    T_release = task.release_pose(scene.T_object, scene.T_gripper)
    close = translation_distance(T_release, scene.T_object) < 0.012
    if (close and rotation_angle(T_release, scene.T_object) < 0.25) or task.at_goal(scene.T_object):
        return _open(scene, 'release', task)
    T_object_gripper = invert(scene.T_object) @ scene.T_gripper
    waypoint = task.carry_waypoints(scene.T_object, T_release)[0]
    move = _move('carry', scene, waypoint @ T_object_gripper, task.grip_width)
    return Segment(move.name, move.T_gripper, move.opening, move.duration, move.rate, squeeze=True)


def _open(scene: Scene, name: str, task: Task) -> Segment:
    rate = (scene.stroke - task.grip_width) / DWELL
    duration = max((scene.stroke - scene.opening) / rate, PERIOD)
    return Segment(name, scene.T_gripper, scene.stroke, duration, rate)


def _leave(task: Task, scene: Scene) -> Segment | None:
    near = translation_distance(scene.T_gripper, scene.T_object) < _NEAR
    if near and scene.opening < scene.stroke - 0.006:
        return _open(scene, 'release', task)
    waypoints = task.retreat(scene.T_gripper)
    return _move('retreat', scene, waypoints[0], scene.stroke) if waypoints else None


def _reach(task: Task, scene: Scene) -> Segment:
    T_grasp = nearest_pose(task.grasps(scene.T_object, scene.T_gripper), scene.T_gripper)
    T_pregrasp = T_grasp @ make_transform(None, np.array([0, 0, -task.standoff]))
    there = (translation_distance(scene.T_gripper, T_grasp) < _AT_GRASP[0]
             and rotation_angle(scene.T_gripper, T_grasp) < _AT_GRASP[1])
    if there and scene.opening > task.grip_width - task.grip_slack:
        return _close(task, scene)
    if scene.opening > task.grip_width + 0.012 and _in_corridor(task, scene, T_grasp):
        return _move('approach', scene, T_grasp, scene.stroke)
    waypoints = [*task.detour(scene.T_gripper, T_pregrasp, scene.T_object), T_pregrasp]
    return _move('reach', scene, waypoints[0], scene.stroke)


def _close(task: Task, scene: Scene) -> Segment:
    rate = (scene.stroke - task.grip_width) / (DWELL - SQUEEZE_TIME)
    duration = max(scene.opening - task.grip_width, 0) / rate + SQUEEZE_TIME
    return Segment('close', scene.T_gripper, task.grip_width, duration, rate, squeeze=True)


def _in_corridor(task: Task, scene: Scene, T_grasp: np.ndarray) -> bool:
    """Whether a straight move along the approach axis leads to the grasp."""
    T = invert(T_grasp) @ scene.T_gripper
    x, y, z = T[:3, 3]
    return bool(np.hypot(x, y) < _CORRIDOR[0] and -task.standoff - 0.01 < z < _AT_GRASP[0]
                and rotation_angle(T_grasp, scene.T_gripper) < _CORRIDOR[1])


def segment_samples(scene: Scene, segment: Segment) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses (n, 4, 4), expected openings (n,) and commanded openings (n,) every PERIOD, start excluded."""
    n = max(1, round(segment.duration / PERIOD))
    poses = interpolate(scene.T_gripper, segment.T_gripper, np.arange(1, n + 1) / n)
    change = segment.rate * PERIOD * np.arange(1, n + 1)
    gap = segment.opening - scene.opening
    opening = scene.opening + np.sign(gap) * np.minimum(change, abs(gap))
    command = opening.copy()
    if segment.squeeze:
        command[opening <= segment.opening + 1e-9] = 0.0
    return poses, opening, command


def plan_segments(task: Task, scene: Scene) -> Iterator[tuple[Scene, Segment]]:
    """The expert rolled forward kinematically: (what is seen, what to do) until done."""
    for _ in range(_MAX_SEGMENTS):
        segment = next_segment(task, scene)
        if segment is None:
            return
        yield scene, segment
        scene = _after(task, scene, segment)


def _after(task: Task, scene: Scene, segment: Segment) -> Scene:
    at = stage_at_work(task, scene)
    stage, poses = task.stages()[at], [scene.T_object, *scene.further]
    if _holds(stage, _of_stage(scene, at)):
        poses[at] = segment.T_gripper @ invert(scene.T_gripper) @ poses[at]
        if segment.name == 'release':
            poses[at] = stage.settled(poses[at])
    return Scene(segment.T_gripper, segment.opening, poses[0], scene.stroke, tuple(poses[1:]))


def plan_motion(cell: Cell) -> MotionPlan:
    """The expert's whole motion from the cell's present state; moves nothing."""
    scene = Scene.of(cell)
    poses, openings, commands = [scene.T_gripper[None]], [np.array([scene.opening])], [np.array([cell.opening_command])]
    names = ['now']
    for seen, segment in plan_segments(cell.spec, scene):
        for store, values in zip((poses, openings, commands), segment_samples(seen, segment), strict=True):
            store.append(values)
        names += [segment.name] * len(openings[-1])
    times = PERIOD * np.arange(len(names))
    return MotionPlan(np.concatenate(poses), np.concatenate(openings), np.concatenate(commands), times, tuple(names))
