"""The real generator and tracker nodes over DDS: the plan they publish, and a reason for everything that is wrong."""

import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import rclpy
from fakes.cameras import T_BASE_TOOL, FakeCameras
from fakes.prediction import FakeGenerator, FakeTracker
from geo4d_interfaces.msg import Plan
from geo4d_interfaces.srv import Predict
from nav_msgs.msg import Path
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from geo4d_ros.bench.speed.serve import served
from geo4d_ros.generation.remote.address import Address
from geo4d_ros.generation.remote.client import RemoteGenerator
from geo4d_ros.geometry.image_messages import read_depth
from geo4d_ros.geometry.transforms import make_transform
from geo4d_ros.nodes.prediction import compose
from geo4d_ros.ros.serve.environment import free_domain_id, loopback_environment
from geo4d_ros.ros.serve.lifecycle import bring_up
from geo4d_ros.ros.serve.qos import PREDICTION_QOS, STATE_QOS
from geo4d_ros.ros.wire.conversions import read_pose, to_nanoseconds
from geo4d_ros.ros.wire.plan_message import parse_plan

PATIENCE = 30.0  # [s] for what takes a fraction of a second on an idle machine


class Viewer(Node):
    """Keeps what the nodes publish and calls the service."""

    def __init__(self):
        super().__init__('viewer')
        self.received = {}
        self.client = self.create_client(Predict, '/geo4d/predict')
        for topic, kind, qos in (
                ('/geo4d/plan', Plan, STATE_QOS), ('/geo4d/plan/path', Path, STATE_QOS),
                ('/geo4d/plan/markers', MarkerArray, STATE_QOS),
                ('/geo4d/prediction/points', PointCloud2, PREDICTION_QOS),
                ('/geo4d/prediction/second/depth/image_rect_raw', Image, PREDICTION_QOS),
                ('/geo4d/prediction/reference/color/image_raw', Image, PREDICTION_QOS),
                ('/geo4d/plan/reference/overlay/image_raw', Image, PREDICTION_QOS)):
            self.create_subscription(kind, topic, lambda m, t=topic: self.received.setdefault(t, []).append(m), qos)

    def predict(self):
        future = self.client.call_async(Predict.Request())
        wait_for(future.done)
        return future.result().success, future.result()


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, 'it did not happen'
        time.sleep(0.02)


class Graph:
    """Nodes of one domain, spun in the background of this process."""

    def __init__(self, factories, cameras=2):
        self.executor = MultiThreadedExecutor(6)
        self.nodes = []
        for factory in (lambda: FakeCameras(cameras), Viewer, *factories):
            self.nodes.append(factory())
            bring_up(self.nodes[-1])
            self.executor.add_node(self.nodes[-1])
        self.cameras, self.viewer, self.generator, self.tracker = self.nodes
        self.set(max_age=2.0, observation_timeout=1.5)  # machines that run tests are busy
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._spin)
        self.thread.start()
        wait_for(self.viewer.client.service_is_ready)

    def _spin(self):
        while not self.ending.is_set():
            self.executor.spin_once(timeout_sec=0.1)

    def set(self, **values):
        self.generator.set_parameters([Parameter(name, value=value) for name, value in values.items()])

    def close(self):
        self.ending.set()
        self.thread.join()
        self.executor.shutdown()
        for node in self.nodes:
            if hasattr(node, 'close'):
                node.close()
            node.destroy_node()
        rclpy.shutdown()


# What the generator looks at does not depend on who tracks: most is tested in one process only.
BOTH = pytest.mark.parametrize('graph', ['one process', 'topics'], indirect=True)
THREE = pytest.mark.parametrize('graph', ['three cameras'], indirect=True)
ONE = pytest.mark.parametrize('graph', ['one process'], indirect=True)


