"""The simulated cell: determinism, randomisation, servos, labels, success, snapshots, mesh cache."""

import os
import subprocess
import sys

import numpy as np
import pytest
from fakes import panda

from geo4d_ros.errors import InvalidInputError, SimulationError
from geo4d_ros.geometry.transforms import pose_to_quaternion
from geo4d_ros.robots import meshes
from geo4d_ros.robots.inverse_kinematics import shared_kinematics
from geo4d_ros.simulation.cell import Cell
from geo4d_ros.simulation.tasks import BUILT_IN, TASKS

ALL = sorted(BUILT_IN)


def put_object(cell, T):
    """Teleport the object, at rest."""
    x, y, z, w = pose_to_quaternion(T)
    joint = cell.data.joint('object')
    joint.qpos[:] = [*T[:3, 3], w, x, y, z]
    joint.qvel[:] = 0


def goal_pose(cell):
    """An object pose at rest at the goal."""
    T_start = cell.object_pose()
    return cell.spec.settled(cell.spec.release_pose(T_start, cell.T_base_gripper))


def test_unknown_task_lists_the_known_ones():
    with pytest.raises(SimulationError, match='cereal, spatula, apple'):
        Cell('banana', 0)


@pytest.mark.parametrize('seed', [-1, 1.5, 'x'])
def test_bad_seed_is_refused(seed):
    with pytest.raises(InvalidInputError, match='seed'):
        Cell('apple', seed)


@pytest.mark.parametrize('task', ALL)
def test_same_seed_same_scene_and_physics(task):
    cells = [Cell(task, 11) for _ in range(2)]
    for cell in cells:
        cell.set_joint_target(panda.HOME + 0.1)
        cell.step(200)
    np.testing.assert_array_equal(cells[0].data.qpos, cells[1].data.qpos)
    np.testing.assert_array_equal(cells[0].model.geom_rgba, cells[1].model.geom_rgba)


@pytest.mark.parametrize('task', ALL)
def test_another_seed_is_another_scene(task):
    a, b = Cell(task, 11), Cell(task, 12)
    assert np.linalg.norm(a.object_pose()[:2, 3] - b.object_pose()[:2, 3]) > 0.005
    assert not np.allclose(a.joint_positions, b.joint_positions)


@pytest.mark.parametrize('task', ALL)
def test_randomisation_is_wide(task):
    layouts = [TASKS[task].sample(np.random.default_rng(i)) for i in range(200)]
    for T in ([layout.T_object for layout in layouts], [layout.T_goal for layout in layouts]):
        spread = np.ptp(np.stack(T)[:, :2, 3], axis=0)
        assert spread[1] >= 0.2  # +-10 cm
        assert spread[0] >= 0.11
    turned = np.stack([layout.T_goal if task == 'apple' else layout.T_object for layout in layouts])
    yaw = np.degrees(np.arctan2(turned[:, 1, 0], turned[:, 0, 0]))
    assert np.ptp(yaw) >= 85  # +-45 degrees


@pytest.mark.parametrize('task', ALL)
def test_start_is_free_at_rest_and_not_yet_done(task):
    for seed in range(3):
        cell = Cell(task, seed)
        assert cell.time == 0.0
        assert not cell.robot_in_contact()
        assert not cell.succeeded()
        assert cell.opening == pytest.approx(panda.MAX_OPENING, abs=1e-3)
        assert 0.18 < cell.T_base_gripper[2, 3] < 0.40
        assert cell.T_base_gripper[2, 2] < -0.9  # pointing down
        assert cell.object_speed()[0] < 0.02


@pytest.mark.parametrize('task', ALL)
def test_all_label_classes_are_there(task):
    cell = Cell(task, 0)
    assert set(np.unique(cell.geom_labels)) == {0, 1, 2, 3, 4, 5, 6}
    assert cell.geom_labels.dtype == np.uint8


def test_left_finger_is_the_one_on_plus_y_of_the_tool():
    cell = Cell('apple', 0)
    for name, sign in (('panda_leftpad', 1), ('panda_rightpad', -1)):
        offset = cell.data.geom(name).xpos - cell.T_base_gripper[:3, 3]
        assert sign * (offset @ cell.T_base_gripper[:3, 1]) > 0.03


@pytest.mark.parametrize('task', ALL)
def test_success_needs_the_object_at_the_goal_and_at_rest(task):
    cell = Cell(task, 1)
    put_object(cell, goal_pose(cell))
    cell.step(500)
    assert cell.succeeded()
    assert cell.status()['success'] and cell.status()['object_at_goal']
    cell.data.joint('object').qvel[:3] = [0, 0, 0.5]
    assert not cell.succeeded()
    lifted = goal_pose(cell)
    lifted[2, 3] += 0.2
    put_object(cell, lifted)
    cell.step(1)
    assert not cell.succeeded()


