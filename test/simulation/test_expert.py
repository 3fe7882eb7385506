"""The scripted expert: it succeeds, its plans are Markov, steady and complete, and it recovers."""

import json

import numpy as np
import pytest
from fakes import panda

from geo4d_ros.cli.main import main
from geo4d_ros.geometry.transforms import make_transform, rotation_angle, translation_distance
from geo4d_ros.simulation.cell import Cell
from geo4d_ros.simulation.expert import (
    DWELL,
    PERIOD,
    SPEED,
    TURN_RATE,
    Scene,
    is_held,
    next_segment,
    plan_motion,
)
from geo4d_ros.simulation.rollout import PERTURBATIONS, Perturbation, random_perturbations, rollout
from geo4d_ros.simulation.tasks import BUILT_IN

ALL = sorted(BUILT_IN)
OFFSET = make_transform(None, np.array([0.05, 0.02, -0.05]))


@pytest.mark.parametrize('task', ALL)
def test_the_expert_does_the_task(task):
    cell = Cell(task, 500_000)
    looks = []
    result = rollout(cell, observe=lambda c: looks.append(c.time), observe_period=0.5)
    assert result.success and result.failure is None
    assert cell.succeeded()
    assert 8 < result.duration < 20
    np.testing.assert_allclose(looks, 0.5 * np.arange(len(looks)), atol=0.005)
    assert next_segment(cell.spec, Scene.of(cell)) is None  # and it rests


@pytest.mark.parametrize('task', ALL)
def test_plan_is_steady_and_complete(task):
    cell = Cell(task, 3)
    before = cell.data.qpos.copy()
    plan = plan_motion(cell)
    np.testing.assert_array_equal(cell.data.qpos, before)
    steps = translation_distance(plan.T_base_gripper[:-1], plan.T_base_gripper[1:])
    turns = rotation_angle(plan.T_base_gripper[:-1], plan.T_base_gripper[1:])
    assert steps.max() <= SPEED * PERIOD * 1.05
    assert turns.max() <= TURN_RATE * PERIOD * 1.05
    moving = steps[steps > 1e-6]
    full_speed = (steps > 0.95 * SPEED * PERIOD) | (turns > 0.95 * TURN_RATE * PERIOD)
    assert full_speed.sum() > 0.9 * len(moving)
    assert plan.names.count('close') * PERIOD >= DWELL - 2 * PERIOD
    assert plan.names.count('release') * PERIOD >= DWELL - 2 * PERIOD
    assert ((plan.opening >= 0) & (plan.opening <= panda.MAX_OPENING + 1e-6)).all()
    np.testing.assert_allclose(np.diff(plan.time_from_start), PERIOD, atol=1e-9)
    assert plan.names[-1] == 'retreat'


@pytest.mark.parametrize('task', ALL)
def test_plan_meets_the_grasp_exactly_without_a_wrist_flip(task):
    cell = Cell(task, 5)
    plan = plan_motion(cell)
    closing = plan.T_base_gripper[plan.names.index('close')]
    grasps = cell.spec.grasps(cell.object_pose(), closing)
    assert min(translation_distance(closing, T) + rotation_angle(closing, T) for T in grasps) < 1e-6
    assert np.degrees(rotation_angle(cell.T_base_gripper, closing)) < 100


@pytest.mark.parametrize('task', ALL)
def test_plan_depends_on_the_visible_state_only(task):
    """Half-way states, restored in a fresh cell, give what is left of the plan that led there."""
    cell = Cell(task, 7)
    states, plans = [], []

    def keep(c):
        states.append(c.save_state())
        plans.append(plan_motion(c))

    assert rollout(cell, observe=keep, observe_period=1.0).success
    fresh = Cell(task, 7)
    for i, (state, seen) in enumerate(zip(states, plans, strict=True)):
        fresh.restore_state(state)
        again = plan_motion(fresh)
        np.testing.assert_array_equal(again.T_base_gripper, seen.T_base_gripper)
        if i == 0:
            continue
        before = plans[i - 1]
        assert again.duration == pytest.approx(max(before.duration - 1.0, 0), abs=0.6)
        expected, _ = before.sample(np.array([2.0]))
        reached, _ = again.sample(np.array([1.0]))
        assert translation_distance(expected, reached)[0] < 0.06  # no turning back