@pytest.fixture(scope='module')
def graph(request):
    before = dict(os.environ)
    domain_id = free_domain_id()
    os.environ.update(loopback_environment(domain_id))
    three = request.param == 'three cameras'
    names = ','.join(f'camera{i}/camera{i}' for i in (1, 2, 3))
    rclpy.init(domain_id=domain_id, args=['--ros-args', '-p', f'cameras:=[{names}]'] if three else None)
    factories = [lambda: FakeGenerator(hand_off=None), lambda: FakeTracker(subscribe=True)] \
        if request.param == 'topics' else compose(FakeGenerator, FakeTracker)
    made = Graph(factories, 3 if three else 2)
    yield made
    made.close()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def healthy(graph):
    graph.cameras.fault, graph.cameras.T_base_tool = '', T_BASE_TOOL
    graph.cameras.publish_cameras()
    graph.set(transform_tolerance=1.0, slop=0.05, fresh=True)
    wait_for(lambda: graph.viewer.predict()[0])


@BOTH
def test_one_request_gives_one_plan_on_all_topics(graph):
    received = graph.viewer.received
    received.clear()
    success, answer = graph.viewer.predict()
    assert success and answer.frames == 11 and answer.reason == '' and answer.verdict == Plan.PROCEED
    assert {'observe', 'generate', 'publish', 'track'} <= set(answer.stages)
    wait_for(lambda: {'/geo4d/plan', '/geo4d/plan/path', '/geo4d/plan/markers'} <= set(received))
    message, path = received['/geo4d/plan'][-1], received['/geo4d/plan/path'][-1]
    plan = parse_plan(message).answer
    stamps = np.array([to_nanoseconds(p.header.stamp) for p in path.poses])
    assert message.header.frame_id == path.header.frame_id == 'panda_link0' and plan.id == answer.plan_id
    assert to_nanoseconds(answer.stamp) == stamps[0] == plan.observation_stamp
    np.testing.assert_array_equal(np.diff(stamps), 500_000_000)
    np.testing.assert_allclose(plan.T_base_gripper_start, T_BASE_TOOL, atol=1e-6)  # as measured, in the base frame
    np.testing.assert_allclose(np.linalg.norm(plan.T_base_gripper[4, :3, 3] - T_BASE_TOOL[:3, 3]), 0.1, atol=1e-6)
    np.testing.assert_allclose([read_pose(p.pose) for p in path.poses[1:]], plan.T_base_gripper, atol=1e-9)
    np.testing.assert_allclose(plan.opening, 0.04)
    np.testing.assert_array_equal(plan.confidence, np.ones(10))

    def of_this_plan(topic):
        return [m for m in received.get(topic, []) if to_nanoseconds(m.header.stamp) in stamps]

    for topic in ('/geo4d/prediction/points', '/geo4d/prediction/second/depth/image_rect_raw',
                  '/geo4d/prediction/reference/color/image_raw', '/geo4d/plan/reference/overlay/image_raw'):
        wait_for(lambda topic=topic: len(of_this_plan(topic)) == 11)
    depth = of_this_plan('/geo4d/prediction/second/depth/image_rect_raw')
    assert [to_nanoseconds(m.header.stamp) for m in depth] == stamps.tolist() and depth[0].encoding == '32FC1'
    np.testing.assert_allclose(read_depth(depth[-1]), 0.8, atol=1e-3)


@ONE
@pytest.mark.parametrize('fault, code', [
    ('second camera silent', 'OBSERVATION_STALE'), ('stale', 'OBSERVATION_STALE'), ('skewed', 'OBSERVATION_SKEWED'),
    ('future', 'CLOCK_JUMP'), ('empty depth', 'OBSERVATION_INVALID'), ('sizes', 'OBSERVATION_INVALID'),
    ('encoding', 'OBSERVATION_INVALID'), ('intrinsics', 'OBSERVATION_INVALID'), ('no tf', 'TRANSFORM_MISSING'),
    ('no joints', 'JOINT_STATES_STALE'),
])
def test_a_fault_of_the_rig_is_refused_by_name_and_passes(graph, fault, code):
    graph.set(transform_tolerance=0.3, slop=0.01, fresh=fault not in ('stale', 'skewed'))
    graph.cameras.fault = fault
    wait_for(lambda: graph.viewer.predict()[1].reason == code)
    graph.cameras.fault = ''
    wait_for(lambda: graph.viewer.predict()[0])


