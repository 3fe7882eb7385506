"""What can be said of the launch files and the RViz view without ROS."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize('path', sorted((ROOT / 'launch').glob('*.launch.py')), ids=lambda p: p.name)
def test_launch_files_parse_and_describe_every_argument(path):
    tree = ast.parse(path.read_text())
    assert 'generate_launch_description' in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, 'id', '') == 'DeclareLaunchArgument':
            assert 'description' in {k.arg for k in call.keywords}, f'{path.name}: {ast.unparse(call)}'


def test_launched_executables_exist():
    nodes = {p.name for p in (ROOT / 'scripts').iterdir()}
    for path in (ROOT / 'launch').glob('*.launch.py'):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, 'id', '') == 'Node':
                words = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
                if words.get('package', 'geo4d_ros') == 'geo4d_ros':
                    assert words['executable'] in nodes


def test_rviz_shows_robot_images_cloud_and_plan():
    view = yaml.safe_load((ROOT / 'config' / 'plan_and_execute.rviz').read_text())
    displays = view['Visualization Manager']['Displays']
    topics = {(d['Class'].split('/')[-1], (d.get('Topic') or d.get('Description Topic') or {}).get('Value'))
              for d in displays}
    assert {('RobotModel', 'robot_description'), ('PointCloud2', 'geo4d/prediction/points'),
            ('Path', 'geo4d/plan/path'), ('MarkerArray', 'geo4d/plan/markers'),
            ('Image', 'geo4d/plan/reference/overlay/image_raw'),
            ('Image', 'geo4d/plan/second/overlay/image_raw')} <= topics
