"""Every topic and service of every node, over DDS, with whatever a message can hold: the node lives and answers.

GEO4D_FUZZ messages per topic (short: 12; `make test-slow`: 1000).
"""

import os
import time

import psutil
import pytest
from fakes.graph import FAKES, new_group
from fuzz.messages import kind_of, messages
from hypothesis import HealthCheck, Phase, given, settings
from rcl_interfaces.srv import ListParameters
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from geo4d_ros.ros.graph.probe import LoopProbe
from geo4d_ros.ros.serve.qos import SERVICE_QOS

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')
SHORT, THOROUGH = 12, int(os.environ.get('GEO4D_FUZZ', '1000'))
PATIENCE = 60.0
MEMORY_MIB = 48  # what a process may grow by under fire; a leak of one image per message would be a thousand times that
QUICK = {'observation_timeout': 0.05, 'tracker_timeout': 0.2}
NODES = {
    'plan_executor': lambda group: group.start_node('plan_executor'),
    'video_generator': lambda group: group.start_node('video_generator', QUICK,
                                                      command=[str(FAKES / 'apart.py'), 'generator']),
    'gripper_tracker': lambda group: group.start_node('gripper_tracker', command=[str(FAKES / 'apart.py'), 'tracker']),
    'simulated_cell': lambda group: group.start_node('simulated_cell', {'camera_rate': 1.0}),
}
# Own helper nodes hear and serve on behalf of a node.
HELPERS = {
    'plan_executor': ['plan_executor_guardian', 'plan_executor_senses'],
    'video_generator': ['video_generator_cameras', 'video_generator_requests'],
    'gripper_tracker': ['gripper_tracker_transforms'], 'simulated_cell': [],
}
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Target:
    """One node as a process, and the attacker in its graph."""

    def __init__(self, name, group, probe):
        self.name, self.group, self.probe, self.node = name, group, probe, probe.node
        NODES[name](group)
        self.pid = group.pids[name]
        assert probe.wait_for(lambda: set(self.owners) <= set(self.node.get_node_names()), PATIENCE), 'it does not come'
        self.alive = self.node.create_client(ListParameters, f'/{name}/list_parameters')
        assert probe.wait_for(self.alive.service_is_ready, PATIENCE)
        probe.spin(1.0)

    @property
    def owners(self):
        return [self.name, *HELPERS[self.name]]

    def found(self, what):
        """name -> type of the topics the node hears, or of the services it serves."""
        look = getattr(self.node, f'get_{what}_names_and_types_by_node')
        return {name: types[0] for owner in self.owners for name, types in look(owner, '/')
                if types[0] != 'std_msgs/msg/Empty' and not name.startswith('/parameter_events')}

    def answers(self):
        for _ in range(5):  # the first answer to a new client can be lost
            future = self.alive.call_async(ListParameters.Request())
            if self.probe.wait_for(future.done, PATIENCE / 5):
                return True
            self.alive.remove_pending_request(future)
        return False

    def check(self):
        self.group.check()
        assert self.answers(), f'{self.name} does not answer any more'

    def memory(self):
        return psutil.Process(self.pid).memory_info().rss / 2**20


@pytest.fixture(scope='module', params=sorted(NODES))
def target(request, tmp_path_factory):
    group, domain_id = new_group(tmp_path_factory.mktemp('logs'))
    os.environ.update({k: v for k, v in group.environment.items() if k.startswith(('ROS_', 'RMW_', 'FAST'))})
    group.environment['PYTHONPATH'] = os.pathsep.join([str(FAKES.parent), os.environ.get('PYTHONPATH', '')])
    with group, LoopProbe(domain_id, '/unheard') as probe:
        yield Target(request.param, group, probe)


def fire(examples, kind, shoot):
    """Call shoot(message) with so many generated messages."""
    @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(messages(kind))
    def once(message):
        shoot(message)

    once()


