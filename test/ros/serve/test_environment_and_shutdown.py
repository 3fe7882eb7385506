"""The transport profiles, the private domain, and processes that end when told to."""

import os
import signal
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import pytest

from geo4d_ros.resources import resource
from geo4d_ros.ros.serve import environment
from geo4d_ros.ros.serve.environment import free_domain_id, loopback_environment, simulation_environment

NAMESPACE = '{http://www.eprosima.com}'
NODE = '''
import os, signal, sys, time
import rclpy
from rclpy.node import Node
from geo4d_ros.errors import ConfigurationError
from geo4d_ros.ros.serve.spin import run_node
class Probe(Node):
    def __init__(self):
        super().__init__('probe')
        if 'told to end' in sys.argv:  # while it is being made: what it asks of ROS next fails
            os.kill(os.getpid(), signal.SIGTERM)
            while rclpy.ok():
                time.sleep(0.01)
            raise ValueError('no context')
        if len(sys.argv) > 1:
            raise ConfigurationError('the weights are missing; fetch them')
        self.timer = self.create_timer(0.05, self.ready)  # ready once it spins, not while it is being made
    def ready(self):
        self.timer.cancel()
        print('ready', flush=True)
    def close(self):
        time.sleep(0.3)
        print('closed', flush=True)
sys.exit(run_node(Probe))
'''


def profile(name):
    return ElementTree.parse(resource('config', name)).getroot()


@pytest.mark.parametrize('name, addresses', [('fastdds.xml', []), ('fastdds_loopback.xml', ['127.0.0.1'])])
def test_profiles_hold_the_measured_transport(name, addresses):
    root = profile(name)

    def values(tag):
        return [e.text for e in root.iter(f'{NAMESPACE}{tag}')]

    assert values('segment_size') == ['33554432'] and values('useBuiltinTransports') == ['false']
    assert values('address') == addresses
    assert root.find(f'.//{NAMESPACE}leaseDuration/{NAMESPACE}sec').text == '3'


def test_loopback_stays_on_this_host():
    made = loopback_environment()
    assert made['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST' and 1 <= int(made['ROS_DOMAIN_ID']) <= 100
    assert made['FASTRTPS_DEFAULT_PROFILES_FILE'].endswith('fastdds_loopback.xml')


def test_a_profile_of_the_users_own_wins_in_launch_files(monkeypatch):
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', '/mine.xml')
    assert 'FASTRTPS_DEFAULT_PROFILES_FILE' not in simulation_environment(loopback=True)


def test_a_domain_in_use_is_not_given_out(monkeypatch):
    monkeypatch.setattr(environment, 'DOMAIN_IDS', range(97, 99))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(('127.0.0.1', 7410 + 250 * 97))
        assert {free_domain_id() for _ in range(10)} == {98}


def start(*arguments):
    return subprocess.Popen([sys.executable, '-c', NODE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env={**os.environ, **loopback_environment()})


@pytest.mark.parametrize('numbers', [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGINT),
                                     (signal.SIGINT, signal.SIGTERM)])
def test_a_signal_ends_a_node_cleanly_and_a_second_one_does_not_hurt(numbers):
    process = start()
    assert process.stdout.readline() == 'ready\n'
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.35)  # the second one comes while the node closes
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and 'closed' in out and 'Traceback' not in errors


def test_a_signal_that_comes_while_a_node_is_made_is_no_failure():
    process = start('told to end')
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and 'Traceback' not in errors


def test_a_node_that_cannot_start_says_why_in_one_line():
    process = start('fail')
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.strip().splitlines()[-1].endswith('the weights are missing; fetch them') and 'Traceback' not in errors


def test_all_threads_of_a_pool_run_from_the_start():
    """Threads that a pool starts when requests first overlap would look like a leak."""
    code = ('import threading, rclpy; from geo4d_ros.ros.serve.spin import _pool; rclpy.init(); pool = _pool(5)\n'
            "names = [t.name for t in threading.enumerate() if 'ThreadPoolExecutor' in t.name]\n"
            'pool.shutdown(); rclpy.shutdown(); print(len(names))')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=True,
                          env=os.environ | loopback_environment(free_domain_id()))
    assert done.stdout.split()[-1] == '5'


def test_the_signal_thread_of_rclpy_is_gone_before_executors_end():
    """It reads the list of their guard conditions without a lock: freed under its hands, signal 11 at the end."""
    code = """
import os, rclpy, time
from geo4d_ros.ros.serve.spin import end
def threads():
    return len(os.listdir('/proc/self/task'))
def settled():  # the middleware's threads are still coming up when init returns
    count, since = threads(), time.monotonic()
    while time.monotonic() - since < 0.5:
        if threads() != count:
            count, since = threads(), time.monotonic()
        time.sleep(0.02)
    return count
class Executor:
    def shutdown(self, timeout_sec):
        print(before - threads())
rclpy.init()
before = settled()
end(Executor(), [])
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=True,
                          env=os.environ | loopback_environment(free_domain_id()))
    assert done.stdout.split()[-1] == '1'


@pytest.mark.parametrize(('set_by_user', 'expected'), [(None, str(max(1, (os.cpu_count() or 1) - 1))), ('7', '7')])
def test_a_node_leaves_a_core_to_the_others_unless_the_user_says_otherwise(set_by_user, expected):
    clean = {k: v for k, v in os.environ.items() if k not in ('OMP_NUM_THREADS', 'LP_NUM_THREADS')}
    env = clean if set_by_user is None else {**clean, 'OMP_NUM_THREADS': set_by_user}
    code = 'import sys, geo4d_ros.nodes, os; print(os.environ["OMP_NUM_THREADS"], "numpy" in sys.modules)'
    out = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, check=True).stdout
    assert out.split() == [expected, 'False']
