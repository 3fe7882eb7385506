"""A task of two stages: the expert does one after the other, and judges by what is visible only."""

from dataclasses import replace

import numpy as np
import pytest

from geo4d_ros.geometry.transforms import make_transform
from geo4d_ros.simulation.cell import Cell
from geo4d_ros.simulation.expert import Scene, next_segment, plan_motion, stage_at_work
from geo4d_ros.simulation.rollout import rollout
from geo4d_ros.simulation.tasks.base import gripper_down
from geo4d_ros.simulation.tasks.stack import HALF, StackTask

TASK = StackTask(StackTask.sample(np.random.default_rng(0)))
GOAL = TASK.layout.T_goal[:3, 3]
ON_MAT, ON_TOP = (make_transform(None, np.array([*GOAL[:2], z])) for z in (HALF, 3 * HALF))
AWAY = make_transform(gripper_down(0.0), np.array([0.45, 0.0, 0.3]))
START = Scene(AWAY, 0.08, TASK.layout.T_object, 0.08, TASK.layout.further)


def at(T, opening=0.08, **poses):
    return replace(START, T_gripper=make_transform(AWAY[:3, :3], T[:3, 3]), opening=opening, **poses)


def test_the_expert_stacks_both_and_its_plan_foresaw_it():
    cell = Cell('stack', 500_000)
    plan = plan_motion(cell)
    result = rollout(cell)
    assert result.success and cell.succeeded()
    assert result.segments.count('close') == result.segments.count('release') == 2
    assert result.duration == pytest.approx(plan.duration + 0.5, abs=1.0)
    red, blue = cell.object_poses()
    assert blue[2, 3] - red[2, 3] == pytest.approx(2 * HALF, abs=2e-3)
    assert min(cell.moved_objects().values()) > 0.1


def test_which_stage_is_at_work_follows_from_what_is_visible():
    blue = TASK.layout.further[0]
    assert stage_at_work(TASK, START) == 0
    assert stage_at_work(TASK, replace(START, T_object=ON_MAT)) == 1
    assert stage_at_work(TASK, at(ON_MAT, 0.04, T_object=ON_MAT)) == 0, 'still held'
    assert stage_at_work(TASK, at(ON_MAT, T_object=ON_MAT)) == 0, 'the hand is not clear of it yet'
    assert stage_at_work(TASK, at(blue, 0.04, T_object=ON_MAT)) == 1
    assert stage_at_work(TASK, at(ON_TOP, 0.04, T_object=ON_MAT, further=(ON_TOP,))) == 1, 'held over the first'
    fallen = make_transform(None, np.array([GOAL[0] + 0.15, GOAL[1], HALF]))
    assert stage_at_work(TASK, replace(START, T_object=fallen, further=(ON_TOP,))) == 0
    assert next_segment(TASK, replace(START, T_object=ON_MAT, further=(ON_TOP,))) is None


def test_one_block_at_its_goal_is_no_success():
    cell = Cell('stack', 1)
    joint = cell.data.joint('object')
    joint.qpos[:3] = cell.spec.layout.T_goal[:3, 3] + [0, 0, HALF]
    cell.step(200)
    assert cell.spec.at_goal(cell.object_poses()[0]) and not cell.succeeded()
    np.testing.assert_array_equal(cell.object_pose(), cell.object_poses()[1])