def attack_topics(target, examples):
    topics = target.found('subscriber')
    assert topics or target.name == 'simulated_cell', 'the node hears nothing at all?'
    for topic, kind in topics.items():
        publisher = target.node.create_publisher(kind_of(kind), topic, RELIABLE)
        target.probe.wait_for(publisher.get_subscription_count, 10.0)

        def shoot(message, publisher=publisher):
            publisher.publish(message)
            target.probe.spin(0.001)

        fire(examples, kind_of(kind), shoot)
        publisher.publish(b'\x00\x01\x00\x00' + b'\xff' * 64)  # no message of this kind at all
        target.probe.spin(0.2)
        target.node.destroy_publisher(publisher)
        target.group.check()
    target.check()
    return topics


def service_kind(name):
    """The request type of a service, also of the hidden ones of an action."""
    package, group, last = name.split('/')
    if group == 'action':
        action, _, part = last.rpartition('_')
        return getattr(kind_of(f'{package}/action/{action}').Impl, {'SendGoal': 'SendGoalService',
                                                                   'GetResult': 'GetResultService'}[part])
    return kind_of(name)


def attack_services(target, examples):
    services = target.found('service')
    assert f'/{target.name}/set_parameters' in services
    for service, kind_name in services.items():
        kind = service_kind(kind_name)
        client = target.node.create_client(kind, service, qos_profile=SERVICE_QOS)
        assert target.probe.wait_for(client.service_is_ready, PATIENCE), service
        target.probe.spin(0.3)
        waiting = []

        def shoot(request, client=client, waiting=waiting, service=service):
            if service.endswith('/change_state'):  # a valid one would take the node away
                request.transition.id, request.transition.label = 99, f'no {request.transition.label}'
            waiting.append(client.call_async(request))
            target.probe.spin(0.001)

        fire(examples, kind.Request, shoot)
        if not service.endswith('get_result'):  # by its nature: answered when the goal ends
            done = target.probe.wait_for(lambda waiting=waiting: sum(f.done() for f in waiting) >= len(waiting) - 1,
                                         PATIENCE)
            assert done, f'{service}: {sum(f.done() for f in waiting)} of {len(waiting)} answered'
        target.node.destroy_client(client)
        target.group.check()
    target.check()


def test_a_few_messages_of_every_kind(target):
    attack_topics(target, SHORT)


def test_a_few_requests_of_every_kind(target):
    attack_services(target, SHORT)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_of_every_kind_and_memory_is_steady(target):
    attack_topics(target, 100)
    attack_services(target, 100)  # caches, pools and queues are full now
    before = target.memory()
    attack_topics(target, THOROUGH)
    attack_services(target, THOROUGH)
    time.sleep(2.0)
    assert target.memory() - before < MEMORY_MIB, (before, target.memory())


def test_two_hundred_calls_at_once_are_answered_within_ten_seconds(target):
    """By their result or by BUSY; more than a queue of ten holds used to be dropped."""
    from geo4d_interfaces.srv import Approve, Predict
    from std_srvs.srv import Trigger

    types = {'std_srvs/srv/Trigger': Trigger, 'geo4d_interfaces/srv/Predict': Predict,
             'geo4d_interfaces/srv/Approve': Approve}
    for service, kind in [(name, types[kind]) for name, kind in target.found('service').items() if kind in types]:
        client = target.node.create_client(kind, service, qos_profile=SERVICE_QOS)
        assert target.probe.wait_for(client.service_is_ready, PATIENCE), service
        target.probe.spin(0.5)
        begun, futures = time.monotonic(), [client.call_async(kind.Request()) for _ in range(200)]
        target.probe.wait_for(lambda futures=futures: all(f.done() for f in futures), PATIENCE)
        answered = sum(f.done() for f in futures)
        assert answered == 200, f'{service}: {answered} of 200 after {time.monotonic() - begun:.1f} s'
        target.node.destroy_client(client)
    target.check()
