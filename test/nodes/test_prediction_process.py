"""The process of generator and tracker starts with a described robot, made beside no half-imported torch."""

import importlib.util
import os
import subprocess
import sys

import pytest

from geo4d_ros.ros.serve.environment import free_domain_id, loopback_environment

# SciPy fails beside a torch that another thread has imported half: nothing of it may be imported meanwhile.
CODE = '''
import os, sys, threading
import rclpy
from geo4d_ros.nodes.prediction import compose
from geo4d_ros.ros.serve.lifecycle import bring_up

late = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        torch = sys.modules.get('torch')
        beside = threading.current_thread() is threading.main_thread()
        if beside and name.split('.')[0] in ('scipy', 'trimesh') and torch is not None and torch.__spec__._initializing:
            late.append(name)

sys.meta_path.insert(0, Watch())
rclpy.init(args=sys.argv)
nodes = []
for factory in compose():
    nodes.append(factory())
    bring_up(nodes[-1])
nodes[0]._loader.join()
print(nodes[1].tracker.name, len(late), *late, flush=True)
os._exit(0)
'''
needs_meshes = pytest.mark.skipif(importlib.util.find_spec('robosuite') is None, reason='make assets-ur5e')


@pytest.mark.parametrize('robot', ['panda', pytest.param('ur5e_2f85', marks=needs_meshes)])
def test_it_starts_with_a_described_robot(robot):
    run = subprocess.run([sys.executable, '-c', CODE, '--ros-args', '-p', f'robot:={robot}'], capture_output=True,
                         text=True, timeout=240, check=False,
                         env=os.environ | loopback_environment(free_domain_id()))
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == ['model', '0'], run.stdout


LISTENS = '''
import os, sys, types
import rclpy
from geo4d_ros.nodes.prediction import compose
from geo4d_ros.nodes.video_generator import VideoGeneratorNode
from geo4d_ros.ros.observe.receiver import Receiver
from geo4d_ros.ros.serve.lifecycle import bring_up

whole, start = [], Receiver.start

def watched(self):
    torch = sys.modules.get('torch')
    whole.append(torch is not None and not torch.__spec__._initializing)
    start(self)

Receiver.start = watched
VideoGeneratorNode.create_generator = lambda self: types.SimpleNamespace(name='instant')
rclpy.init(args=sys.argv)
nodes = []
for factory in compose():
    nodes.append(factory())
    bring_up(nodes[-1])
nodes[0]._loader.join()
print(*whole, flush=True)
os._exit(0)
'''


def test_nothing_is_heard_before_torch_is_whole_however_soon_the_generator_is_there():
    run = subprocess.run([sys.executable, '-c', LISTENS], capture_output=True, text=True, timeout=240, check=False,
                         env=os.environ | loopback_environment(free_domain_id()))
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == ['True'], run.stdout
