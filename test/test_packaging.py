"""package.xml, setup.py, requirements and the executables agree with each other and with the ROS index."""

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from geo4d_ros import __version__
from geo4d_ros.errors import ConfigurationError
from geo4d_ros.resources import find_checkpoint, resource, share_directory

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = ElementTree.parse(ROOT / 'package.xml').getroot()
# Keys of rosdistro (jazzy) and rosdep that were looked up; anything else must be looked up before it is added.
RESOLVABLE = {
    'ament_index_python', 'builtin_interfaces', 'control_msgs', 'diagnostic_msgs',
    'geo4d_interfaces',  # ours, in interfaces/
    'geometry_msgs', 'launch', 'lifecycle_msgs',
    'launch_ros', 'moveit_msgs', 'nav_msgs', 'rcl_interfaces', 'rclpy', 'ros2bag', 'rosbag2_storage_mcap',
    'rosgraph_msgs',
    'rviz2', 'sensor_msgs', 'shape_msgs', 'std_msgs', 'std_srvs', 'tf2_msgs', 'tf2_ros', 'trajectory_msgs',
    'vision_msgs', 'visualization_msgs', 'action_msgs', 'python3-numpy', 'python3-pil', 'python3-scipy', 'python3-yaml',
    'python3-hypothesis', 'python3-pytest'}


def test_manifest_is_format_3_ament_python():
    assert MANIFEST.attrib['format'] == '3'
    assert MANIFEST.findtext('export/build_type') == 'ament_python'
    assert MANIFEST.findtext('version') == __version__
    assert MANIFEST.findtext('license') == 'Apache-2.0'
    # colcon silently treats a package with a malformed address as plain Python.
    assert re.fullmatch(r'[\w.+-]+@[\w-]+(\.[\w-]+)+', MANIFEST.find('maintainer').attrib['email'])


def test_every_dependency_key_resolves():
    keys = {tag.text for tag in MANIFEST if tag.tag.endswith('depend')}
    assert keys <= RESOLVABLE, keys - RESOLVABLE


def test_every_message_package_that_is_imported_is_declared():
    keys = {tag.text for tag in MANIFEST if tag.tag.endswith('depend')}
    used = set()
    for path in (ROOT / 'geo4d_ros').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else \
                [node.module] if isinstance(node, ast.ImportFrom) else []
            used |= {n.split('.')[0] for n in names if n.split('.')[0].endswith(('_msgs', '_srvs', '_interfaces'))}
    assert used <= keys, used - keys


def test_every_node_has_an_executable_wrapper_and_a_main():
    setup = (ROOT / 'setup.py').read_text()
    nodes = ast.literal_eval(re.search(r'nodes = (\[.*?\])', setup, re.DOTALL)[1])
    assert {p.name for p in (ROOT / 'scripts').iterdir() if p.suffix != '.sh'} == set(nodes)
    for node in nodes:
        path = ROOT / 'scripts' / node
        assert path.read_text().startswith('#!/usr/bin/env python3\n') and path.stat().st_mode & 0o111
        assert 'def main(' in (ROOT / 'geo4d_ros' / 'nodes' / f'{node}.py').read_text()


def test_requirements_are_pinned():
    for name in ('base', 'dev', 'ros', 'torch', 'assets', 'constraints'):
        for line in (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines():
            assert not line or line.startswith('#') or '==' in line, f'{name}.txt: {line}'


def test_ci_runs_the_test_command_of_the_readme():
    assert (ROOT / '.ci' / 'run').read_text().rstrip().endswith('exec make test')


def test_resources_are_found_and_missing_ones_named():
    assert resource('config', 'geo4d.yaml').is_file()
    assert (share_directory() / 'package.xml').is_file()
    with pytest.raises(ConfigurationError, match=r'nothing\.yaml is missing'):
        resource('config', 'nothing.yaml')
    with pytest.raises(ConfigurationError, match='no-such-model'):
        find_checkpoint('no-such-model')


def test_resources_are_found_in_an_installation(tmp_path):
    package = tmp_path / 'lib' / 'python3.11' / 'site-packages' / 'geo4d_ros'
    package.mkdir(parents=True)
    for name in ('__init__.py', 'resources.py', 'errors.py'):
        (package / name).write_text((ROOT / 'geo4d_ros' / name).read_text())
    share = tmp_path / 'share' / 'geo4d_ros'
    share.mkdir(parents=True)
    code = 'from geo4d_ros.resources import share_directory; print(share_directory())'
    command = [sys.executable, '-S', '-c', f'import sys; sys.path.insert(0, {str(package.parent)!r}); {code}']
    missing = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 'install the package again' in missing.stderr
    (share / 'package.xml').write_text('<package/>')
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == str(share)


def test_the_requirements_of_a_ros_machine_name_every_package_that_is_imported():
    """What apt or an optional set gives is listed here; the rest has to be in jazzy.txt, or the steps break."""
    wanted = {re.split(r'[<>=]', line)[0].lower().replace('-', '_')
              for line in (ROOT / 'requirements' / 'jazzy.txt').read_text().splitlines() if line and line[0] != '#'}
    called = {'PIL': 'pillow', 'cv2': 'opencv_python_headless', 'pinocchio': 'pin', 'yaml': 'pyyaml'}
    optional = {'openvino', 'pyrealsense2', 'rerun', 'ray', 'small_gicp', 'torchao', 'bitsandbytes', 'plotly',
                'huggingface_hub'}
    foreign = {'estimater', 'learning', 'nvdiffrast'}  # of a FoundationPose checkout, in its own process
    ros = {tag.text for tag in MANIFEST if tag.tag.endswith('depend')} | {'rosidl_adapter'}
    imported = set()
    for path in (ROOT / 'geo4d_ros').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else \
                [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            imported |= {n.split('.')[0] for n in names}
    imported -= {'geo4d_ros', *sys.stdlib_module_names} | optional | foreign | ros
    imported = {n for n in imported if not n.startswith('rosidl_')}
    assert {called.get(name, name).lower() for name in imported} <= wanted