@pytest.mark.parametrize('task', ALL)
def test_execution_follows_the_plan_closely(task):
    cell = Cell(task, 8)
    plan = plan_motion(cell)
    errors = []

    def compare(c):
        poses, _ = plan.sample(np.array([c.time]))
        errors.append(translation_distance(poses[0], c.T_base_gripper))

    n = plan.names.index('close')
    rollout(cell, max_seconds=(n - 20) * PERIOD, observe=compare, observe_period=0.1)
    assert np.max(errors[:n * 2 // 10]) < 0.006


def test_closed_on_nothing_rises_and_opens():
    cell = Cell('apple', 9)
    grasp = cell.spec.grasps(cell.object_pose(), cell.T_base_gripper)[0]
    segment = next_segment(cell.spec, Scene(grasp, 0.0, cell.object_pose(), cell.stroke))
    assert segment.name == 'reach'
    assert segment.T_gripper[2, 3] > grasp[2, 3] + 0.08
    assert segment.opening == panda.MAX_OPENING


def test_held_means_filling_the_open_space():
    cell = Cell('apple', 9)
    T = cell.object_pose()
    grasp = cell.spec.grasps(T, cell.T_base_gripper)[0]
    width = cell.spec.grip_width
    aside = T.copy()
    aside[0, 3] += 0.06
    assert is_held(cell.spec, Scene(grasp, width, T, cell.stroke))
    assert not is_held(cell.spec, Scene(grasp, panda.MAX_OPENING, T, cell.stroke))
    assert not is_held(cell.spec, Scene(grasp, 0.0, T, cell.stroke))
    assert not is_held(cell.spec, Scene(grasp, width, aside, cell.stroke))


@pytest.mark.parametrize(('task', 'kind', 'segment'), [
    ('apple', 'displace', 'approach'), ('apple', 'close', 'approach'), ('apple', 'drop', 'carry'),
    ('cereal', 'displace', 'reach'), ('cereal', 'close', 'approach'), ('spatula', 'close', 'approach'),
])
def test_the_expert_recovers(task, kind, segment):
    cell = Cell(task, 10)
    result = rollout(cell, perturb=[Perturbation(kind, segment, 0.6, OFFSET)])
    assert kind in result.segments
    assert result.success, result


@pytest.mark.parametrize('task', ALL)
def test_random_perturbations_stay_in_their_bounds(task):
    for seed in range(50):
        for p in random_perturbations(np.random.default_rng(seed), task, count=2):
            assert p.kind in PERTURBATIONS
            assert np.linalg.norm(p.T_offset[:3, 3]) <= 0.1 + 1e-9
            assert np.degrees(rotation_angle(np.eye(4), p.T_offset)) <= 25 + 1e-6
            assert p.T_offset[2, 3] <= 0  # never pushed into the table
            assert 0 <= p.fraction <= 1
            assert task == 'apple' or p.kind != 'drop'


@pytest.mark.parametrize('task', ALL)
def test_from_a_random_start_the_expert_succeeds(task):
    cell = Cell(task, 21)
    cell.random_start(np.random.default_rng(21))
    assert rollout(cell).success


def test_out_of_time_is_a_named_failure():
    result = rollout(Cell('apple', 0), max_seconds=2.0)
    assert not result.success
    assert result.failure == 'timeout'


def test_command_reports_rates_and_intervals(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = main(['evaluate', 'expert', '--episodes', '2', '--jobs', '1', '--task', 'cereal', '--json', 'r.json'])
    assert code == 0
    report = json.loads((tmp_path / 'r.json').read_text())
    row = report['tasks']['cereal']
    assert row['n'] == 2 and row['success_rate'] == 1.0
    assert 0 < row['ci95'][0] < 1
    assert {'revision', 'model_sha256', 'seed_start', 'episodes', 'wall_s'} <= set(report)
    assert 'cereal' in capsys.readouterr().out


@pytest.mark.parametrize('arguments', [['--task', 'banana'], ['--episodes', '0'], ['--seed-start', '-3']])
def test_command_refuses_bad_input(arguments, capsys):
    assert main(['evaluate', 'expert', *arguments]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
