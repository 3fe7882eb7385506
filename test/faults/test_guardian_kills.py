"""A killed executor always leaves a stopped arm: many kills in a row beside a load on every core.

GEO4D_KILLS kills (short: 2; `make test-slow`: 200). The controllers are cancel services in this process; each executor
is killed at the moment its guardian joins the graph, when the ways of requests and answers are just being found.
"""

import json
import os
import subprocess
import sys
import time

import pytest
import rclpy
from action_msgs.srv import CancelGoal
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import String

from geo4d_ros.ros.serve.environment import loopback_environment
from geo4d_ros.ros.serve.qos import SERVICE_QOS, STATE_QOS

ACTIONS = ('/arm/follow', '/hand/grip')
PATIENCE = 60.0
EXECUTOR = f'''
import time
from geo4d_ros.ros.execute.stop_process import Guardian
guardian = Guardian({list(ACTIONS)!r}, stop_service='')
print(guardian.pid, flush=True)
while True:
    guardian.beat(True)
    time.sleep(0.05)
'''
LOAD = 'while True: sum(range(10000))'


class Controllers:
    """Two cancel services and an ear for what the guardian says."""

    def __init__(self, environment):
        self.environment = {**os.environ, **environment}
        self.context = Context()
        rclpy.init(context=self.context, domain_id=int(environment['ROS_DOMAIN_ID']))
        self.node = rclpy.create_node('controllers', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.cancels, self.said = dict.fromkeys(ACTIONS, 0), []
        self.node.create_subscription(String, '/geo4d/state', self.said.append, STATE_QOS)
        for name in ACTIONS:
            self.node.create_service(CancelGoal, f'{name}/_action/cancel_goal',
                                     lambda request, response, name=name: self.cancel(name, response),
                                     qos_profile=SERVICE_QOS)

    def cancel(self, name, response):
        self.cancels[name] += 1
        return response

    def wait(self, condition, seconds=PATIENCE):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.cancels, [m.data for m in self.said])
            self.executor.spin_once(timeout_sec=0.02)

    def kill_one(self, settle):
        """Start an executor, kill it `settle` seconds after its guardian has joined, and wait for the stop."""
        before, heard = dict(self.cancels), len(self.said)
        process = subprocess.Popen([sys.executable, '-c', EXECUTOR], stdout=subprocess.PIPE, text=True,
                                   env=self.environment)
        guardian = int(process.stdout.readline())
        self.wait(lambda: 'plan_executor_guardian' in self.node.get_node_names())
        until = time.monotonic() + settle
        self.wait(lambda: time.monotonic() >= until)
        process.kill()
        process.wait()
        self.wait(lambda: all(self.cancels[name] > before[name] for name in ACTIONS))
        self.wait(lambda: len(self.said) > heard)
        self.wait(lambda: not os.path.exists(f'/proc/{guardian}') or _zombie(guardian))
        self.wait(lambda: 'plan_executor_guardian' not in self.node.get_node_names())
        return json.loads(self.said[-1].data)['detail']

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


def _zombie(pid):
    try:
        with open(f'/proc/{pid}/stat') as stat:
            return stat.read().rsplit(')', 1)[1].split()[0] == 'Z'
    except FileNotFoundError:
        return True


@pytest.fixture
def controllers(monkeypatch):
    environment = loopback_environment()
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    made = Controllers(environment)
    yield made
    made.close()


def test_a_killed_executor_leaves_a_stopped_arm(controllers):
    for _ in range(2):
        assert controllers.kill_one(0.0) == 'the executor died; its motion was cancelled'


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_hundred_kills_in_a_row_under_load(controllers):
    load = [subprocess.Popen([sys.executable, '-c', LOAD]) for _ in range(os.cpu_count() or 1)]
    try:
        kills = int(os.environ.get('GEO4D_KILLS', '200'))
        for i in range(kills):
            detail = controllers.kill_one(0.02 * (i % 5))
            assert detail == 'the executor died; its motion was cancelled', (i, detail)
    finally:
        for process in load:
            process.kill()
            process.wait()
