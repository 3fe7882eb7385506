"""Wrong launch arguments are an error before anything starts, which says what would be right."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.geometry.transforms import make_transform
from geo4d_ros.ros.graph.launch_arguments import (
    calibrated_pose,
    cell_remappings,
    check_cameras,
    check_checkpoint,
    check_namespace,
    in_namespace,
    recorded,
)
from geo4d_ros.simulation.noise import NOISE_MODELS
from geo4d_ros.simulation.tasks.base import rotation_z

ROOT = Path(__file__).resolve().parents[3]
GOOD = {'reference_camera': '/camera1/camera1', 'second_camera': '/camera2/camera2', 'reference_serial': '_0123',
        'second_serial': '_0456'}


def test_two_cameras_with_serial_numbers():
    check_cameras(GOOD)


def test_a_calibration_gives_the_cameras_poses(tmp_path):
    T = make_transform(rotation_z(np.pi / 2), np.array([1.0, 2, 3]))
    path = tmp_path / 'calibration.json'
    path.write_text(json.dumps({'camera1': {'T_base_camera': T.tolist()}, 'hall_left': {'T_base_camera': T.tolist()}}))
    for camera in ('/camera1/camera1', 'hall/left'):
        pose = [float(v) for v in calibrated_pose(str(path), camera).split()]
        assert pose == pytest.approx([1, 2, 3, 0, 0, 0.5 ** 0.5, 0.5 ** 0.5], abs=1e-6)
    with pytest.raises(ConfigurationError, match='has no camera camera2, it has camera1, hall_left'):
        calibrated_pose(str(path), 'camera2/camera2')
    path.write_text('not json')
    with pytest.raises(ConfigurationError, match='is no calibration of cameras'):
        calibrated_pose(str(path), 'camera1/camera1')


@pytest.mark.parametrize('change, text', [
    ({'reference_serial': '', 'second_serial': ''}, 'set reference_serial and second_serial'),
    ({'second_serial': '_'}, 'set second_serial'),
    ({'second_serial': '0123'}, 'one camera cannot be two'),
    ({'second_camera': '/camera1/camera1'}, 'a namespace of its own'),
    ({'reference_camera': '/camera'}, '"/namespace/name" but is \'/camera\''),
])
def test_what_would_start_the_wrong_camera(change, text):
    with pytest.raises(ConfigurationError, match=text):
        check_cameras({**GOOD, **change})


def test_an_unknown_checkpoint_lists_what_exists():
    check_checkpoint('')
    check_checkpoint('geo4d-sim-small')
    with pytest.raises(ConfigurationError, match=r'shipped models .*geo4d-sim-small'):
        check_checkpoint('geo5d')


def calls(name, function):
    tree = ast.parse((ROOT / 'launch' / name).read_text())
    start = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == 'start')
    return [c for c in ast.walk(start) if isinstance(c, ast.Call) and getattr(c.func, 'id', '') == function]


def test_the_launch_files_check_before_they_start():
    assert calls('cameras.launch.py', 'check_cameras') and calls('plan_and_execute.launch.py', 'check_cameras')
    assert calls('plan_and_execute.launch.py', 'check_checkpoint') and calls('replay.launch.py', 'check_checkpoint')


def test_choices_are_those_of_the_package():
    tree = ast.parse((ROOT / 'launch' / 'simulation.launch.py').read_text())
    noise = next(c for c in ast.walk(tree) if isinstance(c, ast.Call) and c.args and getattr(
        c.args[0], 'value', '') == 'noise')
    choices = next(k.value for k in noise.keywords if k.arg == 'choices')
    assert tuple(ast.literal_eval(choices)) == NOISE_MODELS


@pytest.mark.parametrize('namespace', ['', 'cell2', '/hall/cell2', 'hall/cell_2'])
def test_a_good_namespace(namespace):
    check_namespace(namespace)


@pytest.mark.parametrize('namespace', ['cell 2', '2cell', 'cell2/', '/', 'a//b', 'cell__2', '{node}'])
def test_a_bad_namespace_is_refused(namespace):
    with pytest.raises(ConfigurationError, match='namespace should be'):
        check_namespace(namespace)


@pytest.mark.parametrize('namespace, name, full', [
    ('', 'camera1/camera1', '/camera1/camera1'), ('cell2', 'camera1/camera1', '/cell2/camera1/camera1'),
    ('/hall/cell2', 'clock', '/hall/cell2/clock'), ('cell2', '/camera1/camera1', '/camera1/camera1')])
def test_a_name_in_full(namespace, name, full):
    assert in_namespace(namespace, name) == full


def test_transforms_and_a_simulated_clock_belong_to_their_cell():
    assert cell_remappings('', simulated=True) == []
    assert dict(cell_remappings('cell2', simulated=True)) == {'/tf': 'tf', '/tf_static': 'tf_static',
                                                              '/clock': 'clock'}
    assert '/clock' not in dict(cell_remappings('cell2', simulated=False))


def test_a_recording_keeps_to_its_namespace():
    assert recorded('') == ['--all']
    pattern = re.compile(recorded('cell2')[1])
    assert pattern.search('/cell2/tf') and pattern.search('/diagnostics')
    assert not pattern.search('/cell22/tf') and not pattern.search('/cell1/cell2/tf')