def test_an_object_still_gripped_is_no_success():
    cell = Cell('apple', 1)
    T = cell.object_pose()
    T[:3, 3] = [*cell.spec.layout.T_goal[:2, 3], 0.035]
    put_object(cell, T)
    T_grip = cell.spec.grasps(T, cell.T_base_gripper)[0]
    solution = shared_kinematics().solve_any(T_grip)
    assert solution.reached
    cell.place_robot(solution.q, 0.058)
    cell.set_opening_target(0.0)
    cell.step(300)
    assert len(cell.touching()) == 2
    assert cell.spec.at_goal(cell.object_pose())
    assert not cell.succeeded()


def test_tipped_cereal_box_is_no_success():
    cell = Cell('cereal', 1)
    T = goal_pose(cell)
    T[:3, :3] = T[:3, :3] @ [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    T[2, 3] = 0.022
    put_object(cell, T)
    cell.step(300)
    assert not cell.succeeded()


def test_servos_hold_and_reach():
    cell = Cell('cereal', 2)
    q = cell.joint_positions
    cell.set_joint_target(q)
    cell.step(500)
    assert np.abs(cell.joint_positions - q).max() < 1e-3
    target = q + 0.2
    cell.set_joint_target(target)
    cell.set_opening_target(0.03)
    cell.step(1000)
    assert np.abs(cell.joint_positions - target).max() < 2e-3
    assert cell.opening == pytest.approx(0.03, abs=1e-3)
    assert np.abs(np.diff(cell.finger_positions)).max() < 5e-4


def test_targets_are_clipped_and_checked():
    cell = Cell('apple', 0)
    cell.set_joint_target(np.full(7, 100.0))
    assert (cell.data.ctrl[:7] <= panda.joint_limits()[1]).all()
    cell.set_opening_target(1.0)
    assert cell.data.ctrl[7] == panda.MAX_OPENING
    for bad in (np.full(7, np.nan), np.zeros(6)):
        with pytest.raises(InvalidInputError, match='7 finite'):
            cell.set_joint_target(bad)
    with pytest.raises(InvalidInputError, match='finite'):
        cell.set_opening_target(float('nan'))


def test_restored_state_continues_bit_by_bit():
    cell = Cell('spatula', 3)
    cell.set_joint_target(panda.HOME + 0.2)
    cell.step(50)
    state = cell.save_state()
    cell.step(200)
    expected, time = cell.data.qpos.copy(), cell.time
    cell.restore_state(state)
    assert cell.time < time
    cell.step(200)
    np.testing.assert_array_equal(cell.data.qpos, expected)


def test_state_of_another_scene_is_refused():
    state = Cell('apple', 0).save_state()
    with pytest.raises(InvalidInputError, match='same task and seed'):
        Cell('apple', 0).restore_state(type(state)(state.values[:-1]))


@pytest.mark.parametrize('task', ALL)
def test_random_start_is_free_and_keeps_the_scene(task):
    cell = Cell(task, 4)
    T_object = cell.object_pose()
    seen = []
    for seed in range(4):
        cell.random_start(np.random.default_rng(seed))
        assert not cell.robot_in_contact()
        p = cell.T_base_gripper[:3, 3]
        assert 0.31 < p[0] < 0.63 and abs(p[1]) < 0.31 and 0.11 < p[2] < 0.43
        np.testing.assert_allclose(cell.object_pose(), T_object, atol=1e-6)
        seen.append(p)
    assert np.ptp(np.stack(seen), axis=0).max() > 0.05


def test_missing_mesh_wheel_says_what_to_install(monkeypatch):
    meshes.mesh_dir.cache_clear()
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(SimulationError, match='pip install --no-deps gymnasium-robotics'):
        meshes.mesh_dir(panda.ROBOT.meshes)
    meshes.mesh_dir.cache_clear()


def test_unwritable_mesh_cache_is_named(monkeypatch, tmp_path):
    meshes.mesh_dir.cache_clear()
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    with pytest.raises(SimulationError, match='XDG_CACHE_HOME'):
        meshes.mesh_dir(panda.ROBOT.meshes)
    meshes.mesh_dir.cache_clear()


def test_two_processes_make_one_mesh_cache(tmp_path):
    code = 'from geo4d_ros.robots.registry import load_robot; print(load_robot().mesh_path("meshes/hand.stl").parent)'
    environment = {**os.environ, 'XDG_CACHE_HOME': str(tmp_path), 'OMP_NUM_THREADS': '1'}
    processes = [subprocess.Popen([sys.executable, '-c', code], env=environment, stdout=subprocess.PIPE, text=True)
                 for _ in range(2)]
    folders = {p.communicate(timeout=300)[0].strip() for p in processes}
    assert [p.returncode for p in processes] == [0, 0]
    assert len(folders) == 1
    assert sorted(os.listdir(tmp_path / 'geo4d_ros')) == [os.path.basename(folders.pop())]
    made = next((tmp_path / 'geo4d_ros').iterdir())
    assert {f.stem for f in made.glob('*.stl')} == {name for name, _, _ in panda.ROBOT.meshes.files}