@ONE
def test_a_camera_that_repeats_its_picture_while_the_robot_moves_is_refused(graph):
    graph.cameras.fault = 'frozen'
    wait_for(lambda: graph.viewer.predict()[0])
    time.sleep(0.2)
    assert graph.viewer.predict()[0]  # at rest the same picture is what one expects
    graph.cameras.T_base_tool = T_BASE_TOOL + make_transform(None, np.array([0, 0.05, 0])) - np.eye(4)
    wait_for(lambda: graph.viewer.predict()[1].reason == 'OBSERVATION_FROZEN')


@ONE
def test_a_placeholder_transform_between_the_cameras_is_refused(graph):
    graph.cameras.publish_cameras(np.eye(4))
    wait_for(lambda: graph.viewer.predict()[1].reason == 'TRANSFORM_IDENTITY')


@BOTH
@pytest.mark.parametrize('node, fault, code', [
    ('generator', 'raise', 'PREDICTION_FAILED'), ('generator', 'nan', 'PREDICTION_FAILED'),
    ('generator', 'lost', 'PEER_DEAD'), ('generator', 'late', 'PREDICTION_TIMEOUT'),
    ('tracker', 'raise', 'TRACKING_FAILED'), ('tracker', 'lost', 'TRACK_LOST'),
])
def test_failing_models_leave_the_nodes_alive(graph, node, fault, code):
    getattr(graph, node).set_parameters([Parameter('fault', value=fault)])
    success, answer = graph.viewer.predict()
    getattr(graph, node).set_parameters([Parameter('fault', value='none')])
    assert not success and answer.reason == code and answer.detail
    assert graph.viewer.predict()[0]


@ONE
def test_a_server_that_hangs_or_dies_in_the_middle_gives_no_plan(graph, monkeypatch):
    def refused(happens):
        plans = len(graph.viewer.received['/geo4d/plan'])
        process.suspend()  # the request arrives and is never answered
        future = graph.viewer.client.call_async(Predict.Request())
        time.sleep(0.3)
        happens()
        wait_for(future.done)
        assert not future.result().success and len(graph.viewer.received['/geo4d/plan']) == plans
        return future.result().reason

    with served(None, 'cpu') as (port, process):
        remote = RemoteGenerator(Address('127.0.0.1', port, timeout=PATIENCE))
        monkeypatch.setattr(graph.generator._generator.result(), 'predict', remote.predict)
        assert graph.viewer.predict()[0]
        wait_for(lambda: graph.viewer.received.get('/geo4d/plan'))
        remote.address = replace(remote.address, timeout=1.0)
        assert refused(lambda: None) == 'PREDICTION_TIMEOUT'
        process.resume()
        remote.address = replace(remote.address, timeout=PATIENCE)
        assert graph.viewer.predict()[0]
        assert refused(process.kill) == 'PEER_DEAD'
    assert graph.viewer.predict()[1].reason == 'PEER_DEAD'  # and nobody to connect to


@ONE
def test_a_second_request_does_not_wait_behind_the_first(graph):
    graph.generator.set_parameters([Parameter('fault', value='hang')])
    first = graph.viewer.client.call_async(Predict.Request())
    wait_for(lambda: 'already under way' in graph.viewer.predict()[1].detail)
    graph.generator.set_parameters([Parameter('fault', value='none')])
    wait_for(first.done)
    assert first.result().success


@THREE
def test_a_third_camera_is_awaited_and_what_it_is_good_for_is_told(graph):
    assert len(graph.generator.observer.look().observation.views) == 3
    graph.viewer.received.clear()
    assert graph.viewer.predict()[0]
    status = graph.generator.diagnostics._status['views']
    assert '2 of 3 views are predicted; not placed: cam3_optical' in status.message  # its pictures are noise
    wait_for(lambda: '/geo4d/prediction/second/depth/image_rect_raw' in graph.viewer.received)
