"""`geo4d record` over real DDS: what cameras publish comes in as an episode, and what is missing is said."""

import json
import threading

import pytest
import rclpy
from fakes.cameras import FakeCameras
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from geo4d_ros.cli.main import main
from geo4d_ros.data.episodes import Episode, list_episodes
from geo4d_ros.ros.serve.environment import free_domain_id, transport_environment


@pytest.fixture
def cell(monkeypatch, tmp_path):
    """Two fake cameras in a thread of their own."""
    for name, value in {**transport_environment(), 'ROS_DOMAIN_ID': str(free_domain_id()),
                        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    context = Context()
    rclpy.init(context=context)
    node = FakeCameras(context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    running = threading.Event()
    running.set()

    def spin():
        while running.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin)
    thread.start()
    yield node
    running.clear()
    thread.join()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_a_recorded_cell_becomes_an_episode(cell, tmp_path, capsys):
    code = main(['record', '--output', 'bag', '--seconds', '6', '--json', 'record.json'])
    said = capsys.readouterr()
    assert 'missing: labels; ' in said.out and 'missing: T_base_camera' not in said.out
    assert 'trainable: RGB and pointmap video' in said.out
    report = json.loads((tmp_path / 'record.json').read_text())
    pictures = report['topics']['/camera1/camera1/color/image_raw']
    assert pictures['count'] >= 8, said.err
    assert report['topics']['/tf_static']['count'] >= 1 and pictures['age_ms_max'] is not None
    assert code == (2 if report['problems'] else 0)
    assert not any('nothing came' in problem for problem in report['problems'])
    assert main(['import', 'bag', '--output', 'in', '--task', 'look', '--size', '24x32', '--max-skew', '0.3']) == 0
    episode = Episode.open(list_episodes(tmp_path / 'in')[0])
    assert episode.cameras == 2 and episode.frames >= 4
    assert set(episode.missing) == {'labels', 'joints', 'object_pose', 'opening_command'}
    assert episode.read('opening')[0] == pytest.approx(0.04)


def test_silent_topics_are_said_and_a_used_folder_is_refused(cell, tmp_path, capsys):
    assert main(['record', '--output', 'bag', '--seconds', '0.5', '--cameras', '/elsewhere']) == 2
    assert '/elsewhere/color/image_raw: nothing came' in capsys.readouterr().err
    assert main(['record', '--output', 'bag', '--seconds', '0.5']) == 2
    assert 'choose a new folder' in capsys.readouterr().err
