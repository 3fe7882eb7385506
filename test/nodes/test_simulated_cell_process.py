"""The simulated cell as a process: what it publishes, reset with a new seed, bad parameters."""

import os
from collections import Counter

import numpy as np
import pytest
from fakes.graph import new_group
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from geo4d_ros.geometry.image_messages import read_colour, read_depth
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.ros.graph.probe import LoopProbe
from geo4d_ros.ros.serve.qos import IMAGE_QOS, STATE_QOS, TF_QOS, TF_STATIC_QOS
from geo4d_ros.ros.wire.camera import parse_camera_info
from geo4d_ros.ros.wire.conversions import to_nanoseconds

PATIENCE = 60.0


@pytest.fixture(scope='module')
def cell(tmp_path_factory):
    group, domain_id = new_group(tmp_path_factory.mktemp('logs'))
    os.environ.update({k: v for k, v in group.environment.items() if k.startswith(('ROS_', 'RMW_', 'FAST'))})
    with group, LoopProbe(domain_id) as probe:
        group.start_node('simulated_cell', {'camera_rate': 3.0, 'task': 'apple', 'seed': 500000})
        yield group, probe


def status(probe):
    answered, values = probe.call('/geo4d/cell/status', PATIENCE)
    assert answered
    return values


def test_topics_of_a_real_cell(cell):
    _, probe = cell
    heard, last = Counter(), {}

    def listen(kind, topic, qos):
        def hear(message):
            heard.update([topic])
            last[topic] = message
        probe.node.create_subscription(kind, topic, hear, qos)

    for camera in ('/camera1/camera1', '/camera2/camera2'):
        listen(Image, f'{camera}/color/image_raw', IMAGE_QOS)
        listen(Image, f'{camera}/aligned_depth_to_color/image_raw', IMAGE_QOS)
        listen(CameraInfo, f'{camera}/color/camera_info', IMAGE_QOS)
    listen(Clock, '/clock', 10)
    listen(TFMessage, '/tf', TF_QOS)
    listen(TFMessage, '/tf_static', TF_STATIC_QOS)
    listen(String, '/robot_description', STATE_QOS)
    assert probe.wait_for(lambda: len(heard) == 10 and heard['/clock'] > 50, PATIENCE), heard
    depth = read_depth(last['/camera1/camera1/aligned_depth_to_color/image_raw'])
    assert depth.shape == (480, 640) and 0.3 < np.median(depth[depth > 0]) < 2.0
    assert read_colour(last['/camera2/camera2/color/image_raw']).shape == (480, 640, 3)
    assert parse_camera_info(last['/camera1/camera1/color/camera_info']).K[0, 2] == 319.5
    frames = {t.child_frame_id for t in last['/tf_static'].transforms}
    assert frames == {'camera1_color_optical_frame', 'camera2_color_optical_frame'}
    assert 'panda_hand_tcp' in {t.child_frame_id for t in last['/tf'].transforms}
    assert RobotModel.from_urdf(last['/robot_description'].data).dof == 7
    assert to_nanoseconds(last['/clock'].clock) > 1_000_000_000


def test_reset_takes_the_new_seed_and_time_goes_on(cell):
    _, probe = cell
    before = status(probe)
    assert before['seed'] == 500000 and before['success'] is False
    assert probe.set_parameter('/simulated_cell', 'seed', 500007)
    assert status(probe)['seed'] == 500000, 'not before the reset'
    answered, values = probe.call('/geo4d/cell/reset', PATIENCE)
    assert answered and values == {'task': 'apple', 'seed': 500007}
    after = status(probe)
    assert after['seed'] == 500007
    assert after['stamp'] > before['stamp']


def test_unknown_tasks_are_refused_while_it_runs(cell):
    group, probe = cell
    assert not probe.set_parameter('/simulated_cell', 'task', 'juggling')
    assert not probe.set_parameter('/simulated_cell', 'realtime_factor', 5.0), 'read-only'
    group.check()


def test_a_bad_parameter_ends_the_start_with_one_line(cell):
    group, _ = cell
    process = group.start_node('second_cell', {'task': 'juggling'}, command=['-m', 'geo4d_ros.nodes.simulated_cell'])
    assert process.wait(PATIENCE) == 2
    assert 'task should be one of' in group.last_line('second_cell')
    del group.processes['second_cell']


def test_the_log_is_clean(cell):
    group, _ = cell
    assert group.close() == {'simulated_cell': 0}
    text = (group.log_directory / 'simulated_cell.log').read_text()
    assert 'Traceback' not in text
