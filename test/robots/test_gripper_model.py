"""The gripper's shape: lint of meshes, articulation, symmetry."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.errors import ConfigurationError, InvalidInputError
from geo4d_ros.geometry.transforms import from_rotvec, rotation_angle
from geo4d_ros.robots.gripper import (
    GripperModel,
    gripper_of,
    load_gripper,
    nearest_symmetric,
    read_gripper,
    sample_surface,
    simplify,
)


def scaled(gripper: GripperModel, factor: float, shift=(0.0, 0.0, 0.0)) -> GripperModel:
    return GripperModel('test', tuple(v * factor + shift for v in gripper.vertices), gripper.faces)


def test_default_gripper_has_the_size_of_the_franka_hand():
    vertices, _, _ = gripper_of().posed(0.0)
    size = np.ptp(vertices, axis=0)
    np.testing.assert_allclose(size, [0.063, 0.2055, 0.137], atol=0.004)
    assert 0.005 < vertices[:, 2].max() < 0.015  # the finger tips reach past the tool centre point


def test_pads_are_apart_by_the_opening():
    gripper = gripper_of()
    vertices, faces, part = gripper.posed(0.05)
    left, right = (vertices[faces[part == p]].reshape(-1, 3)[:, 1] for p in (1, 2))
    assert left.min() - right.max() == pytest.approx(0.05, abs=1e-9)


def test_mesh_in_millimetres_is_named():
    with pytest.raises(InvalidInputError, match=r'millimetres: set scale 0\.001'):
        scaled(gripper_of(), 1000)


@pytest.mark.parametrize(('factor', 'shift', 'message'), [
    (0.05, (0, 0, 0), 'check the scale'), (5, (0, 0, 0), 'expected 0.03 to 0.6'), (1, (0, 0, 1), 'tool frame')])
def test_wrong_size_or_place_is_refused(factor, shift, message):
    with pytest.raises(InvalidInputError, match=message):
        scaled(gripper_of(), factor, shift)


def test_nan_vertices_are_refused():
    gripper = gripper_of()
    broken = gripper.vertices[0].copy()
    broken[3, 1] = np.nan
    with pytest.raises(InvalidInputError, match='NaN'):
        GripperModel('test', (broken, *gripper.vertices[1:]), gripper.faces)


def test_user_meshes_are_read_scaled_and_simplified(tmp_path):
    for name, extents in (('hand', (60, 200, 60)), ('finger', (20, 15, 50))):
        trimesh.creation.box(extents).subdivide().subdivide().subdivide().export(tmp_path / f'{name}.stl')
    (tmp_path / 'gripper.yaml').write_text(
        'name: mine\nscale: 0.001\nmax_opening: 0.1\n'
        'hand: hand.stl\nleft_finger: finger.stl\nright_finger: finger.stl\n')
    gripper = read_gripper(tmp_path / 'gripper.yaml')
    assert gripper.name == 'mine' and gripper.max_opening == 0.1
    assert len(gripper.faces[0]) <= 600
    np.testing.assert_allclose(np.ptp(gripper.vertices[0], axis=0), [0.06, 0.2, 0.06], atol=1e-6)


@pytest.mark.parametrize(('change', 'message'), [
    ({'hand': 'absent.stl'}, 'does not exist'), ({'hnad': 'x'}, "unknown gripper key 'hnad'"),
    ({'hand': None}, 'lacks')])
def test_bad_descriptions_are_named(tmp_path, change, message):
    trimesh.creation.box((0.06, 0.2, 0.06)).export(tmp_path / 'm.stl')
    description = {'hand': 'm.stl', 'left_finger': 'm.stl', 'right_finger': 'm.stl', **change}
    description = {k: v for k, v in description.items() if v is not None}
    with pytest.raises(ConfigurationError, match=message):
        load_gripper(description, tmp_path)


def test_a_file_that_is_no_mesh_is_named(tmp_path):
    (tmp_path / 'm.stl').write_bytes(b'not a mesh')
    with pytest.raises((ConfigurationError, InvalidInputError), match=r'm\.stl'):
        load_gripper({'hand': 'm.stl', 'left_finger': 'm.stl', 'right_finger': 'm.stl'}, tmp_path)


def test_simplified_sphere_keeps_its_shape():
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.1)
    vertices, faces = simplify(np.asarray(ball.vertices), np.asarray(ball.faces), 600)
    assert len(faces) <= 600
    radius = np.linalg.norm(sample_surface(vertices, faces, 500)[0], axis=1)
    assert radius.min() > 0.07 and radius.max() < 0.11


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1.2, 1.2), min_size=3, max_size=3), st.floats(-0.5, 0.5))
def test_half_turn_goes_to_the_nearer_member(turn, spin):
    T_previous = from_rotvec(np.array(turn))
    T = T_previous @ from_rotvec(np.array([0, 0, spin + np.pi]))
    nearest = nearest_symmetric(T, T_previous, True)
    assert rotation_angle(nearest, T_previous) == pytest.approx(abs(spin), abs=1e-6)
    np.testing.assert_array_equal(nearest_symmetric(T, T_previous, False), T)
