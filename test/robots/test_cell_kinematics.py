"""One table of parameters, two models: the URDF and the MJCF must agree; inverse kinematics must invert."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from fakes import panda
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.geometry.transforms import make_transform
from geo4d_ros.robots.inverse_kinematics import ArmKinematics
from geo4d_ros.simulation.cell import Cell
from geo4d_ros.simulation.tasks.base import gripper_down

LOWER, UPPER = panda.joint_limits()
fractions = st.lists(st.floats(0, 1), min_size=7, max_size=7)


@pytest.fixture(scope='module')
def pinocchio_model():
    pin = pytest.importorskip('pinocchio')
    model = pin.buildModelFromXML(panda.urdf_text())
    return pin, model, model.createData()


@pytest.fixture(scope='module')
def kinematics():
    return ArmKinematics(panda.ROBOT)


@settings(max_examples=50, deadline=None)
@given(fractions)
def test_urdf_and_mjcf_have_the_same_forward_kinematics(pinocchio_model, kinematics, f):
    pin, model, data = pinocchio_model
    q = LOWER + np.array(f) * (UPPER - LOWER)
    q_all = pin.neutral(model)
    for name, value in zip(panda.JOINT_NAMES, q, strict=True):
        q_all[model.joints[model.getJointId(name)].idx_q] = value
    pin.framesForwardKinematics(model, data, q_all)
    T_urdf = data.oMf[model.getFrameId(panda.TOOL_FRAME)].homogeneous
    assert np.abs(T_urdf - kinematics.forward(q)).max() < 1e-6


def test_the_cell_has_the_same_kinematics(kinematics):
    cell = Cell('apple', 0)
    assert np.abs(kinematics.forward(cell.joint_positions) - cell.T_base_gripper).max() < 1e-6


def test_known_pose_of_the_data_sheet(kinematics):
    """All joints at zero: flange 0.088 m ahead and 0.926 m up (FCI documentation), tool 0.2104 m below it."""
    T = kinematics.forward(np.zeros(7))
    np.testing.assert_allclose(T[:3, 3], [0.088, 0, 0.333 + 0.316 + 0.384 - 0.107 - 0.1034], atol=1e-9)


def test_home_points_down_over_the_table(kinematics):
    T = kinematics.forward(panda.HOME)
    np.testing.assert_allclose(T[:3, 3], [0.46, 0, 0.28], atol=2e-3)
    np.testing.assert_allclose(T[:3, :3], np.diag([1, -1, -1]), atol=2e-3)


def test_fingers_in_the_urdf_lie_where_the_simulation_has_them(pinocchio_model):
    pin, model, data = pinocchio_model
    cell = Cell('apple', 0)
    q_all = pin.neutral(model)
    q_all[:7] = cell.joint_positions
    q_all[7:] = cell.finger_positions
    pin.framesForwardKinematics(model, data, q_all)
    for side in ('left', 'right'):
        T = data.oMf[model.getFrameId(f'panda_{side}finger')].homogeneous
        body = cell.data.body(f'panda_{side}finger')
        np.testing.assert_allclose(T[:3, 3], body.xpos, atol=1e-6)
        np.testing.assert_allclose(T[:3, :3], body.xmat.reshape(3, 3), atol=1e-6)


def test_urdf_meshes_exist_and_every_moving_link_collides():
    root = ElementTree.fromstring(panda.urdf_text())
    for mesh in root.iter('mesh'):
        assert Path(mesh.attrib['filename'].removeprefix('file://')).is_file()
    for link in root.findall('link'):
        if link.attrib['name'] != panda.TOOL_FRAME:
            assert link.find('collision') is not None, link.attrib['name']
            assert link.find('inertial') is not None, link.attrib['name']


@settings(max_examples=40, deadline=None)
@given(st.floats(0.35, 0.62), st.floats(-0.28, 0.28), st.floats(0.05, 0.4), st.floats(-0.8, 0.8))
def test_inverse_inverts_over_the_table(kinematics, x, y, z, yaw):
    T = make_transform(gripper_down(yaw), np.array([x, y, z]))
    solution = kinematics.solve_any(T)
    assert solution.reached
    T_reached = kinematics.forward(solution.q)
    assert np.linalg.norm(T_reached[:3, 3] - T[:3, 3]) < 1e-3
    assert np.abs(T_reached[:3, :3] - T[:3, :3]).max() < 6e-3
    assert ((solution.q > LOWER) & (solution.q < UPPER)).all()


def test_out_of_reach_is_reported_not_invented(kinematics):
    T = np.diag([1.0, -1, -1, 1])
    T[:3, 3] = [1.5, 0, 0.2]
    solution = kinematics.solve_any(T)
    assert not solution.reached
    assert solution.position_error > 0.3
