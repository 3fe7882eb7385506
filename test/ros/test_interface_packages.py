"""The interface packages: same types and hashes as the originals, built only where ROS lacks them."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rclpy.serialization import deserialize_message, serialize_message

from geo4d_ros.errors import BackendUnavailableError
from geo4d_ros.ros import interface_build as build

# RIHS01 hashes (REP-2011) of the upstream definitions: geometry2 jazzy, control_msgs jazzy, moveit_msgs 2.6.0,
# object_recognition_msgs 2.0.0, vision_msgs 4.1.1. Two peers talk only when these are equal.
HASHES = {
    'tf2_msgs/msg/TFMessage': 'e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087',
    'control_msgs/action/FollowJointTrajectory': '738ebcb7a2d7cfa42f9f1001cc99ce3a4383d1cfe508015d9be8485e4b1c66f6',
    'control_msgs/action/GripperCommand': 'e17c0e644eccf14bea84a0a93e0977182872c2eb7873ca6694900059b46dbc84',
    'control_msgs/action/ParallelGripperCommand': 'adfd3c1ebe8abc38ebcc0e454b6423d291d4010dd5697d14eca5b9be4726ae18',
    'moveit_msgs/srv/GetCartesianPath': 'b19f501df5d378141d918199894c3ad24533e76021a880b15dc5d62fec8d7b1a',
    'moveit_msgs/action/ExecuteTrajectory': 'e1ed3386f275fc8cea91cc78701074f892e78e583be2f8063eea5616dd1065fc',
    'moveit_msgs/msg/MoveItErrorCodes': 'dcda8a9950cf6dd6ac221c2c0d2509f52f136afa0403dd19beacdf07e83e4a07',
    'object_recognition_msgs/msg/ObjectType': '5eb3ee3976403366d7c50d7dbee8bec96b3bced1e752674a7194a35841632134',
    'vision_msgs/msg/Detection3DArray': '793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018',
}


def described(package, name):
    path = Path(sys.prefix) / 'share' / package / f'{name}.json'
    if not path.exists():
        pytest.skip(f'{package} comes from a ROS installation')
    return json.loads(path.read_text())


@pytest.mark.parametrize('name', HASHES)
def test_type_hashes_equal_the_originals(name):
    package, rest = name.split('/', 1)
    assert described(package, rest)['type_hashes'][0]['hash_string'] == f'RIHS01_{HASHES[name]}'


def test_the_generator_chain_reproduces_a_hash_of_the_wheels(tmp_path, monkeypatch):
    root = tmp_path / 'std_srvs' / 'srv'
    root.mkdir(parents=True)
    (root / 'Trigger.srv').write_text('---\nbool success\nstring message\n')
    monkeypatch.setattr(build, 'DEFINITIONS', tmp_path)
    (tmp_path / 'work').mkdir()
    work = build.Workspace(tmp_path / 'work', Path(sys.prefix))
    build.describe(build.read_package('std_srvs'), work)
    ours = json.loads((work.share('std_srvs') / 'srv' / 'Trigger.json').read_text())
    theirs = described('std_srvs', 'srv/Trigger')
    assert ours['type_hashes'] == theirs['type_hashes']


@pytest.mark.parametrize('package', build.all_packages(), ids=lambda p: p.name)
def test_every_type_serialises(package):
    for file in package.files:
        kind, name = file.parent.name, file.stem
        found = getattr(importlib.import_module(f'{package.name}.{kind}'), name)
        parts = {'msg': [found], 'srv': [getattr(found, p) for p in ('Request', 'Response')] if kind == 'srv' else [],
                 'action': [getattr(found, p) for p in ('Goal', 'Result', 'Feedback')] if kind == 'action' else []}
        for part in parts[kind]:
            assert deserialize_message(serialize_message(part()), part) == part()


def test_packages_come_after_what_they_need():
    names = [package.name for package in build.all_packages()]
    assert names.index('object_recognition_msgs') < names.index('moveit_msgs')


def test_field_lists_are_bare():
    for path in build.DEFINITIONS.rglob('*.*'):
        assert '#' not in path.read_text(), f'{path.name} carries a comment'


def test_what_ros_provides_is_not_built(tmp_path):
    foreign = build.InterfacePackage('std_srvs', [Path('srv/Trigger.srv')])
    assert build.status(foreign, tmp_path) == 'ros'
    assert build.status(build.InterfacePackage('no_such_msgs', []), tmp_path) == 'missing'


def test_a_changed_field_list_changes_the_key(tmp_path, monkeypatch):
    before = build.content_key(build.read_package('tf2_msgs'))
    (tmp_path / 'tf2_msgs' / 'msg').mkdir(parents=True)
    (tmp_path / 'tf2_msgs' / 'msg' / 'TFMessage.msg').write_text('geometry_msgs/TransformStamped[] others\n')
    monkeypatch.setattr(build, 'DEFINITIONS', tmp_path)
    assert build.content_key(build.read_package('tf2_msgs')) != before


def test_a_missing_compiler_is_one_line(monkeypatch):
    monkeypatch.setattr(build.shutil, 'which', lambda tool: None)
    with pytest.raises(BackendUnavailableError, match='apt-get install gcc'):
        build.check_compiler()


def test_a_second_build_has_nothing_to_do():
    result = subprocess.run([sys.executable, '-m', 'geo4d_ros.ros.interface_build'], capture_output=True, text=True,
                            timeout=60, check=False)
    assert (result.returncode, result.stdout) == (0, '')
